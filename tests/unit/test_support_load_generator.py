"""Tests of the load generator: no answer that is not whole is called ok, and no request is forgotten."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import random
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import load_generator
import pytest
import vllm_double
from conftest import wait_until
from load_generator import KINDS, Client, Kind, Load, Request, Wish, percentiles
from vllm_double import ANSWER, Faults, VllmDouble

WORDS = len(ANSWER.split())
MODEL = "tiny"
SCRIPT = Path(load_generator.__file__)
BY_NAME = {kind.name: kind for kind in KINDS}
CHAT = BY_NAME["chat-plain-kept"]
CHAT_STREAM = BY_NAME["chat-stream-kept"]
WISH = Wish(MODEL, max_tokens=2)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_generator, "PAUSE", 0)


# A server that answers with any bytes.


@dataclass
class Close:
    """The connection ends, with a reset if wanted."""

    reset: bool = False


Script = Callable[["Asked"], list[bytes | Close]]


@dataclass
class Asked:
    """A request: its number of all, that of its connection, that on its connection, head and body."""

    number: int
    connection: int
    nth: int
    head: str
    body: dict[str, Any]

    def header(self, name: str) -> str | None:
        found = [line.split(": ", 1)[1] for line in self.head.split("\r\n") if line.startswith(f"{name}: ")]
        return found[0] if found else None


@dataclass
class Scripted:
    """Answers each request with what its script returns, and closes a connection when the client has."""

    script: Script
    asked: list[Asked] = field(default_factory=list)

    def __enter__(self) -> Scripted:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.connections = self.closed = 0
        self.lock = threading.Lock()
        threading.Thread(target=self.accept, daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def accept(self) -> None:
        while True:
            try:
                connection, _peer = self.listener.accept()
            except OSError:
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connections += 1
            threading.Thread(target=self.serve, args=(connection, self.connections), daemon=True).start()

    def serve(self, connection: socket.socket, which: int) -> None:
        with contextlib.suppress(ConnectionError), connection, connection.makefile("rb") as incoming:
            self.answer_all(connection, incoming, which)
        with self.lock:
            self.closed += 1

    def answer_all(self, connection: socket.socket, incoming: Any, which: int) -> None:
        for nth in itertools.count(1):
            head = ""
            while not head.endswith("\r\n\r\n"):
                if not (line := incoming.readline()):
                    return
                head += line.decode()
            size = next(line for line in head.splitlines() if line.startswith("Content-Length:")).split()[1]
            body = json.loads(incoming.read(int(size)))
            with self.lock:
                asked = Asked(len(self.asked), which, nth, head, body)
                self.asked.append(asked)
            for part in self.script(asked):
                if isinstance(part, Close):
                    if part.reset:
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    return
                connection.sendall(part)


def scripted(*answers: list[bytes | Close]) -> Script:
    """The answers one after the other, the last one again and again."""
    return lambda asked: answers[min(asked.number, len(answers) - 1)]


# Answers that are whole, and parts of them to spoil.


def document(kind: Kind, **changes: Any) -> dict[str, Any]:
    part = {"message": {"role": "assistant", "content": "The capital"}} if kind.chat else {"text": "The capital"}
    usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
    choice = {"index": 0, **part, "finish_reason": "length"}
    return {"id": "x", "object": kind.object, "model": MODEL, "choices": [choice], "usage": usage, **changes}


def event(kind: Kind, text: str | None, reason: str | None = None, **changes: Any) -> dict[str, Any]:
    part = {"delta": {} if text is None else {"content": text}} if kind.chat else {"text": text or ""}
    choice = {"index": 0, **part, "finish_reason": reason}
    return {"id": "x", "object": kind.object, "model": MODEL, "choices": [choice], **changes}


def events(kind: Kind) -> list[Any]:
    """First who speaks, two tokens, the end, the usage and [DONE]."""
    usage = event(kind, None, choices=[], usage=document(kind)["usage"])
    return [event(kind, ""), event(kind, "The"), event(kind, " capital"), event(kind, None, "length"), usage, "[DONE]"]


def sse(events: list[Any]) -> list[bytes]:
    return [f"data: {item if isinstance(item, str) else json.dumps(item)}\n\n".encode() for item in events]


def http(body: bytes | list[bytes], status: str = "200 OK", **headers: str) -> bytes:
    """An answer with a length, or, of a list, with a chunk for each piece."""
    framing = {"Content-Length": len(body)} if isinstance(body, bytes) else {"Transfer-Encoding": "chunked"}
    kind = "application/json" if isinstance(body, bytes) else "text/event-stream; charset=utf-8"
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{name}: {value}\r\n" for name, value in ({"Content-Type": kind, **framing} | named).items()]
    head = f"HTTP/1.1 {status}\r\n{''.join(lines)}\r\n".encode()
    return head + (body if isinstance(body, bytes) else chunked(body))


def chunked(pieces: list[bytes]) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def whole(kind: Kind) -> bytes:
    return http(sse(events(kind))) if kind.streams else http(json.dumps(document(kind)).encode())


def streamed(*items: Any) -> bytes:
    return http(sse(list(items)))


def plain(**changes: Any) -> bytes:
    return http(json.dumps(document(CHAT, **changes)).encode())


def choice(**changes: Any) -> bytes:
    found = document(CHAT)
    found["choices"][0] |= changes
    return http(json.dumps(found).encode())


def run(url: str, kind: Kind | None = None, wish: Wish = WISH, **options: Any) -> dict[str, Any]:
    """Makes the requests, one of one client unless told otherwise, and returns the result."""
    load = Load(url, wish, **{"clients": 1, "requests": 1, **options}, kinds=[kind] if kind else KINDS)
    asyncio.run(asyncio.wait_for(load.run(), 60))
    return load.result()


def fate(answer: list[bytes | Close], kind: Kind, wish: Wish = WISH, **options: Any) -> tuple[str, str]:
    """Outcome of one request that is so answered, and why."""
    with Scripted(lambda _asked: answer) as server:
        result = run(server.url, kind, wish, **options)
    assert result["requests"] == sum(result[outcome] for outcome in load_generator.OUTCOMES) == 1
    assert result["lossless"] == (result["ok"] == 1)
    if result["ok"]:
        assert result["failures"] == []
        return "ok", ""
    (failure,) = result["failures"]
    assert result[failure["outcome"]] == 1
    return failure["outcome"], failure["detail"]


# An answer is whole or it is not ok.


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_whole_answers(kind: Kind) -> None:
    assert fate([whole(kind)], kind) == ("ok", "")
    # However it comes: byte by byte, in other chunks than events, with comments, trailers and other ends of lines.
    assert fate([bytes([byte]) for byte in whole(kind)], kind) == ("ok", "")
    body = whole(kind).partition(b"\r\n\r\n")[2]
    if kind.streams:
        data = b"".join(sse(events(kind)))
        for pieces in ([data], [data[at : at + 7] for at in range(0, len(data), 7)]):
            assert fate([http(pieces)], kind) == ("ok", "")
        sized = http(data, Content_Type="text/event-stream")
        assert fate([sized], kind) == ("ok", "")
        assert fate([sized[:-1], Close()], kind)[0] == "cut"
        assert fate([http([b": ping\n\n", data.replace(b"\n", b"\r\n")])], kind) == ("ok", "")
    else:
        in_chunks = http([body[:9], body[9:]], Content_Type="application/json")
        assert fate([in_chunks], kind) == ("ok", "")
        assert fate([in_chunks[:-2] + b"X-Trailer: 1\r\n\r\n"], kind) == ("ok", "")


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("kind", KINDS[:4], ids=lambda kind: kind.name)
def test_an_answer_cut_at_any_byte(monkeypatch: pytest.MonkeyPatch, kind: Kind, reset: bool) -> None:
    monkeypatch.setattr(load_generator, "FAILURES", 10_000)
    answer = whole(kind)
    if not kind.streams and not kind.chat:
        body = answer.partition(b"\r\n\r\n")[2]
        answer = http([body[:50], body[50:]], Content_Type="application/json")

    def script(asked: Asked) -> list[bytes | Close]:
        return [answer[: asked.number], Close(reset)]

    with Scripted(script) as server:
        result = run(server.url, kind, requests=len(answer))
    assert (result["ok"], result["refused"], result["requests"]) == (0, 0, len(answer))
    first, *others = result["failures"]
    assert first["outcome"] == "failed"
    # A reset may overtake what was sent before it.
    if not reset:
        assert {failure["outcome"] for failure in others} == {"cut"}
        head = answer.index(b"\r\n\r\n") + 4
        assert others[0]["detail"] == "the server closed the connection, after a part of the head"
        assert others[head - 1]["detail"].startswith("the server closed the connection, after 0 ")


DEAD = {"error": {"message": "EngineCore encountered an issue.", "type": "InternalServerError", "code": 500}}
FIRST, THE, CAPITAL, END, USAGE, DONE = events(CHAT_STREAM)
ABORTED, STOPPED = (event(CHAT_STREAM, None, reason) for reason in ("abort", "stop"))


@pytest.mark.parametrize(
    ("items", "outcome", "detail"),
    [
        # Whole as HTTP, but not as an answer.
        ([FIRST, THE, DEAD, DONE], "cut", "the stream has an error after 1 chunks of text: '{\"error\": "),
        ([FIRST, THE, CAPITAL, END, USAGE, DEAD, DONE], "cut", "the stream has an error after 2 chunks of text"),
        ([DEAD, DONE], "cut", "the stream has an error after 0 chunks of text"),
        ([{"object": "error", "message": "no"}], "cut", "the stream has an error after 0 chunks of text"),
        ([FIRST, THE, CAPITAL, END, USAGE], "cut", "the stream has no [DONE], after 2 chunks of text"),
        ([FIRST, THE, DONE], "cut", "the stream has no finish_reason, after 1 chunks of text"),
        ([DONE], "cut", "the stream has no finish_reason, after 0 chunks of text"),
        ([], "cut", "the stream has no finish_reason, after 0 chunks of text"),
        ([FIRST, THE, ABORTED, USAGE, DONE], "cut", "the finish_reason is 'abort', after 'The'"),
        # Another answer than was asked for.
        ([FIRST, THE, CAPITAL, END, DONE], "failed", "usage.completion_tokens is None, not 2"),
        ([FIRST, END, USAGE, DONE], "failed", "the answer has no text"),
        ([FIRST, THE, STOPPED, USAGE, DONE], "failed", "the finish_reason is 'stop', after 'The'"),
        ([THE, THE, CAPITAL, END, USAGE, DONE], "failed", "the stream has 3 chunks of text, not 2"),
        (
            [FIRST, THE, CAPITAL, END, event(CHAT_STREAM, None, choices=[], usage={"completion_tokens": 1}), DONE],
            "failed",
            "usage.completion_tokens is 1, not 2",
        ),
        ([FIRST, THE, event(CHAT_STREAM, "x", id="y")], "failed", "an event has the id 'y', those before it 'x'"),
        ([FIRST, event(CHAT_STREAM, "x", model="other")], "failed", "the model is 'other', not 'tiny'"),
        ([{**THE, "object": "chat.completion"}], "failed", "the object is 'chat.completion', not "),
        ([FIRST, event(CHAT_STREAM, "x", choices=[{"index": 1}])], "failed", "choices are not one of index 0: "),
        ([FIRST, event(CHAT_STREAM, "x", choices=None)], "failed", "choices are not one of index 0: "),
        ([FIRST, event(CHAT_STREAM, "x", choices=[{"index": 0}])], "failed", "the text of an event is no string: "),
        ([FIRST, event(CHAT_STREAM, 5)], "failed", "the text of an event is no string: "),
        # More than there should be.
        ([FIRST, THE, CAPITAL, END, THE], "failed", "the text goes on after the finish_reason 'length': "),
        ([FIRST, THE, CAPITAL, END, END], "failed", "the text goes on after the finish_reason 'length': "),
        ([FIRST, THE, CAPITAL, END, USAGE, USAGE, DONE], "failed", "an event without a choice is not the one of th"),
        ([FIRST, THE, USAGE, CAPITAL, END, DONE], "failed", "an event without a choice is not the one of the usage"),
        ([FIRST, THE, CAPITAL, END, USAGE, DONE, THE], "failed", "the stream goes on after [DONE]: "),
        ([FIRST, THE, CAPITAL, END, USAGE, DONE, DONE], "failed", "the stream goes on after [DONE]: "),
        # No events.
        (["{"], "failed", "an event is no JSON: '{'"),
        (["[1]"], "failed", "an event is no JSON object: '[1]'"),
        ([FIRST, THE, "[DONE"], "failed", "an event is no JSON: '[DONE'"),
    ],
)  # fmt: skip
def test_streams_that_are_not_whole(items: list[Any], outcome: str, detail: str) -> None:
    found = fate([streamed(*items)], CHAT_STREAM)
    assert (found[0], found[1][: len(detail)]) == (outcome, detail)


@pytest.mark.parametrize(
    ("body", "outcome", "detail"),
    [
        # The last event has no empty line after it, or only a part of itself came.
        (b"".join(sse(events(CHAT_STREAM)))[:-1], "cut", "the last event has no end, after 2 chunks of text"),
        (b"".join(sse(events(CHAT_STREAM)))[:-2], "cut", "the last event has no end, after 2 chunks of text"),
        (b"".join(sse(events(CHAT_STREAM)))[:-5], "cut", "the last event has no end, after 2 chunks of text"),
        (b"<html>502 Bad Gateway</html>\n", "failed", "the stream has the line '<html>502 Bad Gateway</html>'"),
        (b"event: error\ndata: {}\n\n", "failed", "the stream has the line 'event: error'"),
        (b"data: " + b"x" * 70_000, "failed", "a line of the stream is longer than 65536 bytes"),
    ],
    ids=range(6),
)
def test_bodies_that_are_no_stream(body: bytes, outcome: str, detail: str) -> None:
    assert fate([http([body])], CHAT_STREAM) == (outcome, detail)


CHUNKS = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "outcome", "detail"),
    [
        (http(json.dumps(DEAD).encode()), "failed", "the answer with status 200 is an error: '{\"error\": "),
        (plain(error=None), "failed", "the answer with status 200 is an error: "),
        (plain(model="other"), "failed", "the model is 'other', not 'tiny'"),
        (plain(object="text_completion"), "failed", "the object is 'text_completion', not 'chat.completion'"),
        (plain(choices=[]), "failed", "the answer has no choice"),
        (plain(choices=[{"index": 0}, {"index": 1}]), "failed", "choices are not one of index 0: "),
        (plain(usage=None), "failed", "usage.completion_tokens is None, not 2"),
        (plain(usage={"completion_tokens": 3}), "failed", "usage.completion_tokens is 3, not 2"),
        (plain(usage={"completion_tokens": True}), "failed", "usage.completion_tokens is True, not 2"),
        (choice(finish_reason=None), "failed", "the finish_reason is None, after 'The capital'"),
        (choice(finish_reason="stop"), "failed", "the finish_reason is 'stop', after 'The capital'"),
        (choice(finish_reason="abort"), "cut", "the finish_reason is 'abort', after 'The capital'"),
        (choice(message={"content": ""}), "failed", "the answer has no text"),
        (choice(message={"content": None}), "failed", "the answer has no text"),
        (choice(message={"content": ["x"]}), "failed", "the text is no string: "),
        (choice(message=None), "failed", "the answer has no text"),
        (http(b""), "failed", "the answer is no JSON: ''"),
        (http(b"[]"), "failed", "the answer is no JSON object: '[]'"),
        (http(b"{}"), "failed", "the object is None, not 'chat.completion'"),
        (http(b"\xff\xfe\xff"), "failed", "the answer is no JSON: "),
        (http(b"{" * 100_000), "failed", "the answer is no JSON: "),
        (http(b'{"a":' * 100_000), "failed", "the answer is no JSON: "),
        (http(json.dumps(document(CHAT)).encode()[:-1]), "failed", "the answer is no JSON: "),
        (http(json.dumps(document(CHAT)).encode() * 2), "failed", "the answer is no JSON: "),
        (http(b"<html>", Content_Type="text/html"), "failed", "the Content-Type is 'text/html', not 'application/"),
        # A body without an end that could be missed, and one that is not as its head says.
        (b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n{}", "failed", "the answer has neither a Content"),
        (http(b"{}", Content_Length="two"), "failed", "the answer has the size 'two'"),
        (http(b"{}", Content_Length="-1"), "failed", "the answer has the size '-1'"),
        (http(b"{}", Content_Length="99999999999"), "failed", "the answer has the size '99999999999'"),
        (http(b"{}", Transfer_Encoding="chunked"), "failed", "the answer has Transfer-Encoding 'chunked' and "),
        (CHUNKS.replace(b"chunked", b"gzip"), "failed", "the answer has Transfer-Encoding 'gzip' and "),
        (CHUNKS + b"zz\r\n", "failed", "the answer has the size 'zz'"),
        (CHUNKS + b"\r\n", "failed", "the answer has the size ''"),
        (CHUNKS + b"-2\r\n", "failed", "the answer has the size '-2'"),
        (CHUNKS + b"2\r\n{}x\r\n", "failed", "a chunk is longer than its size"),
        (CHUNKS + b"ffffffffff\r\n", "failed", "the answer has the size 'ffffffffff'"),
        (CHUNKS + b"1\r\n{\r\n0\r\n\r\n", "failed", "the answer is no JSON: '{'"),
        (whole(CHAT) + b"x", "failed", "after the end of the answer came 'x'"),
        (whole(CHAT) + whole(CHAT), "failed", "after the end of the answer came 'HTTP/1.1 200 OK Content-Type: "),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n", "failed", "the answer has the header '"),
        (b"HTTP/1.1 200 OK\r\nrubbish\r\n\r\n", "failed", "the answer has the header 'rubbish'"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "failed", "the answer is no HTTP: 'SSH-2.0-OpenSSH_9.2'"),
        (b"x" * 70_000, "failed", "a line of the answer is longer than 65536 bytes"),
    ],
)  # fmt: skip
def test_plain_answers_that_are_not_whole(answer: bytes, outcome: str, detail: str) -> None:
    found = fate([answer], CHAT)
    assert (found[0], found[1][: len(detail)]) == (outcome, detail)


@pytest.mark.parametrize(
    ("answer", "detail"),
    [
        ([http(b"busy\nnow", "503 Service Unavailable")], "status 503: 'busy now'"),
        ([http(b"", "301 Moved", Location="/")], "status 301: ''"),
        ([http(b"y" * 300, "500 Oh")], f"status 500: '{'y' * 200}...'"),
        ([http([b"in ", b"chunks"], "429 Too Many Requests")], "status 429: 'in chunks'"),
        ([whole(CHAT).replace(b"200 OK", b"201 Created")], "status 201: '{\"id\": \"x\","),
        # What a proxy sends, without a length, and one that is not whole either.
        ([b"HTTP/1.0 503 Service Unavailable\r\n\r\n<html>no", b" server</html>", Close()], "status 503: '<html>no s"),
        ([http(b"no", "502 Bad Gateway", Content_Length="9"), Close()], "status 502: 'no'"),
    ],
)  # fmt: skip
def test_refused(answer: list[bytes | Close], detail: str) -> None:
    found = fate(answer, CHAT)
    assert (found[0], found[1][: len(detail)]) == ("refused", detail)


def test_a_refusal_without_an_end_is_one() -> None:
    hanging = http(b"no", "502 Bad Gateway", Content_Length="9")
    found = fate([hanging, b"", *[b""] * 3], CHAT, timeout=0.2)
    assert found[0] == "refused"
    assert found[1].startswith("status 502, no whole answer in 0.2 s")


def test_a_body_without_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_generator, "MAX_BODY", 1000)
    answer = http([b" " * 600] * 2, Content_Type="application/json")
    assert fate([answer], CHAT) == ("failed", "the answer is longer than 1000 bytes")


def test_stop_is_an_end_where_it_is_allowed() -> None:
    early = choice(finish_reason="stop")
    wish = Wish(MODEL, max_tokens=2, ignore_eos=False)
    for tokens, outcome in ((1, "ok"), (2, "ok"), (0, "failed"), (3, "failed")):
        answer = early.replace(b'"completion_tokens": 2', b'"completion_tokens": %d' % tokens)
        assert fate([answer], CHAT, wish)[0] == outcome


@pytest.mark.parametrize("kind", KINDS[:4], ids=lambda kind: kind.name)
def test_expected_text(kind: Kind) -> None:
    assert fate([whole(kind)], kind, Wish(MODEL, 2, text="The cap"))[0] == "ok"
    assert fate([whole(kind)], kind, Wish(MODEL, 2, text="Tokyo")) == (
        "failed",
        "the text is 'The capital', without 'Tokyo'",
    )


def test_expected_chunks() -> None:
    one = [FIRST, event(CHAT_STREAM, "The capital"), END, USAGE, DONE]
    assert fate([streamed(*one)], CHAT_STREAM) == ("ok", "")
    wish = Wish(MODEL, 2, chunks=2)
    assert fate([streamed(*one)], CHAT_STREAM, wish) == ("failed", "the stream has 1 chunks of text, not 2")
    assert fate([whole(CHAT_STREAM)], CHAT_STREAM, wish) == ("ok", "")


# Connections.


def test_kinds() -> None:
    assert len({kind.name for kind in KINDS}) == 8
    for at in (0, 4):
        for respect in ("chat", "streams", "keeps"):
            assert Counter(getattr(kind, respect) for kind in KINDS[at : at + 4]) == {True: 2, False: 2}


def count_connections(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Has the double note each connection."""
    seen: list[Any] = []
    process = vllm_double.Server.process_request

    def noting(self: Any, request: Any, client_address: Any) -> None:
        seen.append(client_address)
        process(self, request, client_address)

    monkeypatch.setattr(vllm_double.Server, "process_request", noting)
    return seen


