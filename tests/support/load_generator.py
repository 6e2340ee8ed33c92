"""The clients that stand for users while a release is rolled out, and a count of what became of their requests.

    python tests/support/load_generator.py --url http://HOST:PORT --model NAME --result FILE [--clients 12]
        [--requests N] [--seconds S] [--at-least N] [--key-file FILE] [--progress FILE] [--pid-file FILE] [OPTION ...]

It needs Python 3.11 and its standard library alone. It asks until N requests are made, S seconds are over, or SIGTERM
or SIGINT comes, whichever is first; then it waits for the requests in flight (--finish S at most), writes FILE and says
the same in some lines. It ends with 0 if every request was answered in whole and there were --at-least N of them (1),
otherwise with 1.

Clients are of eight kinds, in turn: chat or completions, streaming or plain, with one connection that is kept or with a
new one for each request. A kept connection that the server closed before a request was sent is opened anew, as real
clients do, and counted in `reconnects`; so is one whose end the last answer has announced. One that ends when the
request has been sent is a failure. After a failure a client waits a moment, and no request is made again.

Every request has one outcome:

    ok       status 200, and whole to the last byte of its HTTP message: the model, the kind of object, the text, the
             finish_reason and the number of tokens are as asked for; a stream has its `data: [DONE]` as well
    refused  another status
    cut      it began and was broken off: the connection ended before the answer did, or the answer says so itself (an
             error in a stream, the finish_reason abort, no finish_reason, no [DONE])
    failed   no connection, no answer, one that is wrong in itself, or none in whole in time (--timeout S, 120)

Answers must have exactly --max-tokens tokens, since `ignore_eos` is sent; with --no-ignore-eos they may stop earlier.
Streams have a chunk for each token or fewer: a busy server puts several tokens into one. --expect-chunks N wants N of
them, --expect-text TEXT wants TEXT in every answer.

FILE is a JSON object: `lossless`, `started`, `seconds`, `cpu_seconds` (of this process), `clients`, `requests`, `ok`,
`refused`, `cut`, `failed`, `connections` (opened), `reconnects`, `latency` and `first_byte` (p50, p95 and max of the
answers that are ok, in seconds), `longest_gap` (the longest time without a success: its `seconds`, when it began as
`at`, and as `after` in seconds since the start; the run's own start and end are its bounds like a success), `kinds`
(such numbers by kind of client), `servers` (answers that are ok by the value of the response header --server-header)
and `failures` (the first 50). While it runs, --progress FILE is written anew each second: `running`, `pid`, `time`,
`seconds`, the counts so far, `in_flight`, and `clients_ok`, which is the number of clients that had a success. Both
files are replaced at once, and an old one is removed at the start. The file of --pid-file is there while it runs.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import os
import random
import re
import select
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

OUTCOMES = ("ok", "refused", "cut", "failed")
FAILURES = 50  # that are kept
PAUSE = 0.2  # seconds after a failure, else clients of a dead server would do nothing but fail
START = 200  # bytes of an answer that a failure quotes
MAX_LINE = 1 << 16
MAX_BODY = 1 << 24
STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3})(?: .*)?")


class Ended(Exception):
    """The connection ended before what was to come."""


class Loss(Exception):
    """A request that is not ok; the message says why."""

    outcome = ""


class Refused(Loss):
    outcome = "refused"


class Cut(Loss):
    outcome = "cut"


class Failed(Loss):
    outcome = "failed"


def quoted(data: bytes | str) -> str:
    """The start of what came, in one line."""
    text = data.decode(errors="replace") if isinstance(data, bytes) else data
    short = " ".join(text[: START + 1].split())
    return f"'{short[:START]}...'" if len(text) > START else f"'{short}'"


def parse_json(data: bytes, what: str) -> dict[str, Any]:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise Failed(f"{what} is no JSON: {quoted(data)}") from None
    if not isinstance(document, dict):
        raise Failed(f"{what} is no JSON object: {quoted(data)}")
    return document


@dataclass(frozen=True)
class Kind:
    """How a client asks."""

    chat: bool
    streams: bool
    keeps: bool

    @property
    def name(self) -> str:
        api = "chat" if self.chat else "completions"
        return f"{api}-{'stream' if self.streams else 'plain'}-{'kept' if self.keeps else 'new'}"

    @property
    def path(self) -> str:
        return "/v1/chat/completions" if self.chat else "/v1/completions"

    @property
    def object(self) -> str:
        if not self.chat:
            return "text_completion"
        return "chat.completion.chunk" if self.streams else "chat.completion"


# Of each four in a row, two are of either way in every respect: so twelve clients are as balanced as eight.
KINDS = tuple(
    Kind(chat, streams, keeps)
    for odd in (False, True)
    for chat in (True, False)
    for streams in (True, False)
    for keeps in (True, False)
    if (chat ^ streams ^ keeps) != odd
)


@dataclass(frozen=True)
class Wish:
    """What is asked for, and what an answer is to be like."""

    model: str
    max_tokens: int = 16
    ignore_eos: bool = True
    prompt: str = "What is the capital of Japan?"
    text: str = ""
    chunks: int | None = None

    def body(self, kind: Kind) -> bytes:
        body: dict[str, Any] = {"model": self.model, "max_tokens": self.max_tokens, "temperature": 0}
        body |= {"messages": [{"role": "user", "content": self.prompt}]} if kind.chat else {"prompt": self.prompt}
        if self.ignore_eos:
            body["ignore_eos"] = True
        if kind.streams:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return json.dumps(body).encode()

    def choice_of(self, document: dict[str, Any], kind: Kind) -> dict[str, Any] | None:
        """The one choice of an answer or of an event, once it is from whom it should be; None if it has none."""
        for key, wanted in (("object", kind.object), ("model", self.model)):
            if document.get(key) != wanted:
                raise Failed(f"the {key} is {document.get(key)!r}, not {wanted!r}")
        match document.get("choices"):
            case []:
                return None
            case [{"index": 0} as only]:
                choice: dict[str, Any] = only
                return choice
        raise Failed(f"choices are not one of index 0: {quoted(json.dumps(document))}")

    def check_end(self, text: str, reason: Any, usage: Any) -> None:
        if reason == "abort":
            raise Cut(f"the finish_reason is 'abort', after {quoted(text)}")
        if reason not in (("length",) if self.ignore_eos else ("length", "stop")):
            raise Failed(f"the finish_reason is {reason!r}, after {quoted(text)}")
        if not text:
            raise Failed("the answer has no text")
        if self.text not in text:
            raise Failed(f"the text is {quoted(text)}, without {self.text!r}")
        tokens = usage.get("completion_tokens") if isinstance(usage, dict) else None
        fewest = 1 if reason == "stop" else self.max_tokens
        if not isinstance(tokens, int) or isinstance(tokens, bool) or not fewest <= tokens <= self.max_tokens:
            raise Failed(f"usage.completion_tokens is {tokens!r}, not {self.max_tokens}")


class PlainAnswer:
    """The body of an answer in one piece."""

    content_type = "application/json"

    def __init__(self, wish: Wish, kind: Kind):
        self.wish, self.kind = wish, kind
        self.body = bytearray()

    def feed(self, data: bytes) -> None:
        self.body += data

    def finish(self) -> None:
        """Raises unless the answer is whole and as asked for."""
        document = parse_json(bytes(self.body), "the answer")
        if "error" in document:
            raise Failed(f"the answer with status 200 is an error: {quoted(bytes(self.body))}")
        choice = self.wish.choice_of(document, self.kind)
        if choice is None:
            raise Failed("the answer has no choice")
        message = choice.get("message") if self.kind.chat else choice
        text = message.get("content" if self.kind.chat else "text") if isinstance(message, dict) else None
        if not isinstance(text, str | None):
            raise Failed(f"the text is no string: {quoted(bytes(self.body))}")
        self.wish.check_end(text or "", choice.get("finish_reason"), document.get("usage"))

    def so_far(self) -> str:
        return f"{len(self.body)} bytes of the body"


class StreamAnswer:
    """The body of an answer in server-sent events, each looked at when it comes."""

    content_type = "text/event-stream"

    def __init__(self, wish: Wish, kind: Kind):
        self.wish, self.kind = wish, kind
        self.rest = b""  # of a line
        self.data: list[bytes] = []  # lines of an event
        self.id: Any = None
        self.texts: list[str] = []
        self.reason: Any = None
        self.usage: Any = None
        self.done = False

    def feed(self, data: bytes) -> None:
        *lines, self.rest = (self.rest + data).split(b"\n")
        if len(self.rest) > MAX_LINE:
            raise Failed(f"a line of the stream is longer than {MAX_LINE} bytes")
        for line in lines:
            line = line.removesuffix(b"\r")
            if line.startswith(b"data:"):
                self.data.append(line[5:].removeprefix(b" "))
            elif not line and self.data:
                self.event(b"\n".join(self.data))
                self.data = []
            elif line and not line.startswith(b":"):
                raise Failed(f"the stream has the line {quoted(line)}")

    def event(self, data: bytes) -> None:
        if self.done:
            raise Failed(f"the stream goes on after [DONE]: {quoted(data)}")
        if data == b"[DONE]":
            self.done = True
            return
        event = parse_json(data, "an event")
        if "error" in event or event.get("object") == "error":
            raise Cut(f"the stream has an error after {self.so_far()}: {quoted(data)}")
        choice = self.wish.choice_of(event, self.kind)
        if self.id not in (None, event.get("id")):
            raise Failed(f"an event has the id {event.get('id')!r}, those before it {self.id!r}")
        self.id = event.get("id")
        if choice is None:
            if self.reason is None or self.usage is not None:
                raise Failed(f"an event without a choice is not the one of the usage: {quoted(data)}")
            self.usage = event.get("usage")
            return
        if self.reason is not None:
            raise Failed(f"the text goes on after the finish_reason {self.reason!r}: {quoted(data)}")
        part = choice.get("delta") if self.kind.chat else choice
        text = part.get("content" if self.kind.chat else "text") if isinstance(part, dict) else 0
        if not isinstance(text, str | None):
            raise Failed(f"the text of an event is no string: {quoted(data)}")
        if text:
            self.texts.append(text)
        self.reason = choice.get("finish_reason")

    def finish(self) -> None:
        """Raises unless the answer is whole and as asked for."""
        if self.rest or self.data:
            raise Cut(f"the last event has no end, after {self.so_far()}")
        if self.reason is None or not self.done:
            missing = "finish_reason" if self.reason is None else "[DONE]"
            raise Cut(f"the stream has no {missing}, after {self.so_far()}")
        self.wish.check_end("".join(self.texts), self.reason, self.usage)
        tokens, chunks = self.usage["completion_tokens"], len(self.texts)
        if chunks > tokens or self.wish.chunks not in (None, chunks):
            raise Failed(f"the stream has {chunks} chunks of text, not {self.wish.chunks or tokens}")

    def so_far(self) -> str:
        return f"{len(self.texts)} chunks of text"


Answer = PlainAnswer | StreamAnswer


class Connection(asyncio.Protocol):
    """One connection, with what has come and is not read yet. http.client takes a chunked body without its end."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.received = bytearray()
        self.end = ""  # how it ended
        self.used = 0  # requests that it had
        self.first_byte_at: float | None = None  # of this answer
        self._news: asyncio.Future[None] | None = None

    # What the event loop says.

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self.first_byte_at is None:
            self.first_byte_at = time.monotonic()
        self.received += data
        self._wake()

    def eof_received(self) -> None:
        self.end = "the server closed the connection"
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self.end = self.end or f"the connection broke ({exc})"
        self._wake()

    def _wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    # What a client does.

    def is_stale(self) -> bool:
        """Whether nothing can be asked on it any more. Asks the kernel: the event loop may not have looked yet."""
        if self.end or self.received or self.transport.is_closing():
            return True
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def send(self, request: bytes) -> None:
        self.first_byte_at = None
        self.used += 1
        self.transport.write(request)

    async def line(self) -> bytes:
        while (size := self.received.find(b"\r\n")) < 0:
            if len(self.received) > MAX_LINE:
                raise Failed(f"a line of the answer is longer than {MAX_LINE} bytes")
            await self._more()
        return self._take(size, 2)

    async def exactly(self, size: int) -> bytes:
        while len(self.received) < size:
            await self._more()
        return self._take(size)

    async def until_the_end(self, size: int) -> bytes:
        """What comes until the connection ends, or so much of it."""
        with contextlib.suppress(Ended):
            await self.exactly(size)
        return self._take(size)

    async def _more(self) -> None:
        if self.end:
            raise Ended(self.end)
        self._news = asyncio.get_running_loop().create_future()
        await self._news

    def _take(self, size: int, more: int = 0) -> bytes:
        data = bytes(self.received[:size])
        del self.received[: size + more]
        return data


