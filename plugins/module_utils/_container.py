# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""State and log of a server's container, by Docker's SDK."""

from __future__ import annotations

import calendar
import re
import time
import traceback
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ansible_collections.llmops.vllm.plugins.module_utils._diagnosis import ContainerEnd

if TYPE_CHECKING:
    import docker.models.containers

try:
    import docker
    import docker.errors

    DOCKER_ERROR = None
except ImportError:
    DOCKER_ERROR = traceback.format_exc()

# A start prints a few hundred lines, the usage of an unknown option three hundred more.
_LOG_LINES = 5000
# A process can print before Docker has noted its start; Docker waits 0.1 s before it starts one again.
_EARLY = 0.09


class ContainerState:
    """One look at a container.

    running: bool; restarting: whether Docker is about to start it again; restarts: how often it
    did; restart_policy: Docker's, as a dict; end: ContainerEnd; started: seconds since 1970 of the
    last run, or 0.
    """

    def __init__(self, attrs: Mapping[str, Any]) -> None:
        state, host = attrs["State"], attrs.get("HostConfig") or {}
        self.restarting = bool(state.get("Restarting"))
        self.running = bool(state.get("Running")) and not self.restarting
        self.restarts = attrs.get("RestartCount") or 0
        self.restart_policy = host.get("RestartPolicy") or {"Name": "no"}
        self.started = _seconds(state.get("StartedAt") or "")
        self.end = ContainerEnd(
            status=state.get("Status") or "",
            exit_code=state.get("ExitCode") or 0,
            oom_killed=bool(state.get("OOMKilled")),
            error=state.get("Error") or "",
            memory=host.get("Memory") or 0,
        )


class Container:
    """The container of that name; raises docker's exceptions when Docker does not answer."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._client = docker.from_env()

    def state(self) -> ContainerState | None:
        """Return its ContainerState, or None when there is no such container."""
        container = self._get()
        return ContainerState(container.attrs) if container else None

    def log(self, state: ContainerState, lines: int | None = None, all_runs: bool = False) -> str:
        """Return the last lines of what its last run printed, or all of its runs."""
        container = self._get()
        if not container:
            return ""
        try:
            since = None if all_runs or not state.started else state.started - _EARLY
            said: bytes = container.logs(since=since, tail=lines or _LOG_LINES)
            return said.decode("utf-8", "replace")
        except docker.errors.APIError:
            return ""

    def set_restart_policy(self, policy: Mapping[str, Any]) -> None:
        """Have Docker start it again, or not; policy: Docker's, such as {"Name": "no"}."""
        container = self._get()
        if container:
            container.update(restart_policy=policy)

    def stop(self) -> None:
        """Stop it, and with that Docker's attempts to start it again."""
        container = self._get()
        if container:
            container.stop()

    def _get(self) -> Any:
        try:
            return self._client.containers.get(self.name)
        except docker.errors.NotFound:
            return None


def _seconds(timestamp: str) -> float:
    """Return Docker's time, such as 2026-11-22T21:53:10.123456789Z, in seconds since 1970, or 0 for none."""
    found = re.match(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(\.\d+)?", timestamp)
    if not found or found.group(1) == "0001":
        return 0
    whole = calendar.timegm(time.struct_time([int(part) for part in found.groups()[:6]] + [0, 0, 0]))
    return whole + float(found.group(7) or 0)