def test_what_is_asked_and_over_how_many_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = count_connections(monkeypatch)
    with VllmDouble(api_key="secret") as double:
        wish = Wish(MODEL, max_tokens=WORDS, text=ANSWER, chunks=WORDS)
        result = run(double.url, wish=wish, clients=12, requests=240, key="secret")
        asked = [(path, body, key) for _method, path, body, key in double.log]
    assert (result["lossless"], result["ok"], len(asked)) == (True, 240, 240)
    assert {key for _path, _body, key in asked} == {"Bearer secret"}
    assert result["connections"] == len(seen)
    assert result["reconnects"] == 0
    assert {name: kind["clients"] for name, kind in result["kinds"].items()} == {
        kind.name: 2 if at < 4 else 1 for at, kind in enumerate(KINDS)
    }
    for name, tally in result["kinds"].items():
        assert tally["requests"] == tally["ok"] > tally["clients"]
        assert tally["connections"] == (tally["clients"] if BY_NAME[name].keeps else tally["requests"])
    assert sum(tally["requests"] for tally in result["kinds"].values()) == 240

    common = {"model": MODEL, "max_tokens": WORDS, "temperature": 0, "ignore_eos": True}
    chat = {"messages": [{"role": "user", "content": "What is the capital of Japan?"}]}
    text = {"prompt": "What is the capital of Japan?"}
    stream = {"stream": True, "stream_options": {"include_usage": True}}
    for path, question in (("/v1/chat/completions", chat), ("/v1/completions", text)):
        for more in ({}, stream):
            made = sum(entry[:2] == (path, common | question | more) for entry in asked)
            told = [tally["requests"] for name, tally in result["kinds"].items()
                    if BY_NAME[name].path == path and BY_NAME[name].streams == bool(more)]  # fmt: skip
            assert made == sum(told)


