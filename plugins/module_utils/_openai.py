# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The part of an OpenAI-compatible server that a probe needs, over requests."""

from __future__ import annotations

import json
import re
import time
import traceback

try:
    import requests

    REQUESTS_ERROR = None
except ImportError:
    requests = None
    REQUESTS_ERROR = traceback.format_exc()


class ProbeError(Exception):
    """One sentence that says what is wrong and what to do."""


class Server:
    """A server at url (scheme, host, port). Every request is bounded by timeout in seconds.

    Raises ProbeError for an address or a key that no request can be made with, since such a
    server would seem to be loading for ever.
    """

    def __init__(self, url, api_key=None, timeout=10.0):
        if not re.match(r"https?://[^/\s]", url):
            raise ProbeError("'%s' is no address of a server: it begins with http:// or https://" % url)
        if api_key and not re.match(r"[!-~]+\Z", api_key):
            raise ProbeError("the API key has a space, a line break or a character that is not ASCII: correct it")
        self.url = url.rstrip("/")
        self.timeout = timeout
        self.session = requests.Session()
        # A proxy of the environment has no business between a host and its own server.
        self.session.trust_env = False
        if api_key:
            self.session.headers["Authorization"] = "Bearer %s" % api_key

    def is_alive(self):
        """Return whether GET /health says 200. While vLLM loads, connections are refused or reset."""
        try:
            return self.session.get(self.url + "/health", timeout=self.timeout).status_code == 200
        except requests.RequestException:
            return False

    def get(self, path):
        """Return (the JSON document at path, seconds that it took); raise ProbeError."""
        started = time.monotonic()
        try:
            response = self.session.get(self.url + path, timeout=self.timeout)
        except requests.RequestException as error:
            raise ProbeError("%s%s does not answer: %s" % (self.url, path, error)) from error
        self._require_ok(response, path)
        try:
            document = response.json()
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise ProbeError("%s%s answers no JSON document: is it a vLLM server?" % (self.url, path))
        return document, time.monotonic() - started

    def chat(self, model, prompt, max_tokens, timeout):
        """Ask one question, streamed, at temperature 0, and measure the answer.

        Returns a dict: text; tokens (completion tokens, as the server counts them); ttft and
        elapsed (seconds from the request to the first token and to the end);
        tokens_per_second (of the tokens after the first one, 0 when there are none).
        """
        path = "/v1/chat/completions"
        body = {
            "model": model,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": max_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        started = time.monotonic()
        deadline = started + timeout
        answer = StreamedAnswer(started)
        try:
            with self.session.post(self.url + path, json=body, stream=True, timeout=timeout) as response:
                self._require_ok(response, path)
                # chunk_size 1: a larger one would hold tokens back until it is full.
                for line in response.iter_lines(chunk_size=1):
                    if time.monotonic() > deadline:
                        raise ProbeError("%s did not finish %d tokens within %d s" % (self.url, max_tokens, timeout))
                    answer.feed(line.decode("utf-8", "replace"), time.monotonic())
        except requests.RequestException as error:
            raise ProbeError("%s%s broke off: %s" % (self.url, path, error)) from error
        return answer.measured(time.monotonic())

    def _require_ok(self, response, path):
        if response.status_code == 401:
            raise ProbeError("%s%s wants an API key, or another one than the one passed" % (self.url, path))
        if response.status_code != 200:
            raise ProbeError(
                "%s%s answers %d: %s" % (self.url, path, response.status_code, error_message(response.text))
            )


class StreamedAnswer:
    """Server-sent events of a chat completion, and when the first and the last token came."""

    def __init__(self, started):
        self.started = started
        self.first = None
        self.text = ""
        self.tokens = 0
        self.chunks = 0

    def feed(self, line, now):
        """Take one line of the stream, which came at now (seconds of the monotonic clock)."""
        if not line.startswith("data:"):
            return
        data = line[len("data:") :].strip()
        if data == "[DONE]":
            return
        try:
            event = json.loads(data)
        except ValueError:
            event = None
        if not isinstance(event, dict):
            raise ProbeError("the server's answer is no JSON document at '%s': is it a vLLM server?" % data[:80])
        if event.get("error"):
            raise ProbeError("the server broke the answer off: %s" % error_message(data))
        if event.get("usage"):
            self.tokens = event["usage"].get("completion_tokens", 0)
        for choice in event.get("choices") or []:
            delta = choice.get("delta") or {}
            # Reasoning models put their first tokens there and may leave the content empty.
            piece = delta.get("content") or delta.get("reasoning_content") or delta.get("reasoning")
            if piece:
                if self.first is None:
                    self.first = now
                self.chunks += 1
                self.text += delta.get("content") or ""

    def measured(self, now):
        """Return the answer as Server.chat describes it; raise ProbeError when no token came."""
        if self.first is None:
            raise ProbeError("the server answered without a single token: look at its log")
        tokens = self.tokens or self.chunks
        generating = now - self.first
        return {
            "text": self.text.strip(),
            "tokens": tokens,
            "ttft": round(self.first - self.started, 4),
            "elapsed": round(now - self.started, 4),
            "tokens_per_second": round((tokens - 1) / generating, 2) if tokens > 1 and generating > 0 else 0.0,
        }


def error_message(body):
    """Return the message of an OpenAI error document, or the start of any other body."""
    try:
        document = json.loads(body)
        error = document.get("error", document)
        message = error.get("message") if isinstance(error, dict) else error
    except (ValueError, AttributeError):
        message = None
    return " ".join(str(message or body).split())[:500]
