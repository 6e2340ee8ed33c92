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
  - Brings a repository of the Hugging Face Hub, or of a mirror that speaks its protocol, to the host.
  - The revision is resolved to a commit first. The snapshot is the folder O(dest)C(/<commit>/), which appears only
    when every file in it has the size and the checksum that the Hub lists. Its files are never changed afterwards;
    one that is damaged or missing is replaced as a whole.
  - A commit that is there already costs no request at all.
  - Contents are checked while they come, and what a killed run has brought is used by the next one.
  - Two runs on one O(dest) wait for each other.
  - While it works, its action plugin shows how far it is.
  - The weights of a model that stand in the repository a second time (C(original/), and PyTorch, TensorFlow or Flax
    files beside safetensors) are left out, unless O(allow_patterns) says which files are wanted.
attributes:
  action_group:
    support: full
    description: Use C(group/llmops.vllm.hub) or C(group/llmops.vllm.snapshots) in C(module_defaults).
    membership: [llmops.vllm.hub, llmops.vllm.snapshots]
    version_added: 0.2.0
  check_mode:
    support: full
    description: Says what would be fetched, linked and removed, and writes nothing.
  diff_mode:
    support: full
    description: Shows the files that come and go.
  idempotent:
    support: full
    description: A second run changes nothing, as long as O(revision) still means the same commit.
requirements:
  - huggingface_hub >= 0.34
  - requests
