# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Runs a module on the host and shows how far it is, line by line.

Ansible shows a task's output when it has ended. A module that takes minutes writes a line
into a file (module_utils/_progress.py); here it is started in the background, and the line
is read and printed when it has changed. Without a file, the module is complete in itself.
"""

from __future__ import annotations

import re
import secrets
import shlex
import time
from collections.abc import Mapping
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

display = Display()

# Seconds between two printed lines, and between two looks at the file.
PRINT_INTERVAL = 5.0
LOOK_INTERVAL = 1.0
# Seconds after which async_status is asked even if the progress file is still there.
STATUS_INTERVAL = 15.0
# Seconds that a result may take to appear when the module's process is gone.
LAST_WORDS = 10.0
# How module_utils/_progress.py names a process.
PROCESS = re.compile(r"(\d+) (\d+)\s*\Z")
# What grep ends with when a line is not there, or its file; others say that it could not look.
GONE = (1, 2)
# The limit of the background job: the module's own timeouts end it, not this one.
JOB_LIMIT = 7 * 24 * 3600


class ProgressActionBase(ActionBase):
    """An action plugin that is its module plus progress lines."""

    _supports_check_mode = True
    _supports_async = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result = super().run(tmp, task_vars)
        if self._task.check_mode or self._task.async_val:
            result.update(self._execute_module(task_vars=task_vars, wrap_async=bool(self._task.async_val)))
            return result
        result.update(self._run_with_progress(task_vars or {}))
        return result

    def _run_with_progress(self, task_vars: dict[str, Any]) -> dict[str, Any]:
        async_dir = self.get_shell_option("async_dir", default="~/.ansible_async")
        progress_file = f"{async_dir}/progress-{secrets.token_hex(8)}"
        self._task.async_val = JOB_LIMIT
        try:
            job: dict[str, Any] = self._execute_module(
                module_args={**self._task.args, "progress_file": progress_file}, task_vars=task_vars, wrap_async=True
            )
        finally:
            self._task.async_val = 0
        if not job.get("ansible_job_id"):
            return job
        status = self._watch(job, progress_file, task_vars)
        self._low_level_execute_command(f"rm -f {shlex.quote(job['results_file'])}", sudoable=True)
        for internal in ("ansible_job_id", "started", "finished", "results_file", "stdout", "stderr"):
            status.pop(internal, None)
        return status

    def _watch(self, job: dict[str, Any], progress_file: str, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Print lines until the module has ended, and return its result."""
        host = task_vars["inventory_hostname"]
        process, seen_file, shown, shown_at, gone_at = None, False, "", 0.0, None
        asked_at = time.monotonic()
        while True:
            now = time.monotonic()
            # Unquoted: async_dir begins with a tilde, the rest is ours.
            answer = self._low_level_execute_command(f"cat {progress_file}" + _and_is_there(process), sudoable=True)
            named, dummy, line = answer["stdout"].partition("\n")
            line = line.strip()
            if named:
                seen_file, process = True, process or PROCESS.match(named)
                if line and line != shown and now - shown_at >= PRINT_INTERVAL:
                    display.display(f"  [{host}] {line}")
                    shown, shown_at = line, now
            gone = process and answer["rc"] in GONE
            if gone or not named or now - asked_at >= STATUS_INTERVAL:
                asked_at = now
                status = self._status(job, task_vars)
                if _has_ended(status):
                    return status
            # Its result is written a moment after its end, unless Ansible's own process was killed with it.
            gone_at = (gone_at or now) if gone else None
            if gone_at and now - gone_at >= LAST_WORDS:
                self._low_level_execute_command(f"rm -f {progress_file}", sudoable=True)
                message = f"the module's process on {host} is gone without a result (killed, or the host was restarted)"
                return {"failed": True, "msg": f"{message}: run again"}
            time.sleep(LOOK_INTERVAL if seen_file else 0.2)

    def _status(self, job: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        status: dict[str, Any] = self._execute_module(
            module_name="ansible.builtin.async_status",
            module_args={"jid": job["ansible_job_id"], "_async_dir": job["results_file"].rpartition("/")[0]},
            task_vars=task_vars,
        )
        return status


def _and_is_there(process: re.Match[str] | None) -> str:
    """Return a shell command that ends with one of GONE unless a process is there and alive.

    Not kill -0: it succeeds for a dead one too, for another one with its number, and fails for another user's.
    """
    if not process:
        return ""
    number, start = process.groups()
    return f"; grep -q ') [^ZX] .* {start} ' /proc/{number}/stat"


def _has_ended(status: Mapping[str, Any]) -> bool:
    """Return whether the job has ended, or async_status itself has failed and will not know better next time."""
    return bool(status.get("finished") or status.get("failed"))
