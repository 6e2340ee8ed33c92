"""Tests of the action plugins' loop that shows how far a module is, on a host and a clock that are played."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import MagicMock

import pytest

from ansible_collections.llmops.vllm.plugins.action import hf_snapshot, vllm_probe
from ansible_collections.llmops.vllm.plugins.plugin_utils import progress

JOB = {"ansible_job_id": "j1.2", "started": 1, "finished": 0, "results_file": "/home/admin/.ansible_async/j1.2"}
RESULT = {"changed": True, "commit": "9442"}
NO_FILE = {"rc": 1, "stdout": "", "stderr": "No such file or directory"}


class Host:
    """A host on which the module writes the lines of `lines` (by the clock) and ends at `ends`."""

    def __init__(self, ends: float, lines: dict[float, str], dies: bool = False, result: dict | None = None):
        self.now = 1000.0
        self.began = self.now
        self.ends = ends
        self.lines = lines
        self.dies = dies
        self.result = RESULT if result is None else result
        self.job = JOB
        self.commands: list[str] = []
        self.modules: list[tuple[str | None, dict, bool]] = []
        self.in_check_mode: list[bool] = []
        self.asked: list[float] = []
        self.shown: list[tuple[float, str]] = []

    def elapsed(self) -> float:
        return round(self.now - self.began, 3)

    def command(self, command: str, sudoable: bool) -> dict[str, Any]:
        assert sudoable
        self.commands.append(command)
        written = [line for at, line in sorted(self.lines.items()) if at <= self.elapsed()]
        if command.startswith("cat ") and written and (self.dies or self.elapsed() < self.ends):
            return {"rc": 0, "stdout": written[-1] + "\n", "stderr": ""}
        return NO_FILE

    def module(
        self, module_name: str | None = None, module_args: dict | None = None, wrap_async: bool = False, **_other: Any
    ) -> dict[str, Any]:
        self.modules.append((module_name, module_args, wrap_async))
        self.in_check_mode.append(self.task.check_mode)
        if module_name != "ansible.builtin.async_status":
            return dict(self.job) if wrap_async else dict(self.result)
        self.asked.append(self.elapsed())
        if self.elapsed() < self.ends:
            return {**JOB, "finished": False}
        return {**self.result, "ansible_job_id": "j1.2", "finished": True, "started": True, "stdout": "", "stderr": ""}

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        assert self.elapsed() < 10_000, "it does not come to an end"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    def start(
        host: Host, action: Any = hf_snapshot, check_mode: bool = False, async_val: int = 0, **args: Any
    ) -> dict[str, Any]:
        task = MagicMock(args={"repo_id": "org/name", **args}, check_mode=check_mode, async_val=async_val, diff=False)
        host.task = task
        plugin = action.ActionModule(task, MagicMock(), MagicMock(), MagicMock(), MagicMock(), MagicMock())
        monkeypatch.setattr(progress.ActionBase, "run", lambda self, tmp, task_vars: {})
        monkeypatch.setattr(plugin, "_execute_module", host.module)
        monkeypatch.setattr(plugin, "_low_level_execute_command", host.command)
        monkeypatch.setattr(plugin, "get_shell_option", lambda name, default: default)
        monkeypatch.setattr(progress.time, "sleep", host.sleep)
        monkeypatch.setattr(progress.time, "monotonic", lambda: host.now)
        monkeypatch.setattr(progress.display, "display", lambda text: host.shown.append((host.elapsed(), text)))
        result = plugin.run(task_vars={"inventory_hostname": "gpu1"})
        assert (task.async_val, task.check_mode) == (async_val, check_mode)
        return result

    return start


@pytest.mark.parametrize("action", [hf_snapshot, vllm_probe])
def test_lines_are_shown_on_change_and_not_too_often(run: Any, action: Any) -> None:
    host = Host(ends=30, lines={0.5: "", 1: "0 %", 2: "10 %", 3: "20 %", 4: "30 %", 20: "90 %"})
    assert run(host, action) == RESULT
    texts = [text for _at, text in host.shown]
    assert texts == ["  [gpu1] 0 %", "  [gpu1] 30 %", "  [gpu1] 90 %"]
    times = [at for at, _text in host.shown]
    assert all(later - earlier >= progress.PRINT_INTERVAL for earlier, later in zip(times, times[1:], strict=False))
    name, args, wrap_async = host.modules[0]
    assert (name, wrap_async, args["repo_id"]) == (None, True, "org/name")
    assert args["progress_file"].startswith("~/.ansible_async/progress-")
    assert host.commands[0] == f"cat {args['progress_file']}"
    assert host.commands[-1] == "rm -f /home/admin/.ansible_async/j1.2"
    # Seldom, since it copies a module; the look at the file is the quick one.
    assert len([at for at in host.asked if at > 1]) <= 30 / progress.STATUS_INTERVAL + 1


def test_the_file_is_another_one_each_time(run: Any) -> None:
    hosts = [Host(ends=0, lines={}) for _number in range(2)]
    for host in hosts:
        run(host)
    assert hosts[0].modules[0][1]["progress_file"] != hosts[1].modules[0][1]["progress_file"]


def test_a_module_that_is_quicker_than_the_look(run: Any) -> None:
    host = Host(ends=0, lines={0: "never seen"})
    assert run(host) == RESULT
    assert host.shown == []
    assert host.elapsed() < 1


def test_a_module_that_is_killed_leaves_its_file(run: Any) -> None:
    host = Host(ends=20, lines={0: "10 %"}, dies=True, result={"failed": True, "msg": "killed"})
    assert run(host) == {"failed": True, "msg": "killed"}
    assert host.elapsed() <= 20 + progress.STATUS_INTERVAL + 1
    assert len(host.shown) == 1


def test_the_file_goes_a_moment_before_the_result_is_written(run: Any) -> None:
    host = Host(ends=10, lines={0: "10 %"})
    cat = host.command
    host.command = lambda command, sudoable: NO_FILE if host.elapsed() >= 7 else cat(command, sudoable)
    assert run(host) == RESULT
    assert 10 <= host.elapsed() <= 11


def test_a_status_that_cannot_be_had_is_told(run: Any) -> None:
    host = Host(ends=5, lines={0: "10 %"})
    module = host.module
    broken = {"failed": True, "msg": "MODULE FAILURE", "rc": 1}

    def failing(module_name: str | None = None, **others: Any) -> dict[str, Any]:
        return dict(broken) if module_name else module(module_name, **others)

    host.module = failing
    assert run(host) == broken


def test_a_job_that_does_not_start_is_told(run: Any) -> None:
    host = Host(ends=5, lines={})
    host.job = {"failed": True, "msg": "no python"}
    assert run(host) == host.job
    assert host.commands == []


@pytest.mark.parametrize(("check_mode", "async_val"), [(True, 0), (False, 60), (True, 60)])
def test_check_mode_and_a_users_own_async_run_the_module_alone(run: Any, check_mode: bool, async_val: int) -> None:
    host = Host(ends=0, lines={})
    result = run(host, check_mode=check_mode, async_val=async_val)
    assert result == (JOB if async_val else RESULT)
    assert host.modules == [(None, None, bool(async_val))]
    assert host.commands == []


PINNED = "944226b32a548845453fd9fb0889d5af1443340c"


@pytest.mark.parametrize(
    "found", [{"changed": False, "commit": PINNED}, {"failed": True, "msg": "gated"}, {"failed": True, "changed": True}]
)
def test_a_pinned_snapshot_that_needs_no_work_needs_no_job(run: Any, found: dict[str, Any]) -> None:
    host = Host(ends=0, lines={}, result=found)
    assert run(host, revision=PINNED) == found
    assert (host.modules, host.in_check_mode, host.commands) == ([(None, None, False)], [True], [])


def test_a_pinned_snapshot_that_needs_work(run: Any) -> None:
    host = Host(ends=5, lines={0: "10 %"})
    assert run(host, revision=PINNED) == RESULT
    assert host.in_check_mode[:2] == [True, False]
    assert [wrap_async for _name, _args, wrap_async in host.modules[:2]] == [False, True]
    assert len(host.shown) == 1


def test_a_look_that_fails_badly_leaves_the_task_as_it_was(run: Any) -> None:
    host = Host(ends=0, lines={})

    def unreachable(**_others: Any) -> dict[str, Any]:
        assert host.task.check_mode
        raise ConnectionError("the host is gone")

    host.module = unreachable
    with pytest.raises(ConnectionError):
        run(host, revision=PINNED)
    assert (host.task.check_mode, host.task.async_val, host.commands) == (False, 0, [])


@pytest.mark.parametrize("check_mode", [True, False])
def test_a_pinned_snapshot_is_looked_at_once(run: Any, check_mode: bool) -> None:
    host = Host(ends=0, lines={}, result={"changed": False})
    run(host, check_mode=check_mode, revision=PINNED, state="present")
    assert len(host.modules) == 1


@pytest.mark.parametrize(
    "args",
    [{}, {"revision": "main"}, {"revision": PINNED, "state": "verified"}, {"revision": PINNED, "state": "absent"}],
)
def test_a_look_that_could_cost_something_is_none(run: Any, args: dict[str, str]) -> None:
    """A branch would be asked for twice, and all contents be read twice."""
    host = Host(ends=0, lines={})
    run(host, **args)
    assert host.modules[0][2], "it begins with the job"
    assert True not in host.in_check_mode
