# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Chat templates: where they are, and whether a conversation can be rendered with them. No hosts."""

from __future__ import annotations

import datetime
import difflib
import json
import os
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.sandbox
from jinja2.parser import Parser

SHIPPED = os.path.join(os.path.dirname(__file__), "..", "..", "roles", "vllm_server", "files", "chat_templates")

_USER = [{"role": "user", "content": "What is the capital of Japan?"}]
_ANSWER = [{"role": "assistant", "content": "Tokyo."}]
_SYSTEM = [{"role": "system", "content": "Answer in one word."}]
# The last one is for templates that refuse what they were not made for, such as a system role.
_CONVERSATIONS = (_SYSTEM + _USER + _ANSWER + _USER, _USER + _ANSWER + _USER)


class TemplateError(Exception):
    """One sentence about a chat template."""


class _Refused(Exception):
    """What a template says of a conversation that it does not take."""


class _Generation(jinja2.ext.Extension):
    """The block of transformers that marks what the model has said."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> jinja2.nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.Scope(body, lineno=line)


def is_text(template: str) -> bool:
    """Return whether a template is given as its text, and not by name or path."""
    return "{" in template


def is_path(template: str) -> bool:
    """Return whether a template is given as the path of a file."""
    return not is_text(template) and ("/" in template or "." in template)


def shipped_path(name: str) -> str:
    """Return the path of a shipped template; raise TemplateError where there is none of that name."""
    path = os.path.join(SHIPPED, name + ".jinja")
    if os.path.exists(path):
        return path
    names = sorted(entry[: -len(".jinja")] for entry in os.listdir(SHIPPED) if entry.endswith(".jinja"))
    near = difflib.get_close_matches(name, names, n=1)
    hint = "did you mean '%s'?" % near[0] if near else "take %s, or name a file by its path" % ", ".join(names)
    raise TemplateError("no chat template '%s' is shipped: %s" % (name, hint))


def check(text: str, where: str) -> None:
    """Raise TemplateError where no conversation can be rendered with the text of a template.

    where: what the sentence calls it. The environment is that of transformers, which vLLM renders with.
    """
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals.update(
        raise_exception=_refuse, strftime_now=lambda form: datetime.datetime.now().strftime(form)
    )
    try:
        template = environment.from_string(text)
    except jinja2.TemplateSyntaxError as error:
        raise TemplateError("%s is no chat template: line %d: %s" % (where, error.lineno, error.message)) from None
    why = None
    for messages in _CONVERSATIONS + tuple(map(_in_parts, _CONVERSATIONS)):
        try:
            rendered = template.render(
                messages=messages, add_generation_prompt=True, bos_token="<s>", eos_token="</s>", tools=None
            )
        except Exception as error:
            # Whatever a template can do wrong.
            why = error if why is None or isinstance(error, _Refused) else why
            continue
        if _USER[0]["content"] in rendered:
            return
        why = why or _Refused("what the user says is not in what it renders (messages is what it has to go through)")
    raise TemplateError("%s cannot render a conversation of user and assistant: %s" % (where, why))


def _in_parts(messages: list[dict[str, str]]) -> list[dict[str, Any]]:
    """Return the messages as templates of models that also see pictures may want them."""
    return [dict(message, content=[{"type": "text", "text": message["content"]}]) for message in messages]


def _refuse(message: str) -> NoReturn:
    raise _Refused(message)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
