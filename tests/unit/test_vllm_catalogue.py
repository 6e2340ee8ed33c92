"""Tests of the action plugin vllm_catalogue: the inventory's patterns, the lock file, check mode."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from ansible.errors import AnsibleActionFail
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.lookup.inventory_hostnames import LookupModule

from ansible_collections.llmops.vllm.plugins.action import vllm_catalogue
from ansible_collections.llmops.vllm.plugins.plugin_utils.lock import read_lock, write_lock

ONE, TWO = "1" * 40, "2e" * 20
GROUPS = {"all": ["gpu1", "gpu2", "lb1"], "ungrouped": [], "vllm": ["gpu1", "gpu2"], "lb": ["lb1"]}
MAIN = {
    "repo_id": "org/name",
    "revision": "main",
    "allow_patterns": [],
    "ignore_patterns": [],
    "weights": "safetensors_only",
}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    def start(*deployments: Any, check_mode: bool = False, **args: Any) -> dict[str, Any]:
        base = {"deployments": list(deployments), "lock_file": str(tmp_path / "lock"), "default_image": "image:1"}
        task = MagicMock(args={**base, **args}, check_mode=check_mode, async_val=0)
        plugin = vllm_catalogue.ActionModule(task, MagicMock(), MagicMock(), DataLoader(), MagicMock(), MagicMock())
        # Ansible's own lookup; to find it by its name its loader wants to be set up as by ansible-playbook.
        lookups = MagicMock(get=lambda name, loader, templar: LookupModule(loader=loader, templar=templar))
        monkeypatch.setattr(vllm_catalogue, "lookup_loader", lookups)
        monkeypatch.setattr(vllm_catalogue.ActionBase, "run", lambda self, tmp, task_vars: {})
        hostvars = MagicMock(raw_get=lambda host: {"vllm_deployments": list(deployments)})
        return plugin.run(task_vars={"groups": GROUPS, "hostvars": hostvars, "inventory_hostname": "gpu1"})

    return start


def one(**keys: Any) -> dict[str, Any]:
    return {"name": "chat", "model": {"repo_id": "org/name"}, **keys}


@pytest.mark.parametrize(
    ("pattern", "hosts"),
    [
        ("vllm", ["gpu1", "gpu2"]),
        ("gpu1", ["gpu1"]),
        ("gpu1,lb", ["gpu1", "lb1"]),
        ("all:!lb", ["gpu1", "gpu2"]),
        ("gpu*", ["gpu1", "gpu2"]),
        ("vllm[0]", ["gpu1"]),
    ],
)
def test_a_pattern_is_one_of_the_inventory(run: Any, pattern: str, hosts: list[str]) -> None:
    (deployment,) = run(one(hosts=pattern))["deployments"]
    assert (deployment["hosts"], deployment["pattern"]) == (hosts, pattern)


@pytest.mark.parametrize("pattern", ["gpu9", "vllm:&lb", "!all", "localhost", "127.0.0.1"])
def test_a_pattern_without_a_host(run: Any, pattern: str) -> None:
    """Ansible knows a localhost of its own, on which nothing of ours would run."""
    with pytest.raises(AnsibleActionFail, match=r"matches no host of the inventory: name a group or a host of it$"):
        run(one(hosts=pattern))


def test_the_lock_file(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first = run(one())
    assert (first["changed"], first["unlocked"]) == (False, [MAIN])
    assert "diff" not in first
    assert not path.exists()

    for check_mode in (True, False):
        locked = run(one(), resolved=[{**MAIN, "commit": ONE, "path": "/x"}], check_mode=check_mode)
        assert (locked["changed"], locked["unlocked"]) == (True, [])
        assert locked["deployments"][0]["model"]["commit"] == ONE
        assert (locked["diff"]["before"], ONE in locked["diff"]["after"]) == ("", True)
        assert path.exists() != check_mode
    assert read_lock(str(path))["snapshots"] == locked["lock"]["snapshots"] == {"org/name": {"main": ONE}}

    again = run(one(), resolved=[{**MAIN, "commit": ONE}])
    assert (again["changed"], again["unlocked"]) == (False, [])
    assert not run(one())["changed"]

    # To be resolved anew; the file changes with the answer alone.
    update = run(one(), update=True)
    assert (update["changed"], update["unlocked"]) == (False, [MAIN])
    assert update["lock"] == {"snapshots": {}, "sources": {}, "images": {}}
    assert run(one(), resolved=[{**MAIN, "commit": TWO}])["changed"]
    assert run(one())["deployments"][0]["model"]["commit"] == TWO


def test_a_broken_catalogue_locks_nothing(run: Any, tmp_path: Path) -> None:
    with pytest.raises(AnsibleActionFail, match=r"^1 problem in the inventory:\n- deployment 'chat': port 0 is not"):
        run(one(port=0), resolved=[{**MAIN, "commit": ONE}])
    assert not (tmp_path / "lock").exists()


def test_a_lock_file_that_is_none(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text("{")
    with pytest.raises(AnsibleActionFail) as caught:
        run(one())
    # Once, and without what PyYAML says of it.
    assert str(caught.value) == f"{path} is no lock file: restore it, or delete it to lock anew"


@pytest.mark.parametrize("name", ["", "no/such/folder/lock"])
def test_a_path_that_cannot_be_a_lock_file(run: Any, tmp_path: Path, name: str) -> None:
    with pytest.raises(AnsibleActionFail) as caught:
        run(one(), lock_file=str(tmp_path / name), resolved=[{**MAIN, "commit": ONE}])
    assert str(caught.value).startswith("the lock file cannot be used: [Errno ")
    assert str(caught.value).endswith("; set vllm_lock_file to another path")


def test_an_old_lock_is_kept(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "lock"
    lock = {"snapshots": {"org/gone": {"main": ONE}}, "sources": {"/srv/vllm": {"v1": ONE}}, "images": {}}
    write_lock(str(path), lock)
    run(one(), resolved=[{**MAIN, "commit": TWO}])
    snapshots = {"org/gone": {"main": ONE}, "org/name": {"main": TWO}}
    assert read_lock(str(path)) == {**lock, "snapshots": snapshots}


def test_images_are_locked_as_well(run: Any, tmp_path: Path) -> None:
    digest = "sha256:" + "3c" * 32
    run(one(), resolved=[{"image": "vllm/vllm-openai", "tag": "v0.32.0", "digest": digest}])
    assert run(one())["lock"]["images"] == {"vllm/vllm-openai": {"v0.32.0": digest}}
