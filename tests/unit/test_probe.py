"""Verdicts on a server: each situation is made with a double of vLLM, and with a double of its container."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from vllm_double import Faults, VllmDouble

from ansible_collections.llmops.vllm.plugins.module_utils import _probe
from ansible_collections.llmops.vllm.plugins.module_utils._container import ContainerState
from ansible_collections.llmops.vllm.plugins.module_utils._openai import CHAT, Server
from ansible_collections.llmops.vllm.plugins.module_utils._probe import Probe, ProbeFailed
from ansible_collections.llmops.vllm.plugins.modules.vllm_probe import TOUR_GUIDE_QUESTION

WISH = {
    "expect": "ready",
    "task": "generate",
    "checks": None,
    "model": None,
    "expect_model": None,
    "expect_text": None,
    "prompt": "What is the capital of Japan?",
    "max_tokens": 32,
    "capabilities": False,
    "timeout": 10,
    "request_timeout": 0.4,
    "interval": 0.01,
    "grace": 0,
    "warm_up": 0,
    "failures": 2,
}
KV_FAILURE = (
    "(EngineCore pid=71) ERROR 01-01 00:00:00 [core.py:1] ValueError: To serve at least one request with the "
    "model's max "
    "seq len (60000), (1.29 GiB KV cache is needed, which is larger than the available KV cache memory (1.0 GiB). "
    "Based on the available memory, the estimated maximum model length is 46464. Try\n"
)
LOADING = "(EngineCore pid=71) Loading safetensors checkpoint shards:  45% Completed | 1/2 [00:01<00:01]\n"
UP = "INFO:     Application startup complete.\n"
ENDED = {"Status": "exited", "Running": False, "ExitCode": 1}
RESTARTING = {"Status": "restarting", "Running": True, "Restarting": True, "ExitCode": 1}


@dataclass
class Box:
    """A double of _container.Container: what Docker would say of a container."""

    state_now: dict[str, Any] = field(default_factory=dict)
    log_now: str = UP
    restarts: int = 0
    exists: bool = True
    memory: int = 0
    name: str = "vllm"
    stopped: bool = False
    policy: dict[str, Any] = field(default_factory=dict)
    policies: list[str] = field(default_factory=list)

    def state(self) -> ContainerState | None:
        running = {"Status": "running", "Running": True, "StartedAt": "2026-11-22T21:53:10.5Z"}
        host = {"Memory": self.memory, "RestartPolicy": self.policy}
        attrs = {"State": {**running, **self.state_now}, "RestartCount": self.restarts, "HostConfig": host}
        return ContainerState(attrs) if self.exists else None

    def log(self, _state: ContainerState, lines: int = 0, all_runs: bool = False) -> str:
        return self.log_now

    def stop(self) -> None:
        self.stopped = True

    def set_restart_policy(self, policy: dict[str, Any]) -> None:
        self.policies.append(policy["Name"])


def probe(url: str, box: Box | None = None, may_stop: bool = True, **wish: Any) -> dict[str, Any]:
    """Return the result, with failed and, when it failed, code, msg and diagnosis."""
    wish = {**WISH, **wish}
    one = Probe(Server(url, wish.pop("key", None), wish["request_timeout"]), box, wish, may_stop)
    try:
        return {"failed": False, "code": "", **one.run()}
    except ProbeFailed as error:
        diagnosis = error.diagnosis.as_dict()
        return {"failed": True, "code": diagnosis["code"], "msg": str(error), "diagnosis": diagnosis, **one.result}


# What -> (settings of the double, its faults, the container, what is expected of it, verdict, code).
SITUATIONS: dict[str, tuple[dict, dict, Box | None, dict, str, str]] = {
    # It answers.
    "ready": ({}, {}, Box(), {}, "ready", ""),
    "ready without a container": ({}, {}, None, {}, "ready", ""),
    "ready at its first look": ({}, {}, Box(), {"timeout": 0}, "ready", ""),
    "ready with a key": ({"api_key": "sk-1"}, {}, None, {"key": "sk-1"}, "ready", ""),
    "ready with thoughts alone": ({"reasoning": True}, {}, None, {}, "ready", ""),
    "ready, embeddings": ({"task": "embed"}, {}, None, {"task": "embed"}, "ready", ""),
    "ready, scores": ({"task": "score"}, {}, None, {"task": "score"}, "ready", ""),
    "ready to complete text": (
        {"chat_template": False},
        {},
        None,
        {"checks": ["http", "models", "completion"]},
        "ready",
        "",
    ),
    "ready, all checks": (
        {},
        {},
        None,
        {"checks": ["http", "models", "template", "chat", "completion", "metrics", "progress"]},
        "ready",
        "",
    ),
    "ready without metrics": ({"log_stats": False}, {}, None, {}, "ready", ""),
    "ready though others run": ({"max_num_seqs": 8}, {"saturate": 3}, Box(), {}, "ready", ""),
    "as expected": (
        {},
        {},
        None,
        {"model": "tiny", "expect_model": "models/tiny", "expect_text": "tOKYO"},
        "ready",
        "",
    ),
    # It answers wrongly.
    "no chat template": ({"chat_template": False}, {}, Box(), {}, "failed", "no_chat_template"),
    "no chat template, by the check": (
        {"chat_template": False},
        {},
        Box(),
        {"checks": ["template"]},
        "failed",
        "no_chat_template",
    ),
    "wrong key": ({"api_key": "sk-1"}, {}, None, {"key": "sk-2"}, "failed", "wrong_key"),
    "another model": ({}, {}, None, {"model": "large"}, "failed", "model_not_served"),
    "another model, by the answer": (
        {},
        {},
        None,
        {"model": "large", "checks": ["chat"]},
        "failed",
        "model_not_served",
    ),
    "another folder": ({}, {}, None, {"expect_model": "tiny/0123"}, "failed", "wrong_model"),
    "another answer": ({}, {}, None, {"expect_text": "Kyoto"}, "failed", "wrong_answer"),
    "another task": ({}, {}, None, {"task": "embed"}, "failed", "no_endpoint"),
    "refused": ({}, {"http_status": 400}, None, {"model": "tiny", "checks": ["chat"]}, "failed", "bad_request"),
    "no vLLM": ({}, {"garbage": True}, None, {}, "failed", "not_vllm"),
    "nothing found": ({}, {"http_status": 404}, None, {}, "failed", "no_endpoint"),
    "always an error": ({}, {"http_status": 500}, None, {"checks": ["models"]}, "failed", "server_error"),
    "not one token": ({}, {"no_tokens": True}, Box(), {}, "failed", "no_answer"),
    "broken off": ({}, {"cut_after": 2}, Box(), {}, "failed", "broken"),
    "no metrics": ({"log_stats": False}, {}, None, {"checks": ["metrics"]}, "failed", "no_metrics"),
    # It is busy.
    "its places are taken": (
        {"max_num_seqs": 4, "token_delay": 0.01},
        {"saturate": 4},
        Box(),
        {"timeout": 1},
        "saturated",
        "saturated",
    ),
    "slow": ({"token_delay": 0.15}, {}, Box(), {"timeout": 0}, "saturated", "saturated"),
    "takes no more": ({}, {"http_status": 429}, None, {"timeout": 0}, "saturated", "saturated"),
    "a proxy without a server": (
        {},
        {"http_status": 503},
        None,
        {"checks": ["models"], "timeout": 0},
        "down",
        "engine_died",
    ),
    # It hangs.
    "hangs when asked": ({}, {"hang": True}, Box(), {}, "hung", "hung"),
    "hangs in its work": ({"token_delay": 0.01}, {"hang": True, "saturate": 3}, Box(), {}, "hung", "hung"),
    "hangs, by the check": (
        {"token_delay": 0.01},
        {"hang": True, "saturate": 3},
        Box(),
        {"checks": ["progress"]},
        "hung",
        "hung",
    ),
    "hangs at its first look": ({}, {"hang": True}, Box(), {"timeout": 0, "failures": 9}, "hung", "hung"),
    "hangs at its port": ({}, {"slow_http": 0.6}, Box(), {}, "hung", "hung"),
    "hangs or not, nobody counts": ({"log_stats": False}, {"hang": True}, Box(), {}, "failed", "no_answer"),
    # It has ended, or is about to.
    "dead engine": ({}, {"dead": True}, Box(), {}, "failed", "engine_died"),
    "dead engine, or a proxy": ({}, {"dead": True}, None, {"timeout": 0}, "down", "engine_died"),
    "ended while somebody else answers": (
        {},
        {},
        Box(ENDED, KV_FAILURE),
        {},
        "failed",
        "kv_cache_too_small",
    ),
    "killed for memory": ({}, {}, Box({**ENDED, "OOMKilled": True, "ExitCode": 137}), {}, "failed", "out_of_memory"),
    "stopped": ({}, {}, Box({**ENDED, "ExitCode": 0}), {}, "down", "stopped"),
    "no container": ({}, {}, Box(exists=False), {}, "down", "no_container"),
    "restarted for ever": ({}, {}, Box(RESTARTING, KV_FAILURE, 5), {}, "failed", "kv_cache_too_small"),
    "restarting for the first time": (
        {},
        {},
        Box(RESTARTING, KV_FAILURE, 1),
        {"timeout": 0},
        "starting",
        "kv_cache_too_small",
    ),
    # Alive is more than ready.
    "alive": ({}, {}, Box(), {"expect": "live"}, "ready", ""),
    "alive and busy": (
        {"max_num_seqs": 4, "token_delay": 0.01},
        {"saturate": 4},
        Box(),
        {"expect": "live"},
        "saturated",
        "",
    ),
    "not alive, hangs": ({}, {"hang": True}, Box(), {"expect": "live"}, "hung", "hung"),
    "not alive, hangs in its work": ({}, {"hang": True, "saturate": 3}, Box(), {"expect": "live"}, "hung", "hung"),
    "not alive, dead": ({}, {"dead": True}, Box(), {"expect": "live"}, "failed", "engine_died"),
    # Idle, for a drain.
    "idle": ({}, {}, Box(), {"expect": "idle"}, "idle", ""),
    "gone is idle": ({}, {}, Box(ENDED), {"expect": "idle"}, "down", ""),
    "not idle": (
        {"token_delay": 0.01},
        {"saturate": 3},
        None,
        {"expect": "idle", "timeout": 1},
        "saturated",
        "not_idle",
    ),
    "not idle, hangs": ({}, {"saturate": 3, "hang": True}, None, {"expect": "idle", "timeout": 1}, "hung", "hung"),
    "idle or not, nobody counts": ({"log_stats": False}, {}, None, {"expect": "idle"}, "failed", "no_metrics"),
    # Down.
    "still up": ({}, {}, Box(ENDED), {"expect": "down", "timeout": 0}, "failed", "still_up"),
    "still starting": ({}, {}, Box(), {"expect": "down", "timeout": 0}, "failed", "still_up"),
}


@pytest.mark.parametrize("situation", SITUATIONS)
def test_verdict(situation: str) -> None:
    settings, faults, box, wish, verdict, code = SITUATIONS[situation]
    with VllmDouble(**{"model": "/models/tiny", **settings}, faults=Faults(**faults)) as double:
        result = probe(double.url, box, **wish)
    assert (result["verdict"], result["code"]) == (verdict, code), result
    assert result["failed"] is bool(code)
    if code:
        diagnosis = result["diagnosis"]
        assert result["msg"] == f"{diagnosis['cause']}: {diagnosis['remedy']}"
        assert diagnosis["cause"] and diagnosis["remedy"] and "\n" not in result["msg"]


@pytest.mark.parametrize("listed", [{"data": []}, {"data": None}, {}, {"data": ["x"]}])
def test_no_model_is_served(serve: Any, listed: dict) -> None:
    url = serve({"/health": (200, ""), "/v1/models": listed})
    result = probe(url)
    assert (result["verdict"], result["code"]) == ("failed", "model_not_served")
    assert result["msg"] == f"{url} serves no model: look at its log"


@pytest.mark.parametrize(
    ("task", "path", "answer", "cause"),
    [
        ("embed", "/v1/embeddings", {"data": []}, "m answered without a vector"),
        ("embed", "/v1/embeddings", {"data": [{"embedding": []}]}, "m answered without a vector"),
        ("score", "/score", {"data": [{"score": None}]}, "m answered without a score"),
        ("score", "/score", {}, "m answered without a score"),
    ],
)
def test_answers_without_content(serve: Any, task: str, path: str, answer: dict, cause: str) -> None:
    url = serve({"/health": (200, ""), "/v1/models": {"data": [{"id": "m"}]}, path: answer})
    result = probe(url, task=task)
    assert (result["code"], result["diagnosis"]["cause"]) == ("no_answer", cause)


# Nobody listens: what -> (container, what is expected, verdict, code).
SILENCE: dict[str, tuple[Box | None, dict, str, str]] = {
    "down": (None, {"timeout": 0}, "down", "unreachable"),
    "loading": (Box(log_now=LOADING), {"timeout": 0}, "starting", "slow_start"),
    "another port": (Box(), {}, "failed", "unreachable"),
    "idle": (None, {"expect": "idle"}, "down", ""),
    "as expected": (None, {"expect": "down"}, "down", ""),
    "as expected, ended": (Box(ENDED), {"expect": "down"}, "down", ""),
    "as expected, no container": (Box(exists=False), {"expect": "down"}, "down", ""),
}


@pytest.mark.parametrize("situation", SILENCE)
def test_verdict_on_silence(situation: str, free_port: int) -> None:
    box, wish, verdict, code = SILENCE[situation]
    result = probe(f"http://127.0.0.1:{free_port}", box, **wish)
    assert (result["verdict"], result["code"]) == (verdict, code), result


def test_what_a_ready_server_returns() -> None:
    with VllmDouble(model="/models/tiny", names=("tiny", "alias"), token_delay=0.01) as double:
        log = "INFO 01-01 00:00:00 [x.py:1] GPU KV cache size: 23,296 tokens\n" + UP
        result = probe(double.url, Box(log_now=log), model="alias")
    assert result["model"] == "alias"
    assert result["max_model_len"] == 4096
    assert result["version"] == "0.32.0+double"
    assert result["kv_cache_tokens"] == 23296
    assert (result["running"], result["waiting"], result["restarts"]) == (0, 0, 0)
    assert result["changed"] is False
    chat = result["checks"].pop("chat")
    assert result["checks"].keys() == {"http", "models"}
    assert all(check["ok"] and check["status"] == 200 and check["latency"] > 0 for check in result["checks"].values())
    assert (chat["ok"], chat["text"], chat["tokens"]) == (True, "The capital of Japan is Tokyo.", 6)
    assert 0 < chat["ttft"] < chat["latency"]
    assert chat["tokens_per_second"] > 0


def test_a_ready_server_generates_once_and_shortly() -> None:
    with VllmDouble() as double:
        probe(double.url, prompt=TOUR_GUIDE_QUESTION)
        posts = [(path, body) for method, path, body, _key in double.log if method == "POST"]
    assert [path for path, _body in posts] == [CHAT]
    assert posts[0][1] == {
        "model": "tiny",
        "messages": [{"role": "user", "content": TOUR_GUIDE_QUESTION}],
        "max_tokens": 32,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_a_busy_server_is_not_given_one_request_more() -> None:
    with VllmDouble(max_num_seqs=4, token_delay=0.01, faults=Faults(saturate=4)) as double:
        assert probe(double.url, expect="live")["verdict"] == "saturated"
        assert not [path for method, path, *_rest in double.log if method == "POST"]


def meanwhile(act: Callable[[], None], after: float = 0.3) -> threading.Timer:
    timer = threading.Timer(after, act)
    timer.start()
    return timer


@pytest.mark.parametrize(
    ("expect", "faults", "settings", "verdict"),
    [
        ("ready", {"hang": True}, {}, "ready"),
        ("ready", {"saturate": 4}, {"max_num_seqs": 4}, "ready"),
        ("ready", {"slow_http": 0.6}, {}, "ready"),
        ("idle", {"saturate": 4}, {}, "idle"),
        ("live", {"hang": True, "saturate": 1}, {}, "ready"),
    ],
)
def test_it_waits_for_better_times(expect: str, faults: dict, settings: dict, verdict: str) -> None:
    with VllmDouble(token_delay=0.01, **settings, faults=Faults(**faults)) as double:
        timer = meanwhile(lambda: vars(double.faults).update(hang=False, saturate=0, slow_http=0))
        result = probe(double.url, Box(), expect=expect, failures=100)
        timer.join()
    assert (result["verdict"], result["failed"]) == (verdict, False)
    assert result["waited"] >= 0.2


@pytest.mark.parametrize(("hang", "verdict"), [(False, "saturated"), (True, "hung")])
def test_a_queue_that_is_full(hang: bool, verdict: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is work as long as it moves."""
    words = "The engine is currently busy and cannot accept new requests. Please try again later"
    with VllmDouble(token_delay=0.01, faults=Faults(saturate=2, hang=hang)) as double:

        def generate(_server: Server, path: str, *_args: Any) -> None:
            raise _probe.RequestFailed("status", path, words, status=503)

        monkeypatch.setattr(Server, "generate", generate)
        result = probe(double.url, Box(), timeout=0)
    assert (result["verdict"], result["code"]) == (verdict, verdict)


