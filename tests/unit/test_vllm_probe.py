"""Tests of the module vllm_probe: its options, its results, its container."""

from __future__ import annotations

import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import docker.errors
import pytest
from vllm_double import Faults, VllmDouble

from ansible_collections.llmops.vllm.plugins.module_utils import _container, _openai
from ansible_collections.llmops.vllm.plugins.modules import vllm_probe

KEY = "sk-Abc123-secret"


def probe(run_module: Any, url: str, **params: Any) -> dict[str, Any]:
    return run_module(vllm_probe.main, url=url, **{"timeout": 0, "interval": 0.01, **params})


@pytest.mark.parametrize("check_mode", [False, True])
def test_ready(run_module: Any, check_mode: bool) -> None:
    with VllmDouble() as double:
        result = probe(run_module, double.url, expect_text="tOKYO", check_mode=check_mode)
        (body,) = (body for method, _path, body, _key in double.log if method == "POST")
    assert not result["failed"], result
    assert (result["changed"], result["verdict"], result["url"]) == (False, "ready", double.url)
    assert body["messages"] == [{"role": "user", "content": vllm_probe.TOUR_GUIDE_QUESTION}]
    assert "diagnosis" not in result


def test_failed(run_module: Any) -> None:
    with VllmDouble(chat_template=False) as double:
        result = probe(run_module, double.url)
    assert result["failed"]
    assert result["msg"] == (
        "tiny has no chat template, so nobody can chat with it: set chat_template, or use the check 'completion' for a "
        "model that only completes text"
    )
    assert result["diagnosis"] == {
        "code": "no_chat_template",
        "cause": "tiny has no chat template, so nobody can chat with it",
        "remedy": "set chat_template, or use the check 'completion' for a model that only completes text",
        "evidence": [],
    }
    assert result["verdict"] == "failed"
    assert {name: check["ok"] for name, check in result["checks"].items()} == {
        "http": True,
        "models": True,
        "chat": False,
    }
    assert "exception" not in result


@pytest.mark.parametrize("url", ["127.0.0.1:30080", "http//127.0.0.1"])
def test_an_address_that_is_none_is_told_at_once(run_module: Any, url: str) -> None:
    result = probe(run_module, url, timeout=600)
    assert result["msg"] == f"'{url}' is no address of a server: it begins with http:// or https://"


def test_the_key(run_module: Any, tmp_path: Path) -> None:
    file = tmp_path / "api_key"
    file.write_text(KEY + "\n")
    with VllmDouble(api_key=KEY) as double:
        for given in ({"api_key": KEY}, {"api_key_file": str(file)}):
            result = probe(run_module, double.url, **given)
            assert not result["failed"], result
            assert KEY not in result["output"]
        assert {key for _method, path, _body, key in double.log if path.startswith("/v1")} == {f"Bearer {KEY}"}
        both = probe(run_module, double.url, api_key=KEY, api_key_file=str(file))
    assert both["msg"] == "parameters are mutually exclusive: api_key|api_key_file"


def test_a_key_that_the_answer_repeats_is_not_shown(run_module: Any, serve: Any, tmp_path: Path) -> None:
    file = tmp_path / "api_key"
    file.write_text(KEY)
    url = serve({"/health": (200, ""), "/v1/models": (400, f'{{"error": "bad key {KEY}"}}')})
    result = probe(run_module, url, api_key_file=str(file))
    assert result["msg"] == f"{url}/v1/models answers 400: bad key ********: correct what it names"
    assert KEY not in result["output"]


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


