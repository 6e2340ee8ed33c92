# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The lock file beside the inventory: which commit a branch or a tag means, until it is moved on purpose.

In an inventory that is a folder Ansible reads every YAML file as an inventory source, this one too.
So it is one: the commits are a variable of the group all.
"""

from __future__ import annotations

import contextlib
import os
import tempfile

import yaml

from ansible_collections.llmops.vllm.plugins.module_utils._snapshot import COMMIT

HEADER = """\
---
# Written by llmops.vllm; keep it in version control beside the inventory. It says which commit each
# branch or tag of the catalogue means. `ansible-playbook ... -e vllm_update=true` moves it.
"""


class LockError(Exception):
    """One sentence that says what is wrong and what to do."""


def read_lock(path):
    """Return the commits of a lock file, {repo_id: {revision: commit}}. A missing file locks nothing."""
    try:
        with open(path, encoding="utf-8") as stream:
            document = yaml.safe_load(stream) or {}
        commits = document["all"]["vars"]["vllm_lock"]["snapshots"] if document else {}
        for revisions in commits.values():
            for commit in revisions.values():
                if not COMMIT.match(commit):
                    raise TypeError(commit)
    except FileNotFoundError:
        return {}
    except (yaml.YAMLError, UnicodeDecodeError, AttributeError, KeyError, TypeError) as error:
        raise LockError("%s is no lock file: restore it, or delete it to lock anew" % path) from error
    return commits


def merge(commits, resolved):
    """Return commits with the newly resolved ones (results of hf_snapshot) in them."""
    merged = {repo_id: dict(revisions) for repo_id, revisions in commits.items()}
    for entry in resolved:
        # str: Ansible's own kind of text, which knows where it comes from, is none to PyYAML.
        merged.setdefault(str(entry["repo_id"]), {})[str(entry["revision"])] = str(entry["commit"])
    return merged


def render(commits):
    """Return the text of a lock file."""
    return HEADER + yaml.safe_dump({"all": {"vars": {"vllm_lock": {"snapshots": commits}}}}, sort_keys=True)


def write_lock(path, commits):
    """Replace the lock file as a whole."""
    fd, beside = tempfile.mkstemp(prefix=".vllm.lock.", dir=os.path.dirname(path))
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as stream:
            stream.write(render(commits))
        os.chmod(beside, 0o644)
        os.replace(beside, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise
