"""Tests of snapshots on disk."""

from __future__ import annotations

import fcntl
import hashlib
import json
import subprocess
import sys
import threading
from collections import namedtuple
from pathlib import Path

import pytest
from hub import git_blob_id

from ansible_collections.llmops.vllm.plugins.module_utils import _snapshot
from ansible_collections.llmops.vllm.plugins.module_utils._snapshot import (
    MANIFEST,
    HubFile,
    SnapshotError,
    content_error,
    folder_bytes,
    holds,
    is_part,
    locked,
    make_manifest,
    missing_files,
    mount_of,
    publish,
    read_manifest,
    require_space,
    seed,
    selection,
)

COMMIT = "944226b32a548845453fd9fb0889d5af1443340c"
SMALL, WEIGHTS = b"{}\n", bytes(range(256)) * 4


def hub_file(path: str, content: bytes) -> HubFile:
    if path.endswith(".safetensors"):
        return HubFile(path, len(content), hashlib.sha256(content).hexdigest(), "0" * 40)
    return HubFile(path, len(content), None, git_blob_id(content))


FILES = {"config.json": SMALL, "model.safetensors": WEIGHTS, "onnx/deep/a b.txt": b"", "日本.md": "語".encode()}
WANTED = [hub_file(path, content) for path, content in FILES.items()]


def fill(folder: Path, files: dict[str, bytes] | None = None) -> Path:
    for path, content in (FILES if files is None else files).items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return folder


def manifest() -> dict:
    return make_manifest("org/name", COMMIT, "http://hub", WANTED, [selection()], verified_at="2026-11-22T00:00:00Z")


def content(folder: Path) -> dict[str, bytes]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


@pytest.mark.parametrize("wanted", WANTED, ids=lambda wanted: wanted.path)
def test_right_content(tmp_path: Path, wanted: HubFile) -> None:
    assert content_error(str(fill(tmp_path)), wanted) is None


@pytest.mark.parametrize("path", ["config.json", "model.safetensors"])
def test_wrong_content(tmp_path: Path, path: str) -> None:
    wanted = hub_file(path, FILES[path])
    kind = "sha256" if wanted.sha256 else "git blob id"
    size = len(FILES[path])
    file = fill(tmp_path) / path
    flipped = bytes([FILES[path][0] ^ 1]) + FILES[path][1:]
    file.write_bytes(flipped)
    found = hub_file(path, flipped)
    assert content_error(str(tmp_path), wanted) == (
        f"{path} has the {kind} {found.sha256 or found.blob_id}, the Hub lists {wanted.sha256 or wanted.blob_id}"
    )
    file.write_bytes(FILES[path][:-1])
    assert content_error(str(tmp_path), wanted) == f"{path} has {size - 1} bytes, the Hub lists {size}"
    file.unlink()
    assert content_error(str(tmp_path), wanted) == f"{path} is missing"


def test_a_large_file_is_hashed_in_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_snapshot, "CHUNK", 7)
    fill(tmp_path)
    assert [content_error(str(tmp_path), wanted) for wanted in WANTED] == [None] * len(WANTED)


def test_missing_files(tmp_path: Path) -> None:
    assert missing_files(str(tmp_path / "nothing"), WANTED) == WANTED
    fill(tmp_path)
    assert missing_files(str(tmp_path), WANTED) == []
    (tmp_path / "config.json").write_bytes(b"{}")
    (tmp_path / "model.safetensors").unlink()
    assert [wanted.path for wanted in missing_files(str(tmp_path), WANTED)] == ["config.json", "model.safetensors"]


def test_publish_leaves_exactly_the_manifests_files(tmp_path: Path) -> None:
    staging, folder = tmp_path / f".{COMMIT}.incomplete", tmp_path / COMMIT
    fill(staging)
    fill(staging, {".cache/huggingface/download/x.incomplete": b"x", "old.bin": b"x", "empty/deep/.gitkeep": b""})
    (staging / "no/thing").mkdir(parents=True)
    (staging / "model.safetensors").chmod(0o600)
    (staging / "onnx").chmod(0o700)
    staging.chmod(0o700)
    publish(str(staging), str(folder), manifest())
    assert {path: data for path, data in content(folder).items() if path != MANIFEST} == FILES
    assert sorted(path.name for path in tmp_path.iterdir()) == [COMMIT]
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_dir()} == {"onnx", "onnx/deep"}
    for path in [folder, *folder.rglob("*")]:
        assert path.stat().st_mode & 0o7777 == (0o755 if path.is_dir() else 0o644), path
    assert read_manifest(str(folder))["files"] == sorted(WANTED)
    document = json.loads((folder / MANIFEST).read_text())
    assert {key: document[key] for key in ("repo_id", "commit", "endpoint", "verified", "verified_at")} == {
        "repo_id": "org/name",
        "commit": COMMIT,
        "endpoint": "http://hub",
        "verified": "sha256",
        "verified_at": "2026-11-22T00:00:00Z",
    }


