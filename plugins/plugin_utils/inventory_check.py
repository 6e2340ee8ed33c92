# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The variables of an inventory: names that nothing reads, values of another type, more than one catalogue.

No hosts, and nothing is templated: values are judged as they are written, templates and vaulted ones not at all.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Any, TypeGuard

from ansible.errors import AnsibleError
from ansible.parsing.vault import EncryptedString, VaultHelper

from ansible_collections.llmops.vllm.plugins.plugin_utils.variables import LOCK_VARIABLE, PUBLISHED


def _nowhere(dummy: object) -> None:
    """Where a value comes from is Ansible's own affair, and may be told no more."""


try:
    from ansible._internal._datatag._tags import Origin

    origin_of: Callable[[Any], object] = Origin.get_tag
except ImportError:
    origin_of = _nowhere

# {host: {name: untemplated value}}
Variables = Mapping[str, Mapping[str, Any]]

CATALOGUE = "vllm_deployments"

# How much alike two names are, as difflib counts it, and what follows a prefix that they share: many long names
# differ in their last word alone.
_ALIKE = 0.8
_REST_ALIKE = 0.6

# Those of Ansible's filter bool, which is what the roles read them with.
_BOOLEANS = ("yes", "on", "true", "1", "no", "off", "false", "0")

_TAKES = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "path": "a path",
    "list": "a list",
    "dict": "a dictionary",
}
_SECRET = re.compile(r"key|(?<!max_)token|secret|password|://[^/\s]*@", re.IGNORECASE)
_WORD = re.compile(r"\w+")


def variable_problems(
    raw: Variables, known: Mapping[str, Mapping[str, Any]], ours: tuple[str, ...], extra: Container[str] = ()
) -> tuple[list[str], list[str]]:
    """Return (problems, warnings), each a list of sentences.

    raw: {host: {name: untemplated value}}. known: {name: spec} as in argument specs. ours: what the names of our
    variables begin with. extra: names that were given with -e.
    """
    unknown: dict[str, list[str]] = {}
    misfits: dict[tuple[str, str], list[str]] = {}
    judged: dict[tuple[str, int], str] = {}
    for host, variables in raw.items():
        for name, value in variables.items():
            if not name.startswith(ours) or name in PUBLISHED or name == LOCK_VARIABLE:
                continue
            if name not in known:
                unknown.setdefault(name, []).append(host)
                continue
            # Hosts of a group share the value itself.
            key = (name, id(value))
            if key not in judged:
                judged[key] = _misfit(name, value, known[name], name in extra)
            if judged[key]:
                misfits.setdefault((name, judged[key]), []).append(host)
    problems = [
        "variable '%s' (%s) %s" % (name, _given_for(name, hosts, extra), misfit)
        for (name, misfit), hosts in misfits.items()
    ]
    warnings = []
    # An inventory has helpers of its own.
    used = _words_of_templates(raw) if unknown else ()
    for name, hosts in unknown.items():
        if name in used:
            continue
        near = _near(name, known)
        sentence = "variable '%s' (%s) is read by nothing: " % (name, _given_for(name, hosts, extra))
        if near:
            problems.append(sentence + "did you mean '%s'?" % near)
        else:
            prefix = max((prefix for prefix in ours if name.startswith(prefix)), key=len)
            warnings.append(sentence + "correct its name, or let one of your own not begin with '%s'" % prefix)
    return problems, warnings


def catalogue_problems(raw: Variables, host: str, serving: Container[str] = ()) -> list[str]:
    """Return a problem where the hosts of an inventory do not have the same catalogue.

    host: the one whose catalogue is read. serving: hosts that it names, which need it.
    """
    own = raw.get(host, {})
    if CATALOGUE not in own:
        return []
    others = [
        name
        for name, variables in raw.items()
        if CATALOGUE in variables and not _same(variables[CATALOGUE], own[CATALOGUE])
    ]
    without = [name for name in raw if name in serving and CATALOGUE not in raw[name]]
    problems = []
    if others:
        problems.append(
            "'%s' of %s is not that of %s, and a run reads one of them for all hosts: put it once into "
            "group_vars/all.yml" % (CATALOGUE, hosts_text(others), host)
        )
    if without:
        problems.append(
            "'%s' of %s names %s, which %s none: put it once into group_vars/all.yml"
            % (CATALOGUE, host, hosts_text(without), "has" if len(without) == 1 else "have")
        )
    return problems