def test_heads() -> None:
    with Scripted(lambda asked: [whole(kinds[asked.header("X-Session")])]) as server:
        kinds = {f"client-{number}": kind for number, kind in enumerate(KINDS)}
        result = run(f"{server.url}/behind/", clients=8, requests=40, session_header="X-Session")
    assert result["lossless"]
    assert {asked.header("X-Session") for asked in server.asked} == set(kinds)
    for asked in server.asked:
        kind = kinds[asked.header("X-Session")]
        assert asked.head.startswith(f"POST /behind{kind.path} HTTP/1.1\r\n")
        assert asked.header("Host") == server.url.removeprefix("http://")
        assert asked.header("Connection") == ("keep-alive" if kind.keeps else "close")
        assert asked.header("Authorization") is None
        assert kind.keeps or asked.nth == 1


@pytest.mark.parametrize("who", ["kernel", "loop"])
@pytest.mark.parametrize("kind", [CHAT, CHAT_STREAM], ids=lambda kind: kind.name)
def test_a_kept_connection_that_the_server_closes_is_opened_anew(kind: Kind, who: str) -> None:
    class Patient(Load):
        """Asks again when the server has closed what it closes; the event loop may know of it or not."""

        async def pause(self, seconds: float) -> None:
            wait_until(lambda: server.closed == self.begun // 3)
            for _turn in range(5 if who == "loop" else 0):
                await asyncio.sleep(0)

    with Scripted(lambda asked: [whole(kind), *[Close()] * (asked.nth == 3)]) as server:
        load = Patient(server.url, WISH, clients=1, requests=9, kinds=[kind])
        asyncio.run(load.run())
        result = load.result()
    assert [asked.connection for asked in server.asked] == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert (result["lossless"], result["connections"], result["reconnects"]) == (True, 3, 2)
    assert (result["kinds"][kind.name]["connections"], result["kinds"][kind.name]["reconnects"]) == (3, 2)


@pytest.mark.parametrize(
    "last",
    [
        http(json.dumps(document(CHAT)).encode(), Connection="close"),
        whole(CHAT).replace(b"HTTP/1.1", b"HTTP/1.0"),
    ],
    ids=["header", "version"],
)
def test_an_end_that_the_answer_announces(last: bytes) -> None:
    with Scripted(lambda asked: [last if asked.nth == 2 else whole(CHAT)]) as server:
        result = run(server.url, CHAT, requests=4)
    assert [asked.connection for asked in server.asked] == [1, 1, 2, 2]
    assert (result["lossless"], result["connections"], result["reconnects"]) == (True, 2, 1)


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("kind", [CHAT, CHAT_STREAM], ids=lambda kind: kind.name)
def test_a_kept_connection_that_breaks_when_the_request_is_sent(kind: Kind, reset: bool) -> None:
    with Scripted(lambda asked: [Close(reset)] if asked.nth == 2 else [whole(kind)]) as server:
        result = run(server.url, kind, requests=3)
    assert [asked.connection for asked in server.asked] == [1, 1, 2]
    assert (result["ok"], result["failed"], result["connections"], result["reconnects"]) == (2, 1, 2, 0)
    broke = (
        "the connection broke ([Errno 104] Connection reset by peer)" if reset else "the server closed the connection"
    )
    assert result["failures"][0]["detail"] == f"{broke} without an answer to request 2 on it"


@pytest.mark.parametrize("who", ["kernel", "loop"])
def test_a_late_second_answer_is_not_taken_for_the_next(who: str) -> None:
    late = threading.Event()

    class Patient(Load):
        async def pause(self, seconds: float) -> None:
            assert late.wait(20)
            for _turn in range(5 if who == "loop" else 0):
                await asyncio.sleep(0)

    def script(asked: Asked) -> Iterator[bytes]:
        yield whole(CHAT)
        if asked.number == 0:
            wait_until(lambda: load.total.counts["ok"] == 1)
            yield whole(CHAT)
        late.set()

    with Scripted(script) as server:
        load = Patient(server.url, WISH, clients=1, requests=2, kinds=[CHAT])
        asyncio.run(load.run())
    assert [asked.connection for asked in server.asked] == [1, 2]
    assert (load.result()["ok"], load.result()["reconnects"]) == (2, 1)


def test_a_refusal_leaves_a_connection_that_can_be_used() -> None:
    whole_refusal, half = http(b"no", "503 Busy"), http(b"no", "503 Busy", Content_Length="3")
    with Scripted(scripted([whole_refusal], [whole(CHAT)], [half, Close()], [whole(CHAT)])) as server:
        result = run(server.url, CHAT, requests=4)
    assert [asked.connection for asked in server.asked] == [1, 1, 1, 2]
    assert (result["ok"], result["refused"], result["reconnects"]) == (2, 2, 0)


def test_no_server(free_port: int) -> None:
    result = run(f"http://127.0.0.1:{free_port}", clients=8, requests=8)
    assert (result["failed"], result["connections"], result["lossless"]) == (8, 0, False)
    assert "no connection: [Errno 111]" in result["failures"][0]["detail"]
    assert result["latency"] == result["first_byte"] == {"p50": None, "p95": None, "max": None}


# A lossy run is not called lossless.


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., list[str]]:
    def make(url: str, *options: str) -> list[str]:
        files = ["--result", str(tmp_path / "result.json"), "--progress", str(tmp_path / "progress.json")]
        files += ["--pid-file", str(tmp_path / "pid")]
        return ["--url", url, "--model", MODEL, *files, *options]

    return make


