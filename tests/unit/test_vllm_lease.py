"""Tests of the lease: who may have it, who may take it over, and what stands in the file."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.llmops.vllm.plugins.action import vllm_lease as action
from ansible_collections.llmops.vllm.plugins.module_utils._lease import LeaseError, LeaseFile, LeaseHeld, decide
from ansible_collections.llmops.vllm.plugins.modules import vllm_lease
from ansible_collections.llmops.vllm.plugins.modules.vllm_lease import HostLease

WISH = {"owner": "b", "holder": "bob@there", "controller": "c", "process": "1 2", "since": 100.0, "until": 200.0}


def lease(**other: Any) -> dict[str, Any]:
    return {**WISH, "owner": "a", "holder": "alice@here", "since": 50.0, "until": 150.0, **other}


@pytest.mark.parametrize(
    ("found", "take_over", "stands", "why"),
    [
        (None, "", WISH, ""),
        (lease(owner="b"), "", {**WISH, "since": 50.0}, ""),
        ({**WISH, "until": 300.0}, "", None, ""),
        (lease(until=100.0), "", WISH, "the lease of alice@here ran out at 1970-01-01 00:01:40 UTC"),
        (lease(), "a", WISH, "the lease of alice@here was taken over"),
    ],
)
def test_who_may_have_it(found: Any, take_over: str, stands: Any, why: str) -> None:
    assert decide(found, WISH, 100.0, take_over) == (stands, why)


@pytest.mark.parametrize("take_over", ["", "x", "any"])
def test_who_may_not(take_over: str) -> None:
    with pytest.raises(LeaseHeld, match="alice@here has a lease on this host since 1970-01-01 00:00:50 UTC, until"):
        decide(lease(), WISH, 100.0, take_over)


def host_lease(path: Path, owner: str, check_mode: bool = False, **other: Any) -> dict[str, Any]:
    params = {
        "path": str(path), "owner": owner, "state": "held", "take_over": "", "seconds": 60,
        "holder": owner, "controller": "c", "process": "1 2", **other,
    }  # fmt: skip
    return HostLease(params, check_mode).run()


def test_a_lease_is_held_refused_and_given_back(tmp_path: Path) -> None:
    path = tmp_path / "state" / "rollout.json"
    assert host_lease(path, "a")["changed"]
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(LeaseHeld):
        host_lease(path, "b")
    assert not host_lease(path, "b", state="released")["changed"]
    assert json.loads(path.read_text())["owner"] == "a"
    assert host_lease(path, "a", state="released")["changed"]
    assert not host_lease(path, "a", state="released")["changed"]
    assert host_lease(path, "b")["lease"]["owner"] == "b"
    assert host_lease(path, "a", take_over="b")["taken_over"] == "the lease of b was taken over"


def test_check_mode_only_looks(tmp_path: Path) -> None:
    path = tmp_path / "rollout.json"
    assert host_lease(path, "a", check_mode=True)["changed"]
    assert not list(tmp_path.iterdir())
    host_lease(path, "a")
    with pytest.raises(LeaseHeld):
        host_lease(path, "b", check_mode=True)
    assert host_lease(path, "a", check_mode=True, state="released")["changed"]
    assert path.exists()


def test_of_many_at_once_one_gets_it(tmp_path: Path) -> None:
    path, got = tmp_path / "rollout.json", []

    def run(owner: str) -> None:
        with contextlib.suppress(LeaseHeld):
            got.append(host_lease(path, owner)["lease"]["owner"])

    threads = [threading.Thread(target=run, args=(str(number),)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [json.loads(path.read_text())["owner"]]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"owner": "a"}'])
def test_a_file_that_is_no_lease_is_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rollout.json"
    path.write_text(text)
    with pytest.raises(LeaseError, match="is no lease: see what it is"):
        host_lease(path, "a")
    assert path.read_text() == text


def test_a_lease_that_cannot_be_written_is_no_lease(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LeaseError, match="cannot be used"):
        LeaseFile(str(tmp_path / "file" / "rollout.json")).locked().__enter__()


def test_a_process_is_told_from_a_later_one_of_its_number() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    known = action.process(child.pid)
    assert action.is_alive(known)
    assert not action.is_alive(f"{child.pid} 1")
    child.kill()
    child.wait()
    assert not action.is_alive(known)
    # Nothing is known: it may live.
    assert action.is_alive("") and action.is_alive("x")


class Module:
    """Answers as the module would on a host with this lease; its calls are kept."""

    def __init__(self, found: dict[str, Any]):
        self.found, self.calls = found, []

    def __call__(self, module_args: dict[str, Any], task_vars: Any) -> dict[str, Any]:
        self.calls.append(module_args)
        if module_args.get("take_over") == self.found["owner"]:
            return {"changed": True, "lease": {}, "held": False, "taken_over": "taken"}
        return {"failed": True, "held": True, "lease": self.found, "msg": "held by alice"}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Any:
    def start(found: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        plugin = action.ActionModule.__new__(action.ActionModule)
        plugin._task = type("Task", (), {"args": {"owner": "b"}, "async_val": 0})()
        module = Module(found)
        monkeypatch.setattr(plugin, "_execute_module", module)
        monkeypatch.setattr(action.ActionBase, "run", lambda self, tmp, task_vars: {})
        return plugin.run(None, {"inventory_hostname": "gpu1"}), module.calls

    return start


def test_a_dead_owner_of_this_controller_is_taken_over(run: Any) -> None:
    result, calls = run(lease(controller=action.controller(), process="999999999 1"))
    assert result["taken_over"] == "alice@here is dead: its lease was taken over" and not result.get("failed")
    assert [call.get("take_over") for call in calls] == [None, "a"]
    assert calls[0]["process"] == action.process(os.getppid())


@pytest.mark.parametrize("of", ["elsewhere", "here"])
def test_one_that_may_live_is_not(run: Any, of: str) -> None:
    found = lease(controller="another machine", process="999999999 1")
    if of == "here":
        found = lease(controller=action.controller(), process=action.process(os.getpid()))
    result, calls = run(found)
    assert result["failed"] and len(calls) == 1
    assert result["msg"] == (
        "held by alice: wait until it ends, or, when it is dead, run again with -e vllm_take_over=a"
    )


def test_a_lease_says_when_it_ends(tmp_path: Path) -> None:
    before = time.time()
    found = host_lease(tmp_path / "rollout.json", "a", seconds=100)["lease"]
    assert before + 100 <= found["until"] <= time.time() + 100


def test_as_a_module(run_module: Any, tmp_path: Path) -> None:
    path = str(tmp_path / "rollout.json")
    mine = {"path": path, "owner": "a", "holder": "alice@here"}
    held = run_module(vllm_lease.main, **mine)
    assert (held["changed"], held["held"], held["lease"]["holder"]) == (True, False, "alice@here")
    refused = run_module(vllm_lease.main, path=path, owner="b")
    assert (refused["failed"], refused["held"], refused["lease"]["owner"]) == (True, True, "a")
    assert refused["msg"].startswith("alice@here has a lease on this host since ")
    # Who does not hold it cannot give it back.
    assert not run_module(vllm_lease.main, path=path, owner="b", state="released")["changed"]
    assert run_module(vllm_lease.main, **mine, state="released")["changed"]
    assert not os.path.exists(path)


def test_a_file_that_is_no_lease_is_told_by_the_module(run_module: Any, tmp_path: Path) -> None:
    (tmp_path / "rollout.json").write_text("{}")
    result = run_module(vllm_lease.main, path=str(tmp_path / "rollout.json"), owner="a")
    assert result["failed"] and "is no lease: see what it is" in result["msg"]


def test_a_controller_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS: a process is known by its number alone, and whether it lives is asked of the system."""

    def no_file(*_args: Any, **_options: Any) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(action, "open", no_file, raising=False)
    monkeypatch.setattr(action.os, "readlink", no_file)
    monkeypatch.setattr(action.os.path, "isdir", lambda path: False)
    assert re.fullmatch(r"\S+ [0-9a-f]{12}", action.controller())
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    known = action.process(child.pid)
    assert known == str(child.pid)
    assert action.is_alive(known)
    child.kill()
    child.wait()
    assert not action.is_alive(known)

    def not_allowed(_number: int, _signal: int) -> None:
        raise PermissionError

    # Another user's is one that lives.
    monkeypatch.setattr(action.os, "kill", not_allowed)
    assert action.is_alive("1")
