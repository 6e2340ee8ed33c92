"""Shared set-up of the unit tests: loopback alone, a home of its own for the Hub's client, modules in this process."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import hub
import pytest

# Read by huggingface_hub when it is imported, so set before any test module can do so.
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="hf-home-")
atexit.register(shutil.rmtree, os.environ["HF_HOME"], ignore_errors=True)

# Head and body go out in two pieces; without this the second waits 40 ms for the client's acknowledgement.
hub.Handler.disable_nagle_algorithm = True

Answers = dict[str, Any]


@pytest.fixture(autouse=True)
def only_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets no test reach anything but this machine, nor use a proxy of this machine."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        assert address[0] == "127.0.0.1", f"a test connects to {address}"
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
    """Serves answers on loopback and returns the address; answers: path -> document, or (status, body).

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
