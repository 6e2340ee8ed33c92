"""Tests of the module hf_snapshot with a Hub that does what it should; test_hf_snapshot_faults.py has the others."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import sys
import threading
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
from conftest import FILES, REPOSITORY, read_files, write_files
from hub import Fault, Hub

from ansible_collections.llmops.vllm.plugins.module_utils import _hub, _snapshot
from ansible_collections.llmops.vllm.plugins.module_utils._progress import Progress
from ansible_collections.llmops.vllm.plugins.module_utils._snapshot import SnapshotError
from ansible_collections.llmops.vllm.plugins.module_utils._staging import Staging
from ansible_collections.llmops.vllm.plugins.modules import hf_snapshot

TOKEN = "hf_AbcSecret123"
TOTAL = sum(map(len, FILES.values()))


def fetched(hub: Hub) -> list[str]:
    """The files that were asked for, by their names in the repository."""
    return sorted(a.path.split("/", 5)[5] for a in hub.log if a.method == "GET" and "/resolve/" in a.path)


def moved(root: Path, files: dict[str, bytes]) -> None:
    """Moves main to a commit with these files; the old one stays as the tag `old`."""
    repository = root / REPOSITORY
    repository.rename(repository.with_name("name@old"))
    write_files(repository, files)


def state_of(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Every path with its inode, size and time: what no look may change."""
    stats = {path: path.lstat() for path in [folder, *folder.rglob("*")] if path.exists()}
    return {str(path): (stat.st_ino, stat.st_size, stat.st_mtime_ns) for path, stat in stats.items()}


def require_published(result: dict[str, Any], dest: Path, files: dict[str, bytes] | None = None) -> Path:
    """The folder of a result, which is exactly these files (or all), alone in dest and readable for all."""
    files = FILES if files is None else files
    assert not result["failed"], result
    folder = dest / result["commit"]
    assert result["path"] == str(folder)
    found = read_files(folder)
    assert set(found) == {*files, ".snapshot.json"}
    assert {path: found[path] for path in files} == files
    assert [path.name for path in dest.iterdir()] == [result["commit"]]
    for path in [folder, *folder.rglob("*")]:
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644), path
    manifest = json.loads((folder / ".snapshot.json").read_text())
    assert {entry["path"] for entry in manifest["files"]} == set(files)
    assert (manifest["repo_id"], manifest["commit"], manifest["verified"]) == (REPOSITORY, result["commit"], "sha256")
    return folder


def test_check_then_run_then_again(snapshot: Any, served: Hub, dest: Path) -> None:
    predicted = snapshot(served, check_mode=True)
    assert (predicted["files"], predicted["bytes_total"], predicted["bytes_downloaded"]) == (len(FILES), TOTAL, TOTAL)
    assert (predicted["changed"], predicted["verified"], predicted["verified_at"]) == (True, False, "")
    assert predicted["fetched"] == sorted(FILES)
    assert predicted["diff"]["before"] == ""
    assert predicted["diff"]["after"] == "".join(f"{path}\n" for path in sorted(FILES))
    assert not dest.parent.exists()
    assert served.requests == [f"GET /api/models/{REPOSITORY}/revision/main"]

    served.log.clear()
    first = snapshot(served)
    require_published(first, dest)
    for key in set(predicted) - {"verified", "verified_at", "output", "elapsed", "invocation"}:
        assert predicted[key] == first[key], key
    assert "owner" not in first, "that would be looked up after the lock is gone"
    assert first["verified"] is True and first["verified_at"].endswith("Z")
    # One question, and each file once; an empty one needs no request.
    assert fetched(served) == sorted(set(FILES) - {"empty.txt"})
    assert len(served.log) == len(FILES)
    before = state_of(dest)

    assert (first["revision"], first["repo_id"]) == ("main", REPOSITORY)
    assert first["elapsed"] >= 0
    for revision, requests in (("main", 1), (first["commit"], 0)):
        for check_mode in (True, False):
            served.requests.clear()
            again = snapshot(served, revision=revision, check_mode=check_mode)
            assert not again["changed"]
            assert "diff" not in again
            assert (again["commit"], again["files"], again["bytes_total"]) == (first["commit"], len(FILES), TOTAL)
            assert (again["bytes_downloaded"], again["fetched"], again["verified"]) == (0, [], True)
            assert len(served.requests) == requests, served.requests
    assert before == state_of(dest)


