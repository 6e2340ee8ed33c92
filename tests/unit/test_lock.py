"""Tests of the lock file, which is also a source of the inventory."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.template import trust_as_template
from ansible.utils.display import Display

from ansible_collections.llmops.vllm.plugins.plugin_utils.lock import (
    HEADER,
    LockError,
    merge,
    read_lock,
    render,
    write_lock,
)

ONE, TWO = "1" * 40, "2e" * 20
DIGEST = "sha256:" + "3c" * 32
EMPTY = {"snapshots": {}, "sources": {}, "images": {}}
COMMITS = {"org/name": {"main": ONE, "1.0": TWO, "on": ONE, "feature/x": TWO}, "org/a": {"2024-01-01": TWO}}
LOCK = {
    "snapshots": COMMITS,
    "sources": {"https://git.example.com/vllm.git": {"v0.32.0": ONE}},
    "images": {"vllm/vllm-openai": {"v0.32.0": DIGEST}},
}


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "vllm.lock.yml"
    assert read_lock(str(path)) == EMPTY
    write_lock(str(path), LOCK)
    assert read_lock(str(path)) == LOCK
    assert path.read_text() == render(LOCK)
    assert path.stat().st_mode & 0o777 == 0o644
    write_lock(str(path), EMPTY)
    assert read_lock(str(path)) == EMPTY
    assert [entry.name for entry in tmp_path.iterdir()] == ["vllm.lock.yml"]


def test_one_of_an_older_release_has_snapshots_alone(tmp_path: Path) -> None:
    path = tmp_path / "vllm.lock.yml"
    path.write_text(render(dict(EMPTY, snapshots=COMMITS)))
    assert "sources" not in path.read_text()
    assert read_lock(str(path)) == dict(EMPTY, snapshots=COMMITS)


def test_a_name_without_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_lock("vllm.lock.yml", LOCK)
    assert read_lock("vllm.lock.yml") == LOCK


def test_the_text_is_stable() -> None:
    backwards = {repo: dict(reversed(revisions.items())) for repo, revisions in reversed(COMMITS.items())}
    assert render(dict(LOCK, snapshots=backwards)) == render(LOCK)
    assert render(EMPTY).startswith(HEADER)
    # Only 40 digits stay text.
    assert yaml.safe_load(render({"snapshots": {"o/n": {"main": ONE}}}))["all"]["vars"]["vllm_lock"] == {
        "snapshots": {"o/n": {"main": ONE}}
    }


@pytest.mark.parametrize(
    ("commits", "resolved", "merged"),
    [
        ({}, [], {}),
        ({"o/n": {"main": ONE}}, [], {"o/n": {"main": ONE}}),
        ({}, [{"repo_id": "o/n", "revision": "main", "commit": ONE, "changed": True}], {"o/n": {"main": ONE}}),
        (
            {"o/n": {"main": ONE, "v1": ONE}, "o/m": {"main": ONE}},
            [
                {"repo_id": "o/n", "revision": "main", "commit": TWO},
                {"repo_id": "o/n", "revision": "v2", "commit": TWO},
            ],
            {"o/n": {"main": TWO, "v1": ONE, "v2": TWO}, "o/m": {"main": ONE}},
        ),
    ],
)
def test_merge(commits: dict, resolved: list, merged: dict) -> None:
    lock = dict(LOCK, snapshots={repo: dict(revisions) for repo, revisions in commits.items()})
    assert merge(lock, resolved) == dict(LOCK, snapshots=merged)
    assert lock["snapshots"] == commits


def test_merge_knows_the_parts_by_their_keys() -> None:
    resolved = [
        {"repository": "/srv/vllm", "ref": "main", "commit": TWO},
        {"image": "vllm/vllm-openai", "tag": "v0.33.0", "digest": DIGEST},
        {"image": "vllm/vllm-openai", "tag": "v0.32.0", "digest": "sha256:" + "4d" * 32},
    ]
    merged = merge(LOCK, resolved)
    assert merged["snapshots"] == COMMITS
    assert merged["sources"] == {**LOCK["sources"], "/srv/vllm": {"main": TWO}}
    assert merged["images"] == {"vllm/vllm-openai": {"v0.32.0": "sha256:" + "4d" * 32, "v0.33.0": DIGEST}}


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "- a list",
        "text",
        "5",
        "all: {}",
        "all: {vars: {vllm_lock: }}",
        "all: {vars: {vllm_lock: {snapshots: }}}",
        "all: {vars: {vllm_lock: {snapshots: []}}}",
        "all: {vars: {vllm_lock: {snapshots: {org/name: main}}}}",
        "all: {vars: {vllm_lock: {snapshots: {org/name: {main: latest}}}}}",
        "all: {vars: {vllm_lock: {snapshots: {org/name: {main: }}}}}",
        "all: {vars: {vllm_lock: {snapshots: {org/name: {main: %s}}}}}" % ONE,  # a number, as it is not quoted
        "all: {vars: {vllm_lock: {images: {org/name: {main: latest}}}}}",
        "all: {vars: {vllm_lock: {engines: {}}}}",
        render(LOCK).replace("org/a:", "<<<<<<< HEAD\n      org/a:"),
        "all: !vault x",
        b"\xff\xfe\x00",
        b"\x00",
    ],
)
def test_a_broken_file_gives_the_sentence(tmp_path: Path, content: str | bytes) -> None:
    path = tmp_path / "vllm.lock.yml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(LockError) as caught:
        read_lock(str(path))
    assert str(caught.value) == f"{path} is no lock file: restore it, or delete it to lock anew"


@pytest.mark.parametrize("content", ["", "---\n", "# only words\n"])
def test_an_empty_file_locks_nothing(tmp_path: Path, content: str) -> None:
    path = tmp_path / "vllm.lock.yml"
    path.write_text(content)
    assert read_lock(str(path)) == EMPTY


def test_a_failed_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "vllm.lock.yml"
    write_lock(str(path), LOCK)

    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space left"):
        write_lock(str(path), EMPTY)
    assert [entry.name for entry in tmp_path.iterdir()] == ["vllm.lock.yml"]
    assert read_lock(str(path)) == LOCK


@pytest.mark.parametrize("written", [LOCK, EMPTY])
@pytest.mark.parametrize("source", ["folder", "file"])
def test_it_is_a_source_of_the_inventory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: dict, source: str
) -> None:
    said: list[str] = []
    for method in ("warning", "error", "deprecated"):
        monkeypatch.setattr(Display, method, lambda self, msg, *args, **kwargs: said.append(str(msg)))
    lock = tmp_path / "vllm.lock.yml"
    write_lock(str(lock), written)
    if source == "folder":
        (tmp_path / "hosts.yml").write_text("vllm: {hosts: {gpu1: }}\n")
    inventory = InventoryManager(DataLoader(), sources=[str(tmp_path if source == "folder" else lock)])
    assert said == []
    assert set(inventory.groups) == {"all", "ungrouped"} | ({"vllm"} if source == "folder" else set())
    assert [host.name for host in inventory.get_hosts()] == (["gpu1"] if source == "folder" else [])
    assert inventory.groups["all"].get_vars()["vllm_lock"] == (LOCK if written == LOCK else {"snapshots": {}})


def test_ansibles_own_kind_of_text_can_be_written() -> None:
    resolved = {
        key: trust_as_template(text) for key, text in (("repo_id", "o/n"), ("revision", "main"), ("commit", ONE))
    }
    assert render(merge(EMPTY, [resolved])) == render({"snapshots": {"o/n": {"main": ONE}}})