options:
  repo_id:
    description: The repository, as C(organisation/name).
    type: str
    required: true
    version_added: 0.1.0
  repo_type:
    description: What kind of repository it is.
    type: str
    choices: [model, dataset, space]
    default: model
    version_added: 0.2.0
  revision:
    description:
      - Branch, tag or full commit.
      - With O(state=absent), a full commit takes away that snapshot, any other value all snapshots below O(dest),
        and O(dest) itself when it holds nothing else.
    type: str
    default: main
    version_added: 0.1.0
  dest:
    description: Folder for the snapshots of this repository. It is made when it is missing.
    type: path
    required: true
    version_added: 0.1.0
  endpoint:
    description: Address of the Hub or of a mirror of it.
    type: str
    default: https://huggingface.co
    version_added: 0.1.0
  token:
    description:
      - Token for private and gated repositories.
      - Without it and O(token_file) the requests are anonymous, even if the host has a token of its own.
    type: str
    version_added: 0.1.0
  token_file:
    description: File on the host that holds the token.
    type: path
    version_added: 0.2.0
  allow_patterns:
    description: Take only files that match one of these patterns (as of Python's C(fnmatch), over the whole path).
    type: list
    elements: str
    version_added: 0.1.0
  ignore_patterns:
    description: Leave out files that match one of these patterns.
    type: list
    elements: str
    version_added: 0.1.0
  weights:
    description:
      - Which weights of a model may come. It means nothing to datasets and spaces.
      - V(safetensors_only) leaves pickled ones (C(.bin), C(.pt), C(.pth), C(.ckpt), C(.pkl), C(.pickle)) out, and
        refuses a repository that has no others, or whose weights have no others in their folder (C(pytorch_model.bin)
        and what PEFT and diffusers call so), because loading them can run code that they bring.
      - V(any) takes these too, where no safetensors stand beside them.
    type: str
    choices: [safetensors_only, any]
    default: safetensors_only
    version_added: 0.2.0
  verify:
    description:
      - What a file is compared by before it becomes part of the snapshot.
      - V(sha256) is the content, by the Hub's sha256, or by git's own checksum for small files that have no other.
      - V(size) compares the sizes alone. A later run with V(sha256) reads such a snapshot once more.
    type: str
    choices: [sha256, size]
    default: sha256
    version_added: 0.2.0
  max_workers:
    description: Files that are fetched at the same time.
    type: int
    default: 8
    version_added: 0.1.0
  max_rate:
    description: Most bytes per second, in all, as a number or with a unit such as C(50M) (then 2^20 bytes). No limit by
      default.
    type: bytes
    version_added: 0.2.0
  timeout:
    description: Seconds without a byte after which a request is given up, and made again.
    type: int
    default: 30
    version_added: 0.2.0
  retries:
    description:
      - How often a request, or a file, is tried again that brought nothing. Each time the wait doubles, or is what
        the server asks for.
      - An answer that does not pass by itself (401, 403, 404) is never tried again. Only a 403 of the content network
        that the Hub redirects to is, since its addresses expire.
    type: int
    default: 5
    version_added: 0.2.0
  keep:
    description:
      - How many older snapshots stay in O(dest); by default all. The oldest go first, when the wanted one is complete.
      - With them goes what unfinished runs for other commits left.
    type: int
    version_added: 0.2.0
  protect:
    description: Full commits whose snapshots O(keep) never takes away and does not count.
    type: list
    elements: str
    default: []
    version_added: 0.2.0
  min_free:
    description: Bytes that have to stay free on the file system of O(dest), as a number or with a unit such as C(20G).
    type: bytes
    default: 0
    version_added: 0.2.0
  state:
    description:
      - V(present) makes sure that the snapshot is there; of files that were checked before, it looks at the sizes.
      - V(verified) reads every file again, on all cores, and brings those anew that are not what the Hub lists.
        Without patterns, the files are those that the snapshot has. Their modes become 0644, those of folders 0755.
      - V(absent) takes it away.
    type: str
    choices: [present, verified, absent]
    default: present
    version_added: 0.1.0
  create:
    description:
      - Whether O(state=verified) brings a snapshot that is not there.
      - V(false) is for a check of what was found before, so that it does not bring back what another run takes away
        meanwhile.
    type: bool
    default: true
    version_added: 0.2.0
  progress_file:
    description: File for the line that the action plugin shows. Set by the action plugin.
    type: path
    version_added: 0.1.0
seealso:
  - module: llmops.vllm.hf_snapshot_info
"""

EXAMPLES = r"""
- name: Bring the runbook's model
  llmops.vllm.hf_snapshot:
    repo_id: masao1211/karakuri-lm-70b-chat-v0.1-AWQ
    dest: /home/llm/vllm/model/masao1211--karakuri-lm-70b-chat-v0.1-AWQ

- name: A gated model at one commit; of older ones, one stays
  llmops.vllm.hf_snapshot:
    repo_id: example/gated-model
    revision: 9c0b7a3f4d2e1a6b5c8d7e9f0a1b2c3d4e5f6a7b
    dest: /home/llm/vllm/model/example--gated-model
    token: "{{ vault_hub_token }}"
    keep: 1

- name: Check the weights that are there, and repair what is wrong
  llmops.vllm.hf_snapshot:
    repo_id: example/gated-model
    revision: 9c0b7a3f4d2e1a6b5c8d7e9f0a1b2c3d4e5f6a7b
    dest: /home/llm/vllm/model/example--gated-model
    token_file: /etc/llmops-vllm/hub_token
    state: verified
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
  returned: when O(state) is not V(absent)
  type: str
  sample: 1f3a5c7e9b2d4f6a8c0e1a3b5d7f9c2e4a6b8d0f
path:
  description: The snapshot's folder.
  returned: when O(state) is not V(absent)
  type: str
  sample: /home/llm/vllm/model/org--name/1f3a5c7e9b2d4f6a8c0e1a3b5d7f9c2e4a6b8d0f
files:
  description: Number of files in the snapshot.
  returned: when O(state) is not V(absent)
  type: int
  sample: 11
bytes_total:
  description: Their size in bytes.
  returned: when O(state) is not V(absent)
  type: int
  sample: 37203456789
fetched:
  description: Files that came from the Hub; in check mode, that would come.
  returned: when O(state) is not V(absent)
  type: list
  elements: str
  sample: [model-00001-of-00004.safetensors]
linked:
  description: Files that are hard links to equal ones in other snapshots; in check mode, that would be.
  returned: when O(state) is not V(absent)
  type: list
  elements: str
  sample: [tokenizer.json]
wrong:
  description: Why files that were there had to be replaced.
  returned: when O(state) is not V(absent), and with an error that keeps them wrong
  type: list
  elements: str
  sample: [config.json is missing]
left_out:
  description: Files that the patterns let through and that are left out, as duplicates of weights or as pickled.
  returned: when O(state) is not V(absent)
  type: list
  elements: str
  sample: [pytorch_model.bin]
bytes_downloaded:
  description: Bytes that this run fetched; in check mode, that it would fetch. What an earlier run left does not count.
  returned: when O(state) is not V(absent)
  type: int
  sample: 37203456789
bytes_linked:
  description: Bytes of the files in RV(linked).
  returned: when O(state) is not V(absent)
  type: int
  sample: 1795188
verified:
  description: Whether every file was compared with the Hub's checksums, now or when the snapshot was made.
  returned: when O(state) is not V(absent)
  type: bool
  sample: true
verified_at:
  description: When, in UTC. An empty string when they never were.
  returned: when O(state) is not V(absent)
  type: str
  sample: "2026-01-31T12:00:00Z"
removed:
  description: Folders that were taken away, and what killed runs left beside them; in check mode, that would be.
  returned: always
  type: list
  elements: str
  sample: [/home/llm/vllm/model/org--name/1f3a5c7e9b2d4f6a8c0e1a3b5d7f9c2e4a6b8d0f]
elapsed:
  description: Seconds that the module took.
  returned: always
  type: float
  sample: 812.4
"""

import contextlib
import errno
import importlib.util
import os
import time
from collections.abc import Container, Iterable
from typing import Any, NoReturn

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from ansible_collections.llmops.vllm.plugins.module_utils import _hub, _selection, _snapshot
from ansible_collections.llmops.vllm.plugins.module_utils._meter import Meter
from ansible_collections.llmops.vllm.plugins.module_utils._progress import PROGRESS_FILE_SPEC, Progress
from ansible_collections.llmops.vllm.plugins.module_utils._snapshot import HubFile, Manifest, SnapshotError
from ansible_collections.llmops.vllm.plugins.module_utils._staging import Staging
from ansible_collections.llmops.vllm.plugins.module_utils._transfer import Transfer


class SnapshotModule(AnsibleModule):
    """A module whose result has a path that another run may have taken away by the time it is printed."""

    def add_path_info(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        """Leave out owner and mode, which Ansible would look up."""
        return kwargs


class Plan:
    """What has to be done for a snapshot to be right."""

    def __init__(
        self,
        wanted: list[HubFile],
        read: bool,
        wrong: dict[HubFile, str],
        sources: dict[HubFile, str],
        fetch: list[HubFile],
        begun: int,
        modes: dict[str, int],
    ) -> None:
        # [HubFile] that the snapshot has in the end.
        self.wanted = wanted
        # Whether the content of all of them was read for this plan.
        self.read = read
        # {HubFile: why the folder's file is not right}, for files that have to be replaced or added.
        self.wrong = wrong
        # {HubFile: path of an equal file in a snapshot of dest}.
        self.sources = sources
        # [HubFile] that come from the Hub or the staging folder.
        self.fetch = fetch
        # Bytes of these that are in the staging folder already.
        self.begun = begun
        # {path: mode} of files and folders that not everybody can read.
        self.modes = modes

    @property
    def bytes_to_fetch(self) -> int:
        contents = {_snapshot.content_id(f): f.size for f in self.fetch}
        return sum(contents.values()) - self.begun


class HubSnapshot:
    """A commit of a repository as a folder below dest."""

    def __init__(self, module: AnsibleModule) -> None:
        params = module.params
        self.module = module
        self.repo_id = params["repo_id"]
        self.repo_type = params["repo_type"]
        self.revision = params["revision"]
        self.dest = params["dest"]
        self.endpoint = params["endpoint"].rstrip("/")
        self.state = params["state"]
        self.check = "sha256" if self.state == "verified" else params["verify"]
        self.choice = _selection.Choice(
            params["allow_patterns"] or [],
            params["ignore_patterns"] or [],
            params["weights"] if self.repo_type == "model" else None,
        )
        self.keep = params["keep"]
        self.protect = params["protect"]
        self.staging = Staging(self.dest, self.check)
        self.progress = Progress(params["progress_file"])
        self.result = {"changed": False, "repo_id": self.repo_id, "revision": self.revision, "removed": []}

    def run(self) -> dict[str, Any]:
        """Return the module's result; raise SnapshotError or OSError."""
        return self.absent() if self.state == "absent" else self.present()

    def fail(self, sentence: str) -> NoReturn:
        """End the module with an error, and say of a damaged snapshot that it is damaged."""
        wrong = self.result.get("wrong")
        if wrong:
            more = " and %d more" % (len(wrong) - 1) if len(wrong) > 1 else ""
            sentence = "%s is damaged (%s%s), and is not repaired: %s" % (self.result["path"], wrong[0], more, sentence)
        self.module.fail_json(msg=sentence, **({"wrong": wrong} if wrong else {}))

    def present(self) -> dict[str, Any]:
        """Bring the snapshot, or repair it."""
        self._look()
        if _snapshot.COMMIT.match(self.revision) and self._is_left_alone(self.revision):
            return self._nothing(self.revision)
        commit, listed = self._listing()
        if self._is_left_alone(commit):
            return self._nothing(commit)
        wanted, left_out = self._select(commit, listed)
        self.result.update(commit=commit, path=self._folder(commit), left_out=[f.path for f in left_out])
        if self.module.check_mode or (self.state == "present" and self._is_complete(commit, wanted)):
            plan = self._plan(commit, listed, wanted)
            self._describe(plan, commit)
            if plan.wrong:
                self._require_space(plan)
            return self.result
        with self._locked():
            # By now another run may have brought it.
            self._look(alone=True)
            if self._is_left_alone(commit):
                return self._nothing(commit)
            if self.state == "present" and self._is_complete(commit, wanted):
                self._describe(self._plan(commit, listed, wanted), commit)
                return self.result
            self.staging.open()
            done = []
            try:
                plan = self._plan(commit, listed, wanted)
                self._describe(plan, commit)
                self._require_space(plan)
                self._carry_out(plan, commit, listed)
                done = plan.wanted
            finally:
                self.staging.close(done, prune=bool(done) and self.keep is not None)
        return self.result

    def absent(self) -> dict[str, Any]:
        """Take away one snapshot, or all of the repository when revision is not a commit."""
        one = self.revision if _snapshot.COMMIT.match(self.revision) else None
        found = [name for name in _names(self.dest) if name != ".lock"]
        ours = _snapshot.parts(self.dest, one)
        removed = [os.path.join(self.dest, name) for name in ours]
        whole = not one and len(ours) == len(found) and os.path.isdir(self.dest) and not os.path.islink(self.dest)
        self.result.update(changed=bool(removed) or whole, removed=[self.dest] if whole else removed)
        self.result["diff"] = {"before": "".join("%s\n" % path for path in self.result["removed"]), "after": ""}
        if self.result["changed"] and not self.module.check_mode:
            with self._locked():
                for name in _snapshot.parts(self.dest, one):
                    _snapshot.remove_tree(os.path.join(self.dest, name))
            if whole:
                with contextlib.suppress(OSError):
                    os.rmdir(self.dest)
        return self.result

    def _is_left_alone(self, commit: str) -> bool:
        """Return whether there is no snapshot, and none shall be made."""
        wants_one = self.state == "present" or self.module.params["create"]
        return not wants_one and not os.path.isdir(self._folder(commit))

    def _nothing(self, commit: str) -> dict[str, Any]:
        """Return the result for a snapshot that is not there and stays away."""
        lists: dict[str, list[str]] = {key: [] for key in ("left_out", "fetched", "linked", "wrong")}
        numbers = dict.fromkeys(("files", "bytes_total", "bytes_downloaded", "bytes_linked"), 0)
        self.result.update(commit=commit, path=self._folder(commit), **lists, **numbers, **_verified(None))
        return self.result

    def _look(self, alone: bool = False) -> None:
        """Look at what is in dest. alone: whether this run holds its lock."""
        self.found = _snapshot.Look(self.dest)
        # Contents that wait for a run; None when there is no place for them, or another run works there.
        self.waiting = None
        if os.path.isdir(self.staging.path) and (alone or not _snapshot.is_held(self.dest)):
            # Who may not look there sees a snapshot that is complete all the same.
            with contextlib.suppress(PermissionError, FileNotFoundError):
                self.waiting = set(self.staging.contents())

    def _listing(self) -> tuple[str, list[HubFile]]:
        """Return (commit, [HubFile] of the commit), from the manifest when it is pinned and there."""
        if _snapshot.COMMIT.match(self.revision):
            notes = self._manifest(self.revision)
            if notes:
                return self.revision, notes["files"] + notes["left_out"]
        commit, listed = self._hub().listing(self.revision)
        # Who uploads a snapshot as a repository of his own uploads our manifest too.
        return commit, [f for f in listed if f.path != _snapshot.MANIFEST]

    def _select(self, commit: str, listed: list[HubFile]) -> tuple[list[HubFile], list[HubFile]]:
        """Return ([HubFile] wanted, [HubFile] left out)."""
        notes = self._manifest(commit)
        if self.state == "verified" and notes and not self.choice.allow_patterns + self.choice.ignore_patterns:
            return notes["files"], []
        return _selection.select(listed, self.choice, "%s at %s" % (self.repo_id, commit))

    def _manifest(self, commit: str) -> Manifest | None:
        """Return the manifest of this repository's snapshot; another's can have the same commit."""
        notes = self.found.manifest(commit)
        if notes and (notes["repo_id"], notes["repo_type"]) == (self.repo_id, self.repo_type):
            return notes
        return None

    def _plan(self, commit: str, listed: list[HubFile], wanted: list[HubFile]) -> Plan:
        folder, notes = self._folder(commit), self._manifest(commit)
        # What an earlier run with other patterns brought stays; a mirror may have listed other blob ids of LFS files.
        held = {f.path for f in wanted + (notes["files"] if notes else [])}
        wanted = [f for f in listed if f.path in held]
        by_size: set[str] = set()
        if notes and self.state == "present" and (notes["verified"] == "sha256" or self.check == "size"):
            by_size = _paths(notes["files"])
        if self.module.check_mode and self.state == "present":
            # Files of unknown origin are taken for what their sizes say.
            by_size = held
        sized = {os.path.join(folder, f.path): f for f in wanted if f.path in by_size}
        read = {os.path.join(folder, f.path): f for f in wanted if f.path not in by_size}
        errors = {**self._errors(sized, "size", ""), **self._errors(read, self.check, "checked")}
        wrong = {f: errors[os.path.join(folder, f.path)] for f in wanted if os.path.join(folder, f.path) in errors}

        sources = {}
        elsewhere = self._contents_elsewhere(set(map(_snapshot.content_id, wrong)), wanted, folder, errors)
        if elsewhere:
            check = "size" if self.module.check_mode else self.check
            errors = self._errors(elsewhere, check, "checked for links")
            for path, error in errors.items():
                self.module.warn("%s is damaged (%s) and not used: verify that snapshot" % (path, error))
            good = {_snapshot.content_id(f): path for path, f in elsewhere.items() if path not in errors}
            sources = {f: good[_snapshot.content_id(f)] for f in wrong if _snapshot.content_id(f) in good}
        fetch = [f for f in wrong if f not in sources]
        begun = {_snapshot.content_id(f): self.staging.held_bytes(f) for f in fetch}
        modes = {}
        if os.path.isdir(folder):
            # Of files that somebody else has put there, and, looked at thoroughly, of all.
            known = _paths(notes["files"]) if notes and self.state == "present" else set()
            modes = _snapshot.wrong_modes(folder, [f for f in wanted if f not in wrong and f.path not in known])
        return Plan(wanted, not sized and self.check == "sha256", wrong, sources, fetch, sum(begun.values()), modes)

    def _errors(self, paths: dict[str, HubFile], check: str, doing: str) -> dict[str, str]:
        """Return {path: why it is wrong}, and show how far a check of contents is."""
        if check == "size" or not paths:
            return _snapshot.content_errors(paths, check)
        meter = Meter(self.repo_id, sum(f.size for f in paths.values()), doing=doing)
        with self.progress.every(1, meter.line):
            return _snapshot.content_errors(paths, check, meter.add)

    def _contents_elsewhere(
        self, missing: set[str], wanted: list[HubFile], folder: str, errors: dict[str, str]
    ) -> dict[str, HubFile]:
        """Return {path: HubFile} of files in dest that should have the missing contents, one for each."""
        found: dict[str, tuple[str, HubFile]] = {}
        for f in wanted:
            path = os.path.join(folder, f.path)
            if path not in errors and _snapshot.content_id(f) in missing:
                found.setdefault(_snapshot.content_id(f), (path, f))
        for commit in self.found.commits if missing.difference(found) else []:
            other = self._folder(commit)
            notes = self.found.manifest(commit) if other != folder else None
            for f in notes["files"] if notes else []:
                path = os.path.join(other, f.path)
                if _snapshot.content_id(f) in missing and _snapshot.content_error(path, f, "size") is None:
                    found.setdefault(_snapshot.content_id(f), (path, f))
        return dict(found.values())

    def _is_complete(self, commit: str, wanted: list[HubFile]) -> bool:
        """Return whether nothing has to be done, by the manifest and the sizes."""
        notes, folder = self._manifest(commit), self._folder(commit)
        if not notes or self._level(notes) != notes["verified"]:
            return False
        if _paths(wanted).difference(_paths(notes["files"])) or self._surplus(commit, notes["files"], True):
            return False
        return not _snapshot.content_errors({os.path.join(folder, f.path): f for f in notes["files"]}, "size")

    def _level(self, notes: Manifest | None) -> str:
        """Return how well the snapshot is verified after this run."""
        return "sha256" if self.check == "sha256" else (notes["verified"] if notes else "size")

    def _surplus(self, commit: str, wanted: list[HubFile], complete: bool) -> list[str]:
        """Return the paths in dest that this run takes away. complete: whether it needs no content for wanted."""
        return self._older(commit) + self._leftovers(wanted, complete)

    def _older(self, commit: str) -> list[str]:
        """Return the paths of snapshots that are too many, and of what killed runs left beside them."""
        found = []
        if self.keep is not None:
            older = [c for c in self.found.commits if c != commit and c not in self.protect]
            found = [self._folder(c) for c in older[self.keep :]]
        return found + _snapshot.orphans(self.dest)

    def _leftovers(self, wanted: list[HubFile], complete: bool) -> list[str]:
        """Return the paths of contents that wait for nobody.

        Those of a complete snapshot do. Those of another commit wait for it, until older snapshots are taken away.
        """
        if self.waiting is None:
            return []
        ours = self.waiting.intersection(map(_snapshot.content_id, wanted))
        gone = (ours if complete else set()) | (self.waiting - ours if self.keep is not None else set())
        if complete and gone == self.waiting:
            return [self.staging.path]
        return [os.path.join(self.staging.path, content) for content in sorted(gone)]

    def _require_space(self, plan: Plan) -> None:
        min_free = self.module.params["min_free"]
        spare = 0 if self.waiting is None else self.staging.idle_bytes(plan.fetch)
        needed = plan.bytes_to_fetch + self._bytes_to_copy(plan)
        if _snapshot.require_space(self.dest, needed, min_free, spare) and not self.module.check_mode:
            self.module.warn("%s is short of space: what unfinished runs for other commits left is dropped" % self.dest)
            self.staging.drop_idle(plan.fetch)

    def _bytes_to_copy(self, plan: Plan) -> int:
        """Return the bytes of files that would share another's content, where the file system knows no hard links."""
        if self.module.check_mode:
            # It would take a file to know.
            return 0
        copied = [f.size for f, source in plan.sources.items() if not self.staging.can_link(source)]
        twins = sum(f.size for f in plan.fetch) - sum({_snapshot.content_id(f): f.size for f in plan.fetch}.values())
        return sum(copied) + (twins if twins and not self.staging.can_link() else 0)

    def _carry_out(self, plan: Plan, commit: str, listed: list[HubFile]) -> None:
        notes, folder, now = self._manifest(commit), self._folder(commit), time.time()
        for f, source in {_snapshot.content_id(f): (f, source) for f, source in plan.sources.items()}.values():
            self.staging.link(source, f)
        if plan.fetch:
            self._fetch(plan, commit)
        # Files that are replaced or new, also such as somebody else has put there, were compared by that alone.
        by_size = self.check == "size" and (plan.wrong or not notes or len(plan.wanted) > len(notes["files"]))
        manifest = _snapshot.manifest(
            self.repo_id,
            self.repo_type,
            commit,
            self.endpoint,
            plan.wanted,
            sorted(set(listed).difference(plan.wanted)),
            "size" if by_size else self._level(notes),
            now,
        )
        if notes:
            manifest["completed_at"] = notes["completed_at"]
            if not plan.read:
                manifest["verified_at"] = notes["verified_at"]
        if plan.wrong or not notes:
            self.staging.publish(folder, list(plan.wrong), manifest)
        elif manifest != notes:
            self.staging.note(folder, manifest)
        for path, mode in plan.modes.items():
            os.chmod(path, mode)
        self.result.update(_verified(manifest))
        for path in self._older(commit):
            _snapshot.remove_tree(path)

    def _fetch(self, plan: Plan, commit: str) -> None:
        if importlib.util.find_spec("requests") is None:
            self.module.fail_json(msg=missing_required_lib("requests"))
        total = sum({_snapshot.content_id(f): f.size for f in plan.fetch}.values())
        meter = Meter(self.repo_id, total, begun_with=plan.begun)
        params = self.module.params
        transfer = Transfer(
            self._hub(),
            commit,
            self.staging,
            meter,
            max_workers=params["max_workers"],
            max_rate=params["max_rate"],
            timeout=params["timeout"],
            retries=params["retries"],
        )
        with self.progress.every(1, meter.line):
            transfer.fetch(plan.fetch)
        self.result["bytes_downloaded"] = meter.moved

    def _describe(self, plan: Plan, commit: str) -> None:
        notes = self._manifest(commit)
        removed = self._surplus(commit, plan.wanted, not plan.wrong)
        linked = [f for f in plan.wrong if f in plan.sources]
        before = sorted(f.path for f in notes["files"]) if notes else []
        after = sorted(f.path for f in plan.wanted)
        changed = bool(plan.wrong or plan.modes or removed) or not notes or self._level(notes) != notes["verified"]
        self.result.update(
            changed=changed or before != after,
            files=len(plan.wanted),
            bytes_total=sum(f.size for f in plan.wanted),
            fetched=sorted(f.path for f in plan.fetch),
            linked=sorted(f.path for f in linked),
            bytes_downloaded=plan.bytes_to_fetch,
            bytes_linked=sum(f.size for f in linked),
            wrong=sorted(plan.wrong[f] for f in plan.wrong if f.path in before),
            removed=removed,
        )
        self.result.update(_verified(notes if notes and not plan.wrong else None))
        if self.result["changed"]:
            self.result["diff"] = {
                "before_header": self._folder(commit),
                "after_header": self._folder(commit),
                "before": _lines(before, removed, [f.path for f in plan.wrong], "%s (wrong)"),
                "after": _lines(after, []),
            }

    def _hub(self) -> _hub.Hub:
        client, error = _hub.import_client(self.endpoint)
        if client is None:
            self.module.fail_json(msg=missing_required_lib("huggingface_hub"), exception=error)
        params = self.module.params
        return _hub.Hub(
            client,
            self.endpoint,
            self.repo_id,
            self.repo_type,
            self._token(),
            params["timeout"],
            params["retries"],
            self.progress.say,
        )

    def _token(self) -> str | None:
        path = self.module.params["token_file"]
        if not path:
            given: str | None = self.module.params["token"]
            return given
        try:
            with open(path, encoding="utf-8") as stream:
                token = stream.read().strip()
        except (OSError, ValueError) as error:
            raise SnapshotError("token_file %s cannot be read (%s): correct it" % (path, error)) from error
        if not token:
            raise SnapshotError("token_file %s is empty: put the token into it" % path)
        self.module.no_log_values.add(token)
        return token

    def _locked(self) -> contextlib.AbstractContextManager[None]:
        return _snapshot.locked(
            self.dest, lambda: self.progress.say("%s: waits for another run on %s" % (self.repo_id, self.dest))
        )

    def _folder(self, commit: str) -> str:
        return os.path.join(self.dest, commit)


def _verified(notes: Manifest | None) -> dict[str, Any]:
    """Return what a manifest says of how its snapshot was verified."""
    verified_at = notes["verified_at"] if notes and notes["verified"] == "sha256" else None
    return {"verified": verified_at is not None, "verified_at": verified_at or ""}


def _paths(files: Iterable[HubFile]) -> set[str]:
    return {f.path for f in files}


def _names(folder: str) -> list[str]:
    return os.listdir(folder) if os.path.isdir(folder) else []


def _lines(paths: Iterable[str], removed: Iterable[str], wrong: Container[str] = (), mark: str = "%s") -> str:
    return "".join("%s\n" % (mark % path if path in wrong else path) for path in [*paths, *removed])


def _refused(params: dict[str, Any]) -> str | None:
    """Return what is wrong with the values of options, or None."""
    for name, least in (
        ("max_workers", 1),
        ("timeout", 1),
        ("retries", 0),
        ("keep", 0),
        ("max_rate", 1),
        ("min_free", 0),
    ):
        if params[name] is not None and params[name] < least:
            return "%s is %d: it takes %d or more" % (name, params[name], least)
    for commit in params["protect"]:
        if not _snapshot.COMMIT.match(commit):
            return "protect has '%s': it takes full commits, 40 hexadecimal digits each" % commit
    return None


def main() -> None:
    module = SnapshotModule(
        argument_spec=dict(
            repo_id=dict(type="str", required=True),
            repo_type=dict(type="str", choices=["model", "dataset", "space"], default="model"),
            revision=dict(type="str", default="main"),
            dest=dict(type="path", required=True),
            endpoint=dict(type="str", default=_hub.DEFAULT_ENDPOINT),
            token=dict(type="str", no_log=True),
            token_file=dict(type="path", no_log=False),
            allow_patterns=dict(type="list", elements="str"),
            ignore_patterns=dict(type="list", elements="str"),
            weights=dict(type="str", choices=["safetensors_only", "any"], default="safetensors_only"),
            verify=dict(type="str", choices=["sha256", "size"], default="sha256"),
            max_workers=dict(type="int", default=8),
            max_rate=dict(type="bytes"),
            timeout=dict(type="int", default=30),
            retries=dict(type="int", default=5),
            keep=dict(type="int"),
            protect=dict(type="list", elements="str", default=[]),
            min_free=dict(type="bytes", default=0),
            state=dict(type="str", choices=["present", "verified", "absent"], default="present"),
            create=dict(type="bool", default=True),
            progress_file=PROGRESS_FILE_SPEC,
        ),
        mutually_exclusive=[("token", "token_file")],
        supports_check_mode=True,
    )
    if "@" in module.params["endpoint"]:
        module.no_log_values.add(module.params["endpoint"])
    refused = _refused(module.params)
    if refused:
        module.fail_json(msg=refused)
    # A container that is not root reads the files, whatever the umask of the account that fetches them.
    os.umask(0o022)
    started = time.monotonic()
    snapshot = HubSnapshot(module)
    try:
        with snapshot.progress:
            result = snapshot.run()
    except SnapshotError as error:
        snapshot.fail(str(error))
    except PermissionError as error:
        snapshot.fail("%s may not be written: become root, or choose another dest" % (error.filename or snapshot.dest))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            snapshot.fail(
                "no space is left for %s: free some and run again, it goes on from where it stopped" % snapshot.dest
            )
        snapshot.fail("cannot write to %s: %s: choose another dest" % (snapshot.dest, error))
    result["elapsed"] = round(time.monotonic() - started, 2)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