def test_failures_have_to_be_in_a_row() -> None:
    with VllmDouble(token_delay=0.01, max_num_seqs=2) as double:
        # Hung, saturated, hung, ready: never twice in a row.
        states = iter([{"hang": True}, {"saturate": 2}, {"hang": True}, {}])
        one = Probe(Server(double.url, None, 0.4), Box(), {**WISH, "failures": 2})
        look = one._looks["ready"]

        def looks() -> _probe.Look:
            vars(double.faults).update({"hang": False, "saturate": 0, **next(states)})
            return look()

        one._looks["ready"] = looks
        assert one.run()["verdict"] == "ready"


def test_a_server_that_just_came_up_may_be_slow(free_port: int) -> None:
    """Without a grace, its second failure would be its last."""
    box = Box(log_now=LOADING)
    for grace, verdict in ((60, "ready"), (0, "hung")):
        double = VllmDouble(port=free_port, faults=Faults(hang=True))
        timers = [meanwhile(double.__enter__, 0.2), meanwhile(lambda d=double: setattr(d.faults, "hang", False), 1.6)]
        result = probe(f"http://127.0.0.1:{free_port}", box, grace=grace)
        assert result["verdict"] == verdict
        for timer in timers:
            timer.cancel()
            timer.join()
        double.__exit__(None, None, None)


