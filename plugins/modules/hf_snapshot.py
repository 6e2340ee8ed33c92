#!/usr/bin/python
# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

DOCUMENTATION = r"""
module: hf_snapshot
short_description: A verified snapshot of a Hugging Face Hub repository
version_added: 0.1.0
author: The llmops.vllm authors (@llmops)
description:
  - Brings a model repository of the Hugging Face Hub, or of a mirror that speaks its protocol, to the host.
  - The revision is resolved to a commit first. The snapshot is the folder O(dest)C(/<commit>/), which appears only
    when every file in it has the size and the checksum that the Hub lists, and is never changed afterwards.
  - A commit that is there already costs no request at all.
  - While it works, its action plugin shows how far the download is.
attributes:
  check_mode:
    support: full
    description: Says what would be downloaded, and writes nothing.
  diff_mode:
    support: full
    description: Shows the files that come and go.
  idempotent:
    support: full
    description: A second run changes nothing, as long as O(revision) still means the same commit.
requirements:
  - huggingface_hub >= 0.34
options:
  repo_id:
    description: The repository, as C(organisation/name).
    type: str
    required: true
  revision:
    description:
      - Branch, tag or full commit.
      - With O(state=absent), a full commit takes away that snapshot, any other value all snapshots below O(dest),
        and O(dest) itself when it holds nothing else.
    type: str
    default: main
  dest:
    description: Folder for the snapshots of this repository. It is made when it is missing.
    type: path
    required: true
  endpoint:
    description: Address of the Hub or of a mirror of it.
    type: str
    default: https://huggingface.co
  token:
    description:
      - Token for private and gated repositories.
      - Without it the requests are anonymous, even if the host has a token of its own.
    type: str
  allow_patterns:
    description: Take only files that match one of these patterns (as of Python's C(fnmatch), over the whole path).
    type: list
    elements: str
  ignore_patterns:
    description: Leave out files that match one of these patterns.
    type: list
    elements: str
  max_workers:
    description: Files that are downloaded at the same time.
    type: int
    default: 8
  state:
    description: Whether the snapshot is there.
    type: str
    choices: [present, absent]
    default: present
  progress_file:
    description: File for the line that the action plugin shows. Set by the action plugin.
    type: path
"""

EXAMPLES = r"""
- name: Bring the runbook's model
  llmops.vllm.hf_snapshot:
    repo_id: masao1211/karakuri-lm-70b-chat-v0.1-AWQ
    dest: /home/llm/vllm/model/masao1211--karakuri-lm-70b-chat-v0.1-AWQ

- name: A gated model at one commit, without its PyTorch duplicates
  llmops.vllm.hf_snapshot:
    repo_id: example/gated-model
    revision: 9c0b7a3f4d2e1a6b5c8d7e9f0a1b2c3d4e5f6a7b
    dest: /home/llm/vllm/model/example--gated-model
    token: "{{ vault_hub_token }}"
    ignore_patterns: ["*.bin", "original/*"]
"""

RETURN = r"""
repo_id:
  description: The repository.
  returned: always
  type: str
  sample: masao1211/karakuri-lm-70b-chat-v0.1-AWQ
revision:
  description: The revision that was asked for.
  returned: always
  type: str
  sample: main
commit:
  description: The commit that O(revision) means.
  returned: when O(state=present)
  type: str
  sample: 1f3a5c7e9b2d4f6a8c0e1a3b5d7f9c2e4a6b8d0f
path:
  description: The snapshot's folder.
  returned: when O(state=present)
  type: str
  sample: /home/llm/vllm/model/org--name/1f3a5c7e9b2d4f6a8c0e1a3b5d7f9c2e4a6b8d0f
files:
  description: Number of files in the snapshot.
  returned: when O(state=present)
  type: int
  sample: 11
bytes_total:
  description: Their size in bytes.
  returned: when O(state=present)
  type: int
  sample: 37203456789
bytes_downloaded:
  description: Bytes that this run fetched; in check mode, that it would fetch.
  returned: when O(state=present)
  type: int
  sample: 37203456789
verified:
  description: Whether every file was checked against the Hub's checksums, now or when the snapshot was made.
  returned: when O(state=present)
  type: bool
  sample: true
removed:
  description: Folders that were taken away, and what a killed run left beside them.
  returned: when O(state=absent)
  type: list
  elements: str
  sample: [/home/llm/vllm/model/org--name/1f3a5c7e9b2d4f6a8c0e1a3b5d7f9c2e4a6b8d0f]
elapsed:
  description: Seconds that the module took.
  returned: always
  type: float
  sample: 812.4
"""

