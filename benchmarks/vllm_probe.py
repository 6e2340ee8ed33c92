"""What vllm_probe measures beside curl, what it costs, and what asking at once brings.

    .venv/bin/python benchmarks/vllm_probe.py [--url http://127.0.0.1:30080] [--rounds 10]

Needs a server without a key, such as that of a finished ``make deploy``. Three tables:

- The time to the first token as vllm_probe and as curl (--trace-time) measure it, of one and the same stream: a tee
  waits for both requests, asks the server once, and sends every byte to both when it comes. What the one was there
  earlier than the other is taken off.
- What one probe of a ready server adds to the server's own counters.
- Tokens per second of one client, and of eight at once, one after the other in each round.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import socket
import statistics
import subprocess
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.llmops.vllm.plugins.module_utils._metrics import Metrics
from ansible_collections.llmops.vllm.plugins.module_utils._openai import CHAT, COMPLETIONS, Server
from ansible_collections.llmops.vllm.plugins.module_utils._probe import Probe

QUESTION = "What is the capital of Japan?"
CLIENTS = 8


class Tee:
    """Serves two clients with one answer of the server, byte by byte as it comes."""

    def __init__(self, url: str):
        self.upstream = urlsplit(url)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.arrivals: dict[str, float] = {}

    def serve_two(self) -> None:
        clients, request = [], b""
        for _client in range(2):
            client, _peer = self.listener.accept()
            request = read_request(client)
            who = "curl" if b"user-agent: curl" in request.lower() else "probe"
            self.arrivals[who] = time.monotonic()
            clients.append(client)
        with socket.create_connection((self.upstream.hostname, self.upstream.port)) as upstream:
            upstream.sendall(request.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
            while piece := upstream.recv(65536):
                for client in clients:
                    client.sendall(piece)
        for client in clients:
            client.close()


def read_request(client: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        data += client.recv(65536)
    head, _end, body = data.partition(b"\r\n\r\n")
    length = int(re.search(rb"content-length: (\d+)", head.lower())[1])
    while len(body) < length:
        body += client.recv(65536)
    return head + b"\r\n\r\n" + body


def ttft_of_curl(url: str, body: dict[str, Any]) -> float:
    """Return the seconds between curl's first word and the first piece of data with a token in it."""
    command = ["curl", "--silent", "--no-buffer", "--trace-time", "--trace-ascii", "-", "--output", "/dev/null"]
    command += ["--header", "Content-Type: application/json", "--data", json.dumps(body), url + CHAT]
    trace = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    began = None
    for block in re.split(r"(?m)^(?=\d\d:\d\d:\d\d\.\d+ )", trace):
        stamp = re.match(r"\d\d:\d\d:\d\d\.\d+", block)
        if not stamp:
            continue
        at = datetime.datetime.strptime(stamp[0], "%H:%M:%S.%f")
        began = began or at
        data = "".join(re.findall(r"(?m)^[0-9a-f]{4}: (.*)$", block))
        if "<= Recv data" in block and re.search(r'"content":"[^"]', data):
            return (at - began).total_seconds()
    raise SystemExit("curl saw no token: is it a vLLM server without a key?")


def compare_ttft(url: str, model: str, rounds: int) -> list[tuple[float, float]]:
    """Return (vllm_probe's, curl's) of each round, in milliseconds."""
    body = {"model": model, "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 8, "temperature": 0}
    found = []
    for _round in range(rounds):
        tee = Tee(url)
        with ThreadPoolExecutor() as pool:
            serving = pool.submit(tee.serve_two)
            streamed = {**body, "stream": True, "stream_options": {"include_usage": True}}
            curl = pool.submit(ttft_of_curl, tee.url, streamed)
            probe = Server(tee.url).generate(CHAT, body, 60)["ttft"]
            serving.result()
            waited_less = tee.arrivals["probe"] - tee.arrivals["curl"]
            found.append((1000 * (probe + waited_less), 1000 * curl.result()))
    return found


def cost_of_a_probe(url: str, model: str) -> tuple[float, float, int]:
    """Return (seconds, tokens, requests) of one probe with its defaults."""
    server = Server(url)
    wish = {"expect": "ready", "task": "generate", "checks": None, "model": model, "expect_model": None}
    wish |= {"expect_text": None, "prompt": QUESTION, "max_tokens": 32, "capabilities": False, "timeout": 0}
    wish |= {"request_timeout": 60, "interval": 1, "grace": 0, "failures": 1}
    before = counters(server)
    started = time.monotonic()
    Probe(server, None, wish).run()
    seconds = time.monotonic() - started
    time.sleep(1)
    after = counters(server)
    return seconds, after["tokens"] - before["tokens"], int(after["requests"] - before["requests"])


def counters(server: Server) -> dict[str, float]:
    text = server.get("/metrics")[0]
    sums = {"tokens": "vllm:generation_tokens_total", "requests": "vllm:request_success_total"}
    return {
        key: sum(float(value) for value in re.findall(rf"(?m)^{name}\{{.*\}} (\S+)$", text))
        for key, name in sums.items()
    }


def tokens_per_second(url: str, model: str, clients: int, tokens: int = 64) -> float:
    """Return what so many clients get in all, each asking once, and all at the same time."""
    body = {"model": model, "prompt": QUESTION, "max_tokens": tokens, "ignore_eos": True, "temperature": 0}
    barrier = threading.Barrier(clients + 1)

    def ask() -> None:
        barrier.wait()
        request = urllib.request.Request(
            url + COMPLETIONS, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=300) as answer:
            assert json.load(answer)["usage"]["completion_tokens"] == tokens

    with ThreadPoolExecutor(clients) as pool:
        asked = [pool.submit(ask) for _client in range(clients)]
        barrier.wait()
        started = time.monotonic()
        for one in asked:
            one.result()
        return clients * tokens / (time.monotonic() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="http://127.0.0.1:30080")
    parser.add_argument("--rounds", type=int, default=10)
    args = parser.parse_args()
    server = Server(args.url)
    model = server.get_json("/v1/models")[0]["data"][0]["id"]
    assert Metrics(server.get("/metrics")[0]).known, "the server has to count (without disable_log_stats)"
    tokens_per_second(args.url, model, 1)

    print("\nTime to the first token, one stream measured by both\n")
    print("| round | vllm_probe ms | curl ms | difference ms |\n|---|---|---|---|")
    pairs = compare_ttft(args.url, model, args.rounds)
    for number, (probe, curl) in enumerate(pairs, 1):
        print(f"| {number} | {probe:.1f} | {curl:.1f} | {probe - curl:+.1f} |")
    worst = max((abs(probe - curl) for probe, curl in pairs))
    print(f"| largest difference | | | {worst:.1f} |")

    seconds, tokens, requests = cost_of_a_probe(args.url, model)
    print("\nOne probe of a ready server\n")
    print("| seconds | requests that generate | tokens |\n|---|---|---|")
    print(f"| {seconds:.2f} | {requests} | {tokens:.0f} |")

    print("\nTokens per second, 64 tokens a request\n")
    print(f"| round | 1 client | {CLIENTS} at once | ratio |\n|---|---|---|---|")
    ratios = []
    for number in range(1, max(3, args.rounds // 3) + 1):
        one, many = tokens_per_second(args.url, model, 1), tokens_per_second(args.url, model, CLIENTS)
        ratios.append(many / one)
        print(f"| {number} | {one:.1f} | {many:.1f} | {many / one:.2f} |")
    print(f"| median | | | {statistics.median(ratios):.2f} |")


if __name__ == "__main__":
    main()
