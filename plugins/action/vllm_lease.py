# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)

from __future__ import annotations

import getpass
import os
import socket
import uuid
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

display = Display()


class ActionModule(ActionBase):
    """Tells the module who the owner is, and takes over the lease of one that ran here and is dead."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        task_vars = task_vars or {}
        result = super().run(tmp, task_vars)
        # The playbook's own process; this is a worker of it.
        owner = os.getppid()
        here = controller()
        args = {
            **self._task.args,
            "holder": "%s@%s (process %d)" % (getpass.getuser(), socket.gethostname(), owner),
            "controller": here,
            "process": process(owner),
        }
        found = self._execute_module(module_args=args, task_vars=task_vars)
        if found.get("held"):
            lease = found["lease"]
            if lease["controller"] == here and not is_alive(lease["process"]):
                dead = lease["holder"]
                found = self._execute_module(module_args={**args, "take_over": lease["owner"]}, task_vars=task_vars)
                if not found.get("failed"):
                    found["taken_over"] = "%s is dead: its lease was taken over" % dead
            if found.get("held"):
                found["msg"] += (
                    ": wait until it ends, or, when it is dead, run again with -e vllm_take_over=%s"
                    % (found["lease"]["owner"])
                )
        if found.get("taken_over"):
            display.display("  [%s] %s" % (task_vars.get("inventory_hostname", ""), found["taken_over"]))
        result.update(found)
        return result


def controller() -> str:
    """Return what tells this machine, since its last boot, from any other."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as stream:
            boot = stream.read().strip()
    except OSError:
        boot = "%012x" % uuid.getnode()
    # Two containers of one machine have the same boot, and not the same processes.
    try:
        return "%s %s %s" % (socket.gethostname(), boot, os.readlink("/proc/self/ns/pid"))
    except OSError:
        return "%s %s" % (socket.gethostname(), boot)


def process(number: int) -> str:
    """Return what tells a process from another one that has its number later; its number alone where nothing does."""
    try:
        with open("/proc/%d/stat" % number, encoding="utf-8", errors="replace") as stream:
            # Behind the name, which may contain anything.
            return "%d %s" % (number, stream.read().rpartition(")")[2].split()[19])
    except OSError:
        return str(number)


def is_alive(known: str) -> bool:
    """Return whether a process, as process() has told it, still runs."""
    number = known.split()[0] if known else ""
    if not number.isdigit():
        return True
    if not os.path.isdir("/proc/self"):
        try:
            os.kill(int(number), 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True
    return os.path.isdir("/proc/%s" % number) and process(int(number)) == known
