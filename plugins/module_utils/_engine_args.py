# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Options of vLLM, from how an inventory spells them to how the command line of one version takes them.

Pure logic: no files, no images.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils import _engine_changes as changes
from ansible_collections.llmops.vllm.plugins.module_utils import _engine_schema as schemas
from ansible_collections.llmops.vllm.plugins.module_utils._engine_history import HISTORY, RELEASES

# What a deployment says with a key of its own, and which one. Given twice, one would win silently.
RESERVED = {
    "api_key": "api_key",
    "chat_template": "chat_template",
    "host": "listen",
    "model": "model",
    "model_tag": "model",
    "port": "port",
    "served_model_name": "served_model_names",
}

# (least, greatest, whether the least itself is too little). vLLM checks them only when it starts the engine.
RANGES = {
    "block_size": (1, None, False),
    "cpu_offload_gb": (0, None, False),
    "data_parallel_size": (1, None, False),
    "gpu_memory_utilization": (0, 1, True),
    "max_lora_rank": (1, None, False),
    "max_model_len": (1, None, False),
    "max_loras": (1, None, False),
    "max_logprobs": (-1, None, False),
    "max_num_batched_tokens": (1, None, False),
    "max_num_seqs": (1, None, False),
    "pipeline_parallel_size": (1, None, False),
    "swap_space": (0, None, False),
    "tensor_parallel_size": (1, None, False),
}

_HUMAN = re.compile(r"\d+(\.\d+)?[kKmMgGtT]?\Z")


