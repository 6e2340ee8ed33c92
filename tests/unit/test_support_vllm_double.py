"""Tests of the double of vLLM: it answers, counts, breaks and ends as it says."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import vllm_double
from conftest import wait_until
from vllm_double import ANSWER, DEATH, DEATH_LINES, ENGINE_FAILURE, Faults, VllmDouble

CHAT = "/v1/chat/completions"
WORDS = len(ANSWER.split())
HELLO = {"messages": [{"role": "user", "content": "Hello there, you"}]}
HELLO_TOKENS = 5  # three words, who says them, and who is to answer
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {}}}
LATER = 600.0  # seconds that no test waits


def connect(url: str) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)


def send(url: str, path: str, body: Any = None, key: str = "", method: str = "") -> http.client.HTTPResponse:
    connection = connect(url)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body)
    connection.request(method or ("GET" if body is None else "POST"), path, data, headers)
    return connection.getresponse()


def ask(double: VllmDouble | str, path: str, body: Any = None, key: str = "", method: str = "") -> tuple[int, Any]:
    """Status and JSON document of an answer; the text if it is none."""
    url = double if isinstance(double, str) else double.url
    with send(url, path, body, key, method) as response:
        text = response.read().decode()
    try:
        return response.status, json.loads(text)
    except ValueError:
        return response.status, text


def events(response: http.client.HTTPResponse) -> list[Any]:
    """The events of a stream, which must come to its end."""
    data = [line.removeprefix("data: ") for line in response.read().decode().split("\n\n") if line]
    assert data[-1] == "[DONE]"
    return [json.loads(item) for item in data[:-1]]


def stream(double: VllmDouble | str, path: str = CHAT, **body: Any) -> list[Any]:
    url = double if isinstance(double, str) else double.url
    question = HELLO if path == CHAT else {"prompt": "Hello there, you"}
    with send(url, path, {**question, "stream": True, **body}) as response:
        assert response.status == 200
        assert response.headers["Content-Type"].startswith("text/event-stream")
        return events(response)


def said(double: VllmDouble, **body: Any) -> str:
    return ask(double, CHAT, {**HELLO, **body})[1]["choices"][0]["message"]["content"]


def samples(double: VllmDouble) -> dict[str, float]:
    """The metrics: their names, with the labels that not all have, and their values."""
    status, text = ask(double, "/metrics")
    assert status == 200
    found = {}
    for line in text.splitlines():
        if match := re.fullmatch(r'(vllm:\w+)\{engine="0",model_name="tiny"(?:,(.*))?\} (\S+)', line):
            name, labels, value = match.groups()
            found[f"{name}{{{labels}}}" if labels else name] = float(value)
        else:
            assert line.startswith(("# HELP ", "# TYPE ", "python_info{")), line
    return found


def error(message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "BadRequestError", "param": None, "code": 400}}


@pytest.fixture
def double() -> Iterator[VllmDouble]:
    with VllmDouble() as served:
        yield served


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    """Clients that ask at the same time."""
    with ThreadPoolExecutor(20) as clients:
        yield clients


# What it answers.


def test_addresses_of_a_server(double: VllmDouble) -> None:
    for path in ("/health", "/ping"):
        assert ask(double, path) == (200, "")
    assert ask(double, "/version") == (200, {"version": "0.32.0+double"})
    card = {"object": "model", "root": "/models/tiny", "max_model_len": 4096}
    assert ask(double, "/v1/models") == (200, {"object": "list", "data": [{"id": "tiny", **card}]})
    assert ask(double, "/load") == (200, {"server_load": 0})
    for path in ("/other", CHAT):
        assert ask(double, path) == (404, {"detail": "Not Found"})


def test_log(double: VllmDouble) -> None:
    ask(double, "/health")
    ask(double, f"{CHAT}?x=1", HELLO, key="secret")
    ask(double, "/tokenize", b"{")
    assert double.log == [
        ("GET", "/health", None, None),
        ("POST", f"{CHAT}?x=1", HELLO, "Bearer secret"),
        ("POST", "/tokenize", None, None),
    ]
    assert double.lines[-1].endswith('- "POST /tokenize HTTP/1.1" 400')


def test_key_is_for_v1_alone() -> None:
    with VllmDouble(api_key="secret") as double:
        for path, body in (("/v1/models", None), (CHAT, HELLO)):
            assert ask(double, path, body) == (401, {"error": "Unauthorized"})
            assert ask(double, path, body, key="other") == (401, {"error": "Unauthorized"})
            assert ask(double, path, body, key="secret")[0] == 200
        for path in ("/health", "/metrics", "/version", "/double/faults"):
            assert ask(double, path)[0] == 200
        assert ask(double, "/tokenize", {"prompt": "x"})[0] == 200


def test_chat(double: VllmDouble) -> None:
    status, answer = ask(double, CHAT, {**HELLO, "model": "tiny", "n": 3})
    assert (status, answer["object"], answer["model"]) == (200, "chat.completion", "tiny")
    (choice,) = answer["choices"]
    assert choice["message"] == {"role": "assistant", "content": ANSWER}
    assert (choice["finish_reason"], choice["logprobs"]) == ("stop", None)
    total = HELLO_TOKENS + WORDS
    assert answer["usage"] == {"prompt_tokens": HELLO_TOKENS, "completion_tokens": WORDS, "total_tokens": total}


def test_chat_in_a_stream(double: VllmDouble) -> None:
    first, *tokens, last, usage = stream(double, stream_options={"include_usage": True})
    assert {event["object"] for event in (first, *tokens, last)} == {"chat.completion.chunk"}
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert "".join(event["choices"][0]["delta"]["content"] for event in tokens) == ANSWER
    assert len(tokens) == WORDS
    assert (last["choices"][0]["delta"], last["choices"][0]["finish_reason"]) == ({}, "stop")
    assert (usage["choices"], usage["usage"]["completion_tokens"]) == ([], WORDS)
    assert len(stream(double)) == WORDS + 2


def test_completion(double: VllmDouble) -> None:
    status, answer = ask(double, "/v1/completions", {"prompt": ["two words", [1, 2]]})
    assert (status, answer["object"], answer["choices"][0]["text"]) == (200, "text_completion", ANSWER)
    assert answer["usage"]["prompt_tokens"] == 4
    *tokens, last = stream(double, "/v1/completions")
    assert {event["object"] for event in tokens} == {"text_completion"}
    assert "".join(event["choices"][0]["text"] for event in tokens) == ANSWER
    assert (last["choices"][0]["text"], last["choices"][0]["finish_reason"]) == ("", "stop")


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
def test_length(double: VllmDouble, limit: str) -> None:
    choice = ask(double, CHAT, {**HELLO, limit: 2})[1]["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("The capital", "length")
    assert len(stream(double, **{limit: 2})) == 4
    assert len(said(double, **{limit: 40}, ignore_eos=True).split()) == 40
    assert said(double, **{limit: 40}) == ANSWER


def test_a_connection_takes_more_than_one_request(double: VllmDouble) -> None:
    connection = connect(double.url)
    for body in ({**HELLO, "stream": True}, HELLO):
        connection.request("POST", CHAT, json.dumps(body))
        assert connection.getresponse().read()
    assert len(double.log) == 2
    connection.close()


@pytest.mark.parametrize(
    "path, body",
    [(CHAT, HELLO), ("/v1/completions", {"prompt": "x"}), ("/tokenize", {"prompt": "x"})],
)
def test_requests_that_are_wrong(double: VllmDouble, path: str, body: dict[str, Any]) -> None:
    message = "The model `other` does not exist."
    document = {"error": {"message": message, "type": "NotFoundError", "param": "model", "code": 404}}
    assert ask(double, path, {**body, "model": "other"}) == (404, document)
    for wrong in (b"{", b"[]"):
        assert ask(double, path, wrong) == (400, error("the body is no JSON object"))


def test_tokenize(double: VllmDouble) -> None:
    status, answer = ask(double, "/tokenize", {"prompt": "one two one"})
    assert (status, answer["count"], answer["max_model_len"]) == (200, 3, 4096)
    first, second, third = answer["tokens"]
    assert first == third != second
    parts = [{"type": "text", "text": "Hello there, you"}]
    for content in (parts, "Hello there, you"):
        assert (
            ask(double, "/tokenize", {"messages": [{"role": "user", "content": content}]})[1]["count"] == HELLO_TOKENS
        )


@pytest.mark.parametrize("missing", [None, False])
def test_no_chat_template(missing: Any) -> None:
    refusal = (
        "As of transformers v4.44, default chat template is no longer allowed, so you must provide a chat template "
        "if the tokenizer does not define one."
    )
    with VllmDouble(chat_template=missing) as double:
        for path in (CHAT, "/tokenize"):
            assert ask(double, path, HELLO) == (400, error(refusal))
        assert ask(double, "/tokenize", {"prompt": "x"})[0] == 200
        assert ask(double, "/v1/completions", {"prompt": "x"})[0] == 200


@pytest.mark.parametrize("path", [CHAT, "/tokenize"])
def test_system_role(double: VllmDouble, path: str) -> None:
    messages = {"messages": [{"role": "system", "content": "Be kind."}, *HELLO["messages"]]}
    assert ask(double, path, messages)[0] == 200
    with VllmDouble(system_role=False) as other:
        assert ask(other, path, messages) == (400, error("System role not supported"))
        assert ask(other, path, HELLO)[0] == 200


def test_tools(double: VllmDouble) -> None:
    request = {**HELLO, "tools": [TOOL]}
    refusal = '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'
    for choice in ({}, {"tool_choice": "auto"}):
        assert ask(double, CHAT, {**request, **choice}) == (400, error(refusal))
    assert said(double, tools=[TOOL], tool_choice="none") == ANSWER
    with VllmDouble(tools=True) as other:
        choice = ask(other, CHAT, request)[1]["choices"][0]
        assert (choice["message"]["content"], choice["finish_reason"]) == (None, "tool_calls")
        assert choice["message"]["tool_calls"][0]["function"] == {"name": "weather", "arguments": "{}"}
        _first, token, last = stream(other, tools=[TOOL], tool_choice="auto")
        assert token["choices"][0]["delta"]["tool_calls"][0]["function"]["name"] == "weather"
        assert last["choices"][0]["finish_reason"] == "tool_calls"
        assert said(other) == ANSWER


def test_reasoning() -> None:
    with VllmDouble(reasoning=True) as double:
        message = ask(double, CHAT, HELLO)[1]["choices"][0]["message"]
        assert (message["content"], message["reasoning_content"]) == (None, ANSWER)
        _first, *tokens, _last = stream(double)
        assert "".join(event["choices"][0]["delta"]["reasoning_content"] for event in tokens) == ANSWER
        assert not any("content" in event["choices"][0]["delta"] for event in tokens)


def test_sampling(double: VllmDouble) -> None:
    hot = [said(double, temperature=1.5, seed=seed) for seed in range(8)]
    assert len(set(hot)) == 8
    assert ANSWER not in hot
    assert {" ".join(sorted(text.split())) for text in hot} == {" ".join(sorted(ANSWER.split()))}
    assert said(double, temperature=1.5, seed=3, top_p=0.5) == hot[3]
    assert said(double, temperature=1.5) != ANSWER
    for cold in ({}, {"temperature": 0}, {"temperature": 0, "seed": 3}, {"temperature": 1.5, "top_p": 0.4}):
        assert said(double, **cold) == ANSWER
    with VllmDouble(ignores_sampling=True) as other:
        assert said(other, temperature=1.5, seed=3) == ANSWER


def test_logprobs(double: VllmDouble) -> None:
    choice = ask(double, CHAT, {**HELLO, "logprobs": True, "top_logprobs": 3})[1]["choices"][0]
    content = choice["logprobs"]["content"]
    assert "".join(entry["token"] for entry in content) == ANSWER
    for entry in content:
        values = [other["logprob"] for other in entry["top_logprobs"]]
        assert values == sorted(values, reverse=True)
        assert (len(values), values[0], entry["top_logprobs"][0]["token"]) == (3, entry["logprob"], entry["token"])
        assert bytes(entry["bytes"]).decode() == entry["token"]
    plain = ask(double, CHAT, {**HELLO, "logprobs": True})[1]["choices"][0]["logprobs"]["content"]
    assert [entry["top_logprobs"] for entry in plain] == [[]] * WORDS


def test_embeddings() -> None:
    with VllmDouble(task="embed") as double:
        status, answer = ask(double, "/v1/embeddings", {"model": "tiny", "input": ["one two", "three"]})
        assert (status, [item["index"] for item in answer["data"]]) == (200, [0, 1])
        assert all(len(item["embedding"]) == 8 for item in answer["data"])
        assert all(isinstance(value, float) for value in answer["data"][0]["embedding"])
        assert answer["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
        assert len(ask(double, "/v1/embeddings", {"input": [1, 2, 3]})[1]["data"]) == 1
        assert samples(double)["vllm:generation_tokens_total"] == 0
        for path in (CHAT, "/v1/completions", "/score", "/v1/score"):
            assert ask(double, path, {**HELLO, "prompt": "x"}) == (404, {"detail": "Not Found"})


def test_score() -> None:
    with VllmDouble(task="score") as double:
        for path in ("/score", "/v1/score"):
            status, answer = ask(double, path, {"text_1": "x", "text_2": "y"})
            assert (status, [(item["index"], item["score"]) for item in answer["data"]]) == (200, [(0, 0.9)])
        assert len(ask(double, "/score", {"text_1": "x", "text_2": ["y", "z"]})[1]["data"]) == 2
        for path in (CHAT, "/v1/completions", "/v1/embeddings"):
            assert ask(double, path, {**HELLO, "prompt": "x"}) == (404, {"detail": "Not Found"})


def test_only_what_the_task_is_for(double: VllmDouble) -> None:
    for path in ("/v1/embeddings", "/score", "/v1/score"):
        assert ask(double, path, {"input": "x"}) == (404, {"detail": "Not Found"})


# What it counts.


def test_metrics(double: VllmDouble) -> None:
    before = samples(double)
    assert set(before.values()) == {0}
    said(double)
    stream(double, max_tokens=1)
    after = samples(double)
    assert {name: value for name, value in after.items() if "_bucket" not in name} == {
        "vllm:num_requests_running": 0,
        "vllm:num_requests_waiting": 0,
        "vllm:kv_cache_usage_perc": 0,
        "vllm:num_preemptions_total": 0,
        "vllm:prompt_tokens_total": 2 * HELLO_TOKENS,
        "vllm:generation_tokens_total": WORDS + 1,
        'vllm:request_success_total{finished_reason="stop"}': 1,
        'vllm:request_success_total{finished_reason="length"}': 1,
        'vllm:request_success_total{finished_reason="abort"}': 0,
        "vllm:iteration_tokens_total_sum": 2 * HELLO_TOKENS + WORDS + 1,
        "vllm:iteration_tokens_total_count": WORDS + 1,
    }
    buckets = [value for name, value in after.items() if "_bucket" in name]
    assert buckets == [WORDS - 1] + [WORDS + 1] * 13
    assert after['vllm:iteration_tokens_total_bucket{le="1.0"}'] == WORDS - 1
    assert after['vllm:iteration_tokens_total_bucket{le="+Inf"}'] == WORDS + 1
    text = ask(double, "/metrics")[1]
    for name, kind in (
        ("num_requests_running", "gauge"),
        ("prompt_tokens_total", "counter"),
        ("iteration_tokens_total", "histogram"),
    ):
        assert f"# TYPE vllm:{name} {kind}\nvllm:{name}" in text
        assert f"# HELP vllm:{name} " in text


@pytest.mark.parametrize("version, name", [("0.10.2", "gpu_cache_usage_perc"), ("0.10.3", "kv_cache_usage_perc")])
def test_name_of_the_cache_usage(version: str, name: str) -> None:
    with VllmDouble(version=version) as double:
        assert [key for key in samples(double) if "cache" in key] == [f"vllm:{name}"]


def test_no_statistics() -> None:
    with VllmDouble(log_stats=False) as double:
        assert said(double) == ANSWER
        status, text = ask(double, "/metrics")
        assert status == 200
        assert text and "vllm:" not in text


def test_requests_wait_for_a_place(pool: ThreadPoolExecutor) -> None:
    with VllmDouble(max_num_seqs=2, first_token_delay=LATER) as double:
        answers = [pool.submit(said, double) for _number in range(5)]
        wait_until(lambda: double.in_flight == 5)
        wait_until(lambda: double.engine.running == 2)
        seen = samples(double)
        names = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")
        assert [seen[f"vllm:{name}"] for name in names] == [2, 3, 1]
        assert ask(double, "/load")[1] == {"server_load": 5}
        assert not any(answer.done() for answer in answers)
        double.faults.dead = True  # it breaks them off
        assert [type(answer.exception(10)) for answer in answers] == [KeyError] * 5
        assert double.in_flight == 0


def test_all_get_a_place_in_the_end(pool: ThreadPoolExecutor) -> None:
    with VllmDouble(max_num_seqs=3, token_delay=0.002) as double:
        assert list(pool.map(lambda _number: said(double), range(12))) == [ANSWER] * 12
        assert samples(double)["vllm:generation_tokens_total"] == 12 * WORDS
        assert double.in_flight == 0


def test_first_token_delay() -> None:
    with VllmDouble(first_token_delay=0.05) as double:
        begun = time.monotonic()
        assert said(double) == ANSWER
        assert time.monotonic() - begun >= 0.05
    with VllmDouble(token_delay=0.01) as double:
        begun = time.monotonic()
        assert said(double) == ANSWER
        assert time.monotonic() - begun >= 0.01 * WORDS


@pytest.mark.parametrize("streams", [True, False])
def test_a_client_that_hangs_up(streams: bool) -> None:
    with VllmDouble(max_num_seqs=1, token_delay=0.01) as double:
        endless = {**HELLO, "stream": streams, "ignore_eos": True, "max_tokens": 100_000}
        first, second = connect(double.url), connect(double.url)
        first.request("POST", CHAT, json.dumps(endless))
        wait_until(lambda: double.engine.counts["generation"] >= 2)
        second.request("POST", CHAT, json.dumps(endless))
        wait_until(lambda: double.in_flight == 2)
        second.close()
        wait_until(lambda: double.in_flight == 1)
        first.sock.close()
        first.close()
        wait_until(lambda: double.in_flight == 0)
        assert samples(double)['vllm:request_success_total{finished_reason="abort"}'] == 2
        assert said(double) == ANSWER


# Faults.


def test_faults_over_http(double: VllmDouble) -> None:
    none = {
        "hang": False,
        "saturate": 0,
        "dead": False,
        "slow_http": 0,
        "http_status": 0,
        "garbage": False,
        "no_tokens": False,
        "cut_after": None,
        "fail_after": None,
    }
    assert ask(double, "/double/faults") == (200, none)
    some = {"http_status": 500, "garbage": True, "slow_http": 1, "cut_after": 2}
    assert ask(double, "/double/faults", some) == (200, {**none, **some})
    assert double.faults == Faults(http_status=500, garbage=True, slow_http=1, cut_after=2)
    # None of them hits this path itself.
    assert ask(double, "/double/faults", {name: none[name] for name in some}) == (200, none)
    assert double.faults == Faults()


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"hang": True, "hung": True}, "there is no fault 'hung', only hang, saturate, "),
        ({"hang": True, "saturate": "2"}, "the fault 'saturate' is of type int"),
        ({"hang": True, "saturate": True}, "the fault 'saturate' is of type int"),
        ({"hang": 1}, "the fault 'hang' is of type bool"),
        ({"hang": True, "slow_http": None}, "the fault 'slow_http' is of type float"),
        ([], "faults are one JSON object"),
    ],
)
def test_faults_that_there_are_not(double: VllmDouble, wrong: Any, message: str) -> None:
    status, document = ask(double, "/double/faults", wrong)
    assert (status, document["error"]["message"][: len(message)]) == (400, message)
    assert double.faults == Faults()


def test_hang(pool: ThreadPoolExecutor) -> None:
    with VllmDouble(token_delay=0.005) as double:
        answer = pool.submit(said, double, ignore_eos=True, max_tokens=60)
        wait_until(lambda: double.engine.counts["generation"] >= 2)
        double.faults.hang = True
        late = pool.submit(said, double)
        wait_until(lambda: double.engine.running == 2)
        before = samples(double)
        # A hanging engine does not learn that a client has gone.
        gone = connect(double.url)
        gone.request("POST", CHAT, json.dumps({**HELLO, "stream": True}))
        assert gone.getresponse().status == 200
        gone.sock.close()
        gone.close()
        time.sleep(0.1)
        after = samples(double)
        moved = {name for name in after if after[name] != before[name]}
        assert moved == {"vllm:num_requests_running", "vllm:kv_cache_usage_perc"}
        assert after["vllm:num_requests_running"] == 3
        for path in ("/health", "/v1/models", "/load"):
            assert ask(double, path)[0] == 200
        assert not answer.done() and not late.done()
        double.faults.hang = False
        assert len(answer.result(10).split()) == 60
        assert late.result(10) == ANSWER
        wait_until(lambda: double.in_flight == 0)
        assert double.engine.counts["abort"] == 1


def test_saturate(pool: ThreadPoolExecutor) -> None:
    with VllmDouble(max_num_seqs=4, token_delay=0.001, faults=Faults(saturate=6)) as double:
        answer = pool.submit(said, double)
        wait_until(lambda: double.in_flight == 7)
        first = samples(double)
        assert (first["vllm:num_requests_running"], first["vllm:num_requests_waiting"]) == (4, 3)
        assert first["vllm:kv_cache_usage_perc"] == 1
        wait_until(lambda: samples(double)["vllm:generation_tokens_total"] >= first["vllm:generation_tokens_total"] + 8)
        assert samples(double)["vllm:iteration_tokens_total_count"] > first["vllm:iteration_tokens_total_count"]
        assert not answer.done()
        double.faults.saturate = 3
        assert answer.result(10) == ANSWER
        double.faults.saturate = 0
        assert double.in_flight == 0


@pytest.mark.parametrize("streams", [True, False])
def test_dead(pool: ThreadPoolExecutor, streams: bool) -> None:
    dead = {"error": {"message": DEATH, "type": "InternalServerError", "code": 500}}
    with VllmDouble(token_delay=0.005) as double:
        endless = {"ignore_eos": True, "max_tokens": 100_000}
        if streams:
            running = pool.submit(stream, double, **endless)
        else:
            running = pool.submit(ask, double, CHAT, {**HELLO, **endless})
        wait_until(lambda: double.engine.counts["generation"] >= 2)
        double.faults.dead = True
        assert ask(double, "/health") == (503, "")
        if streams:
            *tokens, last = running.result(10)
            assert len(tokens) >= 2
            assert last == dead
        else:
            assert running.result(10) == (500, dead)
        for path in (CHAT, "/v1/completions"):
            assert ask(double, path, {**HELLO, "prompt": "x", "stream": streams}) == (500, dead)
        assert ask(double, "/v1/models")[0] == 200
        wait_until(lambda: set(DEATH_LINES) <= set(double.lines))
        assert double.in_flight == 0
        double.faults.dead = False
        assert said(double) == ANSWER
    for line in DEATH_LINES:
        assert double.lines.count(line) == 1


def test_dead_pooling() -> None:
    with VllmDouble(task="embed", faults=Faults(dead=True)) as double:
        assert ask(double, "/v1/embeddings", {"input": "x"})[0] == 500


def test_slow_http(double: VllmDouble) -> None:
    double.faults.slow_http = 0.1
    for path, body in (("/health", None), (CHAT, HELLO)):
        begun = time.monotonic()
        assert ask(double, path, body)[0] == 200
        assert time.monotonic() - begun >= 0.1


@pytest.mark.parametrize("path, body", [("/health", None), ("/metrics", None), ("/other", None), (CHAT, HELLO)])
def test_faults_of_every_path(double: VllmDouble, path: str, body: Any) -> None:
    double.faults.http_status = 429
    assert ask(double, path, body)[0] == 429
    double.faults = Faults(garbage=True)
    with send(double.url, path, body) as response:
        assert (response.status, response.headers["Content-Type"]) == (200, "text/html")
        assert response.read().startswith(b"<!DOCTYPE html>")


def test_no_tokens(double: VllmDouble) -> None:
    double.faults.no_tokens = True
    choice = ask(double, CHAT, HELLO)[1]["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("", "stop")
    first, last, usage = stream(double, stream_options={"include_usage": True})
    assert (first["choices"][0]["delta"]["content"], last["choices"][0]["finish_reason"]) == ("", "stop")
    assert usage["usage"]["completion_tokens"] == 0


@pytest.mark.parametrize("after", [0, 2, WORDS])
def test_cut_after(double: VllmDouble, after: int) -> None:
    double.faults.cut_after = after
    with (
        send(double.url, CHAT, {**HELLO, "stream": True}) as response,
        pytest.raises(http.client.IncompleteRead) as cut,
    ):
        response.read()
    text = cut.value.partial.decode()
    assert len(re.findall(r'"content": "[^"]', text)) == after
    assert "[DONE]" not in text
    with pytest.raises(http.client.RemoteDisconnected):
        ask(double, CHAT, HELLO)
    assert double.in_flight == 0
    double.faults.cut_after = WORDS + 1
    assert said(double) == ANSWER


# How it starts and ends in a test.


def test_start_takes_its_time() -> None:
    with VllmDouble(startup_delay=0.3, version="0.11.0") as double:
        with pytest.raises(ConnectionRefusedError):
            ask(double, "/health")
        assert not double.ready.is_set()
        wait_until(double.ready.is_set)
        assert ask(double, "/version") == (200, {"version": "0.11.0+double"})
    stages = (
        "Starting to load model /models/tiny...",
        "Loading safetensors checkpoint shards:  50% Completed | 1/2 [00:01<00:01,  1.00s/it]",
        "Loading weights took 1.00 seconds",
        "Available KV cache memory: 1.00 GiB",
        "GPU KV cache size: 23,296 tokens",
        "Capturing CUDA graphs (decode, FULL): 50%|#####     | 1/2",
        "init engine (profile, create kv cache, warmup model) took 1.00 s",
        "Application startup complete.",
    )
    for line, stage in zip(double.lines, stages, strict=False):
        assert line.endswith(stage)


def threads() -> set[threading.Thread]:
    return set(threading.enumerate())


@pytest.mark.parametrize(
    "settings",
    [
        {"faults": Faults(hang=True)},
        {"first_token_delay": LATER},
        {"faults": Faults(slow_http=LATER)},
        {"faults": Faults(saturate=256)},
    ],
)
def test_leaving_ends_all_threads(settings: dict[str, Any]) -> None:
    before = threads()
    with VllmDouble(**settings) as double:
        clients = [connect(double.url) for _number in range(4)]
        for number, client in enumerate(clients):
            client.request("POST", CHAT, json.dumps({**HELLO, "stream": bool(number % 2)}))
        idle = socket.create_connection(("127.0.0.1", urlsplit(double.url).port))
        wait_until(lambda: len(double.log) == 4 and len(double._server.clients) == 5)
        begun = time.monotonic()
    assert time.monotonic() - begun < 5
    assert threads() == before
    assert idle.recv(1) == b""
    idle.close()
    for client in clients:
        client.close()
    double.stop()
    with pytest.raises(ConnectionRefusedError):
        ask(double, "/health")


def test_leaving_while_it_starts() -> None:
    before = threads()
    with VllmDouble(startup_delay=LATER):
        pass
    assert threads() == before


def test_an_answer_that_nobody_reads() -> None:
    before = threads()
    with VllmDouble() as double:
        client = connect(double.url)
        client.request("POST", CHAT, json.dumps({**HELLO, "stream": True, "ignore_eos": True, "max_tokens": 1_000_000}))

        def is_stuck() -> bool:
            seen = double.engine.counts["generation"]
            time.sleep(0.05)
            return 0 < seen == double.engine.counts["generation"]

        wait_until(is_stuck)
    client.close()
    assert threads() == before


# As a program.


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}\n")
    return tmp_path / "model"


class Program:
    """The double as a process of its own."""

    def __init__(self, folder: Path, model: Path, port: int, options: tuple[Any, ...]):
        self.url = f"http://127.0.0.1:{port}"
        self.output = Path(tempfile.mkstemp(dir=folder)[1])
        argv = [sys.executable, vllm_double.__file__, "serve", str(model), "--host", "127.0.0.1", "--port", str(port)]
        with self.output.open("w") as output:
            self.process = subprocess.Popen([*argv, *map(str, options)], stderr=output)

    def wait_until_ready(self) -> None:
        wait_until(lambda: "startup complete" in self.output.read_text())

        def answers() -> bool:
            try:
                return send(self.url, "/version").status == 200
            except ConnectionRefusedError:
                return False

        wait_until(answers)

    def end(self, asked: bool = True) -> list[str]:
        """Waits for its end, which must be a good one, and returns the lines of its log."""
        if asked:
            self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(10) == 0
        return self.output.read_text().splitlines()


@pytest.fixture
def program(tmp_path: Path, model: Path, free_port: int) -> Iterator[Callable[..., Program]]:
    started: list[Program] = []

    def start(*options: Any, of: Path = model) -> Program:
        started.append(Program(tmp_path, of, free_port, options))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.wait()


def open_stream(url: str, tokens: int) -> http.client.HTTPResponse:
    """A stream whose first event has come."""
    response = send(url, CHAT, {**HELLO, "stream": True, "ignore_eos": True, "max_tokens": tokens})
    assert response.readline().startswith(b"data: ")
    response.readline()
    return response


def test_program_takes_options(program: Callable[..., Program], model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "secret")
    monkeypatch.setenv("VLLM_CACHE_ROOT", str(model.parent / "cache"))
    options = "--served-model-name tiny small --max-model-len 2048 --enforce-eager --gpu-memory-utilization 0.5"
    ours = "--emulate-version 0.9.1 --no-chat-template-in-model --disable-log-stats --no-tokens --saturate 2"
    served = program(*options.split(), *ours.split())
    served.wait_until_ready()
    assert ask(served.url, "/version") == (200, {"version": "0.9.1+double"})
    assert ask(served.url, "/v1/models")[0] == 401
    cards = ask(served.url, "/v1/models", key="secret")[1]["data"]
    assert [(card["id"], card["root"], card["max_model_len"]) for card in cards] == [
        ("tiny", str(model), 2048),
        ("small", str(model), 2048),
    ]
    assert ask(served.url, CHAT, {**HELLO, "model": "small"}, key="secret")[0] == 400
    assert ask(served.url, "/load") == (200, {"server_load": 2})
    assert "vllm:" not in ask(served.url, "/metrics")[1]
    faults = ask(served.url, "/double/faults", {"saturate": 0})[1]
    assert (faults["no_tokens"], faults["saturate"], faults["hang"]) == (True, 0, False)
    first, *_lines, last = served.end()
    assert first.endswith(f"vLLM server version 0.9.1+double, serving {model}")
    assert last == "double: 0 requests finished, 0 aborted"
    assert (model.parent / "cache/torch_compile_cache").is_dir()


def settings_of(*options: str) -> VllmDouble:
    double = vllm_double.make(vllm_double.parse(["serve", "/models/x", "--host", "127.0.0.1", "--port", "0", *options]))
    double.stop()
    return double


def test_options_are_settings() -> None:
    plain = settings_of()
    assert (plain.model, plain.names, plain.chat_template, plain.faults) == ("/models/x", ["/models/x"], True, Faults())
    assert (plain.tools, plain.system_role, plain.log_stats, plain.task) == (False, True, True, "generate")
    flags = "--enable-auto-tool-choice --no-system-role --reasoning --ignores-sampling --disable-log-stats --task embed"
    numbers = (
        "--token-delay 0.5 --first-token-delay 2 --startup-delay 3 --shutdown-timeout 4 --max-num-seqs 5 --api-key k"
    )
    double = settings_of(*flags.split(), *numbers.split())
    assert (double.tools, double.system_role, double.reasoning) == (True, False, True)
    assert (double.ignores_sampling, double.log_stats, double.task) == (True, False, "embed")
    assert (double.token_delay, double.first_token_delay, double.startup_delay) == (0.5, 2, 3)
    assert (double.shutdown_timeout, double.max_num_seqs, double.api_key) == (4, 5, "k")
    faults = "--hang --dead --garbage --no-tokens --saturate 1 --slow-http 2.5 --http-status 503 --cut-after 0"
    assert settings_of(*faults.split()).faults == Faults(True, 1, True, 2.5, 503, True, True, 0)
    assert not settings_of("--no-chat-template-in-model").chat_template
    assert settings_of("--no-chat-template-in-model", "--chat-template", "x.jinja").chat_template


def test_program_does_not_start(program: Callable[..., Program], tmp_path: Path) -> None:
    recorded = tmp_path / "recorded.log"
    recorded.write_text("ERROR 01-01 00:00:00 [core.py:1] ValueError: something of 0.11\n")
    cases: list[tuple[tuple[Any, ...], Path | None, int, str]] = [
        (("--fail-start",), None, 1, ENGINE_FAILURE),
        (("--fail-start", "--exit-code", 7, "--startup-delay", 0.05), None, 7, ENGINE_FAILURE),
        (("--fail-start-log", recorded), None, 1, f"serving {tmp_path / 'model'}\n{recorded.read_text()}"),
        (("--fail-start-log", recorded, "--exit-code", 3), None, 3, "something of 0.11"),
        ((), tmp_path, 1, f"Invalid repository ID or local directory specified: '{tmp_path}'."),
        (("--chat-template", "no.jinja"), None, 1, "(no.jinja) appears path-like, but doesn't exist!"),
        (
            ("--emulate-version", "0.17.1", "--shutdown-timeout", 5),
            None,
            2,
            "unrecognized arguments: --shutdown-timeout 5",
        ),
    ]
    started = [program(*options, **({"of": of} if of else {})) for options, of, _code, _text in cases]
    for failed, (options, _of, code, text) in zip(started, cases, strict=True):
        assert failed.process.wait(10) == code
        output = failed.output.read_text()
        assert text in output
        assert "startup complete" not in output
        if "--fail-start" in options:
            assert output.index("Loading weights took") < output.index("EngineCore failed to start")


def test_program_is_ended_while_it_starts(program: Callable[..., Program], free_port: int) -> None:
    loading = program("--startup-delay", LATER)
    wait_until(lambda: "Starting to load model" in loading.output.read_text())
    with pytest.raises(ConnectionRefusedError):
        ask(loading.url, "/health")
    loading.end()


def test_program_ends_after_the_engine(program: Callable[..., Program]) -> None:
    dying = program("--dead-for", 0.1)
    dying.wait_until_ready()
    assert ask(dying.url, "/double/faults", {"dead": True})[1]["dead"]
    lines = dying.end(asked=False)
    assert set(DEATH_LINES) <= set(lines)


def test_sigterm_of_old_versions_waits_for_requests(program: Callable[..., Program]) -> None:
    ending = program("--emulate-version", "0.5.3", "--token-delay", 0.02)
    ending.wait_until_ready()
    response = open_stream(ending.url, 20)
    ending.process.send_signal(signal.SIGTERM)

    def is_refused() -> bool:
        try:
            connect(ending.url).connect()
        except ConnectionError:
            return True
        return False

    wait_until(is_refused)
    assert b"[DONE]" in response.read()
    assert "double: 1 requests finished, 0 aborted" in ending.end(asked=False)


@pytest.mark.parametrize("options", [("--emulate-version", "0.5.4"), ("--emulate-version", "0.17.0"), ()])
def test_sigterm_breaks_requests_off(program: Callable[..., Program], options: tuple[str, ...]) -> None:
    ending = program("--token-delay", 0.02, *options)
    ending.wait_until_ready()
    ask(ending.url, CHAT, {**HELLO, "max_tokens": 1})
    response = open_stream(ending.url, 100_000)
    ending.process.send_signal(signal.SIGTERM)
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        response.read()
    assert "double: 1 requests finished, 1 aborted" in ending.end(asked=False)


def test_sigterm_with_a_shutdown_timeout(program: Callable[..., Program]) -> None:
    ending = program("--shutdown-timeout", 30, "--token-delay", 0.05, "--emulate-version", "0.18.0")
    ending.wait_until_ready()
    response = open_stream(ending.url, 20)
    ask(ending.url, "/double/faults", {"hang": True})
    ending.process.send_signal(signal.SIGTERM)
    wait_until(lambda: "waiting for requests" in ending.output.read_text())
    _first, last = stream(ending.url)
    assert last["choices"][0]["finish_reason"] == "abort"
    assert ask(ending.url, CHAT, HELLO)[1]["choices"][0]["finish_reason"] == "abort"
    assert ask(ending.url, "/health") == (200, "")
    ask(ending.url, "/double/faults", {"hang": False})
    assert b"[DONE]" in response.read()
    assert "double: 1 requests finished, 2 aborted" in ending.end(asked=False)


def test_sigterm_when_the_shutdown_timeout_is_over(program: Callable[..., Program]) -> None:
    ending = program("--shutdown-timeout", 0.1, "--hang")
    ending.wait_until_ready()
    response = send(ending.url, CHAT, {**HELLO, "stream": True})
    ending.process.send_signal(signal.SIGTERM)
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        response.read()
    assert "double: 0 requests finished, 1 aborted" in ending.end(asked=False)


def test_questions_fail_after_so_many(double: VllmDouble) -> None:
    double.faults.fail_after = 1
    assert [ask(double, CHAT, HELLO)[0] for dummy in range(3)] == [200, 500, 500]
    assert ask(double, "/health")[0] == 200


def test_it_says_that_it_serves_another_model() -> None:
    with VllmDouble(root="/models/other") as double:
        (card,) = ask(double, "/v1/models")[1]["data"]
    assert (card["id"], card["root"]) == ("tiny", "/models/other")
