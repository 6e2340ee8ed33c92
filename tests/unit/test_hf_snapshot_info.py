"""Tests of the module hf_snapshot_info: what it says of what hf_snapshot left on the disk."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import FILES, REPOSITORY, write_files
from hub import Fault, Hub

from ansible_collections.llmops.vllm.plugins.module_utils import _snapshot
from ansible_collections.llmops.vllm.plugins.modules import hf_snapshot_info


@pytest.fixture
def info(run_module: Any, dest: Path) -> Any:
    def run(folder: Path | None = None, **params: Any) -> dict[str, Any]:
        result = run_module(hf_snapshot_info.main, dest=str(folder or dest), **params)
        assert not result.get("changed")
        return result

    return run


def test_nothing_is_there(info: Any, dest: Path) -> None:
    result = info()
    assert (result["failed"], result["snapshots"], result["incomplete"]) == (False, [], [])
    assert not dest.exists()


@pytest.mark.parametrize("above", [False, True])
def test_a_snapshot(info: Any, snapshot: Any, served: Hub, dest: Path, above: bool) -> None:
    made = snapshot(served)
    (found,) = info(dest.parent if above else dest, check_mode=True)["snapshots"]
    assert found["completed_at"] == found["verified_at"] == made["verified_at"]
    assert {key: found[key] for key in found if key not in ("completed_at", "verified_at")} == {
        "dest": str(dest),
        "path": made["path"],
        "commit": made["commit"],
        "repo_id": REPOSITORY,
        "repo_type": "model",
        "endpoint": served.url,
        "complete": True,
        "wrong": [],
        "files": len(FILES),
        "bytes_total": sum(map(len, FILES.values())),
        "verified": True,
    }


def test_it_needs_no_library(info: Any, snapshot: Any, served: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot(served)
    for library in ("huggingface_hub", "requests"):
        monkeypatch.setitem(sys.modules, library, None)
    assert info()["snapshots"][0]["complete"]


def test_not_verified(info: Any, snapshot: Any, served: Hub) -> None:
    snapshot(served, verify="size")
    (found,) = info()["snapshots"]
    assert (found["complete"], found["verified"], found["verified_at"]) == (True, False, "")


def test_damaged_and_unknown_ones(info: Any, snapshot: Any, served: Hub, dest: Path) -> None:
    commit = snapshot(served)["commit"]
    (dest / commit / "config.json").unlink()
    (dest / commit / "model.safetensors").write_bytes(b"x")
    write_files(dest / ("1" * 40), FILES)
    known, unknown = sorted(info()["snapshots"], key=lambda found: found["repo_id"] is None)
    assert (known["complete"], known["wrong"]) == (
        False,
        ["config.json is missing", "model.safetensors has 1 bytes, the Hub lists 10240"],
    )
    assert (unknown["complete"], unknown["repo_id"], unknown["repo_type"], unknown["endpoint"]) == (False,) + (
        None,
    ) * 3
    assert unknown["wrong"] == [".snapshot.json is missing"]


def test_what_an_unfinished_run_left(info: Any, snapshot: Any, served: Hub, dest: Path) -> None:
    served.faults += [Fault(path="model.safetensors", close_after=5000), Fault(path="model.safetensors", status=403)]
    assert snapshot(served, max_workers=1)["failed"]
    (left,) = info(dest.parent)["incomplete"]
    assert left["dest"] == str(dest)
    assert 5000 <= left["bytes"] < 6000


def test_who_is_not_root_sees_the_snapshots(
    info: Any, snapshot: Any, served: Hub, dest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot(served)
    staging, listdir = dest / ".incomplete", os.listdir
    staging.mkdir()

    def denied(path: str) -> list[str]:
        if Path(path) == staging:
            raise PermissionError(13, "Permission denied", path)
        return listdir(path)

    monkeypatch.setattr(hf_snapshot_info.os, "listdir", denied)
    monkeypatch.setattr(hf_snapshot_info.os, "access", lambda path, _mode: Path(path) != staging)
    result = info()
    assert len(result["snapshots"]) == 1
    assert result["incomplete"] == [{"dest": str(dest), "bytes": None}]


def test_one_that_goes_meanwhile_is_none(
    info: Any, snapshot: Any, served: Hub, dest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = snapshot(served)["commit"]
    content_errors = _snapshot.content_errors

    def pruned(*args: Any) -> dict[str, str]:
        _snapshot.remove_tree(str(dest / commit))
        return content_errors(*args)

    monkeypatch.setattr(_snapshot, "content_errors", pruned)
    assert info()["snapshots"] == []


def test_each_manifest_is_read_once(info: Any, snapshot: Any, served: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot(served)
    read, read_manifest = [], _snapshot.read_manifest
    monkeypatch.setattr(_snapshot, "read_manifest", lambda folder: (read.append(folder), read_manifest(folder))[1])
    assert info()["snapshots"][0]["complete"]
    assert len(read) == 1


def test_a_dataset(info: Any, snapshot: Any, root: Path) -> None:
    write_files(root / "datasets" / REPOSITORY, {"data.bin": b"x"})
    with Hub(root) as hub:
        snapshot(hub, repo_type="dataset")
    (found,) = info()["snapshots"]
    assert (found["repo_type"], found["files"], found["bytes_total"]) == ("dataset", 1, 1)


def test_the_newest_of_each_folder_comes_first(info: Any, snapshot: Any, served: Hub, dest: Path, root: Path) -> None:
    write_files(root / "org" / "other", {"config.json": b"{}"})
    other = dest.with_name("aaa")
    snapshot(served, repo_id="org/other", dest=str(other))
    made = []
    for day in (3, 1, 2):
        (root / REPOSITORY / "config.json").write_text(f"{day}")
        made.append(snapshot(served)["commit"])
        notes = dest / made[-1] / ".snapshot.json"
        notes.write_text(
            re.sub(r'"completed_at": "[^"]*"', f'"completed_at": "2026-01-0{day}T00:00:00Z"', notes.read_text())
        )
    found = info(dest.parent)["snapshots"]
    assert [one["dest"] for one in found] == [str(other), *[str(dest)] * 3]
    assert [one["commit"] for one in found[1:]] == [made[0], made[2], made[1]]
    assert found[1]["completed_at"] == "2026-01-03T00:00:00Z"


def test_contents_are_not_read(info: Any, snapshot: Any, served: Hub, dest: Path) -> None:
    """Damage with the same size is for state=verified to find."""
    commit = snapshot(served)["commit"]
    (dest / commit / "config.json").write_bytes(b"[]\n")
    (dest / commit / "more.txt").write_text("somebody's own")
    (found,) = info()["snapshots"]
    assert (found["complete"], found["wrong"]) == (True, [])


def test_a_file_is_no_folder(info: Any, dest: Path) -> None:
    write_files(dest.parent, {dest.name: b"a file"})
    assert info()["snapshots"] == []


def test_a_folder_that_may_not_be_read(info: Any, dest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dest.mkdir(parents=True)

    def denied(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(hf_snapshot_info.os, "listdir", denied)
    result = info()
    assert (result["failed"], result["msg"]) == (True, f"{dest} may not be read: become root")


def test_several_repositories(info: Any, snapshot: Any, served: Hub, dest: Path, root: Path) -> None:
    write_files(root / "org" / "other", {"config.json": b"{}"})
    snapshot(served)
    snapshot(served, repo_id="org/other", dest=str(dest.with_name("org--other")))
    (dest.parent / "stray.txt").write_text("stray")
    assert [found["repo_id"] for found in info(dest.parent)["snapshots"]] == ["org/name", "org/other"]