def test_it_tells_how_far_a_start_is(free_port: int) -> None:
    box = Box(log_now=LOADING)
    one = Probe(Server(f"http://127.0.0.1:{free_port}", None, 1), box, {**WISH, "timeout": 0})
    assert one.line().startswith("looking, 0 s: ")
    with pytest.raises(ProbeFailed) as caught:
        one.run()
    assert one.line() == "starting, 0 s: loading weights 45 %"
    assert str(caught.value) == (
        f"http://127.0.0.1:{free_port} was not up after 0 s (loading weights 45 %): "
        "raise the timeout (start_timeout of a deployment) if it only needs longer"
    )
    assert one.result["startup"] == {
        "phase": "loading weights",
        "percent": 45,
        "line": "Loading safetensors checkpoint shards:  45% Completed | 1/2 [00:01<00:01]",
    }


def test_it_tells_why_a_container_ended() -> None:
    result = probe("http://127.0.0.1:1", Box(ENDED, KV_FAILURE))
    assert result["msg"] == (
        "the container 'vllm' failed: a context of 60000 tokens needs 1.29 GiB of KV cache, and 1.0 GiB is there: "
        "set max_model_len to 46464 or less, or raise gpu_memory_utilization"
    )
    assert result["diagnosis"]["evidence"][0].startswith("ValueError: To serve at least one request")
    killed = probe("http://127.0.0.1:1", Box({**ENDED, "OOMKilled": True, "ExitCode": 137}, memory=2**30))
    assert killed["msg"].startswith("the container 'vllm' failed: the kernel killed it for memory while it served: ")
    unknown = probe("http://127.0.0.1:1", Box(ENDED, "ValueError: x\n"))
    assert unknown["msg"].startswith("the container 'vllm' ended with exit code 1: ValueError: x: read the rest of its")
    stopped = probe("http://127.0.0.1:1", Box({**ENDED, "ExitCode": 0}))
    assert stopped["msg"].startswith("the container 'vllm' was stopped (exit code 0): start it again, if that")


