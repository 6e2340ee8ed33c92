"""Tests of the part of an OpenAI-compatible server that a probe needs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ansible_collections.llmops.vllm.plugins.module_utils._openai import (
    ProbeError,
    Server,
    StreamedAnswer,
    error_message,
)


def data(document: Any) -> str:
    return "data: " + (document if isinstance(document, str) else json.dumps(document, ensure_ascii=False))


def delta(**fields: Any) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "choices": [{"index": 0, "delta": fields, "finish_reason": None}]}


USAGE = {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 8, "total_tokens": 17}}
STREAM = [
    data(delta(role="assistant", content="")),
    "",
    data(delta(content="The capital of Japan")),
    "",
    ": a comment",
    data(delta(content=" is 東京.")),
    "",
    data({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}),
    "",
    data(USAGE),
    "",
    "data: [DONE]",
    "",
]


def answered(lines: list[str]) -> StreamedAnswer:
    """The answer after these lines, of which the first comes at 100.5 and each after it 0.5 s later."""
    answer = StreamedAnswer(100.0)
    for number, line in enumerate(lines, 1):
        answer.feed(line, 100.0 + number / 2)
    return answer


def test_an_answer_is_measured() -> None:
    assert answered(STREAM).measured(103.5) == {
        "text": "The capital of Japan is 東京.",
        "tokens": 8,
        "ttft": 1.5,
        "elapsed": 3.5,
        "tokens_per_second": 3.5,
    }


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_thoughts_are_tokens_but_no_text(field: str) -> None:
    thoughts = [data(delta(**{field: "hmm", "content": None})), data(delta(**{field: "so"}))]
    only_thoughts = answered(thoughts).measured(101.0)
    assert (only_thoughts["text"], only_thoughts["tokens"], only_thoughts["ttft"]) == ("", 2, 0.5)
    assert answered([*thoughts, data(delta(content="Tokyo"))]).measured(102.0)["text"] == "Tokyo"


def test_one_token_has_no_speed() -> None:
    measured = answered([data(delta(content="A")), data({"choices": [], "usage": {"completion_tokens": 1}})]).measured(
        101
    )
    assert (measured["tokens"], measured["tokens_per_second"]) == (1, 0.0)
    at_once = answered([data(delta(content="A")), data(USAGE)])
    assert at_once.measured(at_once.first)["tokens_per_second"] == 0.0


@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["data: [DONE]"],
        [data(delta(role="assistant", content="")), data(USAGE), "data: [DONE]"],
        ["event: ping", ": comment", ""],
        [data({"choices": None}), data({"choices": [{"delta": None}]}), data({"choices": [{}]})],
    ],
)
def test_no_token_is_an_error(lines: list[str]) -> None:
    with pytest.raises(ProbeError, match="^the server answered without a single token: look at its log$"):
        answered(lines).measured(101.0)


@pytest.mark.parametrize("usage", [None, {}, {"completion_tokens": None}])
def test_without_usage_the_pieces_are_counted(usage: Any) -> None:
    lines = [data(delta(content="a")), data(delta(content="b")), data({"choices": [], "usage": usage})]
    assert answered(lines).measured(102.0)["tokens"] == 2


def test_no_space_after_the_colon() -> None:
    assert answered(["data:" + json.dumps(delta(content="a"))]).measured(101.0)["text"] == "a"


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (
            data({"error": {"message": "EngineCore encountered an issue.", "code": 500}}),
            "the server broke the answer off: EngineCore encountered an issue.",
        ),
        (data({"error": "died"}), "the server broke the answer off: died"),
        (data('{"choices": ['), "the server's answer is no JSON document at '{\"choices\": [': is it a vLLM server?"),
        (data("hello"), "the server's answer is no JSON document at 'hello': is it a vLLM server?"),
        (data([]), "the server's answer is no JSON document at '[]': is it a vLLM server?"),
        (data(None), "the server's answer is no JSON document at 'null': is it a vLLM server?"),
    ],
)
def test_a_broken_event(line: str, sentence: str) -> None:
    with pytest.raises(ProbeError) as caught:
        answered([STREAM[2], line])
    assert str(caught.value) == sentence


def test_no_error_is_no_error() -> None:
    assert answered([data({**delta(content="a"), "error": None})]).measured(101.0)["text"] == "a"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('{"error": {"message": "The model `x`\\n does not exist.", "code": 404}}', "The model `x` does not exist."),
        ('{"error": "Unauthorized"}', "Unauthorized"),
        ('{"message": "old form"}', "old form"),
        ('{"detail": "x"}', '{"detail": "x"}'),
        ('["a"]', '["a"]'),
        ("5", "5"),
        ("<html>\n Bad Gateway</html>", "<html> Bad Gateway</html>"),
        ("", ""),
        ("x" * 600, "x" * 500),
    ],
)
def test_error_message(body: str, message: str) -> None:
    assert error_message(body) == message


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ((401, '{"error": "Unauthorized"}'), "{0}/v1/models wants an API key, or another one than the one passed"),
        ((500, '{"error": {"message": "boom"}}'), "{0}/v1/models answers 500: boom"),
        ((404, "nothing here"), "{0}/v1/models answers 404: nothing here"),
        ((200, "<html></html>"), "{0}/v1/models answers no JSON document: is it a vLLM server?"),
        ((200, '["a"]'), "{0}/v1/models answers no JSON document: is it a vLLM server?"),
        ((200, ""), "{0}/v1/models answers no JSON document: is it a vLLM server?"),
        ((200, b"\xff\xfe\xfd"), "{0}/v1/models answers no JSON document: is it a vLLM server?"),
    ],
)
def test_get_that_fails(serve: Any, answer: tuple, sentence: str) -> None:
    url = serve({"/v1/models": answer})
    with pytest.raises(ProbeError) as caught:
        Server(url).get("/v1/models")
    assert str(caught.value) == sentence.format(url)


def test_get(serve: Any) -> None:
    url = serve({"/version": {"version": "0.32.0"}})
    document, seconds = Server(url + "/").get("/version")
    assert document == {"version": "0.32.0"}
    assert 0 < seconds < 10
    assert serve.heads["/version"] is None
    Server(url, "sk-1").get("/version")
    assert serve.heads["/version"] == "Bearer sk-1"


def test_refused(free_port: int) -> None:
    url = f"http://127.0.0.1:{free_port}"
    server = Server(url)
    assert server.is_alive() is False
    with pytest.raises(ProbeError, match=f"^{url}/version does not answer: "):
        server.get("/version")
    with pytest.raises(ProbeError, match=f"^{url}/v1/chat/completions broke off: "):
        server.chat("m", "q", 1, 1)


@pytest.mark.parametrize(("answer", "alive"), [((200, ""), True), ((503, ""), False), ((404, ""), False)])
def test_is_alive(serve: Any, answer: tuple, alive: bool) -> None:
    assert Server(serve({"/health": answer})).is_alive() is alive


def test_a_proxy_of_the_environment_is_not_asked(serve: Any, monkeypatch: pytest.MonkeyPatch, free_port: int) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port}")
    assert Server(serve({"/health": (200, "")})).is_alive()


def test_chat(serve: Any) -> None:
    url = serve({"/v1/chat/completions": (200, "\n".join(STREAM))})
    answer = Server(url).chat("chat", "What?", 32, 10)
    assert (answer["text"], answer["tokens"]) == ("The capital of Japan is 東京.", 8)
    assert json.loads(serve.bodies["/v1/chat/completions"]) == {
        "model": "chat",
        "messages": [{"role": "user", "content": "What?"}],
        "max_tokens": 32,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_chat_without_a_chat_template(serve: Any) -> None:
    error = {"error": {"message": "As of transformers v4.44, default chat template is no longer allowed"}}
    url = serve({"/v1/chat/completions": (400, json.dumps(error))})
    with pytest.raises(ProbeError, match="/v1/chat/completions answers 400: As of transformers v4.44, default chat"):
        Server(url).chat("chat", "What?", 32, 10)


def test_chat_past_its_time(serve: Any) -> None:
    url = serve({"/v1/chat/completions": (200, "\n".join(STREAM))})
    server = Server(url)
    post = server.session.post
    # Long enough to connect and to read; the answer as a whole has no time at all.
    server.session.post = lambda *args, **kwargs: post(*args, **{**kwargs, "timeout": 10})
    with pytest.raises(ProbeError, match=f"^{url} did not finish 32 tokens within 0 s$"):
        server.chat("chat", "What?", 32, 0)


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:30080", "localhost", "http://", "http:// x", "ftp://host", "http//host"]
)
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(ProbeError) as caught:
        Server(url)
    assert str(caught.value) == f"'{url}' is no address of a server: it begins with http:// or https://"


@pytest.mark.parametrize("key", ["sk-1\n", "sk-1\r\nX-Evil: 1", "two words", " sk-1", "schlüssel"])
def test_a_key_that_no_header_takes(key: str) -> None:
    with pytest.raises(ProbeError) as caught:
        Server("http://127.0.0.1:1", key)
    assert str(caught.value) == "the API key has a space, a line break or a character that is not ASCII: correct it"
