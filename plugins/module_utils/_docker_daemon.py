# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Settings of the Docker daemon: one document that several owners share, and how a change of it takes effect.

Pure logic: no files, no daemon.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

# What a running daemon takes over on SIGHUP, by Docker's documentation (dockerd, "Daemon configuration file").
# Its list has "features" as well, but devices of the Container Device Interface are set up at the start only.
RELOADABLE = frozenset(
    (
        "debug",
        "default-runtime",
        "insecure-registries",
        "labels",
        "live-restore",
        "max-concurrent-downloads",
        "max-concurrent-uploads",
        "max-download-attempts",
        "registry-mirrors",
        "runtimes",
        "shutdown-timeout",
    )
)
# A reload passes over a key that is gone, and the daemon goes on with what it had: these are let go by their default.
NEUTRAL = {
    "debug": False,
    "default-runtime": "runc",
    "insecure-registries": [],
    "live-restore": False,
    "registry-mirrors": [],
    "runtimes": {},
}
# From the least to the most.
HOW = ("nothing", "reload", "restart")
NOTHING = object()


class DaemonConfigError(Exception):
    """One sentence about daemon.json."""


def read(text: str, path: str) -> dict[str, Any]:
    """Return the document of a daemon.json; an empty file is none."""
    if not text.strip():
        return {}
    try:
        document = json.loads(text)
    except ValueError as error:
        raise DaemonConfigError(
            "%s is no JSON (%s): correct it by hand, it is left as it is; Docker would not start with it"
            % (path, error)
        ) from None
    if not isinstance(document, dict):
        raise DaemonConfigError("%s is no JSON object: correct it by hand, it is left as it is" % path)
    return document


def merge(
    document: dict[str, Any], record: Iterable[dict[str, Any]], settings: Mapping[str, Any]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return (document, record) after an owner's settings are what they shall be.

    record: what the owner set before, a list of {path, value} and, where there was another value, before. Everything
    else in the document is somebody else's and stays. What the owner no longer wants goes back to what it was, unless
    somebody has changed it since.
    """
    result = copy.deepcopy(document)
    wanted = dict(_leaves(settings))
    ours = {tuple(item["path"]): item for item in record}
    for path, item in ours.items():
        if path not in wanted and _get(result, path) == item["value"]:
            if "before" in item:
                _set(result, path, item["before"])
            else:
                _remove(result, path)
    kept = []
    for path, value in wanted.items():
        found = _get(result, path)
        if path in ours:
            kept.append(dict(ours[path], value=value))
        elif found is NOTHING:
            kept.append({"path": list(path), "value": value})
        elif found != value:
            kept.append({"path": list(path), "value": value, "before": found})
        # One that was there already is the user's, and stays when the owner goes.
        _set(result, path, value)
    return result, kept


def changed_keys(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return the keys of the whole document whose values differ, sorted."""
    keys = set(before) | set(after)
    return sorted(key for key in keys if before.get(key, NOTHING) != after.get(key, NOTHING))


def how_to_apply(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Return how a running daemon takes a changed document over, one of HOW."""
    keys = changed_keys(before, after)
    if not keys:
        return "nothing"
    return "reload" if all(key in (RELOADABLE if key in after else NEUTRAL) for key in keys) else "restart"


def for_reload(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a daemon has to read so that it takes a document over: what is gone stands there as its default."""
    gone = {key: NEUTRAL[key] for key in before if key not in after and key in NEUTRAL}
    return {**after, **copy.deepcopy(gone)}


def render(document: Mapping[str, Any]) -> str:
    """Return the text of a document, its keys in the order in which they stand."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def without_secrets(text: str) -> str:
    """Return a text for a diff, without the passwords of proxies and mirrors."""
    return re.sub(r"://[^/@\s\"]+@", "://***@", text)


def _leaves(settings: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in settings.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, path + (key,))
        else:
            yield path + (key,), value


def _get(document: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        if not isinstance(document, dict) or key not in document:
            return NOTHING
        document = document[key]
    return document


def _set(document: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for depth, key in enumerate(path[:-1], 1):
        document = document.setdefault(key, {})
        if not isinstance(document, dict):
            raise DaemonConfigError(
                "'%s' of the daemon's settings is %s, and would have to be an object: correct it by hand"
                % (".".join(path[:depth]), json.dumps(document))
            )
    document[path[-1]] = copy.deepcopy(value)


def _remove(document: dict[str, Any], path: tuple[str, ...]) -> None:
    """Takes a value away, and with it the objects that are empty then."""
    parents = []
    for key in path[:-1]:
        parents.append((document, key))
        document = document[key]
    del document[path[-1]]
    for parent, key in reversed(parents):
        if parent[key]:
            break
        del parent[key]
