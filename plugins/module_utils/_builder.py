# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""How this host builds: which command reaches BuildKit, what the machine gives, and a build that is watched."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import IO, cast

# The first Docker whose own BuildKit reads heredocs, and whose client leaves BuildKit to the plugin buildx.
HEREDOC_DOCKER = 23
# Seconds that a command has to end by itself.
PATIENCE = 10


class BuildError(Exception):
    """One sentence that says what is wrong and what to do."""


def build_command(server: str, client: str, has_buildx: bool, heredocs: bool) -> tuple[list[str], dict[str, str]]:
    """Return (the first words of a build by BuildKit, its environment), or raise BuildError.

    server, client: versions of Docker's daemon and of its command. heredocs: whether the Dockerfile has any.
    """
    if heredocs and _major(server) < HEREDOC_DOCKER:
        raise BuildError(
            "the Dockerfile has heredocs (RUN <<EOF), which Docker %s cannot read: build on a host with Docker %d or "
            "newer, or pull the image" % (server, HEREDOC_DOCKER)
        )
    if has_buildx:
        # The builder of the daemon itself: another one would not see the images of the host.
        return ["docker", "buildx", "build", "--builder", "default", "--load"], {"BUILDX_NO_DEFAULT_ATTESTATIONS": "1"}
    if _major(client) < HEREDOC_DOCKER:
        return ["docker", "build"], {"DOCKER_BUILDKIT": "1"}
    raise BuildError(
        "Docker %s builds with BuildKit only by its plugin buildx, which is not there: install it (docker-buildx on "
        "Debian and Ubuntu, docker-buildx-plugin from Docker's own packages)" % client
    )


def machine() -> tuple[int, int]:
    """Return (cores, bytes of memory); not what is free now: a number of jobs that changes misses BuildKit's cache."""
    with open("/proc/meminfo", encoding="utf-8") as stream:
        sizes = dict(re.findall(r"^(\w+):\s+(\d+) kB", stream.read(), re.MULTILINE))
    return len(os.sched_getaffinity(0)), int(sizes["MemTotal"]) * 1024


def refuse_small_disk(folder: str, min_free: int) -> None:
    """Raise BuildError unless so many megabytes are free where Docker keeps its images."""
    free = shutil.disk_usage(folder).free // 10**6
    if free < min_free:
        raise BuildError(
            "%s has %d MB free, the build needs %d MB: free space there, or lower vllm_image_build_min_free if you "
            "know better" % (folder, free, min_free)
        )


@contextlib.contextmanager
def alone(path: str, timeout: float, say: Callable[[str], object]) -> Iterator[None]:
    """Hold a lock while the block runs, having waited for others of this host's runs, so many seconds at most."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        deadline = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                say("waiting for another run that builds on this host")
                if time.monotonic() > deadline:
                    raise BuildError(
                        "another run has been building on this host for %d s: wait for its end, or raise "
                        "vllm_image_timeout" % timeout
                    ) from None
                time.sleep(1)
        yield
    finally:
        os.close(fd)


def watch(argv: list[str], environment: Mapping[str, str], timeout: float, heed: Callable[[str], object]) -> int | None:
    """Run a command and give each line of its output to heed(); return its exit code, or None when it took too long.

    A command that is given up is ended with all that it started.
    """
    process = subprocess.Popen(
        argv,
        env=dict(os.environ, **environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    # A pipe was asked for.
    output = cast(IO[bytes], process.stdout)
    late = threading.Event()

    def give_up() -> None:
        late.set()
        _end(process)

    timer = threading.Timer(timeout, give_up)
    timer.start()
    try:
        for line in output:
            # What it says of its being ended is no news.
            if not late.is_set():
                heed(line.decode("utf-8", "replace").rstrip("\n"))
        code = process.wait()
        return None if late.is_set() else code
    except BaseException:
        _end(process)
        raise
    finally:
        timer.cancel()
        timer.join()
        output.close()


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a command and what it started, which may outlive it: buildx is a process of its own."""
    # Asked to end, Docker's command tells the daemon to end the build as well.
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + PATIENCE
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
            while time.monotonic() < deadline:
                time.sleep(0.05)
                process.poll()
                os.killpg(process.pid, 0)
            continue
        return


def _major(version: str) -> int:
    found = re.match(r"\d+", version)
    return int(found.group()) if found else 0
