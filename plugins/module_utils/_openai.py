# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The part of an OpenAI-compatible server that a probe needs, over requests."""

from __future__ import annotations

import json
import re
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

try:
    import requests
    import urllib3

    REQUESTS_ERROR = None
except ImportError:
    REQUESTS_ERROR = traceback.format_exc()

# What the system says, inside what requests and urllib3 make of it.
_SYSTEM_WORDS = re.compile(
    r"\[Errno -?\d+\] ([^'\")]+)|\(\d+, '(?:\[SSL: \w+\] )?([^'(]+)|RemoteDisconnected\('([^']+)'"
)

# No answer that a probe asks for comes near it.
_MOST_BYTES = 64 << 20

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"


class BadAddress(Exception):
    """One sentence about an address, a key or a certificate that no request can be made with."""


class RequestFailed(Exception):
    """A request that was not answered as it should be.

    kind: refused (nobody listens), reset (the connection ended before any answer), unreachable (no
    such host, no way to it, or no connection in time), timeout, broken (the answer broke off),
    status (not 200), empty (no token), garbage (no answer of a vLLM server), tls.
    status: of HTTP, or None. message: what the server or the library said. tokens: those that
    had come.
    """

    def __init__(self, kind: str, path: str, message: str, status: int | None = None, tokens: int = 0) -> None:
        super().__init__("%s: %s" % (path, message))
        self.kind, self.path, self.message, self.status, self.tokens = kind, path, message, status, tokens


class Server:
    """A server at url (scheme, host, port). Every request is bounded by timeout in seconds.

    verify: whether to check its certificate, or the file of the authority to check it by. cert:
    own certificate, as a path or (path, path of the key).
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        timeout: float = 10.0,
        verify: bool | str = True,
        cert: str | tuple[str, str] | None = None,
    ) -> None:
        if not re.match(r"https?://[^/\s]", url):
            raise BadAddress("'%s' is no address of a server: it begins with http:// or https://" % url)
        if api_key and not re.match(r"[!-~]+\Z", api_key):
            raise BadAddress("the API key has a space, a line break or a character that is not ASCII: correct it")
        self.url = url.rstrip("/")
        self.timeout = timeout
        self.session = requests.Session()
        # A proxy of the environment has no business between a host and its own server.
        self.session.trust_env = False
        self.session.verify = verify
        self.session.cert = cert
        if api_key:
            self.session.headers["Authorization"] = "Bearer %s" % api_key

    def get(self, path: str) -> tuple[str, float]:
        """Return (the text at path, seconds that it took); raise RequestFailed."""
        started = time.monotonic()
        with self._get(path) as response:
            return _text(response, path, started + self.timeout), time.monotonic() - started

    def _get(self, path: str) -> requests.Response:
        try:
            return self._request("GET", path, self.timeout)
        except RequestFailed as error:
            if error.kind != "reset":
                raise
            # The server may just have closed a connection that was kept from the request before.
            return self._request("GET", path, self.timeout)

    def get_json(self, path: str) -> tuple[dict[str, Any], float]:
        """Return (the JSON document at path, seconds that it took); raise RequestFailed."""
        text, latency = self.get(path)
        return _document(text, path), latency

    def post(self, path: str, body: Mapping[str, Any], timeout: float | None = None) -> tuple[dict[str, Any], float]:
        """Return (the JSON document that answers body, seconds that it took); raise RequestFailed."""
        started = time.monotonic()
        limit = timeout or self.timeout
        with self._request("POST", path, limit, body) as response:
            return _document(_text(response, path, started + limit), path), time.monotonic() - started

    def generate(self, path: str, body: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        """Have an answer streamed and measure it; return StreamedAnswer.measured(); raise RequestFailed."""
        body = dict(body, stream=True, stream_options={"include_usage": True})
        started = time.monotonic()
        answer = StreamedAnswer(started, path)
        with self._request("POST", path, timeout, body) as response:
            line = b""
            try:
                # Byte by byte: a larger chunk would hold tokens back until it is full.
                for byte in response.iter_content(chunk_size=1):
                    now = time.monotonic()
                    if now > started + timeout:
                        raise RequestFailed("timeout", path, "no end after %g s" % timeout, tokens=answer.count())
                    if byte != b"\n":
                        line += byte
                        continue
                    answer.feed(line.decode("utf-8", "replace"), now)
                    line = b""
            except requests.RequestException as error:
                raise RequestFailed(_kind_of_end(error), path, _reason(error), tokens=answer.count()) from error
        return answer.measured(time.monotonic())

    def _request(
        self, method: str, path: str, timeout: float, body: Mapping[str, Any] | None = None
    ) -> requests.Response:
        try:
            with warnings.catch_warnings():
                # The user said that the certificate is not to be checked.
                warnings.filterwarnings("ignore", message="Unverified HTTPS request")
                response = self.session.request(method, self.url + path, json=body, stream=True, timeout=timeout)
        except requests.exceptions.SSLError as error:
            # Docker's proxy takes connections for a server that has yet to listen, and closes them.
            raise RequestFailed("reset" if "EOF" in str(error) else "tls", path, _reason(error)) from error
        except requests.exceptions.ConnectTimeout as error:
            raise RequestFailed("unreachable", path, "no connection within %g s" % timeout) from error
        except requests.exceptions.Timeout as error:
            raise RequestFailed("timeout", path, "no answer within %g s" % timeout) from error
        except requests.exceptions.InvalidURL as error:
            raise BadAddress("'%s' is no address of a server: %s" % (self.url, error)) from error
        except requests.RequestException as error:
            raise RequestFailed(_kind_of(error), path, _reason(error)) from error
        except OSError as error:
            # requests says so of certificates that are not there.
            raise BadAddress("%s: correct validate_certs, ca_path or client_cert" % error) from error
        if response.status_code != 200:
            with response:
                message = error_message(_text(response, path, time.monotonic() + timeout))
            raise RequestFailed("status", path, message, status=response.status_code)
        return response


def _kind_of(error: Exception) -> str:
    """Return the kind of a connection that failed; what happened stands only in its words."""
    words = str(error)
    if "refused" in words:
        return "refused"
    return "reset" if "Connection aborted" in words or "reset by peer" in words else "unreachable"


def _kind_of_end(error: Exception) -> str:
    """Return the kind of an answer that had begun and did not come whole."""
    return "timeout" if "timed out" in str(error) else "broken"


def _text(response: requests.Response, path: str, deadline: float) -> str:
    pieces: list[bytes] = []
    size = 0
    try:
        for piece in _pieces(response):
            pieces.append(piece)
            size += len(piece)
            if size > _MOST_BYTES:
                raise RequestFailed("garbage", path, "more than %d MiB" % (_MOST_BYTES >> 20), response.status_code)
            if time.monotonic() > deadline:
                raise RequestFailed("timeout", path, "no end of the answer in time", response.status_code)
        return b"".join(pieces).decode("utf-8", "replace")
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise RequestFailed(_kind_of_end(error), path, _reason(error), status=response.status_code) from error


def _pieces(response: requests.Response) -> Iterator[bytes]:
    """Return the body piece by piece as it comes; iter_content would wait until a piece is full."""
    read = getattr(response.raw, "read1", None)
    if read is None:
        # urllib3 before 2.1.
        return response.iter_content(1024)
    return iter(lambda: read(65536, decode_content=True), b"")


def _document(text: str, path: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise RequestFailed("garbage", path, "no JSON document but '%s'" % " ".join(text.split())[:80], status=200)
    return document


def _reason(error: Exception) -> str:
    """Return what the system said, without the libraries' wrappings."""
    text = str(error)
    found = _SYSTEM_WORDS.search(text)
    return next(filter(None, found.groups())).strip() if found else " ".join(text.split())[:200]