def test_a_lossless_run(command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "key").write_text("secret\n")
    with VllmDouble(api_key="secret") as double:
        more = ["--requests", "40", "--at-least", "40", "--key-file", str(tmp_path / "key"), "--max-tokens", "6"]
        assert load_generator.main(command(double.url, *more, "--expect-text", ANSWER, "--expect-chunks", "6")) == 0
        assert len(double.log) == 40
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["lossless"], result["requests"], result["ok"], result["failures"]) == (True, 40, 40, [])
    progress = json.loads((tmp_path / "progress.json").read_text())
    assert (progress["running"], progress["ok"], progress["in_flight"]) == (False, 40, 0)
    assert progress["clients_ok"] == progress["clients"] == 12
    assert sorted(path.name for path in tmp_path.iterdir()) == ["key", "progress.json", "result.json"]
    first, *_between, last = capsys.readouterr().out.splitlines()
    assert first.startswith("40 requests of 12 clients in ")
    assert first.endswith(" s: 40 ok, 0 refused, 0 cut, 0 failed")
    assert last == "lossless"


@pytest.mark.parametrize(
    ("settings", "options", "outcomes", "detail"),
    [
        # Only streams begin before their tokens are there.
        ({"faults": Faults(cut_after=3)}, [], {"cut", "failed"}, "the server closed the connection"),
        ({"faults": Faults(cut_after=0)}, [], {"cut", "failed"}, "the server closed the connection"),
        ({"faults": Faults(http_status=503)}, [], {"refused"}, "status 503: '{\"error\": {\"message\": \"a fault on "),
        ({"faults": Faults(garbage=True)}, [], {"failed"}, "the Content-Type is 'text/html', not "),
        ({"faults": Faults(hang=True)}, ["--timeout", "0.3"], {"failed"}, "no "),
        ({"faults": Faults(slow_http=600)}, ["--timeout", "0.3"], {"failed"}, "no answer in 0.3 s"),
        ({"faults": Faults(no_tokens=True)}, [], {"failed"}, "the finish_reason is 'stop', after ''"),
        ({"faults": Faults(dead=True)}, [], {"refused"}, "status 500: '{\"error\": {\"message\": \"EngineCore "),
        ({"names": ["other"]}, [], {"refused"}, "status 404: "),
        ({"api_key": "secret"}, [], {"refused"}, "status 401: '{\"error\": \"Unauthorized\"}'"),
        ({"task": "embed"}, [], {"refused"}, "status 404: "),
        ({}, ["--expect-text", "Kyoto"], {"failed"}, "the text is 'The capital of Japan is Tokyo. The"),
        ({}, ["--at-least", "25"], set(), ""),
    ],
)  # fmt: skip
def test_a_lossy_run(
    command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    settings: dict[str, Any], options: list[str], outcomes: set[str], detail: str,
) -> None:  # fmt: skip
    (tmp_path / "result.json").write_text('{"lossless": true}')
    with VllmDouble(**settings) as double:
        assert load_generator.main(command(double.url, "--requests", "24", *options)) == 1
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["lossless"] is False
    assert result["requests"] == 24
    assert {name for name in load_generator.OUTCOMES if result[name]} == (outcomes or {"ok"})
    assert len(result["failures"]) == (24 if outcomes else 0)
    for failure in result["failures"]:
        assert failure["detail"].startswith(detail)
        assert failure["outcome"] != "cut" or failure["status"] == 200
    last = capsys.readouterr().out.splitlines()[-1]
    lost = 24 if outcomes else 0
    assert last == f"NOT lossless: {lost} requests lost" + ("" if outcomes else ", and fewer than 25 requests")