def test_publish_over_a_folder_and_what_a_killed_run_left(tmp_path: Path) -> None:
    staging, folder = tmp_path / f".{COMMIT}.incomplete", tmp_path / COMMIT
    fill(folder, {"config.json": b"old", "gone.txt": b"old"})
    fill(tmp_path / f"{COMMIT}.old", {"older.txt": b"older"})
    # Killed after the manifest was written and before the rename.
    fill(staging, {**FILES, MANIFEST: b"half"})
    publish(str(staging), str(folder), manifest())
    assert {path: data for path, data in content(folder).items() if path != MANIFEST} == FILES
    assert sorted(path.name for path in tmp_path.iterdir()) == [COMMIT]


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
        '{"files": [], "selections": null}',
        '{"files": {"path": 1}, "selections": []}',
        '{"files": ["config.json"]}',
        '{"files": [{"path": "config.json"}]}',
        '{"files": [{"path": "a", "size": 1, "sha256": null, "blob_id": null, "more": 1}]}',
        b"\xff\xfe",
    ],
)
def test_garbage_is_no_manifest(tmp_path: Path, text: str | bytes | None) -> None:
    if text is not None:
        (tmp_path / MANIFEST).write_bytes(text if isinstance(text, bytes) else text.encode())
    assert read_manifest(str(tmp_path)) is None


def test_manifest_round_trip(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text(json.dumps(manifest()))
    assert read_manifest(str(tmp_path)) == {**manifest(), "files": sorted(WANTED)}


@pytest.mark.parametrize(
    ("held", "wanted", "answer"),
    [
        ([], (None, None), False),
        ([(None, None)], (None, None), True),
        ([(None, None)], ([], []), True),
        ([(None, None)], (["*.json"], None), True),
        ([(["*.json"], None)], (None, None), False),
        ([(["*.json"], None)], (["*.json"], []), True),
        ([(["*.json"], None)], (None, ["*.json"]), False),
        ([(["a", "b"], ["c"])], (["b", "a"], ["c"]), True),
        ([(["a"], None), (["b"], None)], (["b"], None), True),
        ([(["a"], None), (["b"], None)], (["a", "b"], None), False),
    ],
)
def test_what_a_snapshot_holds(held: list, wanted: tuple, answer: bool) -> None:
    assert holds({"selections": [selection(*patterns) for patterns in held]}, selection(*wanted)) is answer


def test_seed_links_what_is_there(tmp_path: Path) -> None:
    staging, folder = tmp_path / "staging", fill(tmp_path / "folder", {**FILES, "other": b""})
    fill(staging, {"config.json": b"new"})
    seed(str(staging), str(folder), [*WANTED, hub_file("not/there", b"")])
    assert content(staging) == {**FILES, "config.json": b"new"}
    assert (staging / "model.safetensors").samefile(folder / "model.safetensors")


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
    mount = mount_of(str(dest))[1]
    assert str(caught.value) == (
        f"{dest} needs 37204 MB and {mount} has 5000 MB free: free 32204 MB there or choose another dest"
    )
    assert set(asked) == {str(tmp_path)}
    assert mount_of("/proc/nothing/here") == ("/proc", "/proc")


@pytest.mark.parametrize(
    ("name", "part"),
    [
        (COMMIT, True),
        (f".{COMMIT}.incomplete", True),
        (f".{COMMIT}.lock", True),
        (f"{COMMIT}.old", True),
        ("main", False),
        (COMMIT[:39], False),
        (COMMIT + ".bak", False),
        (COMMIT + "\n", False),
        ("org--name", False),
        (".cache", False),
    ],
)
def test_what_belongs_to_a_snapshot(name: str, part: bool) -> None:
    assert is_part(name) is part
    assert is_part(name, COMMIT) is part
    assert is_part(name, "1" * 40) is False


def test_folder_bytes(tmp_path: Path) -> None:
    assert folder_bytes(str(tmp_path / "nothing")) == 0
    (fill(tmp_path) / "link").symlink_to("nowhere")
    assert folder_bytes(str(tmp_path)) == sum(map(len, FILES.values()))


SECOND = f"""
from {_snapshot.__name__} import locked
import sys
print("waiting", flush=True)
with locked(sys.argv[1], sys.argv[2]):
    print("in", flush=True)
"""


def test_the_lock_keeps_a_second_process_out(tmp_path: Path) -> None:
    dest = tmp_path / "not" / "yet"
    with locked(str(dest), COMMIT):
        second = subprocess.Popen([sys.executable, "-c", SECOND, str(dest), COMMIT], stdout=subprocess.PIPE, text=True)
        assert second.stdout.readline() == "waiting\n"
        with pytest.raises(subprocess.TimeoutExpired):
            second.wait(timeout=0.3)
        # Another commit is not its business.
        with locked(str(dest), "1" * 40):
            pass
    assert second.communicate(timeout=10) == ("in\n", None)
    assert list(dest.iterdir()) == []


def test_the_lock_keeps_a_third_run_out(tmp_path: Path) -> None:
    """The second run waits on a file that the first one takes away; it must not believe itself alone with that."""
    path = tmp_path / f".{COMMIT}.lock"
    waits, inside, leave = threading.Event(), threading.Event(), threading.Event()

    def second() -> None:
        waits.set()
        with locked(str(tmp_path), COMMIT):
            inside.set()
            leave.wait(10)

    with locked(str(tmp_path), COMMIT):
        thread = threading.Thread(target=second)
        thread.start()
        waits.wait(10)
        # Into flock: it has opened the file that is taken away next.
        threading.Event().wait(0.1)
    assert inside.wait(10)
    with path.open("a") as third, pytest.raises(BlockingIOError):
        fcntl.flock(third, fcntl.LOCK_EX | fcntl.LOCK_NB)
    leave.set()
    thread.join(10)
    assert not path.exists()


def test_the_lock_is_given_back_after_an_error(tmp_path: Path) -> None:
    for _attempt in range(2):
        with pytest.raises(SnapshotError), locked(str(tmp_path), COMMIT):
            raise SnapshotError("no")
    assert list(tmp_path.iterdir()) == []
