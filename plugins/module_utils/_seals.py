# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Seals: that something ended well on this host, from which inputs, and what it left there.

They stand in one file, {name: {inputs, observe, observed, notes}}. A seal that cannot be read is none, so that what it
was for is done again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

FORMAT = 1
PATH = "/var/lib/llmops-vllm/seals.json"
_KEYS = ("inputs", "observe", "observed", "notes")
# {name: seal}
Seals = dict[str, dict[str, Any]]


class Observer(Protocol):
    """Who looks at a host: _observed.Observer."""

    def observe(self, wanted: dict[str, Any]) -> dict[str, str]:
        """Return {thing: digest of what it is like now}."""


def read(path: str) -> Seals:
    """Return {name: seal} of a file."""
    try:
        with open(path, encoding="utf-8") as stream:
            document = json.load(stream)
        seals = document["seals"] if document["format"] == FORMAT else {}
        return {name: seal for name, seal in seals.items() if is_whole(seal)}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def is_whole(seal: object) -> bool:
    """Return whether a seal has all that it needs."""
    return isinstance(seal, dict) and all(isinstance(seal.get(key), dict) for key in _KEYS)


def changed_things(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return what of {thing: digest} is not as it was, or cannot be told, sorted."""
    return sorted(thing for thing in {**before, **now} if not now.get(thing) or now[thing] != before.get(thing))


def look(path: str, observer: Observer) -> dict[str, dict[str, Any]]:
    """Return {name: {inputs, changed, notes}} of all seals; changed: what is not as it was when it was sealed."""
    found: dict[str, dict[str, Any]] = {}
    for name, seal in read(path).items():
        try:
            now = observer.observe(seal["observe"])
        except (KeyError, TypeError, AttributeError):
            # Of a newer version, which looks at what this one does not know.
            continue
        changed = changed_things(seal["observed"], now)
        found[name] = {"inputs": seal["inputs"], "changed": changed, "notes": seal["notes"]}
    return found


@contextlib.contextmanager
def locked(path: str) -> Iterator[None]:
    """Hold the lock of a file of seals."""
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    with open("/run/llmops-vllm-seals.lock" if path == PATH else path + ".lock", "w", encoding="utf-8") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def write(path: str, seals: Seals) -> None:
    """Replace the file as a whole; without a seal there is none."""
    if not seals:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        # Unless others keep records there.
        with contextlib.suppress(OSError):
            os.rmdir(os.path.dirname(path))
        return
    handle, new = tempfile.mkstemp(prefix=".seals-", dir=os.path.dirname(path))
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            json.dump({"format": FORMAT, "seals": seals}, stream, indent=1, sort_keys=True)
            stream.write("\n")
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(new, path)
    except BaseException:
        os.unlink(new)
        raise