@pytest.mark.parametrize("may_stop", [True, False])
def test_a_restart_loop_is_stopped(may_stop: bool) -> None:
    box = Box(RESTARTING, KV_FAILURE, restarts=7)
    result = probe("http://127.0.0.1:1", box, may_stop=may_stop)
    assert (box.stopped, result["changed"], result["restart_loop"], result["restarts"]) == (may_stop, may_stop, True, 7)
    assert "; Docker had started it again 7 times" in result["msg"]
    assert ("and it is stopped now" in result["msg"]) is may_stop


def test_restarts_that_it_sees_are_a_loop(free_port: int) -> None:
    """Also of a container that Docker starts so fast again that it seems to run all the time."""

    class Fast(Box):
        def state(self) -> ContainerState | None:
            if self.policies:
                self.state_now = {**ENDED, "OOMKilled": True, "ExitCode": 137}
            else:
                self.restarts += 1
            return super().state()

    box = Fast(log_now=LOADING, restarts=100)
    result = probe(f"http://127.0.0.1:{free_port}", box)
    assert (result["code"], box.policies, result["restarts"]) == ("out_of_memory", ["no"], 103)
    assert (result["changed"], result["restart_loop"]) == (True, True)
    assert result["msg"].endswith("; Docker had started it again 103 times, and it is stopped now")