def test_a_large_repository_is_listed_by_its_tree(
    snapshot: Any, served: Hub, dest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its information leaves files out, and says nothing of that."""
    monkeypatch.setattr(_hub, "MOST_SIBLINGS", 2)
    served.most_siblings, served.page = 3, 2
    result = snapshot(served)
    require_published(result, dest)
    pages = [request for request in served.requests if "/tree/" in request]
    # Five files and two folders, two in a page.
    assert pages == [f"GET /api/models/{REPOSITORY}/tree/{result['commit']}"] * 4
    served.requests.clear()
    assert not snapshot(served, revision=result["commit"])["changed"]
    assert served.requests == []


@pytest.mark.parametrize("library", ["huggingface_hub", "requests"])
def test_a_pinned_commit_needs_neither_hub_nor_library(
    snapshot: Any, served: Hub, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    commit = snapshot(served)["commit"]
    monkeypatch.setitem(sys.modules, library, None)
    result = snapshot("http://127.0.0.1:9", revision=commit)
    assert (result["failed"], result["changed"], result["verified"]) == (False, False, True)
    assert not snapshot("http://127.0.0.1:9", revision=commit, state="verified")["changed"]
    # Other patterns are known from the manifest.
    assert snapshot("http://127.0.0.1:9", revision=commit, allow_patterns=["*.json"])["changed"] is False


@pytest.mark.parametrize("library", ["huggingface_hub", "requests"])
def test_a_library_is_missing(snapshot: Any, served: Hub, monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    assert f"Failed to import the required Python library ({library})" in snapshot(served)["msg"]


@pytest.mark.parametrize("kind", ["dataset", "space"])
def test_a_dataset_is_no_model(snapshot: Any, root: Path, dest: Path, kind: str) -> None:
    files = {"data.bin": b"no weights here", "model.safetensors": b"x", "original/more.txt": b"y"}
    write_files(root / f"{kind}s" / REPOSITORY, files)
    with Hub(root) as hub:
        for weights in ("safetensors_only", "any"):
            result = snapshot(hub, repo_type=kind, weights=weights)
            assert (result["changed"], result["left_out"]) == (weights == "safetensors_only", [])
        found = read_files(Path(result["path"]))
        assert {path: found[path] for path in files} == files
        assert json.loads(found[".snapshot.json"])["repo_type"] == kind
        assert hub.requests[0] == f"GET /api/{kind}s/{REPOSITORY}/revision/main"
        assert len(hub.requests) == 1 + len(files) + 1
        # The same commit of the model is another snapshot.
        assert snapshot(hub, revision=result["commit"])["failed"]


def test_a_branch_that_moved_is_a_new_folder(snapshot: Any, served: Hub, dest: Path, root: Path) -> None:
    old = snapshot(served)
    served.log.clear()
    moved(root, {**FILES, "config.json": b'{"new": 1}\n'})
    new = snapshot(served)
    assert (new["changed"], new["fetched"], new["bytes_downloaded"]) == (True, ["config.json"], 11)
    assert new["linked"] == sorted(set(FILES) - {"config.json"})
    assert new["bytes_linked"] == TOTAL - len(FILES["config.json"])
    assert fetched(served) == ["config.json"]
    assert {path.name for path in dest.iterdir()} == {old["commit"], new["commit"]}
    assert read_files(dest / old["commit"])["config.json"] == FILES["config.json"]
    for path in FILES:
        same = (dest / old["commit"] / path).samefile(dest / new["commit"] / path)
        assert same == (path != "config.json"), path
    assert not snapshot(served, revision="old")["changed"]


def test_check_mode_foretells_links(
    snapshot: Any, served: Hub, dest: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot(served)
    moved(root, {**FILES, "config.json": b'{"new": 1}\n'})
    before = state_of(dest)
    # It may be asked often, and contents are large.
    monkeypatch.setattr(_snapshot, "feed", lambda *_args: pytest.fail("a look reads contents"))
    result = snapshot(served, check_mode=True)
    assert (result["fetched"], len(result["linked"])) == (["config.json"], len(FILES) - 1)
    assert state_of(dest) == before


def test_a_damaged_file_is_not_linked(
    snapshot: Any, served: Hub, dest: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(hf_snapshot.AnsibleModule, "warn", lambda self, text: warnings.append(text))
    old = snapshot(served)
    damaged = dest / old["commit"] / "model.safetensors"
    damage(damaged)
    moved(root, {**FILES, "config.json": b'{"new": 1}\n'})
    new = snapshot(served)
    assert new["fetched"] == ["config.json", "model.safetensors"]
    assert read_files(dest / new["commit"])["model.safetensors"] == FILES["model.safetensors"]
    (warning,) = warnings
    assert warning.startswith(f"{damaged} is damaged (model.safetensors has the sha256 ")


def test_a_source_that_has_another_size_is_passed_over(snapshot: Any, served: Hub, dest: Path, root: Path) -> None:
    commits = commits_of(root, snapshot, served, 2)
    # The newest is looked at first.
    newest = dest / commits[1] / "model.safetensors"
    newest.unlink()
    newest.write_bytes(b"short")
    (root / REPOSITORY / "config.json").write_text("{}")
    result = snapshot(served)
    assert "model.safetensors" in result["linked"]
    assert (dest / result["commit"] / "model.safetensors").samefile(dest / commits[0] / "model.safetensors")


def test_another_repository_in_the_same_folder(snapshot: Any, served: Hub, dest: Path, root: Path) -> None:
    write_files(root / "org" / "copy", {**FILES, "config.json": b"another"})
    one, other = snapshot(served), snapshot(served, repo_id="org/copy")
    assert other["fetched"] == ["config.json"]
    assert not snapshot(served, revision=one["commit"])["changed"]


def test_equal_files_are_fetched_once(snapshot: Any, served: Hub, dest: Path, root: Path) -> None:
    (root / REPOSITORY / "copy.safetensors").write_bytes(FILES["model.safetensors"])
    assert snapshot(served, check_mode=True)["bytes_downloaded"] == TOTAL
    result = snapshot(served)
    assert result["bytes_downloaded"] == TOTAL
    assert result["bytes_total"] == TOTAL + len(FILES["model.safetensors"])
    assert len([path for path in fetched(served) if path.endswith(".safetensors")]) == 1
    # Lost, it comes from its twin.
    served.log.clear()
    (dest / result["commit"] / "copy.safetensors").unlink()
    result = snapshot(served, revision=result["commit"])
    assert (result["linked"], result["fetched"], served.log) == (["copy.safetensors"], [], [])


def test_patterns(snapshot: Any, served: Hub, dest: Path) -> None:
    few = {path: FILES[path] for path in ("config.json", "tokenizer.json")}
    result = snapshot(served, allow_patterns=["*.json"])
    require_published(result, dest, few)
    assert (result["files"], result["bytes_downloaded"]) == (2, sum(map(len, few.values())))
    assert not snapshot(served, allow_patterns=["*.json"])["changed"]
    served.requests.clear()
    assert not snapshot(served, allow_patterns=["config.*"], revision=result["commit"])["changed"]
    assert served.requests == []

    # Other patterns add to it.
    folder = dest / result["commit"]
    inode = folder.stat().st_ino
    odd = "docs/deep/odd [1]*? 100%.txt"
    result = snapshot(served, allow_patterns=["docs/*"])
    require_published(result, dest, {**few, odd: FILES[odd]})
    assert (result["files"], result["bytes_downloaded"], result["wrong"]) == (3, 10, [])
    assert result["diff"]["before"] == "config.json\ntokenizer.json\n"
    assert folder.stat().st_ino == inode, "a container that uses it would lose it"

    # Without patterns it is completed, and what is there is not fetched again.
    served.log.clear()
    require_published(snapshot(served), dest)
    assert fetched(served) == ["model.safetensors"]
    served.requests.clear()
    for patterns in ({"ignore_patterns": ["*.safetensors"]}, {"allow_patterns": ["*.txt"]}, {}):
        assert not snapshot(served, revision=result["commit"], **patterns)["changed"]
    assert served.requests == []


def test_more_of_a_pinned_commit_needs_no_listing(snapshot: Any, served: Hub, dest: Path) -> None:
    commit = snapshot(served, allow_patterns=["*.json"])["commit"]
    served.requests.clear()
    result = snapshot(served, revision=commit, check_mode=True)
    assert (result["files"], served.requests) == (len(FILES), [])
    served.log.clear()
    require_published(snapshot(served, revision=commit), dest)
    assert fetched(served) == ["docs/deep/odd [1]*? 100%.txt", "model.safetensors"]
    assert not any("/api/" in request for request in served.requests)


def test_patterns_that_match_nothing(snapshot: Any, served: Hub, dest: Path) -> None:
    result = snapshot(served, allow_patterns=["*.gguf"])
    assert result["failed"]
    assert result["msg"].startswith(f"none of the {len(FILES)} files of {REPOSITORY} at ")
    assert result["msg"].endswith(
        "matches allow_patterns ['*.gguf'] without ignore_patterns (none): change the patterns"
    )
    assert not dest.exists()


def test_weights(snapshot: Any, served: Hub, dest: Path, root: Path) -> None:
    write_files(root / REPOSITORY, {"pytorch_model.bin": b"pickled", "original/params.json": b"{}"})
    result = snapshot(served)
    require_published(result, dest)
    assert result["left_out"] == ["original/params.json", "pytorch_model.bin"]
    assert not snapshot(served, weights="any")["changed"]
    moved(root, {"config.json": b"{}\n", "pytorch_model.bin": b"pickled"})
    served.requests.clear()
    refused = snapshot(served)
    assert " has pickled weights only (pytorch_model.bin), which can run code " in refused["msg"]
    assert len(served.requests) == 1, "nothing was fetched"
    taken = snapshot(served, weights="any")
    assert set(read_files(Path(taken["path"]))) == {"config.json", "pytorch_model.bin", ".snapshot.json"}
    # There now, but who asks for safetensors does not get it.
    assert snapshot(served, revision=taken["commit"])["failed"]


def damage(path: Path) -> None:
    """Inverts one byte, and leaves size and time as they were."""
    stat = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize("kind", ["gone", "short", "manifest", "all"])
def test_a_snapshot_that_lost_something(
    snapshot: Any, served: Hub, dest: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = snapshot(served)["commit"]
    served.log.clear()
    folder = dest / commit
    if kind == "gone":
        (folder / "config.json").unlink()
    elif kind == "short":
        (folder / "model.safetensors").write_bytes(b"x")
    elif kind == "manifest":
        (folder / ".snapshot.json").write_text("{")
    else:
        for path in FILES:
            (folder / path).unlink()
    with monkeypatch.context() as patch:
        # Without a manifest too, sizes are all that a look looks at.
        patch.setattr(_snapshot, "feed", lambda *_args: pytest.fail("a look reads contents"))
        assert snapshot(served, revision=commit, check_mode=True)["changed"]
    result = snapshot(served, revision=commit)
    assert result["changed"]
    require_published(result, dest)
    lost = {"gone": ["config.json"], "short": ["model.safetensors"], "manifest": [], "all": sorted(FILES)}[kind]
    assert result["fetched"] == lost
    assert fetched(served) == [path for path in lost if path != "empty.txt"]
    assert [error.split()[0] for error in result["wrong"]] == [path.split()[0] for path in lost]
    assert not snapshot(served, revision=commit)["changed"]


def test_a_folder_of_unknown_origin_is_read(snapshot: Any, served: Hub, dest: Path) -> None:
    """Such as one that somebody copied to the host, or that version 0.1.0 made."""
    commit = snapshot(served)["commit"]
    (dest / commit / ".snapshot.json").unlink()
    damage(dest / commit / "model.safetensors")
    (dest / commit / "model.safetensors").chmod(0o600)
    served.log.clear()
    result = snapshot(served, revision=commit)
    require_published(result, dest)
    assert fetched(served) == ["model.safetensors"]


def test_a_download_of_before_is_taken_over_by_links(
    snapshot: Any, served: Hub, dest: Path, root: Path, tmp_path: Path
) -> None:
    """As docs/from_compose.md has it: what is right is not fetched again, and the old folder stays as it is."""
    commit = snapshot(served, check_mode=True)["commit"]
    old = shutil.copytree(root / REPOSITORY, tmp_path / "old")
    (old / "config.json").write_text("an older one")
    dest.mkdir(parents=True)
    shutil.copytree(old, dest / commit, copy_function=os.link)
    served.log.clear()
    assert snapshot(served, check_mode=True)["fetched"] == ["config.json"]
    result = snapshot(served)
    assert (result["fetched"], fetched(served), result["verified"]) == (["config.json"], ["config.json"], True)
    assert (old / "config.json").read_text() == "an older one"
    assert (old / "model.safetensors").samefile(dest / commit / "model.safetensors")


def test_a_symbolic_link_is_no_file(snapshot: Any, served: Hub, dest: Path, tmp_path: Path) -> None:
    commit = snapshot(served)["commit"]
    model, elsewhere = dest / commit / "model.safetensors", tmp_path / "elsewhere"
    model.rename(elsewhere)
    model.symlink_to(elsewhere)
    result = snapshot(served, revision=commit)
    assert (result["fetched"], result["wrong"]) == (["model.safetensors"], ["model.safetensors is a symbolic link"])
    assert not model.is_symlink()
    assert elsewhere.read_bytes() == FILES["model.safetensors"]
    require_published(result, dest)


@pytest.mark.parametrize("kind", ["no manifest", "verified", "a new file"])
def test_files_that_not_everybody_can_read(snapshot: Any, served: Hub, dest: Path, kind: str) -> None:
    """Such as those that somebody copied with a umask of 077; a container that is not root has to read them."""
    limits = {"ignore_patterns": ["docs/*"]} if kind == "a new file" else {}
    commit = snapshot(served, **limits)["commit"]
    folder, params = dest / commit, {"revision": commit}
    if kind == "no manifest":
        (folder / ".snapshot.json").unlink()
    elif kind == "verified":
        params["state"] = "verified"
    else:
        write_files(folder, {path: FILES[path] for path in FILES if path.startswith("docs/")})
    for path in folder.rglob("docs*/**/*" if kind == "a new file" else "*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    before = state_of(folder)
    assert snapshot(served, **params, check_mode=True)["changed"]
    assert state_of(folder) == before
    result = snapshot(served, **params)
    assert (result["changed"], result["fetched"]) == (True, [])
    require_published(result, dest)
    assert not snapshot(served, **params)["changed"]


def test_a_look_reads_each_manifest_once(
    snapshot: Any, served: Hub, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits = commits_of(root, snapshot, served, 3)
    read, read_manifest = [], _snapshot.read_manifest
    monkeypatch.setattr(_snapshot, "read_manifest", lambda folder: (read.append(folder), read_manifest(folder))[1])
    assert not snapshot(served, revision=commits[0], keep=2)["changed"]
    assert len(read) == 3
    read.clear()
    assert not snapshot(served, revision=commits[0])["changed"]
    assert len(read) == 1, "nobody asked for the others"


def test_verified(snapshot: Any, served: Hub, dest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_snapshot.time, "time", lambda: 0)
    first = snapshot(served, ignore_patterns=["*.txt"])
    folder = dest / first["commit"]
    for path in ("config.json", "model.safetensors"):
        damage(folder / path)
    pinned = {"revision": first["commit"]}
    assert not snapshot(served, **pinned, ignore_patterns=["*.txt"])["changed"], "sizes and times are right"
    before = state_of(dest)
    served.log.clear()
    foretold = snapshot(served, **pinned, state="verified", check_mode=True)
    assert (foretold["changed"], state_of(dest), served.log) == (True, before, [])
    result = snapshot(served, **pinned, state="verified")
    for said in (foretold, result):
        assert said["fetched"] == ["config.json", "model.safetensors"]
        assert said["wrong"][0].startswith("config.json has the git blob id ")
        assert said["wrong"][1].startswith("model.safetensors has the sha256 ")
        assert "config.json (wrong)\n" in said["diff"]["before"]
    assert fetched(served) == ["config.json", "model.safetensors"]
    # What the patterns left out stays out, and what was right was not touched.
    require_published(result, dest, {path: FILES[path] for path in FILES if not path.endswith(".txt")})
    kept = str(folder / "tokenizer.json")
    assert state_of(dest)[kept] == before[kept]
    served.requests.clear()
    again = snapshot("http://127.0.0.1:9", **pinned, state="verified")
    assert (again["failed"], again["changed"], served.requests) == (False, False, [])


def test_damage_is_named_when_nobody_can_repair_it(snapshot: Any, served: Hub, dest: Path) -> None:
    commit = snapshot(served)["commit"]
    damage(dest / commit / "model.safetensors")
    (dest / commit / "config.json").unlink()
    before = state_of(dest)
    result = snapshot("http://127.0.0.1:9", revision=commit, state="verified", retries=0, max_workers=1)
    assert result["msg"].startswith(
        f"{dest / commit} is damaged (config.json is missing and 1 more), and is not repaired: "
        "model.safetensors of org/name could not be fetched in 1 attempt: 127.0.0.1: "
    )
    assert [error.split()[0] for error in result["wrong"]] == ["config.json", "model.safetensors"]
    assert state_of(dest).keys() == before.keys()


def test_verified_reads_contents_whatever_new_ones_are_checked_by(snapshot: Any, served: Hub, dest: Path) -> None:
    commit = snapshot(served, verify="size")["commit"]
    damage(dest / commit / "model.safetensors")
    result = snapshot(served, revision=commit, state="verified", verify="size")
    assert (result["changed"], result["fetched"], result["verified"]) == (True, ["model.safetensors"], True)
    require_published(result, dest)


def test_verified_with_patterns_brings_what_they_name(snapshot: Any, served: Hub, dest: Path) -> None:
    commit = snapshot(served, allow_patterns=["*.json"])["commit"]
    damage(dest / commit / "config.json")
    result = snapshot(served, revision=commit, state="verified", allow_patterns=["empty*", "tokenizer*"])
    assert result["fetched"] == ["config.json", "empty.txt"]
    require_published(result, dest, {path: FILES[path] for path in ("config.json", "tokenizer.json", "empty.txt")})


def test_progress_of_a_check(
    snapshot: Any, served: Hub, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    monkeypatch.setattr(Progress, "say", lambda self, line: lines.append(line))
    progress = {"progress_file": str(tmp_path / "line")}
    commit = snapshot(served, **progress)["commit"]
    assert any(line.startswith(f"{REPOSITORY}: ") and " % fetched (" in line for line in lines), lines
    lines.clear()
    assert not snapshot(served, revision=commit, state="verified", **progress)["changed"]
    assert any(line.startswith(f"{REPOSITORY}: ") and " % checked (" in line for line in lines), lines
    lines.clear()
    moved(root, {**FILES, "config.json": b'{"new": 1}\n'})
    assert snapshot(served, **progress)["linked"]
    assert any(" % checked for links (" in line for line in lines), lines


class OtherBlobs(Hub):
    """A mirror that gives files in LFS another git blob id, or none; nobody compares them by it."""

    blob_id: str | None = None

    def send_info(self, request: Any, *args: Any) -> None:
        send_json = request.send_json

        def changed(value: Any, *more: Any) -> None:
            for sibling in value["siblings"]:
                if "lfs" in sibling:
                    sibling["blobId"] = self.blob_id
            send_json(value, *more)

        request.send_json = changed
        super().send_info(request, *args)
        del request.send_json


@pytest.mark.parametrize("blob_id", [None, "5" * 40])
@pytest.mark.parametrize("state", ["present", "verified"])
def test_a_hub_and_a_mirror_in_turn(snapshot: Any, root: Path, dest: Path, state: str, blob_id: str | None) -> None:
    with OtherBlobs(root) as mirror, Hub(root) as hub:
        mirror.blob_id = blob_id
        commit = snapshot(mirror)["commit"]
        for endpoint in (hub, mirror):
            assert not snapshot(endpoint, state=state)["changed"]
            require_published(snapshot(endpoint, state=state, allow_patterns=["*.json"]), dest)
        damage(dest / commit / "model.safetensors")
        result = snapshot(hub, state="verified")
        assert result["fetched"] == ["model.safetensors"]
        require_published(result, dest)


def test_verified_brings_a_snapshot_that_is_not_there(snapshot: Any, served: Hub, dest: Path) -> None:
    require_published(snapshot(served, state="verified"), dest)


def test_verified_may_leave_one_alone_that_is_not_there(snapshot: Any, served: Hub, dest: Path, root: Path) -> None:
    for check_mode in (True, False):
        for revision in ("1" * 40, "main"):
            result = snapshot(served, revision=revision, state="verified", create=False, check_mode=check_mode)
            assert (result["failed"], result["changed"], result["files"]) == (False, False, 0)
            assert (result["wrong"], result["verified"], dest.exists()) == ([], False, False)
    assert len(served.requests) == 2, "a pinned one needs no request"
    commit = snapshot(served)["commit"]
    (dest / commit / "config.json").unlink()
    result = snapshot(served, revision=commit, state="verified", create=False)
    assert result["fetched"] == ["config.json"]
    require_published(result, dest)


def test_one_that_goes_while_verified_waits_is_not_brought_back(
    snapshot: Any, served: Hub, dest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = snapshot(served)["commit"]
    served.requests.clear()
    locked = hf_snapshot.HubSnapshot._locked

    def pruned(self: hf_snapshot.HubSnapshot) -> Any:
        _snapshot.remove_tree(str(dest / commit))
        return locked(self)

    monkeypatch.setattr(hf_snapshot.HubSnapshot, "_locked", pruned)
    result = snapshot(served, revision=commit, state="verified", create=False)
    assert (result["changed"], result["path"], served.requests) == (False, str(dest / commit), [])
    assert list(dest.iterdir()) == []


def test_the_time_of_the_check(snapshot: Any, served: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(hf_snapshot.time, "time", lambda: now[0])
    commit = snapshot(served, allow_patterns=["*.json"])["commit"]
    now[0] = 86400.0
    # Files are added; of the others nothing new is known.
    assert snapshot(served, revision=commit)["verified_at"] == "1970-01-01T00:00:00Z"
    assert snapshot(served, revision=commit, state="verified")["verified_at"] == "1970-01-02T00:00:00Z"
    result = snapshot(served, revision=commit)
    assert result["verified_at"] == "1970-01-02T00:00:00Z"
    # Its age, by which the oldest go, is that of the first time.
    notes = json.loads((Path(result["path"]) / ".snapshot.json").read_text())
    assert (notes["verified_at"], notes["completed_at"]) == ("1970-01-02T00:00:00Z", "1970-01-01T00:00:00Z")


def test_verify_by_size_and_then_by_content(snapshot: Any, served: Hub, dest: Path) -> None:
    served.faults.append(Fault(path="model.safetensors", flip=5))
    first = snapshot(served, verify="size")
    assert (first["failed"], first["verified"], first["verified_at"]) == (False, False, "")
    pinned = {"revision": first["commit"]}
    assert not snapshot(served, **pinned, verify="size")["changed"]
    served.log.clear()
    result = snapshot(served, **pinned)
    assert (result["changed"], result["verified"]) == (True, True)
    assert fetched(served) == ["model.safetensors"]
    require_published(result, dest)
    assert not snapshot(served, **pinned)["changed"]
    # What was checked stays checked.
    assert snapshot(served, **pinned, verify="size")["verified"]


def test_sizes_alone_raised_to_contents_without_damage(snapshot: Any, served: Hub, dest: Path) -> None:
    commit = snapshot(served, verify="size")["commit"]
    for check_mode in (True, False):
        result = snapshot(served, revision=commit, check_mode=check_mode)
        assert (result["changed"], result["fetched"]) == (True, [])
    assert not snapshot(served, revision=commit)["changed"]


@pytest.mark.parametrize("kind", ["more files", "a lost file", "somebody's file"])
def test_what_was_taken_by_its_size_is_not_verified(snapshot: Any, served: Hub, dest: Path, kind: str) -> None:
    limits = {"more files": {"allow_patterns": ["*.json"]}, "somebody's file": {"ignore_patterns": ["model*"]}}
    commit = snapshot(served, **limits.get(kind, {}))["commit"]
    model = dest / commit / "model.safetensors"
    if kind == "a lost file":
        model.unlink()
    elif kind == "somebody's file":
        model.write_bytes(FILES["model.safetensors"][::-1])
    served.faults.append(Fault(path="model.safetensors", flip=5))
    result = snapshot(served, verify="size")
    assert (result["changed"], result["verified"], result["verified_at"]) == (True, False, "")
    served.faults.clear()
    assert model.read_bytes() != FILES["model.safetensors"]
    assert not snapshot(served, verify="size")["changed"]
    result = snapshot(served)
    assert (result["changed"], result["fetched"], result["verified"]) == (True, ["model.safetensors"], True)
    require_published(result, dest)


@pytest.mark.parametrize("right", [True, False])
def test_files_that_somebody_else_put_there_are_read(
    snapshot: Any, served: Hub, dest: Path, root: Path, right: bool
) -> None:
    """Patterns left the weights out, and somebody copied them to where they would be."""
    commit = snapshot(served, ignore_patterns=["*.safetensors"])["commit"]
    weights = FILES["model.safetensors"]
    (dest / commit / "model.safetensors").write_bytes(weights if right else weights[::-1])
    assert not snapshot(served, ignore_patterns=["*.safetensors"])["changed"]
    foretold, result = snapshot(served, check_mode=True), snapshot(served)
    assert (foretold["changed"], result["changed"], result["verified"]) == (True, True, True)
    assert result["fetched"] == ([] if right else ["model.safetensors"])
    assert result["diff"]["before"] != result["diff"]["after"]
    require_published(result, dest)
    assert not snapshot(served)["changed"]


def commits_of(root: Path, snapshot: Any, hub: Hub, count: int, **params: Any) -> list[str]:
    """Brings so many commits, one after the other; each has the age of its place."""
    made = []
    for number in range(count):
        (root / REPOSITORY / "config.json").write_text(f'{{"number": {number}}}')
        made.append(snapshot(hub, **params)["commit"])
        notes = Path(params.get("dest") or snapshot(hub, check_mode=True)["path"]) / ".snapshot.json"
        if notes.exists():
            text = json.loads(notes.read_text())
            text["completed_at"] = f"2026-01-0{number + 1}T00:00:00Z"
            notes.write_text(json.dumps(text))
    return made


@pytest.mark.parametrize(
    ("keep", "protect", "left"),
    [
        (None, [], [0, 1, 2, 3]),
        (5, [], [0, 1, 2, 3]),
        (2, [], [1, 2, 3]),
        (1, [], [2, 3]),
        (0, [], [3]),
        (0, [1], [1, 3]),
        (1, [2], [1, 2, 3]),
        (0, [3], [3]),
    ],
)
def test_keep(
    snapshot: Any, served: Hub, dest: Path, root: Path, keep: int | None, protect: list[int], left: list[int]
) -> None:
    commits = commits_of(root, snapshot, served, 4)
    params = {"keep": keep, "protect": [commits[number] for number in protect], "revision": commits[3]}
    removed = sorted(str(dest / commits[number]) for number in range(4) if number not in left)
    foretold = snapshot(served, check_mode=True, **params)
    assert (foretold["changed"], sorted(foretold["removed"])) == (bool(removed), removed)
    assert len(list(dest.iterdir())) == 4
    result = snapshot(served, **params)
    assert (result["changed"], sorted(result["removed"]), result["fetched"]) == (bool(removed), removed, [])
    assert {path.name for path in dest.iterdir()} == {commits[number] for number in left}
    assert not snapshot(served, **params)["changed"]


def test_the_wanted_one_stays_though_it_is_the_oldest(snapshot: Any, served: Hub, dest: Path, root: Path) -> None:
    commits = commits_of(root, snapshot, served, 3)
    assert snapshot(served, revision=commits[0], keep=0)["changed"]
    assert [path.name for path in dest.iterdir()] == [commits[0]]


def test_nothing_goes_before_the_wanted_one_is_there(snapshot: Any, served: Hub, dest: Path, root: Path) -> None:
    old = snapshot(served)["commit"]
    moved(root, {**FILES, "config.json": b'{"new": 1}\n'})
    served.faults.append(Fault(path="config.json", status=403))
    before = state_of(dest / old)
    assert snapshot(served, keep=0)["failed"]
    assert state_of(dest / old) == before
    result = snapshot(served, keep=0)
    assert result["removed"] == [str(dest / old)]
    require_published(result, dest, {**FILES, "config.json": b'{"new": 1}\n'})


def test_protected_ones_do_not_count(snapshot: Any, served: Hub, dest: Path, root: Path) -> None:
    commits = commits_of(root, snapshot, served, 4)
    params = {"revision": commits[0], "keep": 1, "protect": [commits[3], "f" * 40]}
    assert snapshot(served, **params)["removed"] == [str(dest / commits[1])]
    assert {path.name for path in dest.iterdir()} == {commits[0], commits[2], commits[3]}


def test_leftovers_of_killed_runs_go(snapshot: Any, served: Hub, dest: Path) -> None:
    commit = snapshot(served)["commit"]
    for name in (f".{commit}.incomplete", f".{'1' * 40}.removed", f"{'2' * 40}.old"):
        write_files(dest / name, FILES)
    (dest / f".{commit}.lock").touch()
    result = snapshot(served, revision=commit)
    assert (result["changed"], len(result["removed"])) == (True, 4)
    assert [path.name for path in dest.iterdir()] == [commit]


def test_modes_are_the_same_under_any_umask(snapshot: Any, served: Hub, dest: Path) -> None:
    umask = os.umask(0o077)
    try:
        require_published(snapshot(served), dest)
        assert dest.parent.stat().st_mode & 0o777 == 0o755
    finally:
        os.umask(umask)


def test_refusals(snapshot: Any, served: Hub, dest: Path) -> None:
    where = f" on {served.url}"
    anonymous = snapshot(served, repo_id="org/other")
    assert anonymous["msg"] == (
        f"org/other{where} does not exist, or is private and no token was passed: "
        "check repo_id, or pass a token that may read it"
    )
    known = snapshot(served, repo_id="org/other", token=TOKEN)
    assert known["msg"] == (
        f"org/other{where} does not exist, or is private and the token may not read it: "
        "check repo_id, or pass a token that may read it"
    )
    assert TOKEN not in known["output"]
    for revision in ("v9", "0" * 40):
        assert snapshot(served, revision=revision)["msg"] == (
            f"{REPOSITORY}{where} has no revision '{revision}': name a branch, a tag or a full commit of it"
        )
    assert snapshot(served, repo_id="org/na--me")["msg"].startswith("'org/na--me' is no name of a repository: ")
    assert snapshot(served, max_workers=0)["msg"] == "max_workers is 0: it takes 1 or more"
    assert not dest.exists()


@pytest.mark.parametrize("token", [TOKEN + "\n", "hf_Abc Secret123", "hf_schlüssel"])
def test_a_token_that_no_header_takes_is_not_shown(snapshot: Any, served: Hub, token: str) -> None:
    result = snapshot(served, token=token)
    assert result["msg"] == "the token has a space, a line break or a character that is not ASCII: correct it"
    assert token.strip() not in result["output"]
    assert served.requests == []


def test_an_endpoint_with_a_password_is_not_shown(snapshot: Any, served: Hub) -> None:
    commit = snapshot(served)["commit"]
    served.requests.clear()
    for revision in ("main", commit):
        result = snapshot(served.url.replace("//", "//user:Secret123@"), revision=revision)
        if revision == "main":
            assert result["msg"] == "endpoint holds a user or a password: leave them out, and pass a token"
        # Not even among the arguments that Ansible repeats.
        assert "Secret123" not in result["output"]
    assert served.requests == []


def test_a_pinned_commit_of_another_repository(snapshot: Any, served: Hub, dest: Path) -> None:
    commit = snapshot(served)["commit"]
    assert snapshot(served, repo_id="org/other", revision=commit)["failed"]


def test_a_snapshot_that_was_uploaded_as_a_repository(snapshot: Any, served: Hub, dest: Path, root: Path) -> None:
    (root / REPOSITORY / ".snapshot.json").write_text("{}")
    result = snapshot(served)
    require_published(result, dest)
    assert not snapshot(served)["changed"]
    assert not snapshot(served, revision=result["commit"])["changed"]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"max_workers": 0}, "max_workers is 0: it takes 1 or more"),
        ({"timeout": 0}, "timeout is 0: it takes 1 or more"),
        ({"retries": -1}, "retries is -1: it takes 0 or more"),
        ({"keep": -1}, "keep is -1: it takes 0 or more"),
        ({"max_rate": "0"}, "max_rate is 0: it takes 1 or more"),
        ({"protect": ["main"]}, "protect has 'main': it takes full commits, 40 hexadecimal digits each"),
        ({"token": TOKEN, "token_file": "/token"}, "parameters are mutually exclusive: token|token_file"),
    ],
)
def test_values_that_are_none(snapshot: Any, served: Hub, params: dict[str, Any], message: str) -> None:
    assert snapshot(served, **params)["msg"] == message
    assert served.requests == []


def test_gated(snapshot: Any, root: Path, dest: Path) -> None:
    with Hub(root, gated=[REPOSITORY]) as hub:
        for given in ({}, {"token": TOKEN}):
            hub.log.clear()
            result = snapshot(hub, **given)
            assert result["msg"] == (
                f"{REPOSITORY} on {hub.url} is gated: accept its terms at {hub.url}/{REPOSITORY} "
                "and pass a token of that account"
            )
            assert TOKEN not in result["output"]
            assert len(hub.log) <= 1 + 2, "nobody asks a second time"
    assert not dest.exists()


def test_private(snapshot: Any, root: Path, dest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Anonymous means anonymous, even if the host has a token of its own.
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with Hub(root, token=TOKEN) as hub:
        assert "or is private and no token was passed" in snapshot(hub)["msg"]
        wrong = snapshot(hub, token="hf_wrongSecret")
        assert (
            wrong["msg"]
            == f"the token was refused for {REPOSITORY} on {hub.url}: pass one that is valid and may read it"
        )
        assert "hf_wrongSecret" not in wrong["output"]
        assert not dest.exists()
        result = snapshot(hub, token=TOKEN)
        folder = require_published(result, dest)
        assert TOKEN not in result["output"]
        assert TOKEN not in (folder / ".snapshot.json").read_text()


@pytest.mark.parametrize("given", [{}, {"token": ""}])
def test_a_token_of_the_host_is_none_of_ours(
    snapshot: Any, root: Path, given: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    file = Path(os.environ["HF_HOME"]) / "token"
    file.write_text(TOKEN)
    try:
        with Hub(root) as hub:
            assert snapshot(hub, **given)["verified"]
            assert not any(answer.authorized for answer in hub.log)
    finally:
        file.unlink()


@pytest.mark.parametrize("by_file", [True, False])
def test_an_error_with_the_token_in_it(
    snapshot: Any, served: Hub, tmp_path: Path, by_file: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as one of a library, that repeats what it was given."""

    def repeat(self: _hub.Hub, _revision: str) -> None:
        raise SnapshotError(f"somebody repeats {self.token}")

    monkeypatch.setattr(_hub.Hub, "listing", repeat)
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    result = snapshot(served, **({"token_file": str(tmp_path / "token")} if by_file else {"token": TOKEN}))
    assert result["msg"] == "somebody repeats ********"
    assert TOKEN not in result["output"]


@pytest.mark.parametrize("by_file", [True, False])
def test_the_token_is_written_nowhere(
    snapshot: Any, root: Path, dest: Path, tmp_path: Path, by_file: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    monkeypatch.setattr(Progress, "say", lambda self, line: lines.append(line))
    (tmp_path / "token").write_text(TOKEN)
    given = {"token_file": str(tmp_path / "token")} if by_file else {"token": TOKEN}
    given["progress_file"] = str(tmp_path / "line")
    with Hub(root, token=TOKEN) as hub:
        hub.faults += [
            Fault(path="/revision/", status=503),
            Fault(path="model.safetensors", close_after=5000),
            Fault(path="model.safetensors", status=503),
            Fault(path="model.safetensors", status=401),
        ]
        results = [snapshot(hub, max_workers=1, **given) for _attempt in range(2)]
        assert [result["failed"] for result in results] == [True, False]
        results.append(snapshot(hub, state="verified", **given))
        for text in [*lines, *(result["output"] for result in results)]:
            assert TOKEN not in text
        for path in [path for path in tmp_path.rglob("*") if path.is_file() and path != tmp_path / "token"]:
            assert TOKEN.encode() not in path.read_bytes(), path


def test_nobody_answers(snapshot: Any, free_port: int, dest: Path) -> None:
    url = f"http://127.0.0.1:{free_port}"
    result = snapshot(url + "/", retries=1)
    assert result["msg"].startswith(f"{url} cannot be reached for {REPOSITORY}: ")
    assert "\n" not in result["msg"]
    assert not dest.exists()


def test_a_token_in_a_file(snapshot: Any, root: Path, dest: Path, tmp_path: Path) -> None:
    file = tmp_path / "token"
    with Hub(root, token=TOKEN) as hub:
        missing = snapshot(hub, token_file=str(file))
        assert missing["msg"].startswith(f"token_file {file} cannot be read (")
        file.write_text(" \n")
        assert snapshot(hub, token_file=str(file))["msg"] == f"token_file {file} is empty: put the token into it"
        file.write_text(f"{TOKEN}\n")
        result = snapshot(hub, token_file=str(file))
        require_published(result, dest)
        assert TOKEN not in result["output"]
        file.write_text("hf_wrongSecret")
        shutil.rmtree(dest)
        wrong = snapshot(hub, token_file=str(file))
        assert wrong["msg"].startswith(f"the token was refused for {REPOSITORY} on ")
        assert "hf_wrongSecret" not in wrong["output"]
        file.write_bytes(b"\xff\xfe")
        assert snapshot(hub, token_file=str(file))["msg"].startswith(f"token_file {file} cannot be read (")
        file.write_text(f"{TOKEN}\nsecond line")
        assert "the token has a space, a line break" in snapshot(hub, token_file=str(file))["msg"]


Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize("check_mode", [True, False])
def test_a_full_disk(snapshot: Any, served: Hub, dest: Path, monkeypatch: pytest.MonkeyPatch, check_mode: bool) -> None:
    monkeypatch.setattr(_snapshot.shutil, "disk_usage", lambda path: Usage(0, 0, TOTAL - 1))
    result = snapshot(served, check_mode=check_mode)
    assert result["failed"]
    assert len(served.requests) == 1, "not one byte was fetched"
    assert result["msg"].startswith(f"{dest} needs 1 MB, and /")
    assert result["msg"].endswith(" has 0 MB free: free 1 MB there or choose another dest")
    assert not dest.exists()


@pytest.mark.parametrize("begun", [0, 4000])
@pytest.mark.parametrize("min_free", [0, 5000])
def test_a_disk_that_is_just_large_enough(
    snapshot: Any, served: Hub, dest: Path, monkeypatch: pytest.MonkeyPatch, begun: int, min_free: int
) -> None:
    model = _snapshot.HubFile("", 0, hashlib.sha256(FILES["model.safetensors"]).hexdigest(), "")
    if begun:
        staging = Staging(str(dest))
        staging.open()
        Path(staging.part(model)).write_bytes(FILES["model.safetensors"][:begun])
    free = [TOTAL - begun + min_free - 1]
    monkeypatch.setattr(_snapshot.shutil, "disk_usage", lambda path: Usage(0, 0, free[0]))
    refused = snapshot(served, min_free=str(min_free))
    assert " free: free 1 MB there or choose another dest" in refused["msg"]
    assert (" that stay free (min_free)" in refused["msg"]) == bool(min_free)
    assert fetched(served) == []
    assert sum(path.stat().st_size for path in dest.glob(".incomplete/*.part")) == begun
    free[0] += 1
    require_published(snapshot(served, min_free=str(min_free)), dest)


def test_links_need_no_room(
    snapshot: Any, served: Hub, dest: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot(served)
    moved(root, {**FILES, "config.json": b'{"new": 1}\n'})
    monkeypatch.setattr(_snapshot.shutil, "disk_usage", lambda path: Usage(0, 0, 11))
    assert snapshot(served)["bytes_downloaded"] == 11
    # Nor does a snapshot that is there, however full the disk has become.
    assert not snapshot(served, min_free="1G")["changed"]


def test_a_refusal_leaves_a_folder_as_it_was(snapshot: Any, root: Path, dest: Path) -> None:
    write_files(dest, {"mine.txt": b"mine"})
    with Hub(root, gated=[REPOSITORY]) as hub:
        before = state_of(dest)
        assert snapshot(hub)["failed"]
        assert state_of(dest).keys() == before.keys()


@pytest.mark.parametrize("number", [errno.EPERM, errno.EXDEV])
def test_a_disk_that_knows_no_links(
    snapshot: Any, served: Hub, dest: Path, root: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_args: Any, **_kwargs: Any) -> None:
        raise OSError(number, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    (root / REPOSITORY / "copy.safetensors").write_bytes(FILES["model.safetensors"])
    files = {**FILES, "copy.safetensors": FILES["model.safetensors"]}
    old = snapshot(served)
    require_published(old, dest, files)
    served.log.clear()
    moved(root, {**files, "config.json": b'{"new": 1}\n'})
    result = snapshot(served, keep=0)
    assert fetched(served) == ["config.json"]
    require_published(result, dest, {**files, "config.json": b'{"new": 1}\n'})


def test_copies_need_room(snapshot: Any, served: Hub, dest: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: Any, **_kwargs: Any) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    snapshot(served)
    moved(root, {**FILES, "config.json": b'{"new": 1}\n', "a.safetensors": b"twin", "b.safetensors": b"twin"})
    needed = TOTAL - len(FILES["config.json"]) + 11 + 4 + 4
    free = [needed - 1]
    monkeypatch.setattr(_snapshot.shutil, "disk_usage", lambda path: Usage(0, 0, free[0]))
    assert " free: free 1 MB there or choose another dest" in snapshot(served)["msg"]
    free[0] += 1
    assert snapshot(served)["verified"]


def test_a_dest_that_cannot_be_one(snapshot: Any, served: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_text("")
    result = snapshot(served, dest=str(file))
    assert result["msg"] == f"cannot write to {file}: [Errno 17] File exists: '{file}': choose another dest"
    result = snapshot(served, dest=f"{file}/models")
    assert result["msg"].startswith(f"cannot write to {file}/models: [Errno 20] Not a directory: ")

    def denied(path: str, *_args: Any, **_kwargs: Any) -> None:
        raise PermissionError(13, "Permission denied", path)

    def quota(path: str, *_args: Any, **_kwargs: Any) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded", path)

    with monkeypatch.context() as patch:
        patch.setattr(_snapshot.os, "makedirs", quota)
        result = snapshot(served, dest="/srv/models")
    assert result["msg"].startswith("no space is left for /srv/models: free some and run again")
    monkeypatch.setattr(_snapshot.os, "makedirs", denied)
    result = snapshot(served, dest="/srv/models")
    assert result["msg"] == "/srv/models may not be written: become root, or choose another dest"


def test_absent_one(snapshot: Any, served: Hub, dest: Path, root: Path) -> None:
    old = snapshot(served)["commit"]
    (root / REPOSITORY / "config.json").write_bytes(b'{"new": 1}\n')
    new = snapshot(served)["commit"]
    for left in (f".{old}.incomplete", f"{old}.old"):
        (dest / left).mkdir()
    (dest / f".{old}.lock").touch()
    served.requests.clear()
    expected = sorted(str(dest / name) for name in (old, f"{old}.old", f".{old}.incomplete", f".{old}.lock"))
    for check_mode in (True, False):
        result = snapshot(served, state="absent", revision=old, check_mode=check_mode)
        assert (result["changed"], result["removed"]) == (True, expected)
        assert result["diff"] == {"before": "".join(f"{path}\n" for path in expected), "after": ""}
        assert (dest / old).exists() == check_mode
    result = snapshot(served, state="absent", revision=old)
    assert (result["changed"], result["removed"]) == (False, [])
    assert [path.name for path in dest.iterdir()] == [new]
    assert served.requests == []


def test_absent_all(snapshot: Any, served: Hub, dest: Path, root: Path) -> None:
    assert snapshot(served, state="absent")["removed"] == []
    snapshot(served)
    (root / REPOSITORY / "config.json").write_bytes(b'{"new": 1}\n')
    snapshot(served)
    (dest / f".{'1' * 40}.incomplete").mkdir()
    assert snapshot(served, state="absent", check_mode=True)["removed"] == [str(dest)]
    assert dest.exists()
    result = snapshot(served, state="absent", revision="any")
    assert (result["changed"], result["removed"]) == (True, [str(dest)])
    assert not dest.exists()
    result = snapshot(served, state="absent")
    assert (result["changed"], result["removed"]) == (False, [])


def test_absent_takes_away_nothing_that_is_not_its_own(snapshot: Any, served: Hub, dest: Path) -> None:
    """Such as all models, when dest is the folder above, or a home."""
    commit = snapshot(served)["commit"]
    assert snapshot(served, state="absent", dest=str(dest.parent))["removed"] == []
    (dest / "notes.txt").write_text("mine")
    (dest / "other").mkdir()
    assert snapshot(served, state="absent")["removed"] == [str(dest / commit)]
    assert sorted(path.name for path in dest.iterdir()) == ["notes.txt", "other"]
    assert not snapshot(served, state="absent")["changed"]


def unfinished(snapshot: Any, hub: Hub) -> None:
    """Leaves a part of the weights, as a run does that was refused."""
    hub.faults += [Fault(path="model.safetensors", close_after=5000), Fault(path="model.safetensors", status=403)]
    assert snapshot(hub, max_workers=1)["failed"]
    hub.faults.clear()


@pytest.mark.parametrize(
    ("kind", "params", "changes"),
    [
        ("nothing", {}, True),
        ("nothing", {"state": "verified"}, True),
        ("nothing", {"state": "absent"}, False),
        ("unfinished", {}, True),
        ("unfinished", {"state": "absent"}, True),
        ("complete", {}, False),
        ("complete", {"state": "verified"}, False),
        ("complete", {"state": "absent"}, True),
        ("complete", {"revision": "pinned", "state": "absent"}, True),
        ("sizes", {}, True),
        ("moved", {}, True),
        ("moved", {"keep": 0}, True),
        ("moved", {"revision": "pinned"}, False),
        ("damaged", {}, False),
        ("damaged", {"state": "verified"}, True),
        ("short", {"revision": "pinned"}, True),
        ("no manifest", {}, True),
        ("leftovers", {}, True),
        ("patterns", {}, True),
    ],
)
def test_check_mode_writes_nothing_and_says_what_will_be(
    snapshot: Any, served: Hub, dest: Path, root: Path, kind: str, params: dict[str, Any], changes: bool
) -> None:
    commit = None
    if kind == "unfinished":
        unfinished(snapshot, served)
    elif kind != "nothing":
        limits = {"sizes": {"verify": "size"}, "patterns": {"allow_patterns": ["*.json"]}}.get(kind, {})
        commit = snapshot(served, **limits)["commit"]
    if kind == "moved":
        moved(root, {**FILES, "config.json": b'{"new": 1}\n'})
    elif kind == "damaged":
        damage(dest / commit / "model.safetensors")
    elif kind == "short":
        (dest / commit / "model.safetensors").write_bytes(b"short")
    elif kind == "no manifest":
        (dest / commit / ".snapshot.json").unlink()
    elif kind == "leftovers":
        (dest / f".{'1' * 40}.removed").mkdir()
    if params.get("revision") == "pinned":
        params = {**params, "revision": commit}
    served.log.clear()
    with contextlib.ExitStack() as stack:
        if dest.exists():
            # By another run; a look does not wait for its end.
            stack.enter_context(_snapshot.locked(str(dest)))
        before = state_of(dest.parent)
        result = snapshot(served, check_mode=True, **params)
        assert state_of(dest.parent) == before
    assert not result["failed"], result
    assert result["changed"] == changes
    assert ("diff" in result and result["diff"]["before"] != result["diff"]["after"]) == (changes and kind != "sizes")
    assert fetched(served) == []
    done = snapshot(served, **params)
    for key in ("changed", "fetched", "linked", "removed", "bytes_downloaded", "bytes_linked", "diff", "wrong"):
        assert done.get(key) == result.get(key), key


def test_a_snapshot_grows_file_by_file(snapshot: Any, snapshot_process: Any, root: Path, dest: Path) -> None:
    """A container runs on it meanwhile."""
    asked, goes_on = threading.Event(), threading.Event()

    class Gate(Hub):
        def before(self, request: Any) -> bool:
            if request.path.endswith("model.safetensors"):
                asked.set()
                assert goes_on.wait(30)
            return False

    few = ("config.json", "tokenizer.json")
    with Gate(root) as hub:
        commit = snapshot(hub, allow_patterns=["*.json"])["commit"]
        before = state_of(dest / commit)
        child = snapshot_process(hub, max_workers=1)
        assert asked.wait(30)
        assert state_of(dest / commit) == before
        goes_on.set()
        output, errors = child.communicate(timeout=30)
    assert child.returncode == 0, output + errors
    require_published({"failed": False, **json.loads(output)}, dest)
    after = state_of(dest / commit)
    for path in few:
        assert after[str(dest / commit / path)] == before[str(dest / commit / path)]
    assert after[str(dest / commit)][0] == before[str(dest / commit)][0]


def test_a_failed_repair_leaves_what_is_there(snapshot: Any, served: Hub, dest: Path) -> None:
    commit = snapshot(served, allow_patterns=["*.json"])["commit"]
    before = state_of(dest / commit)
    unfinished(snapshot, served)
    assert state_of(dest / commit) == before
    assert sorted(path.name for path in dest.iterdir()) == sorted([commit, ".incomplete"])
    names = {path.name.partition(".")[2] for path in (dest / ".incomplete").iterdir() if path.name != "boot_id"}
    assert names <= {"", "part", "synced"}, "nothing but contents and parts"
    require_published(snapshot(served), dest)
