# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The lock file beside the inventory: what a branch or a tag means, until it is moved on purpose.

It has three parts of one shape, {what: {branch or tag: pin}}: snapshots (repository of the Hub, commit), sources (git
repository, commit) and images (their name without the tag, digest). A lock is a dictionary of these.

In an inventory that is a folder Ansible reads every YAML file as an inventory source, this one too.
So it is one: the lock is a variable of the group all.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterable, Mapping

import yaml

from ansible_collections.llmops.vllm.plugins.module_utils._snapshot import COMMIT
from ansible_collections.llmops.vllm.plugins.plugin_utils.variables import LOCK_VARIABLE

# {part: {what: {branch or tag: pin}}}
Lock = dict[str, dict[str, dict[str, str]]]

HEADER = """\
---
# Written by llmops.vllm; keep it in version control beside the inventory. It says which commit, or which image, each
# branch or tag means. `ansible-playbook ... -e vllm_update=true` moves it.
"""
# Part -> what a pin of it looks like, and the keys of what was resolved for it: of what, what it is called, the pin.
PINS = {"snapshots": COMMIT, "sources": COMMIT, "images": re.compile(r"sha256:[0-9a-f]{64}\Z")}
KEYS = {
    "snapshots": ("repo_id", "revision", "commit"),
    "sources": ("repository", "ref", "commit"),
    "images": ("image", "tag", "digest"),
}


class LockError(Exception):
    """One sentence that says what is wrong and what to do."""


def read_lock(path: str) -> Lock:
    """Return the lock of a file, with all of its parts. A missing file locks nothing."""
    try:
        with open(path, encoding="utf-8") as stream:
            document = yaml.safe_load(stream) or {}
        lock = document["all"]["vars"][LOCK_VARIABLE] if document else {}
        for part, pins in lock.items():
            form = PINS[part]
            for meanings in pins.values():
                for pin in meanings.values():
                    if not form.match(pin):
                        raise TypeError(pin)
    except FileNotFoundError:
        lock = {}
    except (yaml.YAMLError, UnicodeDecodeError, AttributeError, KeyError, TypeError) as error:
        raise LockError("%s is no lock file: restore it, or delete it to lock anew" % path) from error
    return {part: lock.get(part, {}) for part in PINS}


def merge(lock: Lock, resolved: Iterable[Mapping[str, str]]) -> Lock:
    """Return a lock with what was newly resolved (dictionaries that have the KEYS of a part) in it."""
    merged = {part: {what: dict(meanings) for what, meanings in lock[part].items()} for part in PINS}
    for entry in resolved:
        for part, keys in KEYS.items():
            if all(key in entry for key in keys):
                # str: Ansible's own kind of text, which knows where it comes from, is none to PyYAML.
                what, name, pin = (str(entry[key]) for key in keys)
                merged[part].setdefault(what, {})[name] = pin
    return merged


def render(lock: Lock) -> str:
    """Return the text of a lock file."""
    parts = {part: pins for part, pins in lock.items() if pins or part == "snapshots"}
    return HEADER + yaml.safe_dump({"all": {"vars": {LOCK_VARIABLE: parts}}}, sort_keys=True)


def write_lock(path: str, lock: Lock) -> None:
    """Replace the lock file as a whole."""
    fd, beside = tempfile.mkstemp(prefix=".vllm.lock.", dir=os.path.dirname(path))
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as stream:
            stream.write(render(lock))
        os.chmod(beside, 0o644)
        os.replace(beside, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise
