"""Tests of the module vllm_probe against a server on loopback that answers as vLLM does."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import docker.errors
import pytest

from ansible_collections.llmops.vllm.plugins.modules import vllm_probe

KEY = "sk-Abc123-secret"
TEXT = "The capital of Japan is Tokyo."


def stream(*pieces: str) -> str:
    events = [{"choices": [{"index": 0, "delta": {"content": piece}}]} for piece in pieces]
    events.append({"choices": [], "usage": {"completion_tokens": len(pieces)}})
    return "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"


def vllm(**answers: Any) -> dict[str, Any]:
    """The answers of a server that is ready."""
    return {
        "/health": (200, ""),
        "/version": {"version": "0.32.0"},
        "/v1/models": {"object": "list", "data": [{"id": "chat", "max_model_len": 4095}, {"id": "alias"}]},
        "/v1/chat/completions": (200, stream("The capital", " of Japan", " is Tokyo.")),
        **{f"/{path}": answer for path, answer in answers.items()},
    }


def probe(run_module: Any, url: str, **params: Any) -> dict[str, Any]:
    return run_module(vllm_probe.main, url=url, **{"timeout": 0, "interval": 0.01, **params})


@pytest.mark.parametrize("check_mode", [False, True])
def test_ready(run_module: Any, serve: Any, check_mode: bool) -> None:
    url = serve(vllm())
    result = probe(run_module, url, model="chat", expect_text="tOKYO", check_mode=check_mode)
    assert not result["failed"], result
    assert not result["changed"]
    assert {key: result[key] for key in ("url", "version", "model", "max_model_len")} == {
        "url": url,
        "version": "0.32.0",
        "model": "chat",
        "max_model_len": 4095,
    }
    assert result["waited"] >= 0
    assert result["checks"]["models"]["latency"] > 0
    chat = result["checks"]["chat"]
    assert (chat["text"], chat["tokens"]) == (TEXT, 3)
    assert 0 < chat["ttft"] <= chat["elapsed"]


def test_the_first_model_is_asked_when_none_is_named(run_module: Any, serve: Any) -> None:
    url = serve(vllm())
    result = probe(run_module, url, prompt="日本?", max_tokens=7)
    assert result["model"] == "chat"
    asked = json.loads(serve.bodies["/v1/chat/completions"])
    assert (asked["model"], asked["max_tokens"], asked["messages"][0]["content"]) == ("chat", 7, "日本?")


def test_any_of_the_servers_names_will_do(run_module: Any, serve: Any) -> None:
    result = probe(run_module, serve(vllm()), model="alias")
    assert (result["model"], result["max_model_len"]) == ("alias", None)


FAILURES = [
    ({}, {"model": "other"}, "{0} serves alias, chat, not other"),
    ({"v1/models": {"data": []}}, {}, "{0} serves no model"),
    ({"v1/models": {"data": None}}, {}, "{0} serves no model"),
    ({"v1/models": {}}, {}, "{0} serves no model"),
    ({"v1/models": (401, "")}, {}, "{0}/v1/models wants an API key, or another one than the one passed"),
    ({"v1/models": (200, "[]")}, {}, "{0}/v1/models answers no JSON document: is it a vLLM server?"),
    ({"version": (404, "no")}, {}, "{0}/version answers 404: no"),
    ({}, {"expect_text": "Kyoto"}, f"chat answered '{TEXT}', which does not contain 'Kyoto'"),
    ({"v1/chat/completions": (200, stream())}, {}, "the server answered without a single token: look at its log"),
    (
        {"v1/chat/completions": (200, "data: x")},
        {},
        "the server's answer is no JSON document at 'x': is it a vLLM server?",
    ),
    (
        {"v1/chat/completions": (400, '{"error": {"message": "no chat template"}}')},
        {},
        "{0}/v1/chat/completions answers 400: no chat template",
    ),
    ({"health": (503, "")}, {}, "{0} was not alive after 0 s: raise the timeout if it only needs longer"),
]


@pytest.mark.parametrize(("answers", "params", "sentence"), FAILURES, ids=range(len(FAILURES)))
def test_failures(run_module: Any, serve: Any, answers: dict, params: dict, sentence: str) -> None:
    url = serve(vllm(**answers))
    result = probe(run_module, url, **params)
    assert result["failed"]
    assert result["msg"] == sentence.format(url)
    assert "exception" not in result


def test_never_alive(run_module: Any, free_port: int) -> None:
    url = f"http://127.0.0.1:{free_port}"
    result = probe(run_module, url)
    assert result["msg"] == f"{url} was not alive after 0 s: raise the timeout if it only needs longer"


def test_it_waits_until_the_server_is_alive(run_module: Any, serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = vllm(health=(503, ""))
    looks = []

    def sleep(_seconds: float) -> None:
        looks.append(1)
        if len(looks) == 3:
            answers["/health"] = (200, "")

    monkeypatch.setattr(vllm_probe.time, "sleep", sleep)
    result = probe(run_module, serve(answers), timeout=60)
    assert not result["failed"], result
    assert len(looks) == 3


@pytest.mark.parametrize("url", ["127.0.0.1:30080", "http//127.0.0.1"])
def test_an_address_that_is_none_is_told_at_once(run_module: Any, url: str) -> None:
    result = probe(run_module, url, timeout=600)
    assert result["msg"] == f"'{url}' is no address of a server: it begins with http:// or https://"


def test_the_key(run_module: Any, serve: Any, tmp_path: Path) -> None:
    url = serve(vllm())
    file = tmp_path / "api_key"
    file.write_text(KEY + "\n")
    for given in ({"api_key": KEY}, {"api_key_file": str(file)}):
        serve.heads.clear()
        result = probe(run_module, url, **given)
        assert not result["failed"], result
        assert serve.heads["/v1/models"] == serve.heads["/v1/chat/completions"] == f"Bearer {KEY}"
        assert KEY not in result["output"]
    both = probe(run_module, url, api_key=KEY, api_key_file=str(file))
    assert both["msg"] == "parameters are mutually exclusive: api_key|api_key_file"


def test_a_key_that_the_answer_repeats_is_not_shown(run_module: Any, serve: Any, tmp_path: Path) -> None:
    file = tmp_path / "api_key"
    file.write_text(KEY)
    url = serve(vllm(**{"v1/chat/completions": (500, f'{{"error": "bad key {KEY}"}}')}))
    result = probe(run_module, url, api_key_file=str(file))
    assert result["msg"] == f"{url}/v1/chat/completions answers 500: bad key ********"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "the key file {0} cannot be read: [Errno 2] No such file or directory: '{0}'"),
        (b"", "the key file {0} is empty: write the key into it"),
        (b" \n", "the key file {0} is empty: write the key into it"),
        (b"\xff\xfe", "the key file {0} cannot be read: 'utf-8' codec can't decode byte 0xff in position 0"),
        (b"one\ntwo\n", "the API key has a space, a line break or a character that is not ASCII: correct it"),
    ],
)
def test_a_broken_key_file(run_module: Any, tmp_path: Path, content: bytes | None, sentence: str) -> None:
    file = tmp_path / "api_key"
    if content is not None:
        file.write_bytes(content)
    result = probe(run_module, "http://127.0.0.1:1", api_key_file=str(file), timeout=600)
    assert result["failed"]
    assert result["msg"].startswith(sentence.format(file))


class Docker:
    """Docker's SDK with one container, or none."""

    def __init__(self, log: bytes = b"", exists: bool = True, **state: Any):
        self.exists = exists
        self.state = {"Running": True, "Restarting": False, "OOMKilled": False, "ExitCode": 0, **state}
        self.log = log
        self.errors = docker.errors
        self.containers = self

    def from_env(self) -> Docker:
        return self

    def get(self, name: str) -> Any:
        if not self.exists:
            raise docker.errors.NotFound(name)
        return SimpleNamespace(attrs={"State": self.state}, logs=lambda tail: self.log)


