"""Tests of the Docker daemon of a host, with a process in its place: what it answers, reloads, restarts, last words."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import wait_until

from ansible_collections.llmops.vllm.plugins.module_utils import _dockerd

# Answers as dockerd does, counts how often it was reloaded, and ends when it is asked to.
DAEMON = """
import http.server, json, os, pathlib, signal, socketserver, sys

folder = pathlib.Path(sys.argv[1])
if (folder / "broken").exists():
    print('level=info msg="Starting up"\\nfailed to start daemon: no such storage driver', flush=True)
    sys.exit(1)
reloads = []
signal.signal(signal.SIGHUP, lambda *_: reloads.append(1))
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        answers = {
            "/info": {"ServerVersion": "26.1.5", "reloads": len(reloads), "setting": os.environ.get("SETTING")},
            "/containers/json": [{"Id": "c1", "Names": ["/vllm"]}, {"Id": "c2"}],
        }
        body = json.dumps(answers.get(self.path)).encode()
        self.send_response(200 if self.path in answers else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    address_string = lambda self: "docker"
    log_message = lambda self, *_: None

(folder / "docker.sock").unlink(missing_ok=True)
server = socketserver.ThreadingUnixStreamServer(str(folder / "docker.sock"), Handler)
(folder / "docker.pid").write_text(str(os.getpid()))
server.serve_forever(0.02)
"""


@pytest.fixture
def without_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    systemd(monkeypatch, False)


def systemd(monkeypatch: pytest.MonkeyPatch, runs: bool) -> None:
    isdir = os.path.isdir
    monkeypatch.setattr(_dockerd.os.path, "isdir", lambda path: runs if path == "/run/systemd/system" else isdir(path))


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a host's socket, process number and log."""
    monkeypatch.setattr(_dockerd, "PID_FILES", (str(tmp_path / "none.pid"), str(tmp_path / "docker.pid")))
    (tmp_path / "daemon.py").write_text(DAEMON)
    # The name by which the kernel knows a process is that of the file that was started.
    (tmp_path / "dockerd").symlink_to(sys.executable)
    return tmp_path


@pytest.fixture
def started(host: Path) -> Iterator[subprocess.Popen[bytes]]:
    argv = ["dockerd", str(host / "daemon.py"), str(host), "--config-file=/srv/a.json", "--data-root", "/data"]
    # By that name Python does not find its library.
    env = {**os.environ, "SETTING": "kept", "PYTHONHOME": sys.base_prefix}
    with open(host / "docker.log", "wb") as log:
        child = subprocess.Popen(argv, executable=host / "dockerd", env=env, stdout=log, stderr=log)
    wait_until(lambda: _dockerd.Daemon(str(host / "docker.sock"), 5).pid)
    yield child
    child.kill()
    child.wait()
    number = int((host / "docker.pid").read_text())
    if number != child.pid:
        os.kill(number, 9)


def daemon(host: Path, timeout: float = 10) -> _dockerd.Daemon:
    return _dockerd.Daemon(str(host / "docker.sock"), timeout)


def test_what_it_says_of_itself(host: Path, started: subprocess.Popen[bytes]) -> None:
    found = daemon(host)
    assert (found.pid, found.info["ServerVersion"], found.is_alive()) == (started.pid, "26.1.5", True)
    assert found.running() == {"vllm": "c1", "c2": "c2"}
    assert found.argument("--config-file") == "/srv/a.json"
    assert found.argument("--data-root") == "/data"
    assert (found.argument("--host"), found.ask("/nothing")) == (None, None)
    assert abs(found.started() - time.time()) < 60


def test_one_that_is_not_there(host: Path) -> None:
    found = daemon(host, timeout=0.1)
    assert (found.info, found.pid, found.arguments, found.is_alive()) == (None, None, [], False)
    assert not found.answers(0)
    with pytest.raises(OSError, match=r"^Docker does not tell which containers run: see its log, and run again$"):
        found.running()
    with pytest.raises(OSError, match=r"^no process of Docker is known \(.*docker\.pid\): look for it where it runs$"):
        found.reload()


def test_a_number_that_is_another_process_by_now(host: Path) -> None:
    (host / "docker.pid").write_text(str(os.getpid()))
    assert not daemon(host).is_alive()
    (host / "docker.pid").write_text("none")
    assert not daemon(host).is_alive()


def test_a_reload(host: Path, started: subprocess.Popen[bytes]) -> None:
    found = daemon(host)
    found.reload()
    wait_until(lambda: found.ask("/info")["reloads"] == 1)
    assert found.pid == started.pid


def test_a_restart_starts_it_as_it_was(
    host: Path, started: subprocess.Popen[bytes], without_systemd: None, reaped: Callable[[subprocess.Popen], None]
) -> None:
    found = daemon(host)
    reaped(started)
    assert found.restart()
    assert found.ask("/info") == {"ServerVersion": "26.1.5", "reloads": 0, "setting": "kept"}
    number = int((host / "docker.pid").read_text())
    assert number != started.pid
    arguments = Path(f"/proc/{number}/cmdline").read_text().rstrip("\0").split("\0")
    assert arguments == found.arguments
    assert os.readlink(f"/proc/{number}/fd/1") == str(host / "docker.log")


def test_one_that_does_not_come_back(
    host: Path, started: subprocess.Popen[bytes], without_systemd: None, reaped: Callable[[subprocess.Popen], None]
) -> None:
    found = daemon(host, timeout=1)
    (host / "broken").touch()
    reaped(started)
    assert not found.restart()
    assert found.last_words() == "failed to start daemon: no such storage driver"
    # What was learned of the first one is enough for another attempt.
    (host / "broken").unlink()
    assert found.restart()


@pytest.fixture
def reaped() -> Callable[[subprocess.Popen], None]:
    """Takes notice of the end of a child: as init does of Docker's, whose number would stay otherwise."""

    def begin(child: subprocess.Popen) -> None:
        threading.Thread(target=child.wait, daemon=True).start()

    return begin


@pytest.mark.parametrize("code", [0, 1])
def test_with_systemd(host: Path, started: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    tools = host / "bin"
    tools.mkdir()
    said = "level=info msg=Starting\nunable to configure the Docker daemon\nmain process exited"
    programs = {
        "systemctl": f'echo "$@" >>{host}/asked; exit {code}',
        "journalctl": f"cat <<END\n{said}\nEND",
    }
    for name, text in programs.items():
        (tools / name).write_text(f"#!/bin/sh\n{text}\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    systemd(monkeypatch, True)
    found = daemon(host)
    assert found.restart() is (code == 0)
    assert (host / "asked").read_text() == "reset-failed docker.service\nrestart docker.service\n"
    assert found.is_elsewhere() is (code != 0)
    assert found.last_words() == "unable to configure the Docker daemon"


def test_without_systemd_it_is_nowhere_else(host: Path, without_systemd: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(host / "empty"))
    found = daemon(host)
    assert (found.is_elsewhere(), found.last_words()) == (False, "")


def test_containers_that_outlive_it(monkeypatch: pytest.MonkeyPatch) -> None:
    argv: list[Any] = ["containerd-shim-runc-v2", "-c", "import time; time.sleep(60)", "-namespace", "moby"]
    shim = subprocess.Popen(argv, executable=sys.executable)
    other = subprocess.Popen([*argv[:-1], "k8s.io"], executable=sys.executable)
    try:
        names = [str(shim.pid), str(other.pid), str(os.getpid()), "self-made", "999999999"]
        monkeypatch.setattr(_dockerd.os, "listdir", lambda path: names)
        assert wait_until(_dockerd.orphans) == 1
    finally:
        for child in (shim, other):
            child.kill()
            child.wait()
