"""Tests of snapshots on disk."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections import namedtuple
from pathlib import Path

import pytest
from conftest import write_files
from hub import git_blob_id

from ansible_collections.llmops.vllm.plugins.module_utils import _snapshot
from ansible_collections.llmops.vllm.plugins.module_utils._snapshot import (
    MANIFEST,
    HubFile,
    Look,
    SnapshotError,
    content_error,
    content_errors,
    locked,
    orphans,
    parts,
    read_manifest,
    remove_tree,
    require_space,
)

COMMIT = "944226b32a548845453fd9fb0889d5af1443340c"
SMALL, WEIGHTS = b"{}\n", bytes(range(256)) * 4


def hub_file(path: str, content: bytes) -> HubFile:
    if path.endswith(".safetensors"):
        return HubFile(path, len(content), hashlib.sha256(content).hexdigest(), "0" * 40)
    return HubFile(path, len(content), None, git_blob_id(content))


FILES = {"config.json": SMALL, "model.safetensors": WEIGHTS, "onnx/deep/a b.txt": b"", "日本.md": "語".encode()}
WANTED = [hub_file(path, content) for path, content in FILES.items()]


def manifest(commit: str = COMMIT, now: float = 0) -> dict:
    return _snapshot.manifest("org/name", "model", commit, "http://hub", WANTED[:2], WANTED[2:], "sha256", now)


def write_snapshot(dest: Path, commit: str, now: float) -> Path:
    folder = write_files(dest / commit, FILES)
    (folder / MANIFEST).write_text(_snapshot.manifest_text(manifest(commit, now)))
    return folder


@pytest.mark.parametrize("check", ["sha256", "size"])
@pytest.mark.parametrize("wanted", WANTED, ids=lambda wanted: wanted.path)
def test_right_content(tmp_path: Path, wanted: HubFile, check: str) -> None:
    assert content_error(str(write_files(tmp_path, FILES) / wanted.path), wanted, check) is None


@pytest.mark.parametrize("path", ["config.json", "model.safetensors"])
def test_wrong_content(tmp_path: Path, path: str) -> None:
    wanted = hub_file(path, FILES[path])
    kind = "sha256" if wanted.sha256 else "git blob id"
    size = len(FILES[path])
    file = write_files(tmp_path, FILES) / path
    flipped = bytes([FILES[path][0] ^ 1]) + FILES[path][1:]
    file.write_bytes(flipped)
    found = hub_file(path, flipped)
    assert content_error(str(file), wanted) == (
        f"{path} has the {kind} {found.sha256 or found.blob_id}, the Hub lists {wanted.sha256 or wanted.blob_id}"
    )
    assert content_error(str(file), wanted, "size") is None
    file.write_bytes(FILES[path][:-1])
    assert content_error(str(file), wanted) == f"{path} has {size - 1} bytes, the Hub lists {size}"
    file.unlink()
    assert content_error(str(file), wanted) == f"{path} is missing"
    file.mkdir()
    assert content_error(str(file), wanted) == f"{path} is missing"
    file.rmdir()
    file.symlink_to(write_files(tmp_path / "elsewhere", FILES) / path)
    for check in ("sha256", "size"):
        assert content_error(str(file), wanted, check) == f"{path} is a symbolic link"


def test_all_files_of_a_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_snapshot, "BUFFER", 7)
    write_files(tmp_path, FILES)
    paths = {str(tmp_path / wanted.path): wanted for wanted in WANTED}
    counted = []
    assert content_errors(paths, count_bytes=counted.append) == {}
    assert sum(counted) == sum(map(len, FILES.values()))
    assert max(counted) == 7
    (tmp_path / "config.json").write_bytes(b"{]\n")
    (tmp_path / "日本.md").unlink()
    assert set(content_errors(paths)) == {str(tmp_path / "config.json"), str(tmp_path / "日本.md")}
    assert set(content_errors(paths, "size")) == {str(tmp_path / "日本.md")}


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "{",
        "[]",
        "5",
        "null",
        "{}",
        '{"files": null}',
        '{"files": []}',
        '{"files": [], "left_out": null}',
        '{"files": {"path": 1}, "left_out": []}',
        '{"files": ["config.json"], "left_out": []}',
        '{"files": [{"path": "config.json"}], "left_out": []}',
        '{"files": [{"path": "a", "size": 1, "sha256": null, "blob_id": null, "more": 1}], "left_out": []}',
        '{"files": [], "left_out": []}',
        '{"files": [], "left_out": [], "repo_id": 5, "repo_type": "model", "verified": "size", "verified_at": ""}',
        # As version 0.1.0 wrote it: what the commit has beside these files is not known.
        '{"files": [], "selections": [], "repo_id": "org/name", "verified": "sha256", "verified_at": ""}',
        b"\xff\xfe",
    ],
)
def test_garbage_is_no_manifest(tmp_path: Path, text: str | bytes | None) -> None:
    if text is not None:
        (tmp_path / MANIFEST).write_bytes(text if isinstance(text, bytes) else text.encode())
    assert read_manifest(str(tmp_path)) is None


def test_manifest_round_trip(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text(_snapshot.manifest_text(manifest()))
    assert read_manifest(str(tmp_path)) == manifest()
    document = json.loads((tmp_path / MANIFEST).read_text())
    assert {path: document[path] for path in ("repo_id", "commit", "endpoint", "verified", "verified_at")} == {
        "repo_id": "org/name",
        "commit": COMMIT,
        "endpoint": "http://hub",
        "verified": "sha256",
        "verified_at": "1970-01-01T00:00:00Z",
    }


def test_the_snapshots_of_a_folder(tmp_path: Path) -> None:
    assert Look(str(tmp_path / "nothing")).commits == {}
    write_snapshot(tmp_path, "1" * 40, 86400)
    write_snapshot(tmp_path, "2" * 40, 3 * 86400)
    write_snapshot(tmp_path, "3" * 40, 2 * 86400)
    # Without a manifest the folder's own time counts.
    os.utime(write_files(tmp_path / ("4" * 40), FILES), (4 * 86400, 4 * 86400))
    for name in ("main", "5" * 39, "." + "6" * 40 + ".removed"):
        (tmp_path / name).mkdir()
    (tmp_path / ("7" * 40)).write_text("a file")
    assert [commit[0] for commit in Look(str(tmp_path)).commits] == ["4", "2", "3", "1"]
    assert Look(str(tmp_path)).commits["2" * 40] == "1970-01-04T00:00:00Z"


def test_a_snapshot_that_goes_during_the_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / COMMIT).mkdir()
    write_snapshot(tmp_path, "1" * 40, 0)

    def read(folder: str) -> None:
        if folder.endswith(COMMIT):
            (tmp_path / COMMIT).rmdir()

    monkeypatch.setattr(_snapshot, "read_manifest", read)
    assert list(Look(str(tmp_path)).commits) == ["1" * 40]


def test_a_snapshot_goes_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_snapshot(tmp_path, COMMIT, 0)
    seen = []
    rmtree = _snapshot.shutil.rmtree

    def look(path: str) -> None:
        seen.append(Path(path).name)
        rmtree(path)

    monkeypatch.setattr(_snapshot.shutil, "rmtree", look)
    (tmp_path / f".{COMMIT}.removed").mkdir()
    remove_tree(str(tmp_path / COMMIT))
    assert seen == [f".{COMMIT}.removed"] * 2
    (tmp_path / "link").symlink_to(write_files(tmp_path / "elsewhere", FILES))
    remove_tree(str(tmp_path / "link"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere"]


Usage = namedtuple("Usage", "total used free")


def test_require_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def usage(path: str) -> Usage:
        asked.append(path)
        return Usage(0, 0, 5_000_000_000)

    monkeypatch.setattr(_snapshot.shutil, "disk_usage", usage)
    dest = tmp_path / "not" / "yet"
    require_space(str(dest), 5_000_000_000)
    with pytest.raises(SnapshotError) as caught:
        require_space(str(dest), 37_203_456_789)
    mount = next(str(path) for path in [tmp_path, *tmp_path.parents] if path.is_mount())
    assert str(caught.value) == (
        f"{dest} needs 37204 MB, and {mount} has 5000 MB free: free 32204 MB there or choose another dest"
    )
    with pytest.raises(SnapshotError) as caught:
        require_space(str(dest), 4_000_000_000, 2_000_000_000)
    assert str(caught.value) == (
        f"{dest} needs 4000 MB and 2000 MB that stay free (min_free), and {mount} has 5000 MB free: "
        "free 1000 MB there or choose another dest"
    )
    # The file system is the one that a link leads to.
    (tmp_path / "link").symlink_to("/proc")
    with pytest.raises(SnapshotError, match=", and /proc has 5000 MB free: "):
        require_space(str(tmp_path / "link" / "sys"), 37_203_456_789)
    asked.remove("/proc/sys")
    # What can be given up counts as free, and is given up when it has to be.
    assert not require_space(str(dest), 5_000_000_000, 0, 7_000_000_000)
    assert require_space(str(dest), 11_000_000_000, 1_000_000_000, 7_000_000_000)
    with pytest.raises(SnapshotError, match=r"needs 13000 MB, and .* has 12000 MB free: free 1000 MB there"):
        require_space(str(dest), 13_000_000_000, 0, 7_000_000_000)
    # Who needs nothing is not refused for what was so before.
    require_space(str(dest), 0, 6_000_000_000)
    assert set(asked) == {str(tmp_path)}


@pytest.mark.parametrize(
    ("name", "part", "orphan"),
    [
        (COMMIT, True, False),
        (f".{COMMIT}.removed", True, True),
        (f".{COMMIT}.incomplete", True, True),
        (f".{COMMIT}.lock", True, True),
        (f"{COMMIT}.old", True, True),
        ("main", False, False),
        (COMMIT[:39], False, False),
        (COMMIT + ".bak", False, False),
        (COMMIT + "\n", False, False),
        ("org--name", False, False),
        (".cache", False, False),
    ],
)
def test_what_belongs_to_a_snapshot(tmp_path: Path, name: str, part: bool, orphan: bool) -> None:
    (tmp_path / name).mkdir()
    assert parts(str(tmp_path)) == ([name] if part else [])
    assert parts(str(tmp_path), COMMIT) == ([name] if part else [])
    assert parts(str(tmp_path), "1" * 40) == []
    assert orphans(str(tmp_path)) == ([str(tmp_path / name)] if orphan else [])


SECOND = f"""
from {_snapshot.__name__} import locked
import sys
print("waiting", flush=True)
with locked(sys.argv[1], lambda: print("held by another", flush=True)):
    print("in", flush=True)
