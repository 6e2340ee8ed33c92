"""Shared set-up of the unit tests: loopback alone, a home of its own for the Hub's client, modules in this process."""

from __future__ import annotations

import atexit
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import hub
import pytest

from ansible_collections.llmops.vllm.plugins.module_utils import _retry

# Read by huggingface_hub when it is imported, so set before any test module can do so.
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="hf-home-")
atexit.register(shutil.rmtree, os.environ["HF_HOME"], ignore_errors=True)

Answers = dict[str, Any]

# A small repository, with names that a pattern or an address could trip over.
REPOSITORY = "org/name"
FILES = {
    "config.json": b"{}\n",
    "empty.txt": b"",
    "model.safetensors": bytes(range(256)) * 40,
    "docs/deep/odd [1]*? 100%.txt": b"0123456789",
    "tokenizer.json": b'{"a": 1}\n',
}

# Another one, whose weights take more than one piece to read and to send.
WEIGHTS = random.Random(0).randbytes(3_000_000)
LARGE = {"config.json": b"{}\n", "model.safetensors": WEIGHTS}


def write_files(folder: Path, files: dict[str, bytes]) -> Path:
    for path, content in files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return folder


def read_files(folder: Path) -> dict[str, bytes]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def asked(served: hub.Hub, name: str = "model.safetensors") -> list[tuple[int | None, int]]:
    """Where each request for a file began, and how many bytes it got."""
    return [(answer.start, answer.sent) for answer in served.log if answer.path.endswith(name)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder of a Hub with the small repository."""
    write_files(tmp_path / "root" / REPOSITORY, FILES)
    return tmp_path / "root"


@pytest.fixture
def large(root: Path) -> Path:
    """The folder of a Hub with the large repository as well."""
    write_files(root / "org" / "large", LARGE)
    return root


@pytest.fixture
def served(root: Path) -> Iterator[hub.Hub]:
    """A Hub with the small repository."""
    with hub.Hub(root) as running:
        yield running


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    """A folder for its snapshots, which is not there yet."""
    return tmp_path / "models" / "org--name"


@pytest.fixture
def snapshot(run_module: Any, dest: Path) -> Callable[..., dict[str, Any]]:
    """Runs the module hf_snapshot for a Hub, or another endpoint."""
    from ansible_collections.llmops.vllm.plugins.modules import hf_snapshot

    def run(endpoint: hub.Hub | str, **params: Any) -> dict[str, Any]:
        url = endpoint if isinstance(endpoint, str) else endpoint.url
        base = {"repo_id": REPOSITORY, "dest": str(dest), "endpoint": url, "max_workers": 2}
        return run_module(hf_snapshot.main, **{**base, **params})

    return run


@pytest.fixture
def snapshot_process(dest: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts the module as a process of its own, as Ansible runs it."""
    children: list[subprocess.Popen[str]] = []

    def start(endpoint: hub.Hub, **params: Any) -> subprocess.Popen[str]:
        module = "ansible_collections.llmops.vllm.plugins.modules.hf_snapshot"
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        child = subprocess.Popen([sys.executable, "-m", module], text=True, **pipes)
        children.append(child)
        args = {"repo_id": REPOSITORY, "dest": str(dest), "endpoint": endpoint.url, **params}
        child.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": args}))
        child.stdin.close()
        child.stdin = None
        return child

    yield start
    for child in children:
        child.kill()
        child.communicate()


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets no test wait for a second attempt."""
    monkeypatch.setattr(_retry, "FIRST_DELAY", 0.01)


def wait_until(holds: Callable[[], Any], seconds: float = 20) -> Any:
    """Waits for something that comes soon, and returns it, or fails."""
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.005)
    return found


@pytest.fixture(autouse=True)
def only_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets no test reach anything but this machine, nor use a proxy of this machine."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        here = self.family == socket.AF_UNIX or address[0] == "127.0.0.1"
        assert here, f"a test connects to {address}"
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def run_module(capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """Runs the main() of a module in this process and returns its result; `output` is its text as it was printed."""
    from ansible.module_utils.testing import patch_module_args

    def run(main: Callable[[], None], check_mode: bool = False, **params: Any) -> dict[str, Any]:
        capsys.readouterr()
        with patch_module_args({**params, "_ansible_check_mode": check_mode}), pytest.raises(SystemExit):
            main()
        output = capsys.readouterr().out
        return {"failed": False, "output": output, **json.loads(output)}

    return run


@pytest.fixture
def serve() -> Iterator[Callable[[Answers], str]]:
    """Serves answers on loopback and returns the address; answers: path -> document, (status, body), or what makes one.

    None makes none: the connection ends.

    `serve.heads` has the Authorization header of each request by its path.
    """
    servers: list[ThreadingHTTPServer] = []

    def start(answers: Answers) -> str:
        class Handler(BaseHTTPRequestHandler):
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                start.heads[self.path] = self.headers.get("Authorization")
                length = int(self.headers.get("Content-Length") or 0)
                start.bodies[self.path] = self.rfile.read(length)
                answer = answers.get(self.path, (404, "nothing here"))
                if callable(answer):
                    answer = answer()
                if answer is None:
                    # The connection ends without an answer.
                    self.close_connection = True
                    return
                status, body = answer if isinstance(answer, tuple) else (200, json.dumps(answer))
                data = body if isinstance(body, bytes) else body.encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_POST = do_GET

            def log_message(self, *args: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_address[1]}"

    start.heads = {}
    start.bodies = {}
    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def free_port() -> int:
    """A port of loopback that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
