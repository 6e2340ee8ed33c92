"""Tests of how a host builds, with real processes: who holds the lock, and what is left of a build that is given up."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import wait_until

from ansible_collections.llmops.vllm.plugins.module_utils import _builder
from ansible_collections.llmops.vllm.plugins.module_utils._builder import BuildError, alone, build_command, watch

BUILDX = (
    ["docker", "buildx", "build", "--builder", "default", "--load"],
    {"BUILDX_NO_DEFAULT_ATTESTATIONS": "1"},
)
BUILDKIT = (["docker", "build"], {"DOCKER_BUILDKIT": "1"})
HEREDOCS = (
    "the Dockerfile has heredocs (RUN <<EOF), which Docker 20.10.24+dfsg1 cannot read: build on a host with Docker 23 "
    "or newer, or pull the image"
)
NO_BUILDX = (
    "Docker 26.1.5+dfsg1 builds with BuildKit only by its plugin buildx, which is not there: install it (docker-buildx "
    "on Debian and Ubuntu, docker-buildx-plugin from Docker's own packages)"
)
DEBIAN_12, DEBIAN_13 = "20.10.24+dfsg1", "26.1.5+dfsg1"


@pytest.mark.parametrize(
    ("server", "client", "has_buildx", "heredocs", "command"),
    [
        (DEBIAN_12, DEBIAN_12, False, False, BUILDKIT),
        (DEBIAN_12, DEBIAN_12, True, False, BUILDX),
        (DEBIAN_13, DEBIAN_13, True, False, BUILDX),
        (DEBIAN_13, DEBIAN_13, True, True, BUILDX),
        ("23.0.0", "23.0.0", True, True, BUILDX),
        # An old client gives a new daemon what it reads itself.
        (DEBIAN_13, DEBIAN_12, False, True, BUILDKIT),
        ("", "", False, False, BUILDKIT),
        (DEBIAN_12, DEBIAN_12, False, True, HEREDOCS),
        # It is the daemon's BuildKit that reads it, whatever the client is.
        (DEBIAN_12, DEBIAN_13, True, True, HEREDOCS),
        (DEBIAN_13, DEBIAN_13, False, False, NO_BUILDX),
        ("23.0.0", "23.0.0", False, False, NO_BUILDX.replace(DEBIAN_13, "23.0.0")),
    ],
)
def test_the_command(server: str, client: str, has_buildx: bool, heredocs: bool, command: Any) -> None:
    if isinstance(command, str):
        with pytest.raises(BuildError) as refused:
            build_command(server, client, has_buildx, heredocs)
        assert str(refused.value) == command
    else:
        assert build_command(server, client, has_buildx, heredocs) == command


def test_the_machine() -> None:
    cores, memory = _builder.machine()
    assert cores == len(os.sched_getaffinity(0))
    assert memory == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def test_a_small_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = {"bytes": 60_000_999_999}
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: type("Usage", (), {"free": free["bytes"]}))
    _builder.refuse_small_disk("/var/lib/docker", 0)
    _builder.refuse_small_disk("/var/lib/docker", 60000)
    with pytest.raises(BuildError) as refused:
        _builder.refuse_small_disk("/var/lib/docker", 60001)
    assert str(refused.value) == (
        "/var/lib/docker has 60000 MB free, the build needs 60001 MB: free space there, or lower "
        "vllm_image_build_min_free if you know better"
    )
    monkeypatch.undo()
    with pytest.raises(BuildError, match=str(tmp_path)):
        _builder.refuse_small_disk(str(tmp_path), 10**12)


HOLDER = """
import fcntl, sys
stream = open(sys.argv[1], "w")
fcntl.flock(stream, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the lock, until its input ends."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path / "lock")], **pipes) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_lock_that_nobody_holds(tmp_path: Path) -> None:
    path, said = tmp_path / "lock", []
    for _dummy in range(2):
        with alone(str(path), 0, said.append), pytest.raises(BuildError), alone(str(path), 0, lambda _line: None):
            pytest.fail("two have it")
    with pytest.raises(ZeroDivisionError), alone(str(path), 0, said.append):
        raise ZeroDivisionError
    with alone(str(path), 0, said.append):
        assert path.stat().st_mode & 0o777 == 0o600
    assert said == []


def test_what_a_build_starts_does_not_keep_the_lock(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    with alone(path, 0, print):
        left = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        with alone(path, 0, print):
            assert left.poll() is None
    finally:
        left.kill()
        left.wait()


def test_others_are_waited_for(tmp_path: Path, holder: subprocess.Popen[str]) -> None:
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        # Now they end.
        holder.stdin.close()
        holder.wait()

    with alone(str(tmp_path / "lock"), 20, say):
        assert said == ["waiting for another run that builds on this host"]


@pytest.mark.parametrize("timeout", [0, 1])
def test_others_that_take_too_long(tmp_path: Path, holder: subprocess.Popen[str], timeout: int) -> None:
    began = time.monotonic()
    with (
        pytest.raises(BuildError) as refused,
        alone(str(tmp_path / "lock"), timeout, lambda _line: None),
    ):
        pytest.fail("two have it")
    assert str(refused.value) == (
        f"another run has been building on this host for {timeout} s: wait for its end, or raise vllm_image_timeout"
    )
    assert timeout <= time.monotonic() - began
    assert holder.poll() is None


def shell(script: str, timeout: float = 30, **environment: str) -> tuple[int | None, list[str]]:
    """Return what watch() says of a script, and what it heard."""
    lines: list[str] = []
    return watch(["sh", "-c", script], environment, timeout, lines.append), lines


@pytest.mark.parametrize(
    ("script", "code", "lines"),
    [
        ("true", 0, []),
        ("exit 3", 3, []),
        ("echo one; echo two >&2; echo; printf three; exit 1", 1, ["one", "two", "", "three"]),
        ("printf 'a\\r\\n'", 0, ["a\r"]),
        ("printf 'l\\303\\266sen \\377\\376 x\\n'", 0, ["lösen \ufffd\ufffd x"]),
        # It asks nobody.
        ("read -r answer || echo nobody", 0, ["nobody"]),
        ('echo "$ADDED:${HOME:+kept}"', 0, ["yes:kept"]),
        ("kill -9 $$", -9, []),
    ],
)
def test_output_and_exit_code(script: str, code: int, lines: list[str]) -> None:
    assert shell(script, ADDED="yes") == (code, lines)


def test_a_command_that_is_not_there() -> None:
    with pytest.raises(FileNotFoundError, match="no-such-command"):
        watch(["no-such-command"], {}, 1, print)


def test_lines_come_while_it_runs(tmp_path: Path) -> None:
    go = tmp_path / "go"
    heard: list[str] = []

    def heed(line: str) -> None:
        heard.append(line)
        go.touch()

    script = 'echo one; while [ ! -e "$GO" ]; do sleep 0.01; done; echo two'
    assert watch(["sh", "-c", script], {"GO": str(go)}, 20, heed) == 0
    assert heard == ["one", "two"]


def is_there(number: str) -> bool:
    """Return whether a process lives; one that nobody has taken notice of does not."""
    try:
        state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


# Each says the numbers of its processes; the shell lets what it starts in the background ignore interrupts.
GIVEN_UP = {
    "obeys": "echo $$; exec sleep 60",
    "does not obey": "echo $$; trap '' TERM; while :; do sleep 60; done",
    "has started others": "echo $$; sleep 60 & echo $!; wait",
    "obeys, and what it started does not": "sh -c 'trap \"\" TERM; echo $$; exec sleep 60' & echo $$; exec sleep 60",
    "has ended before what it started": "sleep 60 & echo $!",
    "has started what says nothing": "sleep 60 >/dev/null 2>&1 & echo $!; echo $$; exec sleep 60",
}


@pytest.mark.parametrize("script", GIVEN_UP.values(), ids=GIVEN_UP.keys())
def test_a_command_that_takes_too_long_is_ended_with_all_that_it_started(
    monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    monkeypatch.setattr(_builder, "PATIENCE", 0.5)
    began = time.monotonic()
    code, numbers = shell(script, timeout=0.5)
    assert code is None
    assert len(numbers) == script.count("echo")
    assert not any(is_there(number) for number in numbers)
    assert time.monotonic() - began < 30


def test_it_is_asked_to_end_first_and_what_it_says_then_is_no_news(tmp_path: Path) -> None:
    """Docker's command tells the daemon to end the build."""
    told = tmp_path / "told"
    script = (
        'trap \'sleep 0.2; echo "ERROR: canceled"; touch "$TOLD"; exit 1\' TERM; echo up; while :; do sleep 0.05; done'
    )
    assert shell(script, timeout=0.5, TOLD=str(told)) == (None, ["up"])
    assert told.exists()


def test_it_is_ended_where_its_lines_cannot_be_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_builder, "PATIENCE", 0.5)
    numbers: list[str] = []

    def heed(line: str) -> None:
        numbers.append(line)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        watch(["sh", "-c", "echo $$; trap '' TERM; while :; do sleep 60; done"], {}, 30, heed)
    wait_until(lambda: not is_there(numbers[0]), 2)


def test_what_it_leaves_behind_by_design_stays() -> None:
    code, (number,) = shell("sleep 60 >/dev/null 2>&1 & echo $!")
    assert (code, is_there(number)) == (0, True)
    os.kill(int(number), 9)
