"""Tests of the action plugins' loop that shows how far a module is, on a host and a clock that are played."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any
from unittest.mock import MagicMock

import pytest

from ansible_collections.llmops.vllm.plugins.action import hf_snapshot, vllm_probe
from ansible_collections.llmops.vllm.plugins.module_utils import _progress
from ansible_collections.llmops.vllm.plugins.plugin_utils import progress

JOB = {"ansible_job_id": "j1.2", "started": 1, "finished": 0, "results_file": "/home/admin/.ansible_async/j1.2"}
RESULT = {"changed": True, "commit": "9442"}
PROCESS = "4711 123456"


class Host:
    """A host on which the module writes the lines of `lines` (by the clock) and ends at `ends`.

    `dies`: its file stays. `gone`: when its process goes. `process`: how the file names it.
    """

    def __init__(
        self,
        ends: float,
        lines: dict[float, str],
        dies: bool = False,
        result: dict | None = None,
        gone: float | None = None,
        process: str = PROCESS,
    ):
        self.now = 1000.0
        self.began = self.now
        self.ends = ends
        self.lines = lines
        self.dies = dies
        self.gone = ends if gone is None else gone
        self.process = process
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
        there = command.startswith("cat ") and written and (self.dies or self.elapsed() < self.ends)
        code = 0 if there else 1
        if "grep" in command:
            assert command.endswith("; grep -q ') [^ZX] .* 123456 ' /proc/4711/stat")
            code = 0 if self.elapsed() < self.gone else 2
        return {"rc": code, "stdout": f"{self.process}\n{written[-1]}\n" if there else "", "stderr": ""}

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

    def without_file(command: str, sudoable: bool) -> dict[str, Any]:
        answer = cat(command, sudoable)
        return {**answer, "stdout": ""} if host.elapsed() >= 7 else answer

    host.command = without_file
    assert run(host) == RESULT
    assert 10 <= host.elapsed() <= 11


@pytest.mark.parametrize("dies", [True, False])
def test_a_module_that_is_killed_with_ansibles_own_process(run: Any, dies: bool) -> None:
    """Nobody is left who would write a result."""
    host = Host(ends=10_000, lines={0: "10 %"}, dies=True, gone=20)
    if not dies:
        # Its file is gone as well, such as after a restart that empties the folder.
        cat = host.command
        host.command = lambda *args, **kwargs: {**cat(*args, **kwargs), **({"stdout": ""} if host.now > 1015 else {})}
    assert run(host) == {
        "failed": True,
        "msg": "the module's process on gpu1 is gone without a result (killed, or the host was restarted): run again",
    }
    assert 20 + progress.LAST_WORDS <= host.elapsed() <= 20 + progress.LAST_WORDS + 2
    assert host.asked[-1] >= 20 + progress.LAST_WORDS, "a last look"
    assert host.commands[-1] == "rm -f /home/admin/.ansible_async/j1.2"


def test_a_result_that_comes_a_moment_after_the_process_has_gone(run: Any) -> None:
    host = Host(ends=25, lines={0: "10 %"}, dies=True, gone=20)
    assert run(host) == RESULT


@pytest.mark.parametrize(("process", "code"), [("-", 1), (PROCESS, 127), (PROCESS, 126)])
def test_where_nobody_can_tell_whether_it_is_there(run: Any, process: str, code: int) -> None:
    host = Host(ends=100, lines={0: "10 %"}, dies=True, process=process)
    command = host.command
    host.command = lambda text, sudoable: {**command(text, sudoable), "rc": code if "grep" in text else 0}
    assert run(host) == RESULT


def test_a_real_process_and_its_end() -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", f"from {_progress.__name__} import process; print(process(), flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    command = "true" + progress._and_is_there(progress.PROCESS.match(child.stdout.readline()))

    def answer() -> int:
        return subprocess.run(["sh", "-c", command], check=False, stderr=subprocess.DEVNULL).returncode

    assert answer() == 0
    child.stdin.close()
    # Dead, and not yet buried.
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert answer() in progress.GONE
    child.wait()
    assert answer() in progress.GONE
    child.stdout.close()


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