def test_a_run_that_serves_after_all_has_its_restarts_again() -> None:
    box = Box(log_now=LOADING, restarts=1)
    box.policy = {"Name": "unless-stopped"}
    with VllmDouble() as double:
        one = Probe(Server(double.url, None, 0.4), box, {**WISH, "failures": 2})
        one._first_restarts = -1
        result = one.run()
    assert (result["verdict"], result["restart_loop"]) == ("ready", True)
    assert box.policies == ["no", "unless-stopped"]


def test_the_runs_before_tell_what_is_wrong_with_all_of_them(free_port: int) -> None:
    """The one that goes on has said nothing yet."""
    result = probe(f"http://127.0.0.1:{free_port}", Box(log_now=KV_FAILURE, restarts=57), timeout=0)
    assert (result["verdict"], result["code"], result["changed"]) == ("starting", "kv_cache_too_small", False)
    assert result["msg"].startswith("the container 'vllm' failed: a context of 60000 tokens")


def test_old_recoveries_and_a_new_failure_are_no_loop() -> None:
    """Docker counts restarts for as long as the container exists; the log of all its runs tells whether one served."""

    class Recovered(Box):
        def log(self, _state: ContainerState, lines: int = 0, all_runs: bool = False) -> str:
            return UP + KV_FAILURE if all_runs else KV_FAILURE

    box = Recovered(RESTARTING, restarts=5)
    result = probe("http://127.0.0.1:1", box, timeout=0)
    assert (result["verdict"], result["code"], box.stopped) == ("starting", "kv_cache_too_small", False)