@pytest.mark.parametrize(
    ("spoil", "outcome"),
    [
        (lambda _answer: [http(b"no", "503 Busy")], "refused"),
        (lambda answer: [answer[:-1], Close()], "cut"),
        (lambda _answer: [Close()], "failed"),
    ],
    ids=["refused", "cut", "failed"],
)
def test_one_loss_in_many(command: Any, tmp_path: Path, spoil: Any, outcome: str) -> None:
    kinds = {f"client-{number}": kind for number, kind in enumerate(KINDS)}

    def script(asked: Asked) -> list[bytes | Close]:
        answer = whole(kinds[asked.header("X-Session")])
        return spoil(answer) if asked.number == 100 else [answer]

    with Scripted(script) as server:
        options = ["--clients", "8", "--requests", "200", "--max-tokens", "2", "--session-header", "X-Session"]
        assert load_generator.main(command(server.url, *options)) == 1
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["lossless"], result["ok"], result[outcome]) == (False, 199, 1)
    assert [failure["outcome"] for failure in result["failures"]] == [outcome]


def test_a_stream_that_stalls() -> None:
    begun = http(sse([FIRST, THE]))[: -len(b"0\r\n\r\n")]
    done = threading.Event()

    def script(_asked: Asked) -> Iterator[bytes]:
        yield begun
        done.wait(20)

    with Scripted(script) as server:
        result = run(server.url, CHAT_STREAM, timeout=0.3)
        done.set()
    assert result["failures"][0]["detail"] == "no whole answer in 0.3 s, only 1 chunks of text"
    assert result["failed"] == 1