class EngineArgsError(Exception):
    """Every problem of the options of one deployment. problems: list of sentences without a full stop."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass
class Rendered:
    """argv: the command line; translated and warnings: sentences for people."""

    argv: list[str] = field(default_factory=list)
    translated: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


# "snapshot:draft", "snapshot:draft/part" or, for an adapter, "sql=snapshot:sql".
_SNAPSHOT = re.compile(r"(?:(?<=\A)|(?<==))snapshot:([A-Za-z0-9][\w.-]*)")


def with_snapshots(engine_args: Mapping[str, Any], paths: Mapping[str, str]) -> dict[str, Any]:
    """Return engine_args with ``snapshot:NAME`` replaced by paths[NAME]; raise EngineArgsError for unknown names."""
    unknown: list[str] = []

    def placed(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: placed(inner) for key, inner in value.items()}
        if isinstance(value, (list, tuple)):
            return [placed(inner) for inner in value]
        if not isinstance(value, str):
            return value
        unknown.extend(name for name in _SNAPSHOT.findall(value) if name not in paths)
        return _SNAPSHOT.sub(lambda found: paths.get(found.group(1), found.group(0)), value)

    result = {name: placed(value) for name, value in engine_args.items()}
    if unknown:
        known = ", ".join(sorted(paths)) or "none"
        raise EngineArgsError(
            [
                "snapshot:%s is named, and snapshots has %s: add it there" % (name, known)
                for name in dict.fromkeys(unknown)
            ]
        )
    return result


def reserved_in(engine_args: Iterable[str]) -> list[tuple[str, str]]:
    """Return (name as given, the deployment's key to use instead) for each reserved option."""
    found = []
    for name in engine_args:
        key = RESERVED.get(schemas.plain(name))
        if key:
            found.append((name, key))
    return found


def schema_of_version(version: str) -> schemas.Schema:
    """Return the schema that the table of known releases has for a version."""
    return schemas.from_table(version, HISTORY, RELEASES)


def render(
    engine_args: Mapping[str, Any],
    schema: schemas.Schema,
    translate: bool = True,
    where_known: Mapping[str, Any] | None = None,
    upgraded_from: str = "",
) -> Rendered:
    """Return the Rendered command line of engine_args, or raise EngineArgsError with every problem.

    engine_args: {name: value}; names are spelled with underscores (dashes do no harm), ``option.key`` is a key of an
    option of JSON. schema: of the vLLM that is to take them. translate: replace options that are gone where there is
    only one way to do so. where_known: options that are added where the schema has them and engine_args has not.
    upgraded_from: the version that ran before, whose defaults the user may count on.
    """
    args, problems = _plain_names(engine_args)
    result = Rendered()
    if translate:
        args, result.translated = changes.translated(args, schema)
        args = _without_old_defaults(args, schema, result.translated)
    for name, value in (where_known or {}).items():
        if name not in args and schema.find(name)[0]:
            args[name] = value
    seen: dict[str, str] = {}
    for name, value in args.items():
        if value is None or (name == "quantization" and value in ("none", "None")):
            continue
        option, positive = schema.find(name)
        if option is None:
            problems.append(_unknown(name, schema))
            continue
        if option.name in seen:
            problems.append("%s and %s are the same option: leave one out" % (seen[option.name], name))
            continue
        seen[option.name] = name
        try:
            result.argv += _words(option, positive, name, value)
        except ValueError as error:
            problems.append(str(error))
            continue
        if option.deprecated:
            hint = changes.replacement(option.name, schema)
            result.warnings.append(
                "%s is deprecated in vLLM %s%s" % (name, schema.version, ": " + hint if hint else "")
            )
    if problems:
        raise EngineArgsError(problems)
    result.warnings += _traps(args, schema, upgraded_from)
    return result


def _plain_names(engine_args: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the options under their plain names, with dotted ones folded into their option, and problems."""
    args: dict[str, Any] = {}
    problems: list[str] = []
    for given, value in engine_args.items():
        name, dot, path = schemas.plain(given).partition(".")
        if dot:
            # The key of a configuration is spelled as it is.
            path = str(given).lstrip("-").partition(".")[2]
            for part in reversed(path.split(".")):
                value = {part: value}
        if name in args and not (isinstance(args[name], dict) and isinstance(value, dict)):
            problems.append("%s is given twice: leave one out" % name)
            continue
        args[name] = _merged(args[name], value) if name in args else value
    return args, problems


def _merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    merged = dict(one)
    for key, value in other.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def _without_old_defaults(args: dict[str, Any], schema: schemas.Schema, sentences: list[str]) -> dict[str, Any]:
    """Return the options without those that are gone and were what vLLM did anyway."""
    kept = {}
    for name, value in args.items():
        last = None if schema.find(name)[0] else _last_option(name, schema.version)
        if last is not None and value is not None and value == last.default and type(value) is type(last.default):
            sentences.append("%s: it is left out, since it is gone and had its default" % name)
        else:
            kept[name] = value
    return kept


def _last_option(name: str, version: str) -> schemas.Option | None:
    """Return the option as it was in the last release that had it before a version, or None."""
    last = None
    for since, record in HISTORY.get(name, ()):
        if record is not None and schemas.version_key(since) <= schemas.version_key(version):
            last = schemas.of_record(name, record)
    return last


def _unknown(name: str, schema: schemas.Schema) -> str:
    who = "vLLM %s" % schema.version if schema.version else "this vLLM"
    life = schemas.lifetime(name, HISTORY)
    prefixed = schema.beginning_with(name)
    # argparse takes the beginning of an option for the option.
    trap = ", which would take it for %s" % prefixed[0] if len(prefixed) == 1 else ""
    if life:
        since, gone = life
        if schema.version and schemas.version_key(schema.version) < schemas.version_key(since):
            return "%s came with vLLM %s, and this is %s: leave it out, or take a newer image" % (
                name,
                since,
                schema.version,
            )
        if gone:
            hint = changes.replacement(name, schema) or "leave it out"
            here = "; this is %s" % schema.version + trap if trap else ""
            return "%s is gone since vLLM %s%s: %s" % (name, gone, here, hint)
    names = [option for option in schema.options if option not in RESERVED]
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.7)
    if near:
        hint = "did you mean %s?" % " or ".join(near)
    elif prefixed:
        hint = "did you mean %s?" % " or ".join(prefixed[:3])
    else:
        hint = "leave it out"
    return "%s has no option %s: %s" % (who, name, hint)


def _words(option: schemas.Option, positive: bool, name: str, value: Any) -> list[str]:
    """Return the words of one option on the command line, or raise ValueError with one sentence."""
    if option.form in (schemas.FLAG, schemas.PAIR, schemas.SWITCH):
        return _boolean_words(option, positive, name, value)
    flag = option.flags[0]
    if isinstance(value, bool) and option.kind not in (schemas.JSON, schemas.JSON_OR_TEXT, schemas.ANY):
        raise ValueError("%s is %s, it takes %s" % (name, json.dumps(value), _takes(option)))
    if option.name == "lora_modules":
        value = _lora_modules(value)
    if option.kind == schemas.KEY_VALUES and isinstance(value, dict):
        value = ",".join("%s=%s" % pair for pair in value.items())
    document = (
        option.kind in (schemas.JSON, schemas.JSON_OR_TEXT) and option.nargs is None and option.form == schemas.VALUE
    )
    if isinstance(value, (list, tuple)) and not document:
        if option.form != schemas.APPEND and option.nargs not in ("+", "*"):
            if option.kind != schemas.ANY:
                raise ValueError("%s is a list, it takes %s" % (name, _takes(option)))
            value = json.dumps(list(value))
        elif not value:
            raise ValueError("%s is an empty list: leave it out" % name)
    values = list(value) if isinstance(value, (list, tuple)) and not document else [value]
    words = [_word(option, name, item) for item in values]
    if option.form == schemas.APPEND:
        return [part for word in words for part in (flag, word)]
    # A word that looks like an option is one to argparse, unless it stands behind an equals sign.
    if len(words) == 1 and words[0].startswith("-") and not re.match(r"-\d", words[0]):
        return ["%s=%s" % (flag, words[0])]
    return [flag] + words


def _boolean_words(option: schemas.Option, positive: bool, name: str, value: object) -> list[str]:
    if not isinstance(value, bool):
        hint = ": write it without quotes" if str(value).lower() in ("true", "false", "yes", "no") else ""
        raise ValueError("%s is %r, it takes true or false%s" % (name, value, hint))
    wanted = value if positive else not value
    if option.form == schemas.SWITCH:
        return ["%s=%s" % (option.flags[0], str(wanted).lower())]
    if wanted:
        return [option.flags[0]]
    if option.negatives:
        return [option.negatives[0]]
    if option.default is True:
        raise ValueError("%s is false, and this vLLM has no way to turn it off: leave it out" % name)
    return []


def _lora_modules(value: Any) -> list[Any]:
    """Return adapters as vLLM takes them; {name: path} is the short way to write them."""
    if isinstance(value, dict) and not {"name", "path"} <= set(value):
        return ["%s=%s" % pair for pair in value.items()]
    entries = value if isinstance(value, (list, tuple)) else [value]
    # This form is known to all releases, JSON is not.
    return [
        "%(name)s=%(path)s" % entry if isinstance(entry, dict) and set(entry) == {"name", "path"} else entry
        for entry in entries
    ]


def _word(option: schemas.Option, name: str, value: Any) -> str:
    kind = option.kind
    if isinstance(value, dict) and not _takes_documents(option):
        raise ValueError("%s is a dictionary, it takes %s" % (name, _takes(option)))
    if isinstance(value, (dict, list, tuple)) or (kind == schemas.JSON and not isinstance(value, str)):
        return json.dumps(value, sort_keys=True, ensure_ascii=False)
    if kind == schemas.JSON:
        try:
            json.loads(value)
        except ValueError:
            raise ValueError("%s is %r, it takes %s" % (name, value, _takes(option))) from None
    # Python writes 1e-05 where argparse reads it as well; True is not reached here but within a list.
    word = str(value).lower() if isinstance(value, bool) else str(value)
    if option.choices and word not in map(str, option.choices):
        raise ValueError("%s is %r, it takes one of %s" % (name, value, ", ".join(map(str, option.choices))))
    number = _number(option, name, value)
    low, high, open_ = RANGES.get(option.name, (None, None, False))
    if number is not None and low is not None:
        least = number > low if open_ else number >= low
        if not least or (high is not None and number > high):
            what = "more than %s" % low if open_ else "%s or more" % low
            raise ValueError(
                "%s is %s, it takes %s%s" % (name, value, what, " and at most %s" % high if high is not None else "")
            )
    return word


def _takes_documents(option: schemas.Option) -> bool:
    """Return whether a dictionary is a value of the option. Some releases had the document as text."""
    if option.name == "lora_modules" or option.kind == schemas.ANY:
        return True
    kinds = [option.kind] + [record.get("kind") for dummy, record in HISTORY.get(option.name, ()) if record]
    return schemas.JSON in kinds or schemas.JSON_OR_TEXT in kinds


def _number(option: schemas.Option, name: str, value: object) -> float | None:
    """Return the number that a value is, None where the option takes no number, or raise ValueError."""
    kind = option.kind
    word = str(value)
    if kind == schemas.INT and re.match(r"[-+]?\d+\Z", word):
        return int(word)
    if kind == schemas.FLOAT:
        try:
            return float(word)
        except ValueError:
            pass
    if kind == schemas.HUMAN_INT_OR_AUTO and word in ("auto", "-1"):
        return None
    if kind in (schemas.HUMAN_INT, schemas.HUMAN_INT_OR_AUTO) and _HUMAN.match(word):
        if word[-1].isdigit():
            if "." not in word:
                return int(word)
        elif word[-1].islower() or "." not in word:
            return None
    if kind in (schemas.INT, schemas.FLOAT, schemas.HUMAN_INT, schemas.HUMAN_INT_OR_AUTO):
        raise ValueError("%s is %r, it takes %s" % (name, value, _takes(option)))
    return None


def _takes(option: schemas.Option) -> str:
    if option.choices:
        what = "one of %s" % ", ".join(map(str, option.choices))
    else:
        what = {
            schemas.INT: "a whole number",
            schemas.FLOAT: "a number",
            schemas.TEXT: "text",
            schemas.JSON: "a dictionary, a list or JSON",
            schemas.JSON_OR_TEXT: "a dictionary or text",
            schemas.HUMAN_INT: "a whole number, or one such as 8k",
            schemas.HUMAN_INT_OR_AUTO: "a whole number, one such as 8k, or auto",
            schemas.KEY_VALUES: "a dictionary of numbers",
            schemas.ANY: "a value",
        }[option.kind]
    return "a list of such: %s" % what if option.nargs in ("+", "*") or option.form == schemas.APPEND else what


def _traps(args: Mapping[str, Any], schema: schemas.Schema, upgraded_from: str) -> list[str]:
    version = schemas.version_key(schema.version)
    warnings: list[str] = []
    if not version:
        return warnings
    # Read from the releases: the explicit name chose the plain kernel, none chose the one of Marlin.
    if args.get("quantization") == "awq" and schemas.version_key("0.5.3") <= version < schemas.version_key("0.24.0"):
        warnings.append(
            "quantization: awq makes vLLM %s take its slow kernel: leave it out, and vLLM finds the fast one itself"
            % schema.version
        )
    before = schemas.version_key(upgraded_from)
    if before:
        for since, name, what in changes.MOVED_DEFAULTS:
            if before < schemas.version_key(since) <= version and name not in args and schema.find(name)[0]:
                warnings.append("since vLLM %s the default of %s %s" % (since, name, what))
    return warnings