def test_certificates(run_module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def server(*args: Any) -> None:
        made.append(args[2:])
        raise _openai.BadAddress("no")

    monkeypatch.setattr(vllm_probe._openai, "Server", server)
    for given in (
        {},
        {"validate_certs": False, "ca_path": "/ca.pem"},
        {"ca_path": "/ca.pem", "client_cert": "/own.pem", "request_timeout": 7},
        {"client_cert": "/own.pem", "client_key": "/own.key"},
    ):
        probe(run_module, "https://host", **given)
    assert made == [
        (30, True, None),
        (30, False, None),
        (7, "/ca.pem", "/own.pem"),
        (30, True, ("/own.pem", "/own.key")),
    ]
    assert "client_key" in probe(run_module, "https://host", client_key="/own.key")["msg"]


class Docker:
    """Docker's SDK with one container, or none."""

    def __init__(self, log: bytes = b"", exists: bool = True, restarts: int = 0, **state: Any):
        self.exists = exists
        self.attrs = {
            "State": {"Status": "running", "Running": True, "StartedAt": "2026-11-22T21:53:10.123456789Z", **state},
            "RestartCount": restarts,
            "HostConfig": {"Memory": 1024},
        }
        self.log = log
        self.errors = docker.errors
        self.containers = self
        self.asked: list[dict[str, Any]] = []
        self.stops = 0

    def from_env(self) -> Docker:
        return self

    def get(self, name: str) -> Any:
        if not self.exists:
            raise docker.errors.NotFound(name)
        return SimpleNamespace(attrs=self.attrs, logs=self.logs, stop=self.stop)

    def logs(self, **asked: Any) -> bytes:
        self.asked.append(asked)
        return self.log

    def stop(self) -> None:
        self.stops += 1


ENDED = {"Status": "exited", "Running": False, "ExitCode": 1}
LOOP = {"Status": "restarting", "Running": True, "Restarting": True, "ExitCode": 1}


def test_a_container_that_has_ended(run_module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sdk = Docker("ValueError: 語".encode()[:-1], **ENDED)
    monkeypatch.setattr(_container, "docker", sdk)
    result = probe(run_module, "http://127.0.0.1:1", container="vllm", timeout=600)
    assert result["msg"] == (
        "the container 'vllm' ended with exit code 1: ValueError: \ufffd: read the rest of its log (docker logs)"
    )
    # Of this run alone, and the whole of it: Docker waits 0.1 s before it starts one again.
    start = datetime.datetime(2026, 11, 22, 21, 53, 10, 123456, tzinfo=datetime.UTC).timestamp()
    (asked,) = sdk.asked
    assert start - 0.1 < asked["since"] < start
    assert asked["tail"] == 5000


def test_a_container_that_never_ran(run_module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sdk = Docker(**{**ENDED, "Status": "created", "StartedAt": "0001-01-01T00:00:00Z", "Error": "no such device"})
    monkeypatch.setattr(_container, "docker", sdk)
    result = probe(run_module, "http://127.0.0.1:1", container="vllm", timeout=600)
    assert result["diagnosis"]["cause"].endswith("Docker cannot start the container (no such device)")
    assert sdk.asked == [{"since": None, "tail": 5000}]


def test_no_container(run_module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_container, "docker", Docker(exists=False))
    result = probe(run_module, "http://127.0.0.1:1", container="vllm", timeout=600)
    assert (result["verdict"], result["diagnosis"]["code"]) == ("down", "no_container")


@pytest.mark.parametrize("check_mode", [False, True])
def test_a_restart_loop(run_module: Any, monkeypatch: pytest.MonkeyPatch, check_mode: bool) -> None:
    sdk = Docker(b"ValueError: x", restarts=5, **LOOP)
    monkeypatch.setattr(_container, "docker", sdk)
    result = probe(run_module, "http://127.0.0.1:1", container="vllm", check_mode=check_mode)
    assert (sdk.stops, result["changed"], result["restart_loop"]) == (0, False, True) if check_mode else (1, True, True)


def test_a_container_that_goes_away_while_it_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    sdk = Docker(exists=False)
    monkeypatch.setattr(_container, "docker", sdk)
    box = _container.Container("vllm")
    state = _container.ContainerState(sdk.attrs)
    assert (box.state(), box.log(state)) == (None, "")
    box.stop()
    sdk.exists = True

    def conflict(**_asked: Any) -> bytes:
        raise docker.errors.APIError("dead or marked for removal")

    sdk.logs = conflict
    assert box.log(state) == ""


def test_docker_that_cannot_be_asked(run_module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def from_env() -> None:
        raise docker.errors.DockerException("Error while fetching server API version: no such file")

    monkeypatch.setattr(_container, "docker", SimpleNamespace(from_env=from_env, errors=docker.errors))
    result = probe(run_module, "http://127.0.0.1:1", container="vllm")
    assert result["msg"] == (
        "the probe of http://127.0.0.1:1 failed: Error while fetching server API version: no such file"
    )


def test_missing_libraries(run_module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_container, "DOCKER_ERROR", "Traceback")
    result = probe(run_module, "http://127.0.0.1:1", container="vllm")
    assert "Failed to import the required Python library (docker)" in result["msg"]
    monkeypatch.setattr(_openai, "REQUESTS_ERROR", "Traceback")
    result = probe(run_module, "http://127.0.0.1:1")
    assert "Failed to import the required Python library (requests)" in result["msg"]


def test_the_progress_file(run_module: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "jobs" / "progress"
    said = []
    with VllmDouble(faults=Faults(hang=True)) as double:

        def sleep(seconds: float) -> None:
            real_sleep(seconds)
            if file.exists():
                said.append(file.read_text().partition("\n")[2])
            double.faults.hang = False

        real_sleep = vllm_probe._probe.time.sleep
        monkeypatch.setattr(vllm_probe._probe.time, "sleep", sleep)
        result = probe(run_module, double.url, timeout=60, request_timeout=1, interval=1.2, progress_file=str(file))
    assert not result["failed"], result
    assert said[-1].startswith("hung, ")
    assert said[-1].endswith(" s: 0 requests run, 0 wait") or "requests run" in said[-1]
    assert not file.exists()


def test_a_probe_that_cannot_look_says_so_in_its_result(run_module: Any, tmp_path: Any) -> None:
    """What a role reads of any result is there."""
    result = probe(run_module, "http://127.0.0.1:1", api_key_file=str(tmp_path / "none"))
    assert result["failed"]
    assert (result["verdict"], result["checks"], result["diagnosis"]["code"]) == ("unknown", {}, "no_look")
    assert result["msg"] == result["diagnosis"]["cause"]
    assert "cannot be read" in result["msg"]