CONTAINERS = [
    (Docker(exists=False), "there is no container 'vllm' on this host"),
    (
        Docker(Running=False, OOMKilled=True, ExitCode=137),
        "the container 'vllm' was killed for memory while it started: raise its memory limit",
    ),
    (
        Docker(b"usage: x\nvllm serve: error: unrecognized arguments: --no\n", Running=False, ExitCode=2),
        "the container 'vllm' ended with exit code 2 while it started: "
        "vllm serve: error: unrecognized arguments: --no (more: docker logs vllm)",
    ),
    (
        Docker(b"", Running=False),
        "the container 'vllm' ended with exit code 0 while it started: its log is empty (more: docker logs vllm)",
    ),
    (
        Docker("ValueError: 語".encode()[:-1], Running=True, Restarting=True, ExitCode=1),
        "the container 'vllm' ended with exit code 1 while it started: ValueError: \ufffd (more: docker logs vllm)",
    ),
]


@pytest.mark.parametrize("health", [(503, ""), (200, "")], ids=["loading", "somebody else answers"])
@pytest.mark.parametrize(("sdk", "sentence"), CONTAINERS, ids=range(len(CONTAINERS)))
def test_a_container_that_has_ended(
    run_module: Any, serve: Any, monkeypatch: pytest.MonkeyPatch, sdk: Docker, sentence: str, health: tuple
) -> None:
    monkeypatch.setattr(vllm_probe, "docker", sdk)
    result = probe(run_module, serve(vllm(health=health)), container="vllm", timeout=600)
    assert result["msg"] == sentence