async def read_head(connection: Connection) -> tuple[int, dict[str, str]]:
    """Status and headers, whose names are in small letters."""
    line = await connection.line()
    if not (status := STATUS_LINE.fullmatch(line)):
        raise Failed(f"the answer is no HTTP: {quoted(line)}")
    headers: dict[str, str] = {}
    if line.startswith(b"HTTP/1.0"):
        headers["connection"] = "close"
    while line := await connection.line():
        name, colon, value = line.decode("latin-1").partition(":")
        name = name.lower()
        if not colon or (name in headers and name in ("content-length", "transfer-encoding")):
            raise Failed(f"the answer has the header {quoted(line)}")
        headers[name] = value.strip()
    return int(status[1]), headers


async def read_body(connection: Connection, headers: dict[str, str], feed: Callable[[bytes], None]) -> None:
    """Feeds the body as it comes, to its very end. One whose end nothing tells could be cut without a trace."""
    coding, length = headers.get("transfer-encoding"), headers.get("content-length")
    if coding is None and length is None:
        raise Failed("the answer has neither a Content-Length nor chunks: nobody can tell whether it is whole")
    if coding is None:
        feed(await connection.exactly(body_size(length or "", 10)))
        return
    if coding.lower() != "chunked" or length is not None:
        raise Failed(f"the answer has Transfer-Encoding {coding!r} and Content-Length {length!r}")
    total = 0
    while size := body_size((await connection.line()).decode("latin-1").partition(";")[0].strip(), 16):
        total += size
        if total > MAX_BODY:
            raise Failed(f"the answer is longer than {MAX_BODY} bytes")
        data = await connection.exactly(size)
        if await connection.exactly(2) != b"\r\n":
            raise Failed("a chunk is longer than its size")
        feed(data)
    while await connection.line():
        pass  # trailers


