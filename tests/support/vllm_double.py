"""A double of vLLM's server, for tests of control flow and faults: start, gate, load, failure, stop. It knows no model.

    vllm serve MODEL --served-model-name NAME [NAME ...] [--host H] [--port P] [--chat-template FILE] [OPTION ...]

It needs Python's standard library alone, takes any other option of vLLM and ignores it, and behaves as vLLM 0.32 was
seen to: it refuses a MODEL without config.json, logs the stages of a start and listens only when it is ready, wants the
key of VLLM_API_KEY for /v1, counts what it does in /metrics, and ends at once on SIGTERM. What it answers says nothing
about a real server's answers, speed or memory: its tokens are the words of one sentence. In a test:

    with VllmDouble(names=["tiny"], token_delay=0.01) as double:
        requests.post(f"{double.url}/v1/chat/completions", json={...})
        assert double.log == [("POST", "/v1/chat/completions", {...}, None)]
        double.faults.hang = True

The settings of the class have the names of the options, but for these: `names` is --served-model-name, `version` is
--emulate-version, `tools` is --enable-auto-tool-choice, and False turns off what an option --disable or --no names:
`log_stats`, `system_role`, `chat_template`. Options of vLLM that count: --max-model-len, --max-num-seqs, --api-key,
--task (embed and score are others), --disable-log-stats, --enable-auto-tool-choice, --shutdown-timeout. Its own:

    --emulate-version V         end on SIGTERM as this one does: up to 0.5.3 after all requests in flight, up to 0.17
                                at once, then after --shutdown-timeout seconds at most, which older ones do not know
    --startup-delay S           be ready after S seconds
    --first-token-delay S       the first token takes so long (without it: as long as another one)
    --token-delay S             each other one
    --no-chat-template-in-model refuse chats unless --chat-template is given
    --no-system-role            refuse messages of the role system
    --reasoning                 answer with thoughts alone
    --ignores-sampling          answer the same whatever the temperature is
    --emulate-root NAME         say that it serves this model
    --dead-for S                end so long after the engine has died (2)

Faults to order, as options. All but the first three are attributes of `double.faults` too, and are set while it runs by
`POST /double/faults` with a JSON object such as {"hang": true}; that, and a GET, is answered with the state of all of
them. Real vLLM has no such path; it wants no key, and no fault hits it:

    --fail-start          fail as an engine does that finds too little memory for its KV cache
    --fail-start-log FILE fail with the text of this file
    --exit-code N         and with this exit code (1)
    --hang                take requests and never answer them; places and counters stay as they are, even if clients go
    --saturate N          so many requests of invented clients, which never end, come before all others
    --dead                the engine has died
    --slow-http S         wait before any answer
    --http-status N       answer every request with this status
    --garbage             answer every request with a page of HTML
    --no-tokens           answer without a single token
    --cut-after N         close the connection after so many tokens
    --fail-after N        answer every question after the first N with 500
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import math
import os
import random
import re
import signal
import socket
import socketserver
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

ANSWER = "The capital of Japan is Tokyo."
POLL = 0.02  # seconds after which a wait looks at the faults and at its client
BUCKETS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, math.inf)
CORE = "(EngineCore pid=71)"
START_LINES = (
    f"{CORE} INFO 01-01 00:00:00 [gpu_model_runner.py:4000] Starting to load model MODEL...",
    f"{CORE} Loading safetensors checkpoint shards:  50% Completed | 1/2 [00:01<00:01,  1.00s/it]",
    f"{CORE} INFO 01-01 00:00:00 [default_loader.py:300] Loading weights took 1.00 seconds",
    f"{CORE} INFO 01-01 00:00:00 [gpu_worker.py:400] Available KV cache memory: 1.00 GiB",
    f"{CORE} INFO 01-01 00:00:00 [kv_cache_utils.py:1300] GPU KV cache size: 23,296 tokens",
    f"{CORE} Capturing CUDA graphs (decode, FULL): 50%|#####     | 1/2",
    f"{CORE} INFO 01-01 00:00:00 [core.py:280] init engine (profile, create kv cache, warmup model) took 1.00 s",
)
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
REASONS = ("stop", "length", "abort")
DEATH = "EngineCore encountered an issue. See stack trace (above) for the root cause."
DEATH_LINES = (
    "(APIServer pid=1) ERROR 01-01 00:00:00 [async_llm.py:700] AsyncLLM output_handler failed.",
    f"vllm.v1.engine.exceptions.EngineDeadError: {DEATH}",
)
NO_TEMPLATE = (
    "As of transformers v4.44, default chat template is no longer allowed, so you must provide a chat template if the "
    "tokenizer does not define one."
)
NO_TOOLS = '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'


class StartError(Exception):
    """The server cannot start; the message is what vLLM would log."""


class Refusal(Exception):
    """An answer other than success; by default that to a request which is wrong in itself."""

    def __init__(self, message: str, status: int = 400, kind: str = "BadRequestError", param: str | None = None):
        super().__init__(message)
        self.status = status
        self.document = {"error": {"message": message, "type": kind, "param": param, "code": status}}


class EngineDead(Refusal):
    """No engine is left that could answer."""

    def __init__(self) -> None:
        super().__init__(DEATH, 500, "InternalServerError")
        del self.document["error"]["param"]


@dataclass
class Faults:
    """What goes wrong while the server runs, as described above; all of it can change at any time."""

    hang: bool = False
    saturate: int = 0
    dead: bool = False
    slow_http: float = 0.0
    http_status: int = 0
    garbage: bool = False
    no_tokens: bool = False
    cut_after: int | None = None
    fail_after: int | None = None

    def update(self, changes: Any) -> None:
        """Takes the faults of a JSON document, all or, with a Refusal, none."""
        if not isinstance(changes, dict):
            raise Refusal("faults are one JSON object")
        for name, value in changes.items():
            if name not in FAULT_TYPES:
                raise Refusal(f"there is no fault '{name}', only {', '.join(FAULT_TYPES)}")
            accepted = {float: (int, float), int: (int,), bool: (bool,)}[FAULT_TYPES[name]]
            if type(value) not in accepted and not (value is None and name in ("cut_after", "fail_after")):
                raise Refusal(f"the fault '{name}' is of type {FAULT_TYPES[name].__name__}")
        for name, value in changes.items():
            setattr(self, name, value)


_TYPES: dict[object, type[float]] = {"bool": bool, "float": float}
FAULT_TYPES = {item.name: _TYPES.get(item.type, int) for item in fields(Faults)}


def release_of(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def pieces(value: Any) -> list[str]:
    """The words of a prompt, or of the content of messages, in any of the forms that they may have."""
    match value:
        case str():
            return value.split()
        case int():
            return [str(value)]
        case list():
            return [piece for item in value for piece in pieces(item)]
        case dict():
            return pieces(value.get("text") or value.get("content"))
    return []


class Engine:
    """Runs requests, so many at once, and counts. Every one makes its tokens by itself, in its connection's thread."""

    def __init__(self, double: VllmDouble):
        self.double = double
        self.changed = threading.Condition()
        self.stopping = threading.Event()
        self.waiting: list[object] = []
        self.running = 0  # without the invented clients
        self.counts: Counter[str] = Counter()
        self.steps: Counter[float] = Counter()  # by bucket
        self.step_tokens = 0
        self.died_at: float | None = None

    def gauges(self) -> tuple[int, int]:
        """Requests that run, and that wait."""
        with self.changed:
            wanted = self.running + self.double.faults.saturate
            running = max(self.running, min(wanted, self.double.max_num_seqs))
            return running, len(self.waiting) + wanted - running

    def generate(
        self, is_gone: Callable[[], bool], prompt: int, tokens: Sequence[str | None], reason: str
    ) -> Generator[str | None]:
        """Yields the tokens as they are made; a None is work without a token. Close it, else its place stays taken.

        Raises EngineDead, or ConnectionAbortedError if nobody is there any more to whom to answer.
        """
        request = object()
        finish = "abort"
        with self.changed:
            self.waiting.append(request)
        try:
            if reason != "abort":
                self._wait(is_gone, admits=request)
            for index, token in enumerate(tokens):
                first = index == 0 and self.double.first_token_delay is not None
                with self.changed:
                    self._wait(is_gone, self.double.first_token_delay if first else self.double.token_delay)
                    self._count(prompt if index == 0 else 0, int(token is not None))
                yield token
            finish = reason if reason in REASONS else "stop"
        finally:
            with self.changed:
                if request in self.waiting:
                    self.waiting.remove(request)
                else:
                    self.running -= 1
                self.counts[finish] += 1
                self.changed.notify_all()

    def _wait(self, is_gone: Callable[[], bool], seconds: float | None = None, admits: object = None) -> None:
        """Waits for the next token or for a place. A hanging engine gives places, but takes no notice of anybody."""
        due = time.monotonic() + (seconds or 0)
        with self.changed:
            while True:
                hangs = self.double.faults.hang
                if self.stopping.is_set() or (not hangs and is_gone()):
                    raise ConnectionAbortedError("nobody is there")
                if self.double.faults.dead:
                    raise EngineDead
                left = due - time.monotonic()
                if admits is not None and self.waiting[0] is admits:
                    if self.running + self.double.faults.saturate < self.double.max_num_seqs:
                        del self.waiting[0]
                        self.running += 1
                        return
                elif admits is None and not hangs and left <= 0:
                    return
                self.changed.wait(min(POLL, left) if left > 0 else POLL)

    def _count(self, prompt: int, generated: int, steps: int = 1) -> None:
        self.counts["prompt"] += prompt
        self.counts["generation"] += generated * steps
        self.step_tokens += (prompt + generated) * steps
        self.steps[next(bucket for bucket in BUCKETS if prompt + generated <= bucket)] += steps

    def watch(self) -> None:
        """Has the invented clients go on, and tells of the engine's death."""
        counted = time.monotonic()
        while not self.stopping.wait(POLL):
            faults = self.double.faults
            if faults.dead and self.died_at is None:
                for line in DEATH_LINES:
                    self.double.say(line)
                self.died_at = time.monotonic()
            elif not faults.dead:
                self.died_at = None
            delay = max(self.double.token_delay, 0.01)
            steps = int((time.monotonic() - counted) / delay)
            counted += steps * delay
            if steps and faults.saturate and not faults.hang and not faults.dead:
                with self.changed:
                    invented = max(min(faults.saturate, self.double.max_num_seqs - self.running), 0)
                    self._count(0, invented, steps)

    def metrics(self) -> str:
        """The page of Prometheus; without statistics it has what Python says of itself alone."""
        lines = ["# HELP python_info Python platform information", "# TYPE python_info gauge"]
        lines.append('python_info{implementation="CPython",major="3",minor="11"} 1.0')
        if not self.double.log_stats:
            return "\n".join(lines) + "\n"
        double = self.double
        cache = "gpu_cache_usage_perc" if double.release < (0, 10, 3) else "kv_cache_usage_perc"

        def add(name: str, kind: str, text: str, *samples: tuple[str, str, float]) -> None:
            labels = f'engine="0",model_name="{double.names[0]}"'
            lines.extend([f"# HELP vllm:{name} {text}", f"# TYPE vllm:{name} {kind}"])
            lines.extend(f"vllm:{name}{end}{{{labels}{more}}} {float(value)}" for end, more, value in samples)

        with self.changed:
            running, waiting = self.gauges()
            add("num_requests_running", "gauge", "Number of requests in the batch.", ("", "", running))
            add("num_requests_waiting", "gauge", "Number of requests that wait.", ("", "", waiting))
            add(cache, "gauge", "KV-cache usage. 1 is all of it.", ("", "", running / double.max_num_seqs))
            add("num_preemptions_total", "counter", "Number of preemptions.", ("", "", 0))
            for name in ("prompt", "generation"):
                add(f"{name}_tokens_total", "counter", f"Number of {name} tokens.", ("", "", self.counts[name]))
            ends = [("", f',finished_reason="{reason}"', self.counts[reason]) for reason in REASONS]
            add("request_success_total", "counter", "Count of processed requests.", *ends)
            below = itertools.accumulate(self.steps[bucket] for bucket in BUCKETS)
            bounds = [f"{bucket:.1f}".replace("inf", "+Inf") for bucket in BUCKETS]
            buckets = [("_bucket", f',le="{bound}"', count) for bound, count in zip(bounds, below, strict=True)]
            sums = [("_sum", "", self.step_tokens), ("_count", "", self.steps.total())]
            add("iteration_tokens_total", "histogram", "Number of tokens per engine step.", *buckets, *sums)
        return "\n".join(lines) + "\n"