import os
import shutil
import time

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from ansible_collections.llmops.vllm.plugins.module_utils import _hub, _snapshot
from ansible_collections.llmops.vllm.plugins.module_utils._progress import PROGRESS_FILE_SPEC, Progress, human_bytes


class HubSnapshot:
    """A commit of a repository as a folder below dest."""

    def __init__(self, module):
        params = module.params
        self.module = module
        self.repo_id = params["repo_id"]
        self.revision = params["revision"]
        self.dest = params["dest"]
        self.endpoint = params["endpoint"].rstrip("/")
        self.token = params["token"]
        self.allow_patterns = params["allow_patterns"]
        self.ignore_patterns = params["ignore_patterns"]
        self.max_workers = params["max_workers"]
        self.progress = Progress(params["progress_file"])
        self.result = {"changed": False, "repo_id": self.repo_id, "revision": self.revision}

    def present(self):
        """Return the module's result; raise SnapshotError."""
        selection = _snapshot.selection(self.allow_patterns, self.ignore_patterns)
        if _snapshot.COMMIT.match(self.revision):
            folder = self._folder(self.revision)
            manifest = _snapshot.read_manifest(folder)
            held = manifest and manifest.get("repo_id") == self.repo_id and _snapshot.holds(manifest, selection)
            if held and not _snapshot.missing_files(folder, manifest["files"]):
                return self._unchanged(self.revision, manifest["files"])

        hub = _hub.Hub(self._client(), self.endpoint, self.repo_id, self.token)
        commit, listed = hub.listing(self.revision)
        # Who uploads a snapshot as a repository of his own uploads our manifest too.
        listed = [f for f in listed if f.path != _snapshot.MANIFEST]
        files = hub.matching(listed, self.allow_patterns or None, self.ignore_patterns or None)
        if not files:
            raise _snapshot.SnapshotError(
                "none of the %d files of %s at %s matches allow_patterns %s without ignore_patterns %s: "
                "change the patterns"
                % (len(listed), self.repo_id, commit, self.allow_patterns or "*", self.ignore_patterns or "(none)")
            )
        folder = self._folder(commit)
        manifest, wanted = self._wanted(folder, listed, files)
        if manifest and not _snapshot.missing_files(folder, wanted):
            return self._unchanged(commit, wanted)

        staging = self._staging(commit)
        missing = [f for f in _snapshot.missing_files(staging, wanted) if f in _snapshot.missing_files(folder, [f])]
        self._describe(commit, wanted, missing, changed=True)
        self.result["diff"] = {
            "before_header": folder,
            "after_header": folder,
            "before": "".join("%s\n" % f.path for f in manifest["files"]) if manifest else "",
            "after": "".join("%s\n" % f.path for f in sorted(wanted)),
        }
        _snapshot.require_space(self.dest, self.result["bytes_downloaded"])
        if self.module.check_mode:
            return self.result
        with _snapshot.locked(self.dest, commit):
            # Another run may have built it while this one waited for the lock.
            manifest, wanted = self._wanted(folder, listed, files)
            if manifest and not _snapshot.missing_files(folder, wanted):
                return self._unchanged(commit, wanted)
            selections = [_snapshot.selection()]
            if len(wanted) < len(listed):
                selections = [selection] + [s for s in (manifest["selections"] if manifest else []) if s != selection]
            self._build(hub, commit, folder, staging, wanted, selections)
        self.result["verified"] = True
        return self.result

    def absent(self):
        """Take away one snapshot, or all of the repository when revision is not a commit."""
        one = _snapshot.COMMIT.match(self.revision)
        found = os.listdir(self.dest) if os.path.isdir(self.dest) else []
        ours = [name for name in found if _snapshot.is_part(name, self.revision if one else None)]
        removed = [os.path.join(self.dest, name) for name in sorted(ours)]
        if not one and len(ours) == len(found) and os.path.isdir(self.dest) and not os.path.islink(self.dest):
            removed = [self.dest]
        self.result.update(changed=bool(removed), removed=removed)
        self.result["diff"] = {"before": "".join("%s\n" % path for path in removed), "after": ""}
        if not self.module.check_mode:
            for path in removed:
                if os.path.isdir(path):
                    shutil.rmtree(path)
                else:
                    os.unlink(path)
        return self.result

    def _wanted(self, folder, listed, files):
        """Return (the manifest that is there, files and what an earlier run with other patterns brought)."""
        manifest = _snapshot.read_manifest(folder)
        kept = set(files).union(manifest["files"] if manifest else [])
        return manifest, [f for f in listed if f in kept]

    def _build(self, hub, commit, folder, staging, wanted, selections):
        os.makedirs(staging, mode=0o755, exist_ok=True)
        _snapshot.seed(staging, folder, wanted)
        total = self.result["bytes_total"]
        started = time.monotonic()
        begun_with = _snapshot.folder_bytes(staging)

        def line():
            have = min(_snapshot.folder_bytes(staging), total)
            rate = max(have - begun_with, 0) / max(time.monotonic() - started, 0.1)
            return "%s: %.0f %% (%s of %s, %s/s)" % (
                self.repo_id,
                100.0 * have / max(total, 1),
                human_bytes(have),
                human_bytes(total),
                human_bytes(rate),
            )

        self.progress.every(1, line)
        errors = []
        # Asked for by name: the client would fetch small files again that are there without its own notes.
        todo = _snapshot.missing_files(staging, wanted)
        # A second attempt fetches only what the first one brought wrong.
        for dummy in range(2):
            if todo:
                hub.fetch(commit, staging, [_literal(f.path) for f in todo], None, self.max_workers)
            errors = [(f, _snapshot.content_error(staging, f)) for f in wanted]
            errors = [(f, error) for f, error in errors if error]
            for wrong, dummy_error in errors:
                path = os.path.join(staging, wrong.path)
                if os.path.exists(path):
                    os.unlink(path)
            todo = [f for f, dummy_error in errors]
            if not todo:
                break
        if errors:
            raise _snapshot.SnapshotError(
                "%s at %s arrived wrong twice (%s): run again, or ask who runs %s"
                % (self.repo_id, commit, _and_more([error for dummy, error in errors]), self.endpoint)
            )
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        _snapshot.publish(
            staging,
            folder,
            _snapshot.make_manifest(self.repo_id, commit, self.endpoint, wanted, selections, verified_at=now),
        )

    def _client(self):
        client, error = _hub.import_client(self.endpoint)
        if client is None:
            self.module.fail_json(msg=missing_required_lib("huggingface_hub"), exception=error)
        return client

    def _folder(self, commit):
        return os.path.join(self.dest, commit)

    def _staging(self, commit):
        return os.path.join(self.dest, ".%s.incomplete" % commit)

    def _unchanged(self, commit, files):
        self._describe(commit, files, [], changed=False)
        self.result.pop("diff", None)
        return self.result

    def _describe(self, commit, files, missing, changed):
        self.result.update(
            changed=changed,
            commit=commit,
            path=self._folder(commit),
            files=len(files),
            bytes_total=sum(f.size for f in files),
            bytes_downloaded=sum(f.size for f in missing),
            verified=not changed,
        )


