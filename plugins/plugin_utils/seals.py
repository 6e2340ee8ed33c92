# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Which of the seals of a host hold, and why the others do not.

Pure logic: no hosts, and no files but those of the collection. As make does it: what was made from the same inputs,
and has not changed since, is not made again; what comes after something that is made is.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Mapping
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils._observed import digest

COLLECTION = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", ".."))
# What of the collection decides what a run does.
_PARTS = ("playbooks", "plugins", "roles")
# Endings of variables with which nothing else has to be on a host: secrets, and what is elsewhere for another user.
_NO_PART = ("_token", "_api_key", "_controller_dir")

NOT_SEEN = "the host was not looked at in this run"
NOT_SEALED = "it has yet to end well here"
FULL = "all is asked for"


def counts(name: str) -> bool:
    """Return whether a variable of a role is part of its seal."""
    return not name.endswith(_NO_PART)


def fingerprints(inputs: Mapping[str, Any]) -> dict[str, str]:
    """Return {name: hash} of the inputs of a seal."""
    return {str(name): digest(plain(value)) for name, value in inputs.items()}


def plain(value: object) -> Any:
    """Return a value without what Ansible knows of it beside, as JSON can say it."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return value if value is None or isinstance(value, (bool, int, float)) else str(value)


@functools.cache
def collection_fingerprint(top: str = COLLECTION) -> str:
    """Return a hash of all files of the collection that decide what a run does."""
    hashed = hashlib.sha256()
    for part in _PARTS:
        for place, folders, names in os.walk(os.path.join(top, part)):
            folders[:] = sorted(name for name in folders if name != "__pycache__")
            for name in sorted(names):
                path = os.path.join(place, name)
                with open(path, "rb") as stream:
                    content = stream.read()
                hashed.update(b"%s %d\n" % (os.path.relpath(path, top).encode(), len(content)) + content)
    return hashed.hexdigest()


def judge(
    wanted: Mapping[str, Mapping[str, str] | str],
    seals: Mapping[str, Mapping[str, Any]] | None,
    after: Mapping[str, str] | None = None,
    in_order: bool = False,
    full: bool = False,
) -> dict[str, str]:
    """Return {name: why it has something to do, '' where it has nothing to do}.

    wanted: {name: fingerprints of today, or a text: why they are not known}. seals: as vllm_host_info returns them;
    None where the host was not looked at. after: what this function has returned of what comes before all of these.
    """
    earlier = [name for name, why in (after or {}).items() if why]
    due = {}
    for name, inputs in wanted.items():
        if full:
            why = FULL
        elif earlier:
            why = "it comes after %s" % earlier[0]
        elif seals is None:
            why = NOT_SEEN
        else:
            why = _why(inputs, seals.get(name))
        due[name] = why
        if why and in_order:
            earlier.append(name)
    return due


def _why(inputs: Mapping[str, str] | str, seal: Mapping[str, Any] | None) -> str:
    if isinstance(inputs, str):
        return inputs
    if seal is None:
        return NOT_SEALED
    before = seal["inputs"]
    changed = sorted(name for name in {**before, **inputs} if before.get(name) != inputs.get(name)) + seal["changed"]
    if not changed:
        return ""
    more = " and %d more" % (len(changed) - 3) if len(changed) > 3 else ""
    return "%s%s %s not as %s" % (
        ", ".join(changed[:3]),
        more,
        "is" if len(changed) == 1 else "are",
        "it was" if len(changed) == 1 else "they were",
    )


def line(due: Mapping[str, str]) -> str:
    """Return what is said of a host."""
    parts = []
    for why in dict.fromkeys(due.values()):
        names = ", ".join(name for name, other in due.items() if other == why)
        parts.append("%s: %s" % (names, why or "nothing to do"))
    return "; ".join(parts)