class Handler(BaseHTTPRequestHandler):
    """Answers one connection's requests."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # a small body would wait 40 ms for the client to acknowledge the head
    server: Server

    @property
    def double(self) -> VllmDouble:
        return self.server.double

    def do_GET(self) -> None:
        body: Any = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            body = json.loads(body)
        except ValueError:
            body = None
        self.double.log.append((self.command, self.path, body, self.headers.get("Authorization")))
        with self.double.engine.changed:
            self.double.busy += self.command == "POST"
            self.double.questions += self.path.startswith("/v1/") and self.command == "POST"
            asked = self.double.questions
        try:
            fail_after = self.double.faults.fail_after
            if fail_after is not None and self.command == "POST" and asked > fail_after and "/v1/" in self.path:
                raise Refusal("a fault on demand", 500, "Fault")
            self.answer(self.path.partition("?")[0], body)
        except Refusal as refusal:
            self.send_json(refusal.document, refusal.status)
        except ConnectionError:
            self.close_connection = True
        finally:
            with self.double.engine.changed:
                self.double.busy -= self.command == "POST"

    do_POST = do_GET

    def answer(self, path: str, body: Any) -> None:
        double, faults = self.double, self.double.faults
        if path == "/double/faults":
            if self.command == "POST":
                faults.update(body)
            return self.send_json(asdict(faults))
        if faults.slow_http and double.engine.stopping.wait(faults.slow_http):
            raise ConnectionAbortedError("the double is closing")
        if faults.http_status:
            raise Refusal("a fault on demand", faults.http_status, "Fault")
        if faults.garbage:
            return self.send(200, b"<!DOCTYPE html><html><body>Welcome!</body></html>\n", "text/html")
        key = double.api_key
        if key and path.startswith("/v1") and self.headers.get("Authorization") != f"Bearer {key}":
            return self.send_json({"error": "Unauthorized"}, 401)
        match self.command, path:
            case "GET", "/health" | "/ping":
                self.send(503 if faults.dead else 200, b"", "text/plain")
            case "GET", "/version":
                self.send_json({"version": f"{double.version}+double"})
            case "GET", "/v1/models":
                card = {"object": "model", "root": double.root or double.model, "max_model_len": double.max_model_len}
                self.send_json({"object": "list", "data": [{"id": name, **card} for name in double.names]})
            case "GET", "/load":
                self.send_json({"server_load": double.in_flight})
            case "GET", "/metrics":
                self.send(200, double.engine.metrics().encode(), "text/plain; version=0.0.4; charset=utf-8")
            case "POST", "/tokenize":
                name = self.model_of(body)
                words = self.render(body["messages"]) if "messages" in body else pieces(body.get("prompt"))
                tokens = [zlib.crc32(word.encode()) % 32000 for word in words]
                self.send_json({"count": len(tokens), "max_model_len": double.max_model_len, "tokens": tokens})
            case "POST", "/v1/chat/completions" | "/v1/completions" if double.task not in ("embed", "score"):
                self.complete(body, path == "/v1/chat/completions")
            case "POST", "/v1/embeddings" if double.task == "embed":
                name, given = self.model_of(body), body.get("input")
                inputs = given if isinstance(given, list) and given and not isinstance(given[0], int) else [given]
                usage = self.pool(pieces(given))
                vector = {"object": "embedding", "embedding": [round(0.1 * n, 1) for n in range(1, 9)]}
                data = [{"index": index, **vector} for index in range(len(inputs))]
                self.send_json({"object": "list", "model": name, "data": data, "usage": usage})
            case "POST", "/score" | "/v1/score" if double.task == "score":
                name, second = self.model_of(body), body.get("text_2")
                usage = self.pool(pieces([body.get("text_1"), second]))
                number = len(second) if isinstance(second, list) else 1
                data = [{"index": index, "object": "score", "score": 0.9} for index in range(number)]
                self.send_json({"object": "list", "model": name, "data": data, "usage": usage})
            case _:
                self.send_json({"detail": "Not Found"}, 404)

    # What a request wants.

    def model_of(self, request: Any) -> str:
        if not isinstance(request, dict):
            raise Refusal("the body is no JSON object")
        name = request.get("model") or self.double.names[0]
        if name not in self.double.names:
            raise Refusal(f"The model `{name}` does not exist.", 404, "NotFoundError", "model")
        return name

    def render(self, messages: list[dict[str, Any]]) -> list[str]:
        """The words of a chat, with those that the template adds."""
        if not self.double.chat_template:
            raise Refusal(NO_TEMPLATE)
        if not self.double.system_role and any(message.get("role") == "system" for message in messages):
            raise Refusal("System role not supported")
        words = [word for message in messages for word in [f"<|{message.get('role')}|>", *pieces(message)]]
        return [*words, "<|assistant|>"]

    def tool_of(self, request: dict[str, Any]) -> str:
        """The function to call, or ''."""
        choice = request.get("tool_choice") or "auto"
        if not request.get("tools") or choice == "none":
            return ""
        if choice == "auto" and not self.double.tools:
            raise Refusal(NO_TOOLS)
        return str(request["tools"][0]["function"]["name"])

    def tokens_of(self, request: dict[str, Any]) -> tuple[list[str], str]:
        """The tokens of the answer, and why it ends."""
        words = ANSWER.split()
        temperature, top_p = request.get("temperature"), request.get("top_p")
        if not self.double.ignores_sampling and (temperature or 0) > 1 and (top_p is None or top_p >= 0.5):
            generator = random.Random(request.get("seed"))
            while words == ANSWER.split():
                generator.shuffle(words)
        limit = request.get("max_completion_tokens") or request.get("max_tokens") or self.double.max_model_len
        if request.get("ignore_eos"):
            words = list(itertools.islice(itertools.cycle(words), limit))
        tokens = [f" {word}" if index else word for index, word in enumerate(words)][:limit]
        return tokens, "length" if len(tokens) == limit else "stop"

    def is_gone(self) -> bool:
        try:
            return len(self.connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)) == 0
        except BlockingIOError:
            return False
        except OSError:
            return True

    # The answers that take an engine.

    def pool(self, prompt: list[str]) -> dict[str, int]:
        for _token in self.double.engine.generate(self.is_gone, len(prompt), [None], "stop"):
            pass
        return {"prompt_tokens": len(prompt), "total_tokens": len(prompt)}

    def complete(self, request: dict[str, Any], chat: bool) -> None:
        double = self.double
        head = {"id": "chatcmpl-double" if chat else "cmpl-double", "created": int(time.time())}
        head["model"] = self.model_of(request)
        prompt = len(self.render(request.get("messages") or []) if chat else pieces(request.get("prompt")))
        tool = self.tool_of(request) if chat else ""
        tokens, reason = (["{}"], "tool_calls") if tool else self.tokens_of(request)
        if double.faults.dead:
            raise EngineDead
        if double.draining or double.faults.no_tokens:
            tokens, reason = [], "abort" if double.draining else "stop"
        usage = {"prompt_tokens": prompt, "completion_tokens": len(tokens), "total_tokens": prompt + len(tokens)}

        def part(text: str) -> dict[str, Any]:
            """What a message or a chunk of one has of the answer."""
            if not chat:
                return {"text": text}
            if tool:
                function = {"name": tool, "arguments": text}
                return {"tool_calls": [{"index": 0, "id": "call-double", "type": "function", "function": function}]}
            return {"reasoning_content" if double.reasoning else "content": text}

        with contextlib.closing(double.engine.generate(self.is_gone, prompt, tokens, reason)) as steps:
            if request.get("stream"):
                tail = [usage] if (request.get("stream_options") or {}).get("include_usage") else []
                return self.stream(head, chat, (part(token or "") for token in self.cut(steps)), reason, tail)
            text = "".join(token or "" for token in self.cut(steps))
        choice: dict[str, Any] = {"index": 0, "finish_reason": reason, "logprobs": None}
        if chat:
            choice["message"] = {"role": "assistant", "content": None, **part(text)}
            if request.get("logprobs"):
                choice["logprobs"] = {"content": logprobs(tokens, request.get("top_logprobs") or 0)}
        else:
            choice |= part(text)
        self.send_json(
            {**head, "object": "chat.completion" if chat else "text_completion", "choices": [choice], "usage": usage}
        )

    def cut(self, steps: Iterator[str | None]) -> Iterator[str | None]:
        """The tokens, up to the one after which the connection is to be closed."""
        for number in itertools.count():
            if self.double.faults.cut_after is not None and number >= self.double.faults.cut_after:
                raise ConnectionAbortedError("a fault on demand")
            try:
                token = next(steps)
            except StopIteration:
                return
            yield token

    def stream(
        self,
        head: dict[str, Any],
        chat: bool,
        parts: Iterator[dict[str, Any]],
        reason: str,
        tail: list[dict[str, int]],
    ) -> None:
        head["object"] = "chat.completion.chunk" if chat else "text_completion"
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

        def send(part: dict[str, Any], finish: str | None = None) -> None:
            choice = {"index": 0, **({"delta": part} if chat else part), "finish_reason": finish}
            self.send_event(json.dumps({**head, "choices": [choice]}))

        try:
            begin = [{"role": "assistant", "content": ""}] if chat else []
            # vLLM says who speaks when the first token is there.
            for part in parts:
                for piece in (*begin, part):
                    send(piece)
                begin = []
            for piece in begin:
                send(piece)
            send({} if chat else {"text": ""}, reason)
            for usage in tail:
                self.send_event(json.dumps({**head, "choices": [], "usage": usage}))
        except EngineDead as dead:
            self.send_event(json.dumps(dead.document))
        self.send_event("[DONE]")
        self.wfile.write(b"0\r\n\r\n")

    # How it is sent.

    def send_event(self, data: str) -> None:
        event = f"data: {data}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))

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
        self.double.say(f'(APIServer pid=1) INFO:     {self.address_string()} - "{self.requestline}" {status}')

    def log_message(self, format: str, *args: Any) -> None:
        self.double.say(format % args)


def logprobs(tokens: list[str], top: int) -> list[dict[str, Any]]:
    """Logarithms of probabilities as a sure model has them: each token first, others far behind it."""

    def entry(token: str, value: float) -> dict[str, Any]:
        return {"token": token, "logprob": value, "bytes": list(token.encode())}

    ranked = [[entry(token, -0.01), *(entry(f" other{n}", -4.0 - n) for n in range(1, top))] for token in tokens]
    return [{**entry(token, -0.01), "top_logprobs": first[:top]} for token, first in zip(tokens, ranked, strict=True)]


class Server(ThreadingHTTPServer):
    """The socket, which has its address at once and listens when it is told to, and a thread for each connection."""

    request_queue_size = 128

    def __init__(self, double: VllmDouble):
        self.double = double
        self.clients: dict[threading.Thread, socket.socket] = {}
        super().__init__((double.host, double.port), Handler, bind_and_activate=False)
        try:
            self.server_bind()
        except OSError:
            self.server_close()
            raise

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)  # HTTPServer would look the host's name up in the DNS

    def process_request(self, request: Any, client_address: Any) -> None:
        thread = threading.Thread(target=self.process_request_thread, args=(request, client_address), daemon=True)
        self.clients[thread] = request
        thread.start()

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        super().process_request_thread(request, client_address)
        self.clients.pop(threading.current_thread(), None)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@dataclass(eq=False, kw_only=True)
class VllmDouble:
    """Serves until it is left, on a free port of loopback. With a `startup_delay` it listens only after that.

    `log` has the requests: method, path, JSON body or None, Authorization header; `lines` is what it has logged.
    """

    model: str = "/models/tiny"
    root: str = ""
    names: Sequence[str] = ("tiny",)
    host: str = "127.0.0.1"
    port: int = 0
    api_key: str = ""
    version: str = "0.32.0"
    task: str = "generate"
    max_model_len: int = 4096
    max_num_seqs: int = 256
    startup_delay: float = 0.0
    first_token_delay: float | None = None
    token_delay: float = 0.0
    chat_template: Any = True
    system_role: bool = True
    tools: bool = False
    reasoning: bool = False
    ignores_sampling: bool = False
    log_stats: bool = True
    shutdown_timeout: float = 0.0
    verbose: bool = False  # whether the log goes to standard error too
    faults: Faults = field(default_factory=Faults)

    def __post_init__(self) -> None:
        self.log: list[tuple[str, str, Any, str | None]] = []
        self.lines: list[str] = []
        self.busy = 0
        self.questions = 0
        self.draining = False
        self.release = release_of(self.version)
        self.engine = Engine(self)
        self.ready = threading.Event()
        self._starting: threading.Thread | None = None
        self._threads: list[threading.Thread] = []
        self._server = Server(self)
        self.url = f"http://{self.host}:{self._server.server_address[1]}"

    @property
    def in_flight(self) -> int:
        """Requests that run or wait, those of invented clients too."""
        return sum(self.engine.gauges())

    def __enter__(self) -> Self:
        self._starting = threading.Thread(target=self.start, daemon=True)
        self._starting.start()
        if not self.startup_delay:
            self.ready.wait()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def say(self, text: str) -> None:
        self.lines.append(text)
        if self.verbose:
            print(text, file=sys.stderr, flush=True)

    def load(self, lines: Sequence[str] = START_LINES) -> None:
        """Logs the stages of a start and takes the time of one."""
        for line in lines:
            self.say(line.replace("MODEL", self.model))
            self.engine.stopping.wait(self.startup_delay / len(lines))

    def start(self) -> None:
        self.load()
        if self.engine.stopping.is_set():
            return
        self.say("(APIServer pid=1) INFO:     Application startup complete.")
        self._server.server_activate()
        for target, args in ((self._server.serve_forever, (POLL,)), (self.engine.watch, ())):
            thread = threading.Thread(target=target, args=args, daemon=True)
            thread.start()
            self._threads.append(thread)
        self.ready.set()

    def stop(self) -> None:
        """Breaks everything off and waits for all threads."""
        self.engine.stopping.set()
        with self.engine.changed:
            self.engine.changed.notify_all()
        if self._starting:
            self._starting.join()
        if self.ready.is_set():
            self._server.shutdown()
        self._server.server_close()
        for thread, connection in list(self._server.clients.items()):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            thread.join(10)
        for thread in self._threads:
            thread.join(10)

    def terminate(self) -> None:
        """Ends as this version does on SIGTERM."""
        if self.release < (0, 5, 4):
            self._server.shutdown()
            self._server.server_close()
            self._drain(math.inf)
        elif self.release >= (0, 18) and self.shutdown_timeout > 0:
            self.draining = True
            self._drain(self.shutdown_timeout)
        self.stop()
        counts = self.engine.counts
        aborted = counts["abort"] + self.faults.saturate
        self.say(f"double: {counts['stop'] + counts['length']} requests finished, {aborted} aborted")

    def _drain(self, seconds: float) -> None:
        self.say("double: waiting for requests in flight")
        deadline = time.monotonic() + seconds
        while (self.busy or self.in_flight) and time.monotonic() < deadline:
            time.sleep(POLL)


def parse(argv: list[str]) -> argparse.Namespace:
    """The options; those of the double's settings only if they are given."""
    unset = argparse.SUPPRESS
    parser = argparse.ArgumentParser(
        prog="vllm", description="A double of vLLM's server.", allow_abbrev=False, argument_default=unset
    )
    add = parser.add_argument
    add("command", choices=["serve"])
    add("model")
    add("--served-model-name", nargs="+", dest="names")
    add("--host", default="0.0.0.0")
    add("--port", type=int, default=8000)
    add("--api-key", default=os.environ.get("VLLM_API_KEY", ""))
    add("--chat-template", type=Path, default=None)
    add("--no-chat-template-in-model", action="store_true", default=False)
    for name in ("--max-model-len", "--max-num-seqs"):
        add(name, type=int)
    for name in ("--shutdown-timeout", "--startup-delay", "--first-token-delay", "--token-delay"):
        add(name, type=float)
    add("--task")
    add("--enforce-eager", action="store_true")
    add("--emulate-root", dest="root")
    add("--emulate-version", dest="version", default=VllmDouble.version)
    add("--disable-log-stats", action="store_false", dest="log_stats")
    add("--no-system-role", action="store_false", dest="system_role")
    add("--enable-auto-tool-choice", action="store_true", dest="tools")
    add("--reasoning", action="store_true")
    add("--ignores-sampling", action="store_true")
    add("--dead-for", type=float, default=2.0)
    add("--fail-start", action="store_true", default=False)
    add("--fail-start-log", type=Path, default=None)
    add("--exit-code", type=int, default=1)
    for name, kind in FAULT_TYPES.items():
        how: dict[str, Any] = {"action": "store_true"} if kind is bool else {"type": kind}
        add(f"--{name.replace('_', '-')}", **how)
    args = parser.parse_known_args(argv)[0]
    if "shutdown_timeout" in args and release_of(args.version) < (0, 18):
        parser.error(f"unrecognized arguments: --shutdown-timeout {args.shutdown_timeout:g}")
    return args


