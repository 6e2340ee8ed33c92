"""Writes down what a run costs: each module that is run on a host, and the CPU time of each play on the controller.

    ANSIBLE_CALLBACK_PLUGINS=tests/support/callback ANSIBLE_CALLBACKS_ENABLED=module_runs MODULE_RUNS_FILE=FILE

A line of FILE is a JSON object: {"play", "role", "task", "host", "module", "number"} for each run of a module, where
the runs of one task on one host have the same number, or {"play", "cpu"} with the seconds of a play. What an action
does on the controller alone is no run of a module: assert, set_fact, include, debug, add_host and the like.
"""

from __future__ import annotations

import functools
import json
import os
import resource
from typing import Any

from ansible.playbook.play import Play
from ansible.playbook.task import Task
from ansible.plugins.action import ActionBase
from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: module_runs
type: aggregate
short_description: Counts runs of modules
version_added: 0.2.0
description: Counts runs of modules, and the CPU time of plays.
"""


def cpu_seconds() -> float:
    """Of this process and of all that it has waited for."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "module_runs"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self.path = os.environ["MODULE_RUNS_FILE"]
        self.play = ""
        self.number = 0
        self.began = cpu_seconds()
        self._watch()

    def _watch(self) -> None:
        """Have each run of a module noted; the workers, where they run, are forks of this process."""
        run = ActionBase._execute_module

        @functools.wraps(run)
        def noted(action: ActionBase, module_name: str | None = None, *args: Any, **kwargs: Any) -> Any:
            task = action._task
            self._note(
                role=task._role.get_name() if task._role else "",
                task=task.get_name(),
                host=(kwargs.get("task_vars") or {}).get("inventory_hostname", ""),
                module=module_name or task.action,
                number=self.number,
            )
            return run(action, module_name, *args, **kwargs)

        ActionBase._execute_module = noted  # type: ignore[method-assign, assignment]  # in the place of the real one

    def _note(self, **what: Any) -> None:
        # One write, so that workers do not write into each other's lines.
        with open(self.path, "ab", buffering=0) as stream:
            stream.write(json.dumps({"play": self.play, **what}).encode() + b"\n")

    def _next_play(self, name: str) -> None:
        now = cpu_seconds()
        self._note(cpu=round(now - self.began, 3))
        self.play, self.began = name, now

    def v2_playbook_on_play_start(self, play: Play) -> None:
        self._next_play(play.get_name())

    def v2_playbook_on_task_start(self, task: Task, is_conditional: bool) -> None:
        self.number += 1

    def v2_playbook_on_stats(self, stats: object) -> None:
        self._next_play("")