def test_a_server_that_died_after_long_service_is_no_loop() -> None:
    """Though Docker has restarted it now and then for months, and the log of its start is gone."""
    served = '(APIServer pid=1) INFO:     10.0.0.7:4 - "POST /v1/chat/completions HTTP/1.1" 200 OK\n'
    box = Box({**RESTARTING, "ExitCode": 0}, served, restarts=30)
    result = probe("http://127.0.0.1:1", box, timeout=0)
    assert (result["verdict"], result["code"], box.stopped) == ("starting", "slow_start", False)


def test_a_server_that_came_back_once_is_left_alone() -> None:
    """An engine that died, and Docker that started it again: that is what restarts are for."""
    box = Box(RESTARTING, UP, restarts=7)
    with VllmDouble() as double:
        timer = meanwhile(lambda: box.state_now.clear() or setattr(box, "state_now", {}))
        box.state_now = dict(RESTARTING)
        result = probe(double.url, box)
        timer.join()
    assert (result["verdict"], box.stopped) == ("ready", False)


ABLE = {
    "chat": True,
    "completions": True,
    "embeddings": False,
    "system_role": True,
    "streaming": True,
    "temperature": True,
    "top_p": True,
    "tools": False,
}
NO_CHAT = dict.fromkeys(("chat", "system_role", "streaming", "temperature", "top_p"), False)


