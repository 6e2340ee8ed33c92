#!/usr/bin/python
# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
module: hf_snapshot_info
short_description: The snapshots of Hugging Face Hub repositories that are on a host
version_added: 0.2.0
author: The llmops.vllm authors (@llmops)
description:
  - Says which snapshots that M(llmops.vllm.hf_snapshot) made are there, of which commit, whether they are complete,
    and when they were verified.
  - It reads manifests and looks at sizes. It reads no content, sends no request, and needs no library on the host.
attributes:
  action_group:
    support: full
    description: Use C(group/llmops.vllm.snapshots) in C(module_defaults).
    membership: [llmops.vllm.snapshots]
    version_added: 0.2.0
  check_mode:
    support: full
    description: It changes nothing.
  diff_mode:
    support: none
    description: It changes nothing.
options:
  dest:
    description: Folder for the snapshots of one repository, or a folder of such folders.
    type: path
    required: true
    version_added: 0.2.0
seealso:
  - module: llmops.vllm.hf_snapshot
"""

EXAMPLES = r"""
- name: List the snapshots of a host
  llmops.vllm.hf_snapshot_info:
    dest: /home/llm/vllm/model
  register: found

- name: Refuse a host with a snapshot that is not complete
  ansible.builtin.assert:
    that: found.snapshots | rejectattr('complete') | length == 0
"""

RETURN = r"""
snapshots:
  description: The snapshots, by folder, the newest of each folder first.
  returned: always
  type: list
  elements: dict
  contains:
    dest:
      description: The folder for the snapshots of the repository.
      type: str
      sample: /home/llm/vllm/model/masao1211--karakuri-lm-70b-chat-v0.1-AWQ
    path:
      description: The snapshot's folder.
      type: str
      sample: /home/llm/vllm/model/masao1211--karakuri-lm-70b-chat-v0.1-AWQ/1f3a5c7e9b2d4f6a8c0e1a3b5d7f9c2e4a6b8d0f
    commit:
      description: The commit.
      type: str
      sample: 1f3a5c7e9b2d4f6a8c0e1a3b5d7f9c2e4a6b8d0f
    repo_id:
      description: The repository; none where the folder has no manifest.
      type: str
      sample: masao1211/karakuri-lm-70b-chat-v0.1-AWQ
    repo_type:
      description: Its type; none where the folder has no manifest.
      type: str
      sample: model
    endpoint:
      description: Where it came from; none where the folder has no manifest.
      type: str
      sample: https://huggingface.co
    complete:
      description: Whether all files of the manifest are there with their sizes.
      type: bool
      sample: true
    wrong:
      description: What is missing or has another size.
      type: list
      elements: str
      sample: [config.json is missing]
    files:
      description: Number of files of the manifest.
      type: int
      sample: 11
    bytes_total:
      description: Their size in bytes.
      type: int
      sample: 37203456789
    verified:
      description: Whether every file was compared with the Hub's checksums.
      type: bool
      sample: true
    verified_at:
      description: When, in UTC; an empty string when they never were.
      type: str
      sample: "2026-01-31T12:00:00Z"
    completed_at:
      description: When the snapshot was made, in UTC.
      type: str
      sample: "2026-01-30T09:12:44Z"
incomplete:
  description: What unfinished runs have left, for the next run to go on from.
  returned: always
  type: list
  elements: dict
  contains:
    dest:
      description: The folder for the snapshots of the repository.
      type: str
      sample: /home/llm/vllm/model/masao1211--karakuri-lm-70b-chat-v0.1-AWQ
    bytes:
      description: Bytes that are there; none where only root may look.
      type: int
      sample: 18203456789
"""

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.llmops.vllm.plugins.module_utils import _snapshot
from ansible_collections.llmops.vllm.plugins.module_utils._meter import folder_bytes


def describe(found: _snapshot.Look, commit: str) -> dict[str, Any]:
    """Return the entry of one snapshot. found: _snapshot.Look at its folder."""
    path, notes = os.path.join(found.dest, commit), found.manifest(commit)
    files = notes["files"] if notes else []
    errors = _snapshot.content_errors({os.path.join(path, f.path): f for f in files}, "size")
    verified_at = notes["verified_at"] if notes and notes["verified"] == "sha256" else None
    return {
        "dest": found.dest,
        "path": path,
        "commit": commit,
        "repo_id": notes["repo_id"] if notes else None,
        "repo_type": notes["repo_type"] if notes else None,
        "endpoint": notes["endpoint"] if notes else None,
        "complete": bool(notes) and not errors,
        "wrong": sorted(errors.values()) if notes else ["%s is missing" % _snapshot.MANIFEST],
        "files": len(files),
        "bytes_total": sum(f.size for f in files),
        "verified": verified_at is not None,
        "verified_at": verified_at or "",
        "completed_at": found.commits[commit],
    }


def _bytes(staging: str) -> int | None:
    return folder_bytes(staging) if os.access(staging, os.R_OK | os.X_OK) else None


def main() -> None:
    module = AnsibleModule(argument_spec=dict(dest=dict(type="path", required=True)), supports_check_mode=True)
    top = module.params["dest"]
    try:
        names = sorted(os.listdir(top)) if os.path.isdir(top) else []
        # The folder of unfinished downloads has no snapshots, and is root's alone.
        beside = [os.path.join(top, name) for name in names if name != _snapshot.STAGING]
        folders = [top] + [path for path in beside if os.path.isdir(path)]
        looks = [_snapshot.Look(dest) for dest in folders]
        snapshots = [describe(found, commit) for found in looks for commit in found.commits]
        # One that was taken away meanwhile is none.
        snapshots = [found for found in snapshots if found["complete"] or os.path.isdir(found["path"])]
        staging = [(dest, os.path.join(dest, _snapshot.STAGING)) for dest in folders]
        incomplete = [{"dest": d, "bytes": _bytes(path)} for d, path in staging if os.path.isdir(path)]
    except PermissionError as error:
        module.fail_json(msg="%s may not be read: become root" % error.filename)
    module.exit_json(changed=False, snapshots=snapshots, incomplete=incomplete)


if __name__ == "__main__":
    main()