def body_size(text: str, base: int) -> int:
    if not re.fullmatch("[0-9]+" if base == 10 else "[0-9a-fA-F]+", text) or int(text, base) > MAX_BODY:
        raise Failed(f"the answer has the size {text[:20]!r}")
    return int(text, base)


@dataclass
class Request:
    """One request and what became of it; times are those of time.monotonic()."""

    client: Client
    began: float
    ended: float = 0.0
    outcome: str = ""
    detail: str = ""
    status: int | None = None
    first_byte_at: float | None = None
    server: str = ""


class Client:
    """One user, who asks, waits for the answer, and asks again."""

    def __init__(self, number: int, kind: Kind, load: Load):
        self.number, self.kind, self.load = number, kind, load
        self.connection: Connection | None = None
        body = load.wish.body(kind)
        headers = {
            "Host": load.address.netloc,
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "Connection": "keep-alive" if kind.keeps else "close",
            **({"Authorization": f"Bearer {load.key}"} if load.key else {}),
            **({load.session_header: f"client-{number}"} if load.session_header else {}),
        }
        lines = [f"POST {load.address.path.rstrip('/')}{kind.path} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.request = "\r\n".join([*lines, "", ""]).encode() + body

    async def run(self) -> None:
        try:
            while self.load.begin():
                request = Request(self, time.monotonic())
                try:
                    await self.ask(request)
                finally:
                    self.load.count(request)
                await self.load.pause(random.uniform(0, self.load.think) if request.outcome == "ok" else PAUSE)
        finally:
            self.close()

    def close(self) -> None:
        if self.connection:
            self.connection.transport.close()
            self.connection = None

    async def ask(self, request: Request) -> None:
        """Makes the request and notes what became of it."""
        answer = (StreamAnswer if self.kind.streams else PlainAnswer)(self.load.wish, self.kind)
        try:
            async with asyncio.timeout(self.load.timeout):
                await self.exchange(request, answer)
            request.outcome = "ok"
        except Loss as loss:
            request.outcome, request.detail = loss.outcome, str(loss)
        except Ended as end:
            came = self.came(request, answer)
            request.outcome, request.detail = "cut", f"{end}, after {came}"
            if not came:
                number = self.connection.used if self.connection else 0
                request.outcome, request.detail = "failed", f"{end} without an answer to request {number} on it"
        except TimeoutError:
            self.note_late(request, answer, f"in {self.load.timeout:g} s")
        except asyncio.CancelledError:
            self.note_late(request, answer, f"in {self.load.finish:g} s after the end of the run")
            raise
        finally:
            request.ended = time.monotonic()
            if self.connection:
                request.first_byte_at = self.connection.first_byte_at
            if request.status not in (None, 200) and request.outcome != "refused":
                request.outcome, request.detail = "refused", f"status {request.status}, {request.detail}"
            if not self.kind.keeps or request.outcome in ("cut", "failed"):
                self.close()

    def came(self, request: Request, answer: Answer) -> str:
        """How much of the answer came, or ''."""
        if self.connection is None or self.connection.first_byte_at is None:
            return ""
        return "a part of the head" if request.status is None else answer.so_far()

    def note_late(self, request: Request, answer: Answer, late: str) -> None:
        request.outcome, request.detail = "failed", f"no connection {late}"
        if self.connection:
            came = self.came(request, answer)
            request.detail = f"no whole answer {late}, only {came}" if came else f"no answer {late}"

    async def exchange(self, request: Request, answer: Answer) -> None:
        """Raises Loss or Ended unless the answer is whole and as asked for."""
        connection = await self.connected()
        connection.send(self.request)
        request.status, headers = await read_head(connection)
        request.server = headers.get(self.load.server_header.lower(), "")
        if request.status != 200:
            raise Refused(f"status {request.status}: {quoted(await self.refusal(connection, headers))}")
        content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        if content_type != answer.content_type:
            raise Failed(f"the Content-Type is {content_type!r}, not {answer.content_type!r}")
        await read_body(connection, headers, answer.feed)
        answer.finish()
        if connection.received:
            raise Failed(f"after the end of the answer came {quoted(bytes(connection.received))}")
        if "close" in headers.get("connection", "").lower():
            connection.end = "the server said that it closes the connection"

    async def connected(self) -> Connection:
        if self.connection and self.connection.is_stale():
            self.close()
            self.load.count_connection(self, again=True)
        if not self.connection:
            address = self.load.address
            try:
                _transport, self.connection = await asyncio.get_running_loop().create_connection(
                    Connection, str(address.hostname), address.port or 80
                )
            except OSError as error:
                raise Failed(f"no connection: {error}") from None
            self.load.count_connection(self)
        return self.connection

    async def refusal(self, connection: Connection, headers: dict[str, str]) -> bytes:
        """The body of an answer that is none, in whole or as far as it can be had."""
        body = bytearray()
        try:
            await read_body(connection, headers, body.extend)
            if "close" in headers.get("connection", "").lower():
                connection.end = "the server said that it closes the connection"
        except (Ended, Failed):
            body += await connection.until_the_end(START)
            self.close()
        return bytes(body)


def percentiles(values: list[float]) -> dict[str, float | None]:
    """Each is a value that there was: so many of all are no greater."""
    ranked = sorted(values)
    ranks = {"p50": 0.5, "p95": 0.95, "max": 1.0}
    return {
        name: round(ranked[math.ceil(len(ranked) * rank) - 1], 4) if ranked else None for name, rank in ranks.items()
    }


@dataclass
class Tally:
    """The numbers of all clients, or of a kind."""

    clients: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    connections: int = 0
    reconnects: int = 0
    latencies: list[float] = field(default_factory=list)
    first_bytes: list[float] = field(default_factory=list)

    def add(self, request: Request) -> None:
        self.counts[request.outcome] += 1
        if request.outcome == "ok":
            self.latencies.append(request.ended - request.began)
            self.first_bytes.append((request.first_byte_at or request.ended) - request.began)

    def brief(self) -> dict[str, Any]:
        return {
            "clients": self.clients,
            "requests": self.counts.total(),
            **{outcome: self.counts[outcome] for outcome in OUTCOMES},
            "connections": self.connections,
            "reconnects": self.reconnects,
        }

    def document(self) -> dict[str, Any]:
        return {
            **self.brief(),
            "latency": percentiles(self.latencies),
            "first_byte": percentiles(self.first_bytes),
        }


@dataclass
class Load:
    """All clients, when they are to end, and what they have seen."""

    url: str
    wish: Wish
    clients: int = 12
    requests: int | None = None
    seconds: float | None = None
    at_least: int = 1
    timeout: float = 120.0
    finish: float = 60.0
    think: float = 0.0
    key: str = ""
    session_header: str = ""
    server_header: str = ""
    kinds: Sequence[Kind] = KINDS

    def __post_init__(self) -> None:
        self.address = urlsplit(self.url)
        self.total = Tally()
        self.tallies: dict[Kind, Tally] = {}
        self.servers: Counter[str] = Counter()
        self.failures: list[dict[str, Any]] = []
        self.clients_ok: set[int] = set()
        self.begun = 0
        self.ended_at: float | None = None
        self.stopping = asyncio.Event()
        self.tasks: list[asyncio.Task[None]] = []
        self.started_at = self.last_success = time.monotonic()
        self.started = time.time()
        self.gap = (0.0, self.started_at)  # seconds, and when it began

    # What clients ask for and tell.

    def begin(self) -> bool:
        """Whether one more request is to be made."""
        if self.stopping.is_set() or self.begun == self.requests:
            return False
        self.begun += 1
        return True

    async def pause(self, seconds: float) -> None:
        if seconds:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self.stopping.wait()

    def count_connection(self, client: Client, again: bool = False) -> None:
        for tally in (self.total, self.tallies[client.kind]):
            if again:
                tally.reconnects += 1
            else:
                tally.connections += 1

    def count(self, request: Request) -> None:
        client = request.client
        for tally in (self.total, self.tallies[client.kind]):
            tally.add(request)
        if request.outcome == "ok":
            self.clients_ok.add(client.number)
            self.note_gap(request.ended)
            self.last_success = request.ended
            if self.server_header:
                self.servers[request.server] += 1
        elif len(self.failures) < FAILURES:
            self.failures.append(
                {
                    "at": self.clock(request.ended),
                    "after": round(request.ended - self.started_at, 3),
                    "seconds": round(request.ended - request.began, 3),
                    "client": client.number,
                    "kind": client.kind.name,
                    "outcome": request.outcome,
                    "status": request.status,
                    "server": request.server,
                    "detail": request.detail,
                }
            )

    def note_gap(self, until: float) -> None:
        self.gap = max(self.gap, (until - self.last_success, self.last_success), key=lambda gap: gap[0])

    # The run.

    async def run(self) -> None:
        """Returns when all requests are made, or some time after stop()."""
        self.started_at = self.last_success = time.monotonic()
        self.started = time.time()
        if self.seconds is not None:
            asyncio.get_running_loop().call_later(self.seconds, self.stop)
        # An error that is none of a request is one of this program: it ends the run, and there is no result.
        async with asyncio.TaskGroup() as group:
            for number in range(self.clients):
                kind = self.kinds[number % len(self.kinds)]
                self.tallies.setdefault(kind, Tally()).clients += 1
                self.total.clients += 1
                self.tasks.append(group.create_task(Client(number, kind, self).run()))
        self.ended_at = time.monotonic()
        self.note_gap(self.ended_at)
        if self.total.counts.total() != self.begun:
            raise RuntimeError(f"{self.begun} requests were begun, but {self.total.counts} counted")

    def stop(self) -> None:
        """Has no more requests made, and breaks those off that take too long."""
        if not self.stopping.is_set():
            self.stopping.set()
            asyncio.get_running_loop().call_later(self.finish, self.break_off)

    def break_off(self) -> None:
        for task in self.tasks:
            task.cancel()

    # What there is to say.

    def clock(self, moment: float) -> str:
        time_of_day = datetime.fromtimestamp(self.started + moment - self.started_at, UTC)
        return time_of_day.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    @property
    def lossless(self) -> bool:
        requests = self.total.counts.total()
        return self.total.counts["ok"] == requests >= self.at_least

    def progress(self) -> dict[str, Any]:
        now = self.ended_at or time.monotonic()
        return {
            "running": self.ended_at is None,
            "pid": os.getpid(),
            "time": self.clock(now),
            "seconds": round(now - self.started_at, 3),
            **self.total.brief(),
            "in_flight": self.begun - self.total.counts.total(),
            "clients_ok": len(self.clients_ok),
        }

    def result(self) -> dict[str, Any]:
        seconds, since = self.gap
        return {
            "lossless": self.lossless,
            "started": self.clock(self.started_at),
            "seconds": round((self.ended_at or time.monotonic()) - self.started_at, 3),
            "cpu_seconds": round(time.process_time(), 3),
            **self.total.document(),
            "longest_gap": {
                "seconds": round(seconds, 3),
                "at": self.clock(since),
                "after": round(since - self.started_at, 3),
            },
            "kinds": {kind.name: tally.document() for kind, tally in self.tallies.items()},
            "servers": dict(sorted(self.servers.items())),
            "failures": self.failures,
        }


def summary(result: dict[str, Any], at_least: int) -> list[str]:
    """The result for people."""

    def times(name: str) -> str:
        if result["ok"] == 0:
            return "none"
        return ", ".join(f"{rank} {value:.3f} s" for rank, value in result[name].items())

    counts = ", ".join(f"{result[outcome]:,} {outcome}" for outcome in OUTCOMES)
    gap = result["longest_gap"]
    lines = [
        f"{result['requests']:,} requests of {result['clients']} clients in {result['seconds']:.1f} s: {counts}",
        f"latency: {times('latency')}; first byte: {times('first_byte')}",
        f"longest time without a success: {gap['seconds']:.3f} s, {gap['after']:.1f} s after the start ({gap['at']})",
        f"{result['connections']:,} connections opened, {result['reconnects']:,} of them because a kept one was closed",
    ]
    if result["servers"]:
        lines.append("servers: " + ", ".join(f"{name or '(not told)'} {n:,}" for name, n in result["servers"].items()))
    for failure in result["failures"][:3]:
        lines.append(
            f"{failure['at']} client {failure['client']} ({failure['kind']}) {failure['outcome']}: {failure['detail']}"
        )
    if not result["lossless"]:
        few = f", and fewer than {at_least:,} requests" if result["requests"] < at_least else ""
        lines.append(f"NOT lossless: {result['requests'] - result['ok']:,} requests lost{few}")
    else:
        lines.append("lossless")
    return lines


def write(path: Path | None, text: str) -> None:
    """Replaces the file at once, so that nobody reads a half of it."""
    if path:
        new = path.with_name(f".{path.name}.{os.getpid()}")
        new.write_text(text)
        new.replace(path)


async def conduct(load: Load, progress: Path | None, pid_file: Path | None) -> None:
    """Runs the load, with its signals and the files that tell of it."""

    async def tell() -> None:
        while True:
            write(progress, json.dumps(load.progress()) + "\n")
            await asyncio.sleep(1)

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, load.stop)
    write(pid_file, f"{os.getpid()}\n")
    telling = asyncio.create_task(tell())
    await load.run()
    telling.cancel()
    write(progress, json.dumps(load.progress()) + "\n")


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0], allow_abbrev=False)

    def positive(text: str) -> int:
        if int(text) < 1:
            raise ValueError
        return int(text)

    def duration(text: str) -> float:
        if not 0 <= float(text) < math.inf:
            raise ValueError
        return float(text)

    def address(text: str) -> str:
        parts = urlsplit(text)
        if parts.scheme != "http" or not parts.hostname or "@" in parts.netloc or parts.query or parts.fragment:
            raise ValueError
        return parts._replace(path=parts.path.rstrip("/")).geturl()

    add = parser.add_argument
    add("--url", type=address, required=True, help="http://HOST:PORT, without the /v1")
    add("--model", required=True)
    add("--key-file", type=Path)
    add("--clients", type=positive, default=12)
    add("--requests", type=positive)
    add("--seconds", type=duration)
    add("--at-least", type=positive, default=1, metavar="N", help="requests, else the run proves nothing")
    add("--timeout", type=duration, default=Load.timeout, metavar="S", help="of one request (%(default)g)")
    add(
        "--finish",
        type=duration,
        default=Load.finish,
        metavar="S",
        help="for what is in flight at the end (%(default)g)",
    )
    add("--think", type=duration, default=0.0, metavar="S", help="pause at random, up to S seconds, after each answer")
    add("--prompt", default=Wish.prompt)
    add("--max-tokens", type=positive, default=Wish.max_tokens, metavar="N")
    add("--ignore-eos", action=argparse.BooleanOptionalAction, default=True)
    add("--expect-text", default="", metavar="TEXT")
    add("--expect-chunks", type=positive, metavar="N")
    add("--session-header", default="", metavar="NAME", help="request header with a value of its own for each client")
    add("--server-header", default="", metavar="NAME", help="response header that tells who answered")
    add("--result", type=Path, required=True)
    add("--progress", type=Path)
    add("--pid-file", type=Path)
    args = parser.parse_args(argv)
    args.key = ""
    try:
        if args.key_file:
            args.key = args.key_file.read_text().strip()
        # A result of an earlier run would be taken for one of this.
        for path in (args.result, args.progress, args.pid_file):
            if path:
                path.unlink(missing_ok=True)
                with tempfile.TemporaryFile(dir=path.parent):
                    pass
    except OSError as error:
        parser.error(str(error))
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse(sys.argv[1:] if argv is None else argv)
    wish = Wish(args.model, args.max_tokens, args.ignore_eos, args.prompt, args.expect_text, args.expect_chunks)
    given = {item.name: getattr(args, item.name) for item in fields(Load) if item.name in args}
    load = Load(wish=wish, **given)
    try:
        asyncio.run(conduct(load, args.progress, args.pid_file))
        result = load.result()
        write(args.result, json.dumps(result, indent=2) + "\n")
    finally:
        if args.pid_file:
            args.pid_file.unlink(missing_ok=True)
    print("\n".join(summary(result, args.at_least)))
    return 0 if load.lossless else 1


if __name__ == "__main__":
    sys.exit(main())