@pytest.mark.parametrize(
    ("settings", "wish", "differences"),
    [
        ({}, {}, {}),
        ({"system_role": False}, {}, {"system_role": False}),
        ({"tools": True}, {}, {"tools": True}),
        # The runbook's warning: temperature and top_p cannot be used.
        ({"ignores_sampling": True}, {}, {"temperature": False, "top_p": False}),
        ({"reasoning": True}, {}, {}),
        ({"chat_template": False}, {"checks": ["completion"]}, NO_CHAT),
        ({"task": "embed"}, {"task": "embed"}, {**NO_CHAT, "completions": False, "embeddings": True}),
    ],
)
def test_capabilities(settings: dict, wish: dict, differences: dict) -> None:
    with VllmDouble(**settings) as double:
        assert "capabilities" not in probe(double.url, **wish)
        result = probe(double.url, capabilities=True, **wish)
    assert result["capabilities"] == {**ABLE, **differences}


def test_capabilities_of_a_server_that_hangs_meanwhile() -> None:
    with VllmDouble(token_delay=0.02) as double:
        timer = meanwhile(lambda: setattr(double.faults, "hang", True), 0.15)
        result = probe(double.url, capabilities=True)
        timer.join()
    assert result["failed"]
    assert "capabilities" not in result


def test_an_answer_that_ends_while_it_is_measured_is_bounded() -> None:
    """A server that sends a token now and then would hold a probe for ever."""
    with VllmDouble(token_delay=0.2) as double:
        started = time.monotonic()
        assert probe(double.url, timeout=0)["code"] == "saturated"
        assert time.monotonic() - started < 5


def test_results_can_be_sent_as_json() -> None:
    with VllmDouble() as double:
        json.dumps(probe(double.url, Box(), capabilities=True))


def counters(running: int, made: int) -> tuple[int, str]:
    return 200, f"vllm:num_requests_running {running}\nvllm:generation_tokens_total {made}\n"


def test_progress_is_nothing_of_a_server_that_is_not_there(free_port: int) -> None:
    result = probe(f"http://127.0.0.1:{free_port}", checks=["progress"], timeout=0)
    assert (result["verdict"], result["code"]) == ("down", "unreachable")
    with VllmDouble(log_stats=False, faults=Faults(hang=True)) as double:
        result = probe(double.url, checks=["http", "models", "progress"])
    assert (result["verdict"], result["code"]) == ("failed", "no_metrics")


def test_a_drain_does_not_end_with_a_connection(serve: Any) -> None:
    """Only a port that nobody listens at has no requests."""
    answers = iter([counters(3, 1), None, None, counters(3, 2), counters(0, 9), counters(0, 9)])
    result = probe(serve({"/metrics": lambda: next(answers)}), Box(), expect="idle")
    assert (result["verdict"], result["failed"]) == ("idle", False)
    assert next(answers, None) is None


def test_a_port_that_resets_for_good_is_gone(serve: Any) -> None:
    result = probe(serve({"/metrics": lambda: None}), Box(), expect="idle")
    assert (result["verdict"], result["failed"]) == ("down", False)


@pytest.mark.parametrize("expect", ["idle", "down"])
def test_a_host_that_nobody_finds_is_not_gone(expect: str) -> None:
    result = probe("http://no-such-host.invalid:1", expect=expect, timeout=0)
    assert result["failed"]


def test_a_container_that_docker_starts_again_is_not_down() -> None:
    result = probe("http://127.0.0.1:1", Box(RESTARTING), expect="down", timeout=0)
    assert (result["code"], result["diagnosis"]["cause"]) == ("still_up", "after 0 s the container 'vllm' restarts")


def test_a_slow_page_of_a_busy_server_is_no_hang() -> None:
    with VllmDouble(token_delay=0.01, max_num_seqs=4, faults=Faults(saturate=4)) as double:
        get = Server.get

        def slow(server: Server, path: str) -> tuple[str, float]:
            if path == "/health":
                raise _probe.RequestFailed("timeout", path, "no answer within 0.4 s")
            return get(server, path)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Server, "get", slow)
            result = probe(double.url, Box(), timeout=0)
    assert (result["verdict"], result["code"]) == ("saturated", "saturated")


