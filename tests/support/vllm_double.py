"""A double of vLLM's server, for tests of the roles' control flow: start, gate, failure, stop. It knows no model.

    vllm serve MODEL --served-model-name NAME [NAME ...] [--host H] [--port P] [--chat-template FILE]

It needs Python's standard library alone, takes any other option of vLLM and ignores it, and behaves as vLLM 0.32 was
seen to: it refuses a MODEL without config.json, listens only when it is ready, wants the key of VLLM_API_KEY for /v1,
and ends at once on SIGTERM. What it answers says nothing about a real server's answers, speed or memory.

Faults to order, as options that vLLM does not have:

    --startup-delay S   be ready after S seconds
    --fail-start        fail as an engine does that finds too little memory for its KV cache
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socketserver
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

VERSION = "0.32.0+double"
ANSWER = "The capital of Japan is Tokyo."
ENGINE_FAILURE = """\
(EngineCore pid=71) ERROR 01-01 00:00:00 [core.py:1100] EngineCore failed to start.
(EngineCore pid=71) ERROR 01-01 00:00:00 [core.py:1100] Traceback (most recent call last):
(EngineCore pid=71) ERROR 01-01 00:00:00 [core.py:1100]   File "core.py", line 1074, in run_engine_core
(EngineCore pid=71) ERROR 01-01 00:00:00 [core.py:1100]     engine_core = EngineCoreProc(*args, **kwargs)
(EngineCore pid=71) ERROR 01-01 00:00:00 [core.py:1100] ValueError: No available memory for the cache blocks. \
Try increasing `gpu_memory_utilization` when initializing the engine.
(APIServer pid=1) Traceback (most recent call last):
(APIServer pid=1)   File "/usr/local/bin/vllm", line 10, in <module>
(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"""


class StartError(Exception):
    """The server cannot start; the message is what vLLM would log."""


class Handler(BaseHTTPRequestHandler):
    """Answers one connection's requests."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        if not self.is_allowed():
            return
        if self.path == "/health":
            self.send(200, b"", "text/plain")
        elif self.path == "/version":
            self.send_json({"version": VERSION})
        elif self.path == "/v1/models":
            cards = [
                {"id": name, "object": "model", "root": self.server.model, "max_model_len": self.server.max_model_len}
                for name in self.server.names
            ]
            self.send_json({"object": "list", "data": cards})
        else:
            self.send_json({"detail": "Not Found"}, 404)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if not self.is_allowed():
            return
        if self.path != "/v1/chat/completions":
            self.send_json({"detail": "Not Found"}, 404)
            return
        request = json.loads(body)
        name = request.get("model", self.server.names[0])
        if name not in self.server.names:
            message = f"The model `{name}` does not exist."
            self.send_json({"error": {"message": message, "type": "NotFoundError", "param": "model", "code": 404}}, 404)
            return
        tokens = [f" {word}" if index else word for index, word in enumerate(ANSWER.split())]
        self.send_answer(request, name, tokens[: request.get("max_tokens", len(tokens))])

    def is_allowed(self) -> bool:
        """Whether the request has the key that its path wants; if not, it has been answered."""
        key = self.server.api_key
        if not key or not self.path.startswith("/v1") or self.headers.get("Authorization") == f"Bearer {key}":
            return True
        self.send_json({"error": "Unauthorized"}, 401)
        return False

    def send_answer(self, request: dict[str, Any], name: str, tokens: list[str]) -> None:
        head = {"id": "chatcmpl-double", "created": int(time.time()), "model": name}
        usage = {"prompt_tokens": 1, "completion_tokens": len(tokens), "total_tokens": 1 + len(tokens)}
        if not request.get("stream"):
            message = {"role": "assistant", "content": "".join(tokens)}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            self.send_json({**head, "object": "chat.completion", "choices": [choice], "usage": usage})
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Connection", "close")
        self.end_headers()
        head["object"] = "chat.completion.chunk"
        deltas: list[dict[str, str]] = [{"role": "assistant", "content": ""}, *({"content": token} for token in tokens)]
        for delta in deltas:
            self.send_event({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
        self.send_event({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        if request.get("stream_options", {}).get("include_usage"):
            self.send_event({**head, "choices": [], "usage": usage})
        self.wfile.write(b"data: [DONE]\n\n")

    def send_event(self, event: dict[str, Any]) -> None:
        self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())

    def send_json(self, value: Any, status: int = 200) -> None:
        self.send(status, json.dumps(value).encode(), "application/json")

    def send(self, status: int, body: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        status = getattr(code, "value", code)
        log(f'(APIServer pid=1) INFO:     {self.address_string()} - "{self.requestline}" {status}')


class Server(ThreadingHTTPServer):
    """What the handlers need to know."""

    daemon_threads = True

    def __init__(self, args: argparse.Namespace):
        self.model = args.model
        self.names = args.served_model_name or [args.model]
        self.max_model_len = args.max_model_len
        self.api_key = os.environ.get("VLLM_API_KEY", "")
        super().__init__((args.host, args.port), Handler)

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)  # HTTPServer would look the host's name up in the DNS


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="vllm", description="A double of vLLM's server.", allow_abbrev=False)
    parser.add_argument("command", choices=["serve"])
    parser.add_argument("model")
    parser.add_argument("--served-model-name", nargs="+")
    parser.add_argument("--host", default="0.0.0.0")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--chat-template", type=Path)
    parser.add_argument("--max-model-len", type=int, default=4096)
    parser.add_argument("--startup-delay", type=float, default=0)
    parser.add_argument("--fail-start", action="store_true")
    return parser.parse_known_args(argv)[0]


def load(args: argparse.Namespace) -> None:
    """Does what a start does before the server listens; raises StartError."""
    log(f"(APIServer pid=1) INFO 01-01 00:00:00 [api_server.py:1] vLLM server version {VERSION}, serving {args.model}")
    if not Path(args.model, "config.json").is_file():
        raise StartError(
            "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig\n"
            f"  Value error, Invalid repository ID or local directory specified: '{args.model}'."
        )
    if args.chat_template and not args.chat_template.is_file():
        given = f"The supplied chat template string ({args.chat_template})"
        raise StartError(f"ValueError: {given} appears path-like, but doesn't exist!")
    if cache := os.environ.get("VLLM_CACHE_ROOT"):
        Path(cache, "torch_compile_cache").mkdir(parents=True, exist_ok=True)
    time.sleep(args.startup_delay)
    if args.fail_start:
        raise StartError(ENGINE_FAILURE)


def log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(argv: list[str] | None = None) -> int:
    # As process 1 of a container it would not even notice the signal without a handler.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    args = parse(sys.argv[1:] if argv is None else argv)
    try:
        load(args)
    except StartError as error:
        log(str(error))
        return 1
    with Server(args) as server:
        log("(APIServer pid=1) INFO:     Application startup complete.")
        server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