def _literal(path):
    """Return a pattern of fnmatch that matches this path alone."""
    return "".join("[%s]" % c if c in "*?[" else c for c in path)


def _and_more(errors, shown=3):
    more = len(errors) - shown
    return "; ".join(errors[:shown] + (["and %d more" % more] if more > 0 else []))


def main():
    module = AnsibleModule(
        argument_spec=dict(
            repo_id=dict(type="str", required=True),
            revision=dict(type="str", default="main"),
            dest=dict(type="path", required=True),
            endpoint=dict(type="str", default=_hub.DEFAULT_ENDPOINT),
            token=dict(type="str", no_log=True),
            allow_patterns=dict(type="list", elements="str"),
            ignore_patterns=dict(type="list", elements="str"),
            max_workers=dict(type="int", default=8),
            state=dict(type="str", choices=["present", "absent"], default="present"),
            progress_file=PROGRESS_FILE_SPEC,
        ),
        supports_check_mode=True,
    )
    if module.params["max_workers"] < 1:
        module.fail_json(msg="max_workers is %d: it takes 1 or more" % module.params["max_workers"])
    started = time.monotonic()
    snapshot = HubSnapshot(module)
    try:
        with snapshot.progress:
            result = snapshot.present() if module.params["state"] == "present" else snapshot.absent()
    except _snapshot.SnapshotError as error:
        module.fail_json(msg=str(error))
    except PermissionError as error:
        module.fail_json(
            msg="%s may not be written: become root, or choose another dest" % (error.filename or snapshot.dest)
        )
    except OSError as error:
        module.fail_json(msg="cannot write to %s: %s: choose another dest" % (snapshot.dest, error))
    result["elapsed"] = round(time.monotonic() - started, 2)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