@pytest.mark.parametrize(("moves", "verdict"), [(True, "saturated"), (False, "hung")])
def test_an_answer_that_began_and_stopped(serve: Any, moves: bool, verdict: str) -> None:
    made = iter(range(10**6))
    url = serve(
        {
            "/health": (200, ""),
            "/v1/models": {"data": [{"id": "m"}]},
            "/metrics": lambda: counters(2, next(made) if moves else 7),
        }
    )
    with pytest.MonkeyPatch.context() as patch:

        def generate(_server: Server, path: str, *_args: Any) -> None:
            raise _probe.RequestFailed("timeout", path, "no end after 0.4 s", tokens=3)

        patch.setattr(Server, "generate", generate)
        result = probe(url, Box(), timeout=0)
    assert (result["verdict"], result["code"]) == (verdict, verdict)


def test_what_it_can_do_is_not_asked_of_a_busy_server() -> None:
    """Its verdict is that of the moment, and no hang."""
    with VllmDouble(token_delay=0.01, max_num_seqs=4) as double:

        def busy(_server: Server, path: str, *_args: Any) -> None:
            double.faults.saturate = 4
            raise _probe.RequestFailed("timeout", path, "no answer within 0.4 s")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Server, "post", busy)
            result = probe(double.url, Box(), capabilities=True)
    assert (result["verdict"], result["code"]) == ("saturated", "saturated")


def test_each_look_tells_what_it_saw() -> None:
    """Not what one before it had seen."""
    with VllmDouble() as double:
        one = Probe(Server(double.url, None, 0.4), Box(), {**WISH, "expect": "ready", "timeout": 0})
        assert one.run()["checks"]["models"]["ok"]
    with pytest.raises(ProbeFailed):
        one.run()
    assert one.result["checks"].keys() == {"http"}
    assert "running" not in one.result


def test_an_engine_that_has_just_died_is_explained_by_its_log(free_port: int) -> None:
    """Its container runs for some seconds more, and soon nothing answers in it."""
    died = (
        UP + "ERROR 01-01 00:00:00 [core.py:1] torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB\n"
    )
    died += "ERROR 01-01 00:00:00 [async_llm.py:1] AsyncLLM output_handler failed.\n"
    with VllmDouble(faults=Faults(dead=True)) as double:
        result = probe(double.url, Box(log_now=died))
    assert (result["verdict"], result["code"]) == ("failed", "gpu_out_of_memory")
    silent = probe(f"http://127.0.0.1:{free_port}", Box(log_now=died))
    assert (silent["verdict"], silent["code"]) == ("failed", "gpu_out_of_memory")


@pytest.mark.parametrize("task", ["generate", "embed", "score"])
def test_a_warm_up_is_asked_at_once(task: str) -> None:
    with VllmDouble(names=["tiny"], task=task, token_delay=0.02) as double:
        result = probe(double.url, task=task, warm_up=3)
        asked = [path for method, path, _body, _key in double.log if method == "POST"]
    assert (result["verdict"], result["failed"]) == ("ready", False)
    assert len(asked) == 4 and len(set(asked)) == 1
    assert result["checks"]["warm_up"] == {
        "ok": True,
        "status": 200,
        "latency": result["checks"]["warm_up"]["latency"],
        "requests": 3,
    }


def test_a_server_that_fails_when_it_is_warmed_up_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    with VllmDouble(names=["tiny"]) as double:
        generate = Server.generate
        calls = itertools.count()

        def fails_from_the_second_on(self: Server, path: str, body: dict, timeout: float) -> dict:
            double.faults.http_status = 500 if next(calls) else 0
            return generate(self, path, body, timeout)

        monkeypatch.setattr(Server, "generate", fails_from_the_second_on)
        result = probe(double.url, warm_up=2, failures=1)
    assert result["failed"] and result["verdict"] == "failed"
    assert result["checks"]["chat"]["ok"] and not result["checks"]["warm_up"]["ok"]


def test_one_that_hangs_is_not_waited_for_until_the_end() -> None:
    with VllmDouble(names=["tiny"]) as double:
        double.faults.update({"saturate": 2, "hang": True})
        result = probe(double.url, expect="idle", timeout=600, request_timeout=1, failures=2)
    assert result["failed"] and result["diagnosis"]["code"] == "hung"
    assert result["waited"] < 60
