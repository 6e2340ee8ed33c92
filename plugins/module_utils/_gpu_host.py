# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Files and tools of a host that tell of its GPUs. A tool that hangs in the driver is given up, not waited for."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any

from ansible_collections.llmops.vllm.plugins.module_utils import _gpu

# Where tools are that the PATH of a module may lack; the last is that of WSL.
_TOOL_FOLDERS = ("usr/local/bin", "usr/local/sbin", "usr/bin", "usr/sbin", "bin", "sbin", "usr/lib/wsl/lib")
# Where the driver's libraries are: Debian's own, Debian and Ubuntu, the RHEL family, the .run installer, NixOS, WSL.
_LIBRARY_FOLDERS = (
    "usr/lib/*-linux-gnu/nvidia/current",
    "usr/lib/*-linux-gnu",
    "usr/lib64",
    "usr/lib",
    "usr/local/lib64",
    "usr/local/lib",
    "run/opengl-driver/lib",
    "usr/lib/wsl/lib",
)
_OTHER_WORD_SIZE = ("i386-linux-gnu", "i686-linux-gnu")
# Seconds that what was killed may take to go. A process that waits in the driver stays until the driver answers.
_PATIENCE = 1


class Host:
    """A host. root: where its files begin. timeout: seconds that a tool may take."""

    def __init__(self, root: str, timeout: float) -> None:
        self.root, self.timeout = root, timeout

    def path(self, name: str) -> str:
        """Return the path of what has that name on the host."""
        return os.path.join(self.root, name.lstrip("/"))

    def read(self, name: str) -> str:
        """Return the text of a file, or '' where it cannot be read."""
        try:
            with open(self.path(name), encoding="utf-8", errors="replace") as stream:
                return stream.read()
        except OSError:
            return ""

    def exists(self, name: str) -> bool:
        return os.path.exists(self.path(name))

    def is_folder(self, name: str) -> bool:
        return os.path.isdir(self.path(name))

    def names(self, pattern: str) -> list[str]:
        """Return the paths, as on the host, that fit a pattern."""
        found = glob.glob(os.path.join(glob.escape(self.root), pattern))
        return sorted(os.path.join("/", os.path.relpath(path, self.root)) for path in found)

    def which(self, name: str) -> str:
        """Return the path of a tool, or ''."""
        folders = [os.environ.get("PATH", os.defpath)] + [self.path(folder) for folder in _TOOL_FOLDERS]
        return shutil.which(name, path=os.pathsep.join(folders)) or ""

    def run(self, name: str, *arguments: str) -> tuple[int, str, str] | None:
        """Return (exit code, stdout, stderr) of a tool, or None where it is not there; raises _gpu.Late."""
        tool = self.which(name)
        if not tool:
            return None
        try:
            process = subprocess.Popen(
                [tool] + list(arguments),
                env=dict(os.environ, LC_ALL="C"),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            return 126, "", str(error)
        try:
            output, errors = process.communicate(timeout=self.timeout)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_PATIENCE)
            for stream in (process.stdout, process.stderr):
                if stream:
                    stream.close()
            way_out = _gpu.HANGS if name == "nvidia-smi" else ""
            raise _gpu.Late(_gpu.late(" ".join((name,) + arguments), self.timeout, way_out)) from None
        return process.returncode, output.decode("utf-8", "replace"), errors.decode("utf-8", "replace")

    def pci_gpus(self) -> list[str]:
        """Return the kernel driver, or '', of each NVIDIA GPU on the PCI bus."""
        drivers = []
        for folder in self.names("sys/bus/pci/devices/*"):
            device_class = self.read(folder + "/class").strip()[:6]
            if self.read(folder + "/vendor").strip() == "0x10de" and device_class in ("0x0300", "0x0302"):
                driver = self.path(folder + "/driver")
                drivers.append(os.path.basename(os.path.realpath(driver)) if os.path.islink(driver) else "")
        return drivers

    def library_version(self) -> str:
        """Return the version of libnvidia-ml on the host, that of the link which programs load, or ''."""
        for folder in _LIBRARY_FOLDERS:
            for found in self.names(folder + "/libnvidia-ml.so*"):
                if not any(name in found for name in _OTHER_WORD_SIZE):
                    target = os.path.basename(os.path.realpath(self.path(found)))
                    version = _gpu.first_version(target.partition(".so")[2])
                    if version:
                        return version
        return ""


def apart(function: Callable[[], Any], timeout: float) -> Any:
    """Return what a function returns, run in a process of its own, since a driver that hangs cannot be interrupted.

    Raises _gpu.Late, or RuntimeError where that process has ended without an answer.
    """
    receiving, sending = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(receiving)
            answer = json.dumps(function()).encode("utf-8")
            with os.fdopen(sending, "wb") as stream:
                stream.write(answer)
            code = 0
        finally:
            # Without what the parent would do at its end.
            os._exit(code)
    os.close(sending)
    received, deadline = [], time.monotonic() + timeout
    try:
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([receiving], [], [], left)[0]:
                raise _gpu.Late(_gpu.late("NVML", timeout, _gpu.HANGS))
            data = os.read(receiving, 65536)
            if not data:
                break
            received.append(data)
    finally:
        os.close(receiving)
        _reap(pid)
    if not received:
        raise RuntimeError("NVML ended without an answer")
    return json.loads(b"".join(received).decode("utf-8"))


def _reap(pid: int) -> None:
    deadline = time.monotonic() + _PATIENCE
    # One that has answered goes by itself; one that has not is killed.
    os.kill(pid, signal.SIGKILL)
    while os.waitpid(pid, os.WNOHANG)[0] == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