def test_an_error_of_the_generator_itself_is_no_result(
    command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "result.json").write_text('{"lossless": true}')
    monkeypatch.setattr(load_generator.PlainAnswer, "finish", lambda self: 1 / 0)
    with VllmDouble() as double, pytest.raises(ExceptionGroup):
        load_generator.main(command(double.url, "--requests", "24"))
    assert not (tmp_path / "result.json").exists()
    assert not (tmp_path / "pid").exists()


# How a run ends.


@pytest.fixture
def start(command: Any) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    children: list[subprocess.Popen[str]] = []

    def begin(url: str, *options: str) -> subprocess.Popen[str]:
        argv = [sys.executable, str(SCRIPT), *command(url, *options)]
        children.append(subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
        return children[-1]

    yield begin
    for child in children:
        child.kill()
        child.communicate()


def read_json(path: Path) -> dict[str, Any]:
    """Of a file that is never half written; {} if there is none."""
    return json.loads(path.read_text()) if path.exists() else {}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(start: Any, tmp_path: Path, number: int) -> None:
    with VllmDouble(token_delay=0.02) as double:
        child = start(double.url, "--max-tokens", "20")
        progress = wait_until(lambda: (told := read_json(tmp_path / "progress.json")).get("clients_ok") == 12 and told)
        assert progress["running"]
        assert progress["pid"] == int((tmp_path / "pid").read_text()) == child.pid
        wait_until(lambda: double.in_flight > 6)
        os.kill(child.pid, number)
        output = child.communicate(timeout=30)[0]
        made = len(double.log)
        stop, length, abort = (double.engine.counts[reason] for reason in ("stop", "length", "abort"))
    assert child.returncode == 0, output
    result = read_json(tmp_path / "result.json")
    assert result["lossless"]
    # Nothing that was asked for was left.
    assert result["requests"] == result["ok"] == made == length
    assert (stop, abort) == (0, 0)
    assert not (tmp_path / "pid").exists()


def test_what_hangs_at_the_end_is_lost(start: Any, tmp_path: Path) -> None:
    with VllmDouble() as double:
        child = start(double.url, "--think", "0.05", "--finish", "0.5")
        wait_until(lambda: read_json(tmp_path / "progress.json").get("clients_ok") == 12)
        double.faults.hang = True
        wait_until(lambda: double.in_flight == 12)
        child.terminate()
        output = child.communicate(timeout=30)[0]
    assert child.returncode == 1
    result = read_json(tmp_path / "result.json")
    assert (result["failed"], result["ok"]) == (12, result["requests"] - 12)
    late = "in 0.5 s after the end of the run"
    for failure in result["failures"]:
        assert re.fullmatch(rf"no answer {late}|no whole answer {late}, only \d+ chunks of text", failure["detail"])
    assert output.splitlines()[-1] == "NOT lossless: 12 requests lost"


def test_seconds(start: Any, tmp_path: Path) -> None:
    with VllmDouble(token_delay=0.001) as double:
        child = start(double.url, "--seconds", "0.5")
        assert child.wait(timeout=30) == 0
        assert read_json(tmp_path / "result.json")["ok"] == len(double.log) > 0


def test_a_server_that_is_killed(start: Any, tmp_path: Path, free_port: int) -> None:
    (tmp_path / "config.json").write_text("{}")
    double = [sys.executable, vllm_double.__file__, "serve", str(tmp_path), "--served-model-name", MODEL]
    double += ["--host", "127.0.0.1", "--port", str(free_port), "--token-delay", "0.02"]
    server = subprocess.Popen(double, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: listens(free_port))
        child = start(f"http://127.0.0.1:{free_port}")
        wait_until(lambda: read_json(tmp_path / "progress.json").get("clients_ok") == 12)
        server.kill()
        wait_until(lambda: read_json(tmp_path / "progress.json").get("failed", 0) > 24)
        child.terminate()
        output = child.communicate(timeout=30)[0]
    finally:
        server.kill()
        server.wait()
    assert child.returncode == 1
    result = read_json(tmp_path / "result.json")
    assert result["ok"] >= 12
    assert result["requests"] == result["ok"] + result["cut"] + result["failed"]
    # Of twelve clients six stream: theirs had begun, the others had no answer, and then there was no server.
    assert 0 < result["cut"] <= 6
    details = [failure["detail"] for failure in result["failures"]]
    assert any(detail.startswith("no connection: [Errno 111]") for detail in details)
    assert "NOT lossless" in output


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


# What it tells.


def test_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    load = Load("http://127.0.0.1:1", WISH, clients=2, server_header="X-Server")
    clients = [Client(number, kind, load) for number, kind in enumerate((CHAT, CHAT_STREAM))]
    for client in clients:
        load.tallies[client.kind] = load_generator.Tally(clients=1)
    load.started_at = load.last_success = 1000.0
    load.started = 1_700_000_000.0

    def count(which: int, began: float, ended: float, outcome: str, **more: Any) -> None:
        load.begun += 1
        times = {"began": 1000 + began, "ended": 1000 + ended, "first_byte_at": 1000 + began + 0.25}
        load.count(Request(clients[which], outcome=outcome, **times, **more))

    count(0, 0.0, 1.0, "ok", server="a")
    count(1, 0.0, 3.0, "ok", server="b")
    for at in range(60):
        count(at % 2, 3, 3.5 + at / 100, "failed", detail=f"number {at}")
    count(0, 4.5, 5.5, "ok", server="a")
    load.note_gap(1006.0)
    load.ended_at = 1006.0
    result = load.result()
    assert (result["requests"], result["ok"], result["failed"], result["lossless"]) == (63, 3, 60, False)
    assert (result["started"], result["seconds"]) == ("2023-11-14T22:13:20.000Z", 6.0)
    assert result["longest_gap"] == {"seconds": 2.5, "at": "2023-11-14T22:13:23.000Z", "after": 3.0}
    assert result["latency"] == {"p50": 1.0, "p95": 3.0, "max": 3.0}
    assert result["first_byte"] == {"p50": 0.25, "p95": 0.25, "max": 0.25}
    assert result["servers"] == {"a": 2, "b": 1}
    chat, stream = (result["kinds"][kind.name] for kind in (CHAT, CHAT_STREAM))
    assert (chat["ok"], chat["failed"], stream["ok"], stream["failed"]) == (2, 30, 1, 30)
    assert stream["latency"]["max"] == 3.0
    assert len(result["failures"]) == 50
    assert result["failures"][7] == {
        "at": "2023-11-14T22:13:23.570Z",
        "after": 3.57,
        "seconds": 0.57,
        "client": 1,
        "kind": "chat-stream-kept",
        "outcome": "failed",
        "status": None,
        "server": "",
        "detail": "number 7",
    }


def test_an_outage_at_the_end_is_a_gap() -> None:
    with Scripted(scripted([whole(CHAT)], [])) as server:
        result = run(server.url, CHAT, requests=2, timeout=0.2)
    assert (result["ok"], result["failed"]) == (1, 1)
    assert result["longest_gap"]["seconds"] >= 0.2
    assert result["longest_gap"]["after"] < result["failures"][0]["after"]


@pytest.mark.parametrize(
    ("count", "expected"),
    [(1, (1, 1, 1)), (2, (1, 2, 2)), (20, (10, 19, 20)), (100, (50, 95, 100)), (101, (51, 96, 101))],
)
def test_percentiles(count: int, expected: tuple[int, ...]) -> None:
    values = random.sample(range(1, count + 1), count)
    assert tuple(percentiles(values).values()) == expected


def test_servers() -> None:
    def script(asked: Asked) -> list[bytes]:
        answer = http(json.dumps(document(CHAT)).encode(), X_Server=f"gpu{asked.number % 3}")
        return [answer.replace(b"X-Server: gpu2\r\n", b"")]

    with Scripted(script) as server:
        result = run(server.url, CHAT, requests=7, server_header="x-server")
    assert result["servers"] == {"": 2, "gpu0": 3, "gpu1": 2}


def test_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = []
    monkeypatch.setattr(random, "uniform", lambda low, high: waits.append((low, high)) or 0.0)
    with Scripted(scripted([whole(CHAT)], [Close()], [whole(CHAT)])) as server:
        run(server.url, CHAT, requests=4, think=3.0)
    assert waits == [(0, 3.0)] * 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--url", "https://127.0.0.1:1"], "argument --url: "),
        (["--url", "127.0.0.1:1"], "argument --url: "),
        (["--clients", "0"], "argument --clients: "),
        (["--seconds", "nan"], "argument --seconds: "),
        (["--key-file", "/nowhere/key"], "No such file or directory: '/nowhere/key'"),
        (["--result", "/nowhere/result.json"], "No such file or directory: '/nowhere"),
    ],
)
def test_options_that_are_wrong(
    command: Any, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as end:
        load_generator.main(command("http://127.0.0.1:1", *options))
    assert end.value.code == 2
    assert message in capsys.readouterr().err