def test_a_container_that_loads_for_too_long(run_module: Any, serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_probe, "docker", Docker(b"INFO 11-22 21:53:10 [core.py:93] Loading weights\n"))
    url = serve(vllm(health=(503, "")))
    assert probe(run_module, url, container="vllm")["msg"] == (
        f"{url} was not alive after 0 s (its log ends with 'Loading weights'): "
        "raise the timeout if it only needs longer"
    )


def test_a_container_that_answers(run_module: Any, serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_probe, "docker", Docker())
    assert not probe(run_module, serve(vllm()), container="vllm")["failed"]


def test_docker_that_cannot_be_asked(run_module: Any, serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def from_env() -> None:
        raise docker.errors.DockerException("Error while fetching server API version: no such file")

    monkeypatch.setattr(vllm_probe, "docker", SimpleNamespace(from_env=from_env, errors=docker.errors))
    url = serve(vllm())
    result = probe(run_module, url, container="vllm")
    assert result["msg"] == f"the probe of {url} failed: Error while fetching server API version: no such file"


def test_missing_libraries(run_module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_probe, "DOCKER_ERROR", "Traceback")
    result = probe(run_module, "http://127.0.0.1:1", container="vllm")
    assert "Failed to import the required Python library (docker)" in result["msg"]
    monkeypatch.setattr(vllm_probe._openai, "REQUESTS_ERROR", "Traceback")
    result = probe(run_module, "http://127.0.0.1:1")
    assert "Failed to import the required Python library (requests)" in result["msg"]


def test_the_progress_file(run_module: Any, serve: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(vllm_probe, "docker", Docker(b"INFO 11-22 21:53:10 [core.py:93] Loading weights\n"))
    file = tmp_path / "jobs" / "progress"
    answers = vllm(health=(503, ""))
    said = []

    def sleep(_seconds: float) -> None:
        said.append(file.read_text())
        if said[-1]:
            answers["/health"] = (200, "")
        else:
            real_sleep(0.01)

    real_sleep = vllm_probe.time.sleep
    monkeypatch.setattr(vllm_probe.time, "sleep", sleep)
    result = probe(run_module, serve(answers), container="vllm", timeout=60, progress_file=str(file))
    assert not result["failed"], result
    assert said[-1] == "starting, 0 s: Loading weights"
    assert not file.exists()
