# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The Docker daemon of this host: what it answers on its socket, and how it is reloaded and restarted.

Without any package of Python, since it is asked before anything is installed.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from typing import Any

PID_FILES = ("/var/run/docker.pid", "/run/llmops-vllm-dockerd.pid")


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a socket of this host."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Daemon:
    """A running dockerd: what it answers, since when it runs, and how it is reloaded and restarted."""

    def __init__(self, path: str, timeout: float) -> None:
        self.path = path
        self.timeout = timeout
        self.launch: dict[str, Any] = {}
        self.log = os.devnull
        self.info = self.ask("/info")
        self.pid = self._pid() if self.info else None
        self.arguments = self._read("cmdline") if self.pid else []

    def ask(self, path: str, method: str = "GET") -> Any:
        """Return the answer to a request, or None where there is none."""
        connection = UnixConnection(self.path, 30)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            body = answer.read()
            return json.loads(body or "{}") if answer.status < 400 else None
        except (OSError, http.client.HTTPException, ValueError):
            return None
        finally:
            connection.close()

    def running(self) -> dict[str, str]:
        """Return the containers that run, by name."""
        found = self.ask("/containers/json")
        if found is None:
            # As if nothing ran would be a way to a restart under what serves.
            raise OSError("Docker does not tell which containers run: see its log, and run again")
        return {(each.get("Names") or [each["Id"]])[0].lstrip("/"): each["Id"] for each in found}

    def started(self) -> float:
        """Return when it was started, seconds of the clock."""
        with open("/proc/%d/stat" % self._known(), encoding="utf-8", errors="replace") as stream:
            # The name, in parentheses, may have spaces.
            ticks = int(stream.read().rpartition(")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
        return time.time() - age

    def argument(self, name: str) -> str | None:
        """Return the value of one of its arguments, or None."""
        for number, argument in enumerate(self.arguments):
            if argument.startswith(name + "="):
                return argument.partition("=")[2]
            if argument == name and number + 1 < len(self.arguments):
                return self.arguments[number + 1]
        return None

    def is_alive(self) -> bool:
        """Whether there is a process of it, answering or not."""
        return self._pid() is not None

    def reload(self) -> None:
        """Let it read its file again."""
        # It is another process after a restart.
        self.pid = self._pid() or self.pid
        os.kill(self._known(), signal.SIGHUP)

    def restart(self) -> bool:
        """Restart it, by systemd or as it was started; return whether it answers."""
        if os.path.isdir("/run/systemd/system"):
            # Several restarts in a short time are no reason for systemd to refuse this one.
            subprocess.run(["systemctl", "reset-failed", "docker.service"], check=False, capture_output=True)
            done = subprocess.run(["systemctl", "restart", "docker.service"], check=False, capture_output=True)
            return done.returncode == 0 and self.answers(self.timeout)
        if not self.launch:
            pid = self._known()
            output = os.readlink("/proc/%d/fd/1" % pid)
            self.launch = {
                "args": self.arguments,
                "executable": os.readlink("/proc/%d/exe" % pid).replace(" (deleted)", ""),
                "env": dict(setting.split("=", 1) for setting in self._read("environ") if "=" in setting),
            }
            self.log = output if os.path.isfile(output) else os.devnull
            os.kill(pid, signal.SIGTERM)
            deadline = time.monotonic() + self.timeout
            while os.path.exists("/proc/%d" % pid) and time.monotonic() < deadline:
                time.sleep(0.1)
        with open(self.log, "ab") as log:
            subprocess.Popen(
                **self.launch, cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        return self.answers(self.timeout)

    def answers(self, seconds: float) -> bool:
        """Wait until it answers; return whether it does."""
        deadline = time.monotonic() + seconds
        while not self.ask("/info"):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.3)
        return True

    def last_words(self) -> str:
        """Return what it said last about why it does not start, or ''."""
        if self.log != os.devnull:
            with open(self.log, encoding="utf-8", errors="replace") as stream:
                said = stream.read()[-8192:]
        elif shutil.which("journalctl"):
            command = ["journalctl", "--unit=docker.service", "--lines=40", "--output=cat", "--no-pager"]
            said = subprocess.run(command, check=False, capture_output=True, text=True).stdout
        else:
            return ""
        lines = [
            line for line in said.splitlines() if re.search(r"failed to start|unable to|configur|level=fatal", line)
        ]
        return lines[-1].strip() if lines else ""

    def is_elsewhere(self) -> bool:
        """Whether something else than the unit docker.service runs it on a host with systemd."""
        if not os.path.isdir("/run/systemd/system"):
            return False
        return subprocess.run(["systemctl", "is-active", "--quiet", "docker.service"], check=False).returncode != 0

    def _known(self) -> int:
        """Return the number of its process; callers see to it that there is one."""
        if self.pid is None:
            raise OSError("no process of Docker is known (%s): look for it where it runs" % " and ".join(PID_FILES))
        return self.pid

    def _pid(self) -> int | None:
        for path in PID_FILES:
            try:
                with open(path, encoding="utf-8") as stream:
                    pid = int(stream.read())
                with open("/proc/%d/comm" % pid, encoding="utf-8") as stream:
                    if stream.read().strip() == "dockerd":
                        return pid
            except (OSError, ValueError):
                continue
        return None

    def _read(self, name: str) -> list[str]:
        """Return a list that the kernel keeps of its process."""
        with open("/proc/%d/%s" % (self._known(), name), encoding="utf-8", errors="surrogateescape") as stream:
            return stream.read().rstrip("\0").split("\0")


def orphans() -> int:
    """Return how many containers of a Docker that does not answer live on."""
    count = 0
    for name in os.listdir("/proc"):
        try:
            with open("/proc/%s/cmdline" % name, "rb") as stream:
                arguments = stream.read().split(b"\0")
        except OSError:
            continue
        count += b"containerd-shim" in arguments[0] and b"moby" in arguments
    return count