"""


def test_the_lock_keeps_a_second_process_out(tmp_path: Path) -> None:
    dest = tmp_path / "not" / "yet"
    dest.mkdir(parents=True)
    with locked(str(dest)):
        second = subprocess.Popen([sys.executable, "-c", SECOND, str(dest)], stdout=subprocess.PIPE, text=True)
        assert [second.stdout.readline(), second.stdout.readline()] == ["waiting\n", "held by another\n"]
        with pytest.raises(subprocess.TimeoutExpired):
            second.wait(timeout=0.3)
    assert second.communicate(timeout=10) == ("in\n", None)
    assert list(dest.iterdir()) == []


def test_who_looks_for_a_holder_waits_for_nobody(tmp_path: Path) -> None:
    assert not _snapshot.is_held(str(tmp_path))
    assert list(tmp_path.iterdir()) == []
    with locked(str(tmp_path)):
        assert _snapshot.is_held(str(tmp_path))
    (tmp_path / ".lock").touch()
    assert not _snapshot.is_held(str(tmp_path)), "its holder is gone"


def test_the_lock_keeps_a_third_run_out(tmp_path: Path) -> None:
    """The second run waits on a file that the first one takes away; it must not believe itself alone with that."""
    path = tmp_path / ".lock"
    waits, inside, leave = threading.Event(), threading.Event(), threading.Event()

    def second() -> None:
        with locked(str(tmp_path), waits.set):
            inside.set()
            leave.wait(10)

    with locked(str(tmp_path)):
        thread = threading.Thread(target=second)
        thread.start()
        assert waits.wait(10)
        # Into flock: it has opened the file that is taken away next.
        threading.Event().wait(0.1)
    assert inside.wait(10)
    with path.open("a") as third, pytest.raises(BlockingIOError):
        fcntl.flock(third, fcntl.LOCK_EX | fcntl.LOCK_NB)
    leave.set()
    thread.join(10)
    assert not path.exists()


def test_who_waits_is_not_lost_when_the_folder_goes(tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    waits, inside = threading.Event(), threading.Event()

    def second() -> None:
        with locked(str(dest), waits.set):
            inside.set()

    with locked(str(dest)):
        thread = threading.Thread(target=second)
        thread.start()
        assert waits.wait(10)
    # The first one made the folder, and nothing has come of it: it is gone, and the second one makes it again.
    assert inside.wait(10)
    thread.join(10)


@pytest.mark.parametrize("there", [True, False])
def test_the_lock_is_given_back_after_an_error(tmp_path: Path, there: bool) -> None:
    dest = tmp_path / "dest"
    if there:
        dest.mkdir()
    for _attempt in range(2):
        with pytest.raises(SnapshotError), locked(str(dest)):
            raise SnapshotError("no")
    assert list(tmp_path.rglob("*")) == ([dest] if there else [])
