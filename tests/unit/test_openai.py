"""Tests of the part of an OpenAI-compatible server that a probe needs."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import subprocess
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from vllm_double import Faults, VllmDouble

from ansible_collections.llmops.vllm.plugins.module_utils import _openai
from ansible_collections.llmops.vllm.plugins.module_utils._openai import (
    CHAT,
    COMPLETIONS,
    BadAddress,
    RequestFailed,
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
    answer.feed("data: [DONE]", 100.5 + len(lines) / 2)
    return answer


def test_an_answer_is_measured() -> None:
    assert answered(STREAM).measured(103.5) == {
        "text": "The capital of Japan is 東京.",
        "tokens": 8,
        "chunks": 2,
        "ttft": 1.5,
        "latency": 3.5,
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
        [data(delta(role="assistant", content="")), "data: [DONE]"],
        ["event: ping", ": comment", ""],
        [data({"choices": None}), data({"choices": [{"delta": None}]}), data({"choices": [{}]})],
    ],
)
def test_no_token_is_an_error(lines: list[str]) -> None:
    with pytest.raises(RequestFailed, match=r"^/v1/chat/completions: an answer without a single token$") as caught:
        answered(lines).measured(101.0)
    assert caught.value.kind == "empty"


def test_a_token_that_is_no_text_is_one() -> None:
    """Such as the one that ends an answer of one token."""
    measured = answered([data(delta(role="assistant", content="")), data(USAGE)]).measured(101.0)
    assert (measured["tokens"], measured["chunks"], measured["text"], measured["ttft"]) == (8, 0, "", 1.0)


def test_completions_and_calls_of_tools_are_tokens() -> None:
    completion = answered([data({"choices": [{"text": " Tokyo"}]}), data({"choices": [{"text": "."}]})])
    assert completion.measured(101.0)["text"] == "Tokyo."
    assert answered([data(delta(tool_calls=[{"index": 0}]))]).measured(101.0)["tokens"] == 1


@pytest.mark.parametrize("usage", [None, {}, {"completion_tokens": None}])
def test_without_usage_the_pieces_are_counted(usage: Any) -> None:
    lines = [data(delta(content="a")), data(delta(content="b")), data({"choices": [], "usage": usage})]
    assert answered(lines).measured(102.0)["tokens"] == 2


def test_no_space_after_the_colon() -> None:
    assert answered(["data:" + json.dumps(delta(content="a"))]).measured(101.0)["text"] == "a"


@pytest.mark.parametrize(
    ("line", "kind", "message"),
    [
        (
            data({"error": {"message": "EngineCore encountered an issue.", "code": 500}}),
            "broken",
            "EngineCore encountered an issue.",
        ),
        (data({"error": "died"}), "broken", "died"),
        (data('{"choices": ['), "garbage", "no JSON document but '{\"choices\": ['"),
        (data("hello"), "garbage", "no JSON document but 'hello'"),
        (data([]), "garbage", "no JSON document but '[]'"),
        (data(None), "garbage", "no JSON document but 'null'"),
    ],
)
def test_a_broken_event(line: str, kind: str, message: str) -> None:
    with pytest.raises(RequestFailed) as caught:
        answered([STREAM[2], line])
    assert (caught.value.kind, caught.value.message) == (kind, message)


@pytest.mark.parametrize(
    "event",
    [
        {"choices": ["x"]},
        {"choices": [{"delta": "x"}]},
        {"choices": [], "usage": ["x"]},
    ],
)
def test_an_event_of_another_kind(event: Any) -> None:
    with pytest.raises(RequestFailed) as caught:
        answered([STREAM[2], data(event)])
    assert caught.value.kind == "garbage"
    assert caught.value.message.startswith("no answer of vLLM but '{")


def test_content_in_parts_is_a_token_without_text() -> None:
    assert answered([data(delta(content=[{"type": "text"}]))]).measured(101.0)["text"] == ""


def test_an_answer_that_is_given_up_or_cut_is_broken() -> None:
    with pytest.raises(RequestFailed) as caught:
        answered([STREAM[2], data({"choices": [{"delta": {}, "finish_reason": "abort"}]})])
    assert (caught.value.kind, caught.value.tokens) == ("broken", 1)
    cut = StreamedAnswer(100.0)
    cut.feed(data(delta(content="The capital")), 100.5)
    with pytest.raises(RequestFailed) as caught:
        cut.measured(101.0)
    assert (caught.value.kind, caught.value.message) == ("broken", "it ended in the middle of the answer")
    cut.feed(data({"choices": [{"delta": {}, "finish_reason": "length"}]}), 101.0)
    assert cut.measured(101.0)["text"] == "The capital"


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


GARBAGE = [(200, "<html></html>"), (200, '["a"]'), (200, ""), (200, b"\xff\xfe\xfd")]


@pytest.mark.parametrize("answer", GARBAGE, ids=range(len(GARBAGE)))
def test_no_json(serve: Any, answer: tuple) -> None:
    server = Server(serve({"/v1/models": answer, "/score": answer}))
    for request in (lambda: server.get_json("/v1/models"), lambda: server.post("/score", {})):
        with pytest.raises(RequestFailed, match="no JSON document but '") as caught:
            request()
        assert (caught.value.kind, caught.value.status) == ("garbage", 200)


@pytest.mark.parametrize(
    ("answer", "status", "message"),
    [
        ((401, '{"error": "Unauthorized"}'), 401, "Unauthorized"),
        ((500, '{"error": {"message": "boom"}}'), 500, "boom"),
        ((404, "nothing here"), 404, "nothing here"),
        ((204, ""), 204, ""),
    ],
)
def test_another_status(serve: Any, answer: tuple, status: int, message: str) -> None:
    url = serve({"/v1/models": answer, CHAT: answer})
    for request in (
        lambda: Server(url).get("/v1/models"),
        lambda: Server(url).post(CHAT, {}),
        lambda: Server(url).generate(CHAT, {}, 5),
    ):
        with pytest.raises(RequestFailed) as caught:
            request()
        assert (caught.value.kind, caught.value.status, caught.value.message) == ("status", status, message)


def test_get(serve: Any) -> None:
    url = serve({"/version": {"version": "0.32.0"}})
    document, seconds = Server(url + "/").get_json("/version")
    assert document == {"version": "0.32.0"}
    assert 0 < seconds < 10
    assert serve.heads["/version"] is None
    Server(url, "sk-1").get("/version")
    assert serve.heads["/version"] == "Bearer sk-1"


def test_nobody_listens(free_port: int) -> None:
    server = Server(f"http://127.0.0.1:{free_port}")
    for request in (
        lambda: server.get("/health"),
        lambda: server.post("/score", {}),
        lambda: server.generate(CHAT, {}, 5),
    ):
        with pytest.raises(RequestFailed) as caught:
            request()
        assert (caught.value.kind, caught.value.message, caught.value.status) == ("refused", "Connection refused", None)


def test_a_proxy_of_the_environment_is_not_asked(serve: Any, monkeypatch: pytest.MonkeyPatch, free_port: int) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port}")
    assert Server(serve({"/health": (200, "")})).get("/health")[0] == ""


def test_generate(serve: Any) -> None:
    url = serve({CHAT: (200, "\n".join(STREAM)), COMPLETIONS: (200, "\n".join(STREAM))})
    for path in (CHAT, COMPLETIONS):
        answer = Server(url).generate(path, {"model": "chat"}, 10)
        assert (answer["text"], answer["tokens"]) == ("The capital of Japan is 東京.", 8)
        assert json.loads(serve.bodies[path]) == {
            "model": "chat",
            "stream": True,
            "stream_options": {"include_usage": True},
        }


@pytest.mark.parametrize(
    ("faults", "kind", "tokens"),
    [
        ({"hang": True}, "timeout", 0),
        ({"slow_http": 0.6}, "timeout", 0),
        ({"cut_after": 2}, "broken", 2),
        ({"dead": True}, "status", 0),
    ],
)
def test_generations_that_fail(faults: dict, kind: str, tokens: int) -> None:
    with VllmDouble(faults=Faults(**faults)) as double:
        server = Server(double.url, timeout=0.3)
        with pytest.raises(RequestFailed) as caught:
            server.generate(CHAT, {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]}, 0.3)
    assert (caught.value.kind, caught.value.tokens) == (kind, tokens)


def test_a_generation_past_its_time() -> None:
    """Each token comes in time, the answer as a whole does not."""
    with VllmDouble(token_delay=0.15) as double, pytest.raises(RequestFailed, match=r"no end after 0\.4 s") as caught:
        Server(double.url).generate(CHAT, {"messages": [{"role": "user", "content": "Hi"}]}, 0.4)
    assert caught.value.kind == "timeout"
    assert 1 <= caught.value.tokens <= 3


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:30080", "localhost", "http://", "http:// x", "ftp://host", "http//host"]
)
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(BadAddress) as caught:
        Server(url)
    assert str(caught.value) == f"'{url}' is no address of a server: it begins with http:// or https://"


@pytest.mark.parametrize("key", ["sk-1\n", "sk-1\r\nX-Evil: 1", "two words", " sk-1", "schlüssel"])
def test_a_key_that_no_header_takes(key: str) -> None:
    with pytest.raises(BadAddress) as caught:
        Server("http://127.0.0.1:1", key)
    assert str(caught.value) == "the API key has a space, a line break or a character that is not ASCII: correct it"


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an authority (ca.pem), and certificates of a server and a client, each with its key."""
    folder = tmp_path_factory.mktemp("pki")

    def openssl(*argv: str) -> None:
        subprocess.run(["openssl", *argv], cwd=folder, check=True, capture_output=True)

    new = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
    # Python 3.13 takes no authority that does not say so.
    usage = ("-addext", "keyUsage=critical,keyCertSign,digitalSignature")
    openssl(*new, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=authority", *usage)
    for name in ("server", "client"):
        extensions = ("-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE")
        signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-subj", f"/CN={name}", *extensions)
        openssl(*new, "-keyout", f"{name}.key", "-out", f"{name}.pem", *signed)
    return folder


@pytest.fixture
def https(pki: Path) -> Iterator[str]:
    """The address of a double that shows a certificate and wants one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki / "server.pem", pki / "server.key")
    context.load_verify_locations(pki / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    with VllmDouble() as double, socket.create_server(("127.0.0.1", 0)) as listener:
        address = urlsplit(double.url)

        def pump(source: socket.socket, target: socket.socket) -> None:
            with contextlib.suppress(OSError):
                while piece := source.recv(65536):
                    target.sendall(piece)
                target.shutdown(socket.SHUT_WR)

        def accept() -> None:
            while True:
                try:
                    plain, _peer = listener.accept()
                except OSError:
                    return
                try:
                    client = context.wrap_socket(plain, server_side=True)
                except OSError:
                    plain.close()
                    continue
                with client, socket.create_connection((address.hostname, address.port)) as upstream:
                    back = threading.Thread(target=pump, args=(upstream, client), daemon=True)
                    back.start()
                    pump(client, upstream)
                    back.join(5)

        threading.Thread(target=accept, daemon=True).start()
        yield f"https://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


def test_tls(https: str, pki: Path) -> None:
    ca, own = str(pki / "ca.pem"), (str(pki / "client.pem"), str(pki / "client.key"))
    assert Server(https, verify=ca, cert=own).get_json("/version")[0]["version"] == "0.32.0+double"
    with pytest.warns() as caught:
        warnings.warn("the only one", stacklevel=1)
        Server(https, verify=False, cert=own).get("/health")
    assert [str(warning.message) for warning in caught] == ["the only one"]


def test_tls_that_nobody_trusts(https: str, pki: Path) -> None:
    own = (str(pki / "client.pem"), str(pki / "client.key"))
    with pytest.raises(RequestFailed) as failed:
        Server(https, cert=own).get("/health")
    assert (failed.value.kind, failed.value.message) == (
        "tls",
        "certificate verify failed: self-signed certificate in certificate chain",
    )


@pytest.mark.parametrize("verify, cert", [("/none.pem", None), (True, "/none.pem")])
def test_certificates_that_are_not_there(https: str, verify: Any, cert: Any) -> None:
    with pytest.raises(BadAddress, match=r"/none\.pem.*: correct validate_certs, ca_path or client_cert$"):
        Server(https, verify=verify, cert=cert).get("/health")


def trickle(server: socket.socket, head: bytes, piece: bytes, pieces: int) -> None:
    connection, _address = server.accept()
    with connection, contextlib.suppress(OSError):
        connection.recv(65536)
        connection.sendall(head)
        for _number in range(pieces):
            connection.sendall(piece)
            time.sleep(0.05)


def test_an_answer_that_trickles_ends_with_its_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
        thread = threading.Thread(target=trickle, args=(server, head, b"x", 1000), daemon=True)
        thread.start()
        with pytest.raises(RequestFailed, match="no end of the answer in time") as caught:
            Server("http://127.0.0.1:%d" % server.getsockname()[1], timeout=0.3).get("/metrics")
    assert caught.value.kind == "timeout"


def test_an_answer_without_end_is_none_of_vllm(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_openai, "_MOST_BYTES", 1 << 20)
    with pytest.raises(RequestFailed, match="more than 1 MiB") as caught:
        Server(serve({"/metrics": (200, b"x" * (2 << 20))})).get("/metrics")
    assert caught.value.kind == "garbage"


def test_a_connection_that_was_closed_meanwhile_is_tried_anew(serve: Any) -> None:
    answers = iter([(200, "a"), None, (200, "b")])
    server = Server(serve({"/health": lambda: next(answers)}))
    assert [server.get("/health")[0], server.get("/health")[0]] == ["a", "b"]


@pytest.mark.parametrize(
    ("url", "kind"),
    [("http://no-such-host.invalid:1", "unreachable"), ("http://127.0.0.1:1", "refused")],
)
def test_why_there_is_no_connection(url: str, kind: str) -> None:
    with pytest.raises(RequestFailed) as caught:
        Server(url, timeout=2).get("/health")
    assert caught.value.kind == kind


def test_a_connection_that_ends_is_no_refusal(serve: Any) -> None:
    server = Server(serve({"/health": lambda: None}))
    with pytest.raises(RequestFailed) as caught:
        server.get("/health")
    assert caught.value.kind == "reset"


def test_a_connection_that_ends_before_its_handshake_is_no_matter_of_certificates() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept_and_close() -> None:
            for _attempt in range(2):
                connection, _address = server.accept()
                connection.recv(65536)
                connection.close()

        thread = threading.Thread(target=accept_and_close, daemon=True)
        thread.start()
        with pytest.raises(RequestFailed) as caught:
            Server("https://127.0.0.1:%d" % server.getsockname()[1], timeout=5).get("/health")
        thread.join()
    assert caught.value.kind == "reset"