def hosts_text(hosts: Sequence[str]) -> str:
    """Return how a sentence names hosts, however many they are."""
    if len(hosts) > 2:
        return "%s and %d other hosts" % (hosts[0], len(hosts) - 1)
    return " and ".join(hosts)


def shown(name: str, value: object, instead: str = "of another type") -> str:
    """Return a value as a sentence may show it: what is or may be a secret is not shown."""
    if _SECRET.search(name) or is_vaulted(value):
        return instead
    text = repr(value)
    return instead if _SECRET.search(text) else text


def is_vaulted(value: object) -> bool:
    """Return whether a value is encrypted by ansible-vault, or comes from what is."""
    if isinstance(value, dict):
        return any(map(is_vaulted, value.values()))
    if isinstance(value, (list, tuple)):
        return any(map(is_vaulted, value))
    if VaultHelper.get_ciphertext(value, with_tags=False) is not None:
        return True
    path = getattr(origin_of(value), "path", None)
    if not path:
        return False
    try:
        with open(path, "rb") as stream:
            return stream.read(14) == b"$ANSIBLE_VAULT"
    except OSError:
        return False


def _given_for(name: str, hosts: Sequence[str], extra: Container[str]) -> str:
    return "given with -e" if name in extra else "of " + hosts_text(hosts)


def _near(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is most like a name, or None."""
    for other in difflib.get_close_matches(name, known, n=3, cutoff=_ALIKE):
        # Whole words that both begin with say nothing.
        words, other_words = name.split("_"), other.split("_")
        while words and other_words and words[0] == other_words[0]:
            del words[0], other_words[0]
        rests = "_".join(words), "_".join(other_words)
        if difflib.SequenceMatcher(None, *rests).ratio() >= _REST_ALIKE:
            return other
    return None


def _same(one: object, other: object) -> bool:
    try:
        return one is other or one == other
    except AnsibleError:
        # One that cannot be decrypted is not the same text as another.
        return False


def _is_template(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and ("{{" in value or "{%" in value)


def _words_of_templates(raw: Variables) -> set[str]:
    """Return all words of all templates of an inventory."""
    words = set()
    seen = set()
    pending = [value for variables in raw.values() for value in variables.values()]
    while pending:
        value = pending.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, dict):
            pending.extend(value.values())
        elif isinstance(value, (list, tuple)):
            pending.extend(value)
        elif _is_template(value):
            words.update(_WORD.findall(value))
    return words


def _misfit(name: str, value: Any, spec: Mapping[str, Any], extra: bool) -> str:
    """Return what is wrong with a value, as the end of a sentence, or ''."""
    kind = spec.get("type", "str")
    # What is encrypted stays so.
    if value is None or kind not in _TAKES or _is_template(value) or isinstance(value, EncryptedString):
        return ""
    fits = _fits(kind, value)
    choices = spec.get("choices") or ()
    if fits and (not choices or kind in ("bool", "list") or str(value) in map(str, choices)):
        return ""
    if is_vaulted(value):
        return ""
    if fits:
        return "is %s, it takes one of %s" % (shown(name, value, "none of them"), ", ".join(map(str, choices)))
    hint = ""
    if kind in ("list", "dict") and extra:
        hint = ": give it as JSON, -e '{\"%s\": %s}'" % (name, "[...]" if kind == "list" else "{...}")
    elif kind == "list":
        hint = ": write each item on a line of its own, after '- '"
    elif kind == "dict":
        hint = ": write its keys on lines of their own"
    elif kind in ("str", "path") and isinstance(value, bool):
        hint = ": put it into quotes"
    return "is %s, it takes %s%s" % (shown(name, value), _TAKES[kind], hint)


def _fits(kind: str, value: object) -> bool:
    """Return whether a value is of a type of argument specs; -e KEY=VALUE gives everything as text."""
    if kind == "list":
        return isinstance(value, (list, tuple))
    if kind == "dict":
        return isinstance(value, dict)
    if isinstance(value, (list, tuple, dict)):
        return False
    if kind == "bool":
        return isinstance(value, bool) or str(value).lower() in _BOOLEANS
    if isinstance(value, bool):
        return False
    if kind == "int":
        whole = isinstance(value, float) and value.is_integer()
        return whole or re.match(r"\s*[-+]?\d+\s*\Z", str(value)) is not None
    if kind == "float":
        return re.match(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*\Z", str(value)) is not None
    return True