def make(args: argparse.Namespace) -> VllmDouble:
    given = {**vars(args), "chat_template": args.chat_template or not args.no_chat_template_in_model}
    settings = {item.name: given[item.name] for item in fields(VllmDouble) if item.name in given}
    faults = Faults(**{name: given[name] for name in FAULT_TYPES if name in given})
    return VllmDouble(**{"names": [args.model], **settings}, verbose=True, faults=faults)


def load(double: VllmDouble, args: argparse.Namespace) -> None:
    """Does what a start does before the server listens, and starts it; raises StartError."""
    version = f"vLLM server version {double.version}+double, serving {args.model}"
    double.say(f"(APIServer pid=1) INFO 01-01 00:00:00 [api_server.py:1] {version}")
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
    if args.fail_start_log:
        time.sleep(double.startup_delay)
        raise StartError(args.fail_start_log.read_text().rstrip("\n"))
    if args.fail_start:
        double.load(START_LINES[:3])
        raise StartError(ENGINE_FAILURE)
    double.start()


def main(argv: list[str] | None = None) -> int:
    args = parse(sys.argv[1:] if argv is None else argv)
    double = make(args)
    asked = threading.Event()

    def end(*_signal: Any) -> None:
        asked.set()
        if not double.ready.is_set():
            os._exit(0)

    # As process 1 of a container it would not even notice the signal without a handler.
    signal.signal(signal.SIGTERM, end)
    try:
        load(double, args)
    except StartError as error:
        double.say(str(error))
        return int(args.exit_code)
    while not asked.wait(0.1):
        died_at = double.engine.died_at
        if died_at is not None and time.monotonic() - died_at >= args.dead_for:
            break
    double.terminate()
    return 0


if __name__ == "__main__":
    sys.exit(main())