class StreamedAnswer:
    """Server-sent events of a completion, and when the first and the last token came."""

    def __init__(self, started: float, path: str = CHAT) -> None:
        self.started = started
        self.path = path
        self.first: float | None = None
        self.text = ""
        self.tokens = 0
        self.chunks = 0
        # Whether the server said that this is the whole answer.
        self.ended = False

    def feed(self, line: str, now: float) -> None:
        """Take one line of the stream, which came at now (seconds of the monotonic clock)."""
        if not line.startswith("data:"):
            return
        data = line[len("data:") :].strip()
        if data == "[DONE]":
            self.ended = True
            return
        try:
            event = json.loads(data)
        except ValueError:
            event = None
        if not isinstance(event, dict):
            raise RequestFailed("garbage", self.path, "no JSON document but '%s'" % data[:80], status=200)
        if event.get("error"):
            raise RequestFailed("broken", self.path, error_message(data), status=200, tokens=self.count())
        usage, choices = event.get("usage") or {}, event.get("choices") or []
        deltas: list[Any] = [choice.get("delta") or {} if isinstance(choice, dict) else None for choice in choices]
        if not isinstance(usage, dict) or not all(isinstance(delta, dict) for delta in deltas):
            raise RequestFailed("garbage", self.path, "no answer of vLLM but '%s'" % data[:80], status=200)
        self.tokens = usage.get("completion_tokens") or self.tokens
        for choice, delta in zip(choices, deltas):
            if choice.get("finish_reason") == "abort":
                raise RequestFailed("broken", self.path, "the server gave the request up", 200, self.count())
            self.ended = self.ended or bool(choice.get("finish_reason"))
            content = delta.get("content") or choice.get("text")
            # Reasoning models put their first tokens there and may leave the content empty.
            if content or delta.get("reasoning_content") or delta.get("reasoning") or delta.get("tool_calls"):
                if self.first is None:
                    self.first = now
                self.chunks += 1
                self.text += content if isinstance(content, str) else ""

    def count(self) -> int:
        """Return how many tokens have come, as far as it is known."""
        return self.tokens or self.chunks

    def measured(self, now: float) -> dict[str, Any]:
        """Return the answer as a dict; raise RequestFailed when no token came, or not the last one.

        text; tokens (as the server counts them, else pieces of the stream); chunks (pieces); ttft
        and latency (seconds from the request to the first token and to the end);
        tokens_per_second (of the tokens after the first one, 0 when there are none).
        """
        tokens = self.count()
        if self.first is None and not tokens:
            raise RequestFailed("empty", self.path, "an answer without a single token", status=200)
        if not self.ended:
            raise RequestFailed("broken", self.path, "it ended in the middle of the answer", status=200, tokens=tokens)
        # A token that is no text, such as the one that ends an answer, comes in no piece of its own.
        first = now if self.first is None else self.first
        generating = now - first
        return {
            "text": self.text.strip(),
            "tokens": tokens,
            "chunks": self.chunks,
            "ttft": round(first - self.started, 4),
            "latency": round(now - self.started, 4),
            "tokens_per_second": round((tokens - 1) / generating, 2) if tokens > 1 and generating > 0 else 0.0,
        }


def error_message(body: str) -> str:
    """Return the message of an OpenAI error document, or the start of any other body."""
    try:
        document = json.loads(body)
        error = document.get("error", document)
        message = error.get("message") if isinstance(error, dict) else error
    except (ValueError, AttributeError):
        message = None
    return " ".join(str(message or body).split())[:500]
