"""Tests of what is on its way to a snapshot."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest
from conftest import read_files
from hub import git_blob_id

from ansible_collections.llmops.vllm.plugins.module_utils import _snapshot, _staging
from ansible_collections.llmops.vllm.plugins.module_utils._snapshot import HubFile
from ansible_collections.llmops.vllm.plugins.module_utils._staging import Staging

COMMIT = "944226b32a548845453fd9fb0889d5af1443340c"
WEIGHTS = bytes(range(256)) * 4
FILES = {"a/model.safetensors": WEIGHTS, "config.json": b"{}\n", "copy.safetensors": WEIGHTS, "empty": b""}


def hub_file(path: str, content: bytes) -> HubFile:
    if path.endswith(".safetensors"):
        return HubFile(path, len(content), hashlib.sha256(content).hexdigest(), "0" * 40)
    return HubFile(path, len(content), None, git_blob_id(content))


WANTED = [hub_file(path, content) for path, content in FILES.items()]
MODEL = WANTED[0]


@pytest.fixture
def staging(tmp_path: Path) -> Staging:
    made = Staging(str(tmp_path))
    made.open()
    return made


def notes() -> dict:
    return _snapshot.manifest("org/name", "model", COMMIT, "http://hub", WANTED, [], "sha256", 0)


def fill(staging: Staging) -> None:
    for wanted in WANTED:
        Path(staging.part(wanted)).write_bytes(FILES[wanted.path])
        staging.accept(wanted)


def test_a_new_snapshot(staging: Staging, tmp_path: Path) -> None:
    fill(staging)
    os.umask(0o077)
    try:
        staging.publish(str(tmp_path / COMMIT), WANTED, notes())
    finally:
        os.umask(0o022)
    staging.close(WANTED)
    folder = tmp_path / COMMIT
    found = read_files(folder)
    del found[".snapshot.json"]
    assert found == FILES
    assert [path.name for path in tmp_path.iterdir()] == [COMMIT]
    for path in [folder, *folder.rglob("*")]:
        assert path.stat().st_mode & 0o7777 == (0o755 if path.is_dir() else 0o644), path
    # Once on the disk, with two names.
    assert (folder / "copy.safetensors").samefile(folder / "a/model.safetensors")
    assert _snapshot.read_manifest(str(folder)) == notes()


def test_an_old_snapshot_keeps_its_folder(staging: Staging, tmp_path: Path) -> None:
    fill(staging)
    folder = tmp_path / COMMIT
    staging.publish(str(folder), WANTED, notes())
    inode, untouched = folder.stat().st_ino, (folder / "config.json").stat()
    (folder / "mine.txt").write_text("mine")
    (folder / "a/model.safetensors").write_bytes(b"damaged")
    reader = (folder / "a/model.safetensors").open("rb")
    staging.close(WANTED)
    staging.open()
    Path(staging.part(MODEL)).write_bytes(WEIGHTS)
    staging.accept(MODEL)
    staging.publish(str(folder), [MODEL], notes())
    with reader:
        assert reader.read() == b"damaged", "who reads the old file reads on"
    assert folder.stat().st_ino == inode
    config = (folder / "config.json").stat()
    assert (config.st_ino, config.st_mtime_ns) == (untouched.st_ino, untouched.st_mtime_ns)
    assert (folder / "a/model.safetensors").read_bytes() == WEIGHTS
    assert (folder / "mine.txt").exists()


def test_what_is_taken_by_its_size_is_said_before_it_is_there(
    staging: Staging, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the file and the manifest, a run must not leave an unchecked file that counts as checked."""
    fill(staging)
    folder = tmp_path / COMMIT
    staging.publish(str(folder), WANTED, notes())
    sizes = Staging(str(tmp_path), "size")
    sizes.open()
    Path(sizes.part(MODEL)).write_bytes(WEIGHTS)
    sizes.accept(MODEL)

    def killed(*_args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(_staging.os, "chmod", killed)
    with pytest.raises(KeyboardInterrupt):
        sizes.publish(str(folder), [MODEL], {**notes(), "verified": "size"})
    assert _snapshot.read_manifest(str(folder)) == {**notes(), "verified": "size"}


@pytest.mark.parametrize("number", [errno.EPERM, errno.EXDEV, errno.ENOTSUP, errno.EMLINK])
def test_without_hard_links_there_are_copies(
    staging: Staging, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise OSError(number, "no links here")

    monkeypatch.setattr(_staging.os, "link", refuse)
    copied, copyfile = [], _staging.shutil.copyfile
    monkeypatch.setattr(_staging.shutil, "copyfile", lambda *paths: (copied.append(paths), copyfile(*paths)))
    fill(staging)
    assert not staging.can_link()
    staging.publish(str(tmp_path / COMMIT), WANTED, notes())
    found = read_files(tmp_path / COMMIT)
    assert {path: found[path] for path in FILES} == FILES
    # Nothing is twice on the disk but what is twice in the repository.
    assert len(copied) == 1
    assert staging.contents() == {}


def test_without_hard_links_a_killed_publication_loses_nothing(
    staging: Staging, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    def killed(*_args: object) -> None:
        raise KeyboardInterrupt

    fill(staging)
    with monkeypatch.context() as patch:
        patch.setattr(_staging.os, "link", refuse)
        patch.setattr(_staging.os, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            staging.publish(str(tmp_path / COMMIT), WANTED, notes())
    (Path(staging.path) / "boot_id").write_text("another boot")
    staging.open()
    for wanted in WANTED:
        assert Path(staging.part(wanted)).read_bytes() == FILES[wanted.path]
    assert not (Path(staging.path) / "tree").exists()


def test_a_disk_that_is_full_is_no_reason_for_a_copy(
    staging: Staging, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    fill(staging)
    monkeypatch.setattr(_staging.os, "link", refuse)
    with pytest.raises(OSError, match="full"):
        staging.publish(str(tmp_path / COMMIT), WANTED, notes())
    assert not (tmp_path / COMMIT).exists()


def test_bytes_of_the_same_boot_are_trusted(staging: Staging) -> None:
    Path(staging.part(MODEL)).write_bytes(WEIGHTS[:700])
    staging.open()
    assert staging.held_bytes(MODEL) == 700


@pytest.mark.parametrize(("synced", "left"), [(None, 0), (256, 256), (100_000, 700)])
def test_after_a_power_loss_only_synced_bytes_count(staging: Staging, synced: int | None, left: int) -> None:
    part = Path(staging.part(MODEL))
    part.write_bytes(WEIGHTS[:700])
    if synced is not None:
        staging.sync_part(MODEL, synced)
    fill_whole = WANTED[1]
    Path(staging.part(fill_whole)).write_bytes(FILES[fill_whole.path])
    staging.accept(fill_whole)
    (Path(staging.path) / "boot_id").write_text("another boot")
    staging.open()
    assert part.read_bytes() == WEIGHTS[:left]
    # It was synced before it got its name.
    assert staging.held_bytes(fill_whole) == fill_whole.size
    # Now it is this boot's again.
    part.write_bytes(WEIGHTS[:300])
    staging.open()
    assert staging.held_bytes(MODEL) == 300


def test_what_was_not_checked_is_not_taken_for_checked(tmp_path: Path) -> None:
    unchecked = Staging(str(tmp_path), "size")
    unchecked.open()
    Path(unchecked.part(MODEL)).write_bytes(WEIGHTS)
    unchecked.accept(MODEL)
    assert Path(unchecked.whole(MODEL)).exists()
    checking = Staging(str(tmp_path))
    checking.open()
    assert not Path(checking.whole(MODEL)).exists()
    assert Path(checking.part(MODEL)).read_bytes() == WEIGHTS


@pytest.mark.parametrize("there", ["checked", "unchecked"])
def test_what_is_whole_need_not_come_again_for_its_size(tmp_path: Path, there: str) -> None:
    before = Staging(str(tmp_path), "sha256" if there == "checked" else "size")
    before.open()
    Path(before.part(MODEL)).write_bytes(WEIGHTS)
    before.accept(MODEL)
    before.close()
    sizes = Staging(str(tmp_path), "size")
    sizes.open()
    assert sizes.held_bytes(MODEL) == len(WEIGHTS)
    # It is looked at once more: a disk can forget.
    assert not Path(sizes.whole(MODEL)).exists()


def test_what_another_snapshot_shares_is_never_written_to(staging: Staging, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(WEIGHTS)
    staging.link(str(tmp_path / "other"), MODEL)
    staging.close()
    (Path(staging.path) / "boot_id").write_text("another boot")
    staging.open()
    assert staging.held_bytes(MODEL) == 0, "it can be linked again"
    assert (tmp_path / "other").read_bytes() == WEIGHTS


def test_a_folder_that_does_not_say_its_boot_is_of_another_one(staging: Staging) -> None:
    Path(staging.part(MODEL)).write_bytes(WEIGHTS)
    (Path(staging.path) / "boot_id").unlink()
    staging.open()
    assert staging.held_bytes(MODEL) == 0


def test_a_note_that_is_no_number(staging: Staging) -> None:
    Path(staging.part(MODEL)).write_bytes(WEIGHTS)
    (Path(staging.path) / f"{MODEL.sha256}.synced").write_text("x")
    (Path(staging.path) / "boot_id").write_text("another boot")
    staging.open()
    assert staging.held_bytes(MODEL) == 0


def test_a_content_that_came_forgets_its_note(staging: Staging) -> None:
    Path(staging.part(MODEL)).write_bytes(WEIGHTS)
    staging.sync_part(MODEL, 5)
    assert Path(staging.path, f"{MODEL.sha256}.synced").read_text() == "5"
    staging.accept(MODEL)
    assert sorted(os.listdir(staging.path)) == sorted([MODEL.sha256, "boot_id"])
    staging.reject(MODEL)
    assert staging.held_bytes(MODEL) == len(WEIGHTS), "a part is rejected, not what was checked"


def test_nobody_else_sees_what_is_on_its_way(staging: Staging) -> None:
    assert Path(staging.path).stat().st_mode & 0o777 == 0o700


def test_a_link_replaces_a_part(staging: Staging, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(WEIGHTS)
    Path(staging.part(MODEL)).write_bytes(b"half")
    staging.sync_part(MODEL, 4)
    staging.link(str(tmp_path / "source"), MODEL)
    assert Path(staging.whole(MODEL)).samefile(tmp_path / "source")
    assert sorted(os.listdir(staging.path)) == sorted([MODEL.sha256, "boot_id"])


def test_what_stays_for_the_next_run(staging: Staging) -> None:
    part = Path(staging.part(MODEL))
    part.write_bytes(b"half")
    staging.close()
    assert part.read_bytes() == b"half"
    part.write_bytes(b"")
    staging.close()
    assert not Path(staging.path).exists(), "nothing in it is of use"


@pytest.mark.parametrize(("prune", "left"), [(False, {"part", "boot_id"}), (True, None)])
def test_contents_of_another_commit_wait_for_it(staging: Staging, prune: bool, left: set[str] | None) -> None:
    fill(staging)
    other = hub_file("other.safetensors", b"other")
    Path(staging.part(other)).write_bytes(b"oth")
    Path(staging.path, "xet").mkdir()
    staging.close(WANTED, prune=prune)
    if left is None:
        assert not Path(staging.path).exists()
    else:
        assert {name.rpartition(".")[2] for name in os.listdir(staging.path)} == left
        assert staging.held_bytes(other) == 3


def test_what_can_be_dropped_for_its_room(staging: Staging, tmp_path: Path) -> None:
    fill(staging)
    other = hub_file("other.safetensors", b"other")
    Path(staging.part(other)).write_bytes(b"oth")
    staging.sync_part(other, 1)
    # Another snapshot's file goes nowhere.
    linked = hub_file("linked.safetensors", b"linked")
    (tmp_path / "linked").write_bytes(b"linked")
    staging.link(str(tmp_path / "linked"), linked)
    (Path(staging.path) / "xet").mkdir()
    (Path(staging.path) / "xet" / "random.incomplete").write_bytes(b"12345")
    assert staging.idle_bytes(WANTED) == 3 + 1 + 5
    staging.drop_idle(WANTED)
    assert set(staging.contents()) == set(map(_snapshot.content_id, WANTED))


def test_a_second_name_of_a_killed_run_is_no_other_snapshots_file(staging: Staging) -> None:
    fill(staging)
    os.link(staging.whole(MODEL), Path(staging.path) / "new")
    staging.open()
    assert staging.held_bytes(MODEL) == len(WEIGHTS)


def test_half_a_tree_of_a_killed_run_is_built_anew(staging: Staging, tmp_path: Path) -> None:
    tree = Path(staging.path) / "tree"
    tree.mkdir()
    (tree / "stray.txt").write_text("stray")
    (Path(staging.path) / "new").write_text("stray")
    staging.open()
    fill(staging)
    staging.publish(str(tmp_path / COMMIT), WANTED, notes())
    assert set(read_files(tmp_path / COMMIT)) == {*FILES, ".snapshot.json"}
