# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""Looks at a vLLM server until it is as expected, and says what it is.

Its verdicts: starting; ready (it generated); saturated (busy, and its counters move); hung
(it has work, and nothing moves); failed (it ended, or answers wrongly); down (nobody there);
idle (no request is in it).
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from ansible_collections.llmops.vllm.plugins.module_utils import _engine_log, _openai
from ansible_collections.llmops.vllm.plugins.module_utils._diagnosis import ContainerEnd, Diagnosis, diagnose
from ansible_collections.llmops.vllm.plugins.module_utils._metrics import Metrics
from ansible_collections.llmops.vllm.plugins.module_utils._openai import RequestFailed

if TYPE_CHECKING:
    from ansible_collections.llmops.vllm.plugins.module_utils._container import Container, ContainerState

T = TypeVar("T")

# What a task is asked by.
TASK_CHECKS = {"generate": "chat", "embed": "embeddings", "score": "score"}
CHECKS = ("http", "models", "template", "chat", "completion", "embeddings", "score", "metrics", "progress")
# Checks that ask what users ask.
_QUESTIONS = ("chat", "completion", "embeddings", "score")
EXPECTATIONS = ("ready", "live", "idle", "down")
# Seconds between two looks at the counters.
_MOVE_INTERVAL = 0.25
# Lines of the log that tell how far a start is: enough for vLLM's own beside the bars of many workers.
_STARTUP_LINES = 400


class ProbeFailed(Exception):
    """The server is not as expected; its message is the one sentence."""

    def __init__(self, diagnosis: Diagnosis) -> None:
        super().__init__(str(diagnosis))
        self.diagnosis = diagnosis


def not_looked(error: object) -> dict[str, Any]:
    """Return the result of a probe that could not even look."""
    return {"verdict": "unknown", "checks": {}, "diagnosis": _no_look(error).as_dict()}


def _no_look(error: object) -> Diagnosis:
    return Diagnosis("no_look", str(error), "correct it, and look again")


class Look:
    """What one look at the server saw.

    verdict; diagnosis: why it is not as expected, or None; final: waiting does not help; counted:
    so many of them in a row, and waiting does not help either; doing: how far it is, for people.
    """

    def __init__(
        self,
        verdict: str,
        diagnosis: Diagnosis | None = None,
        final: bool = False,
        counted: bool = False,
        doing: str = "",
    ) -> None:
        self.verdict, self.diagnosis, self.final, self.counted = verdict, diagnosis, final, counted
        self.doing = doing or verdict


class _Unmet(Exception):
    """A check that was answered, with something else than expected; look: what that means."""

    def __init__(self, look: Look) -> None:
        super().__init__(str(look.diagnosis))
        self.look = look


def _unmet(code: str, cause: str, remedy: str) -> _Unmet:
    return _Unmet(Look("failed", Diagnosis(code, cause, remedy), final=True))


class Probe:
    """One server and what is expected of it.

    server: _openai.Server; container: _container.Container or None; wish: the module's options as
    a dict; may_stop: whether a container that Docker restarts for ever may be stopped. result is
    what the module returns.
    """

    def __init__(
        self, server: _openai.Server, container: Container | None, wish: dict[str, Any], may_stop: bool = True
    ) -> None:
        self.server, self.container, self.wish, self.may_stop = server, container, wish, may_stop
        self.doing = "looking at %s" % server.url
        self.result: dict[str, Any] = {"changed": False, "url": server.url, "verdict": "", "waited": 0.0, "checks": {}}
        self._looks = {
            "ready": self._look_ready,
            "live": self._look_live,
            "idle": self._look_idle,
            "down": self._look_down,
        }
        self._began = time.monotonic()
        self._state: ContainerState | None = None
        self._first_restarts: int | None = None
        self._was_dead = False
        self._alive_since: float | None = None
        self._metrics: Metrics | None = None
        self._moved: tuple[Metrics | None, float] = None, 0.0
        self._resets = 0
        # What Docker is to do again with a container that has served after all.
        self._restart_policy: Mapping[str, Any] | None = None

    def run(self) -> dict[str, Any]:
        """Return result once the server is as expected; raise ProbeFailed when it will not be, or not in time."""
        self._began = time.monotonic()
        failures = 0
        while True:
            # What an earlier look has seen is no news of this one.
            self.result["checks"] = {}
            for name in ("running", "waiting", "kv_cache_usage", "startup"):
                self.result.pop(name, None)
            look = self._looks[self.wish["expect"]]()
            self.doing = look.doing
            self.result.update(verdict=look.verdict, waited=round(self._waited(), 2))
            if look.diagnosis is None:
                self._have_restarts_again()
                break
            failures = failures + 1 if look.counted and not self._in_grace() else 0
            if look.final or failures >= self.wish["failures"]:
                raise ProbeFailed(look.diagnosis)
            if self._waited() >= self.wish["timeout"]:
                raise ProbeFailed(self._late(look.diagnosis, look.doing))
            time.sleep(min(self.wish["interval"], max(0.0, self.wish["timeout"] - self._waited())))
        if self.wish["capabilities"]:
            self.doing = "measuring what it can do"
            try:
                self.result["capabilities"] = self._capabilities()
            except RequestFailed as error:
                look = self._judge("capabilities", error)
                self.result["verdict"] = look.verdict
                raise ProbeFailed(look.diagnosis or _no_look(error)) from error
        return self.result

    def line(self) -> str:
        """Return what happens now, for the progress of the task."""
        return "%s, %d s: %s" % (self.result["verdict"] or "looking", self._waited(), self.doing)

    def _waited(self) -> float:
        return time.monotonic() - self._began

    def _in_grace(self) -> bool:
        """Return whether the server is up for so short a time that it may still be slow."""
        return self._alive_since is not None and time.monotonic() - self._alive_since < self.wish["grace"]

    def _late(self, why: Diagnosis, doing: str) -> Diagnosis:
        """Return the Diagnosis of a server that was not as expected in time."""
        waited = round(self._waited())
        if why.code == "starting":
            if self.container and self.result.get("restarts"):
                # The runs before this one may have said what is wrong with all of them.
                known = diagnose(self._log(all_runs=True), ContainerEnd())
                if known.code != "unknown":
                    return _named(self.container, known)
            return Diagnosis(
                "slow_start",
                "%s was not up after %d s (%s)" % (self.server.url, waited, doing),
                "raise the timeout (start_timeout of a deployment) if it only needs longer",
            )
        return why

    # The container.

    def _log(self, lines: int | None = None, all_runs: bool = False) -> str:
        """Return what its container printed last, as Container.log() does; '' for a server without one."""
        if self.container and self._state:
            return self.container.log(self._state, lines, all_runs)
        return ""

    def _look_container(self) -> Look | None:
        """Return the Look of a container that does not run, or None."""
        if not self.container:
            return None
        state = self._state = self.container.state()
        if state is None:
            why = Diagnosis(
                "no_container",
                "there is no container '%s' on this host" % self.container.name,
                "start it, or correct its name",
            )
            return Look("down", why, final=True)
        self.result["restarts"] = state.restarts
        again = self._restarts_meanwhile(state)
        if state.running:
            if again >= self.wish["failures"]:
                self._end_restarts(self.container, state)
            return None
        why = diagnose(self._log(), state.end)
        if state.restarting:
            if not self._is_loop(state):
                # Docker does not start again what somebody has stopped: this one ended by itself.
                return Look(
                    "starting",
                    _STARTS if why.code in ("stopped", "unknown") else _named(self.container, why),
                    doing="restarting after exit code %d" % state.end.exit_code,
                )
            self.result["restart_loop"] = True
            if self.may_stop:
                self.container.stop()
                self.result["changed"] = True
        why = _named(self.container, why)
        if self.result.get("restart_loop"):
            done = ", and it is stopped now" if self.result["changed"] else ""
            why.remedy += "; Docker had started it again %d times%s" % (state.restarts, done)
        verdict = "down" if why.code == "stopped" else "failed"
        return Look(verdict, why, final=True)

    def _restarts_meanwhile(self, state: ContainerState) -> int:
        """Return how often Docker has started it again since the first look."""
        if self._first_restarts is None:
            self._first_restarts = state.restarts
        return state.restarts - self._first_restarts

    def _death_in_the_log(self) -> Diagnosis | None:
        """Return the Diagnosis of an engine that has died in a container that runs, or None.

        The container ends some seconds after its engine; the log knows already why.
        """
        why = diagnose(self._log(), ContainerEnd(exit_code=0))
        return None if why.code == "stopped" else why

    def _is_loop(self, state: ContainerState) -> bool:
        """Return whether Docker starts again and again what cannot run. One restart can be a recovery."""
        if self._restarts_meanwhile(state) >= self.wish["failures"]:
            return True
        if state.restarts < self.wish["failures"]:
            return False
        # Docker counts restarts for as long as the container exists: old ones may be recoveries of one that serves.
        return not _engine_log.is_ready(self._log(all_runs=True))

    def _end_restarts(self, container: Container, state: ContainerState) -> None:
        """Have the run that goes on be the last one: its exit code and its log tell what is wrong with all of them."""
        if not self.result.get("restart_loop"):
            self.result["restart_loop"] = True
            if self.may_stop:
                self._restart_policy = state.restart_policy
                container.set_restart_policy({"Name": "no"})
                self.result["changed"] = True

    def _have_restarts_again(self) -> None:
        if self.container and self._restart_policy:
            self.container.set_restart_policy(self._restart_policy)

    def _not_listening(self, error: RequestFailed) -> Look:
        """Return the Look of a server whose port does not answer, though its container may run."""
        self._was_dead, self._alive_since = True, None
        if not self.container:
            why = Diagnosis(
                "unreachable",
                "nothing answers at %s (%s)" % (self.server.url, error.message),
                "start the server, or correct the address",
            )
            return Look("down", why, doing="nothing answers at %s" % self.server.url)
        log = self._log(_STARTUP_LINES)
        if _engine_log.is_ready(log):
            why = self._death_in_the_log() or Diagnosis(
                "unreachable",
                "the container '%s' says that it is up, but nothing answers at %s (%s)"
                % (self.container.name, self.server.url, error.message),
                "compare the address with what the container publishes (docker port %s)" % self.container.name,
            )
            return Look("failed", why, counted=True)
        startup = _engine_log.Startup(log)
        self.result["startup"] = {"phase": startup.phase, "percent": startup.percent, "line": startup.line}
        doing = str(startup) or "nothing in its log yet"
        return Look("starting", _STARTS, doing=doing)

    # What is expected of it.

    def _look_ready(self) -> Look:
        return self._look_container() or self._run_checks(self._checks()) or self._warm_up() or self._ready()

    def _warm_up(self) -> Look | None:
        """Have it answer warm_up requests at once, as users will ask; return the Look of one that fails, or None."""
        count = self.wish["warm_up"]
        asked = [check for check in self._checks() if check in _QUESTIONS]
        if not count or not asked:
            return None
        self.doing = "warming up with %d requests" % count
        name = self._name()
        started = time.monotonic()
        with concurrent.futures.ThreadPoolExecutor(max_workers=count) as pool:
            answers = [pool.submit(self._question, asked[-1], name) for dummy in range(count)]
        for answer in answers:
            try:
                answer.result()
            except RequestFailed as error:
                self.result["checks"]["warm_up"] = {"ok": False, "status": error.status}
                return self._judge(asked[-1], error)
        self.result["checks"]["warm_up"] = {
            "ok": True,
            "status": 200,
            "latency": round(time.monotonic() - started, 4),
            "requests": count,
        }
        return None

    def _question(self, check: str, name: str) -> object:
        """Ask what a check asks, and return the answer; safe in a thread of its own."""
        limit = self.wish["request_timeout"]
        body = {"model": name, "max_tokens": self.wish["max_tokens"], "temperature": 0}
        if check == "chat":
            return self.server.generate(_openai.CHAT, dict(body, messages=_messages(self.wish["prompt"])), limit)
        if check == "completion":
            return self.server.generate(_openai.COMPLETIONS, dict(body, prompt=self.wish["prompt"]), limit)
        if check == "embeddings":
            return self.server.post("/v1/embeddings", {"model": name, "input": self.wish["prompt"]}, limit)
        texts = {"text_1": self.wish["prompt"], "text_2": self.wish["prompt"]}
        return self.server.post("/score", dict(texts, model=name), limit)

    def _look_live(self) -> Look:
        """A server that works is alive, whether or not it has time for the probe."""
        ended = self._look_container() or self._run_checks(["http"])
        if ended:
            return ended
        if self._movement() == "moving":
            return Look("saturated", doing=self._load())
        asked = self._run_checks(self._checks(), max_tokens=1)
        if asked and asked.verdict == "saturated":
            asked.diagnosis = None
        return asked or self._ready()

    def _look_idle(self) -> Look:
        if self.container:
            state = self._state = self.container.state()
            if state is None or not state.running:
                return Look("down")
        try:
            now = self._read_metrics()
            if now.known and not now.in_flight:
                # A second look, for a request that was on its way.
                time.sleep(_MOVE_INTERVAL)
                now = self._read_metrics()
        except RequestFailed as error:
            # Docker's proxy takes connections for a container in which nobody listens, and resets them.
            self._resets = self._resets + 1 if error.kind == "reset" else 0
            if error.kind == "refused" or self._resets >= self.wish["failures"]:
                return Look("down")
            return self._judge("metrics", error)
        self._resets = 0
        if not now.known:
            why = Diagnosis(
                "no_metrics",
                "%s/metrics does not count requests" % self.server.url,
                "start the server without disable_log_stats, or do not wait for it to be idle",
            )
            return Look("failed", why, final=True)
        if not now.in_flight:
            return Look("idle")
        before = self._moved[0]
        if before is None or not now.is_stuck_since(before):
            self._moved = now, time.monotonic()
        still = time.monotonic() - self._moved[1]
        stuck = still >= self.wish["request_timeout"]
        cause = "%d requests run and %d wait at %s after %d s" % (
            now.running,
            now.waiting,
            self.server.url,
            self._waited(),
        )
        if stuck:
            cause += ", and none has moved for %d s" % still
        remedy = (
            "stop it all the same, these requests are lost" if stuck else "raise the timeout, or stop it all the same"
        )
        verdict, code = ("hung", "hung") if stuck else ("saturated", "not_idle")
        # One that hangs will not become idle.
        return Look(verdict, Diagnosis(code, cause, remedy), counted=stuck, doing=self._load())

    def _look_down(self) -> Look:
        state = self.container.state() if self.container else None
        answers = ""
        if self.container and state and (state.running or state.restarting):
            answers = "the container '%s' %s" % (self.container.name, "runs" if state.running else "restarts")
        if not answers:
            try:
                self.server.get("/health")
                answers = "somebody answers at %s" % self.server.url
            except RequestFailed as error:
                if error.kind == "refused":
                    return Look("down")
                what = "nobody can tell who is" if error.kind == "unreachable" else "somebody is"
                answers = "%s at %s (%s)" % (what, self.server.url, error.message)
        why = Diagnosis("still_up", "after %d s %s" % (self._waited(), answers), "stop it, or raise the timeout")
        return Look("failed", why, doing=answers)

    def _ready(self) -> Look:
        if self.container:
            tokens = _engine_log.kv_cache_tokens(self._log(_STARTUP_LINES))
            if tokens:
                self.result["kv_cache_tokens"] = tokens
        try:
            self.result["version"] = str(self.server.get_json("/version")[0].get("version", ""))
        except RequestFailed:
            # A proxy before the server may keep it to itself.
            self.result["version"] = ""
        return Look("ready")

    # The checks.

    def _checks(self) -> list[str]:
        return self.wish["checks"] or ["http", "models", TASK_CHECKS[self.wish["task"]]]

    def _run_checks(self, names: Iterable[str], max_tokens: int | None = None) -> Look | None:
        """Return the Look of the first check that is not passed, or None."""
        for name in names:
            check: dict[str, Any] = {"ok": False}
            self.result["checks"][name] = check
            self.doing = "check of %s" % name
            started = time.monotonic()
            try:
                check.update(getattr(self, "_check_" + name)(max_tokens or self.wish["max_tokens"]))
            except _Unmet as unmet:
                check.update(status=200, latency=round(time.monotonic() - started, 4))
                return unmet.look
            except RequestFailed as error:
                check.update(status=error.status, latency=round(time.monotonic() - started, 4))
                return self._judge(name, error)
            if self._was_dead and self._alive_since is None:
                self._alive_since = time.monotonic()
            check.update(ok=True, status=200)
        return None

    def _check_http(self, dummy: int) -> dict[str, Any]:
        return {"latency": round(self.server.get("/health")[1], 4)}

    def _check_models(self, dummy: int) -> dict[str, Any]:
        name, card, latency = self._model_card()
        root, wanted = str(card.get("root") or ""), self.wish["expect_model"]
        if wanted and not ("/" + root).endswith("/" + wanted.lstrip("/")):
            raise _unmet(
                "wrong_model",
                "%s at %s is %s, not %s" % (name, self.server.url, root or "of unknown origin", wanted),
                "start the server with the model that it is to serve",
            )
        self.result["max_model_len"] = card.get("max_model_len")
        return {"latency": round(latency, 4)}

    def _check_template(self, dummy: int) -> dict[str, Any]:
        body = {"model": self._name(), "messages": _messages(self.wish["prompt"])}
        document, latency = self.server.post("/tokenize", body, self.wish["request_timeout"])
        return {"latency": round(latency, 4), "tokens": document.get("count")}

    def _check_chat(self, max_tokens: int) -> dict[str, Any]:
        body = {"messages": _messages(self.wish["prompt"])}
        return self._generate(_openai.CHAT, body, max_tokens)

    def _check_completion(self, max_tokens: int) -> dict[str, Any]:
        return self._generate(_openai.COMPLETIONS, {"prompt": self.wish["prompt"]}, max_tokens)

    def _check_embeddings(self, dummy: int) -> dict[str, Any]:
        document, latency = self._ask("/v1/embeddings", {"input": self.wish["prompt"]})
        vectors = [entry.get("embedding") for entry in document.get("data") or [] if isinstance(entry, dict)]
        if not vectors or not vectors[0]:
            raise _unmet("no_answer", "%s answered without a vector" % self._name(), "look at its log")
        return {"latency": round(latency, 4), "dimensions": len(vectors[0])}

    def _check_score(self, dummy: int) -> dict[str, Any]:
        body = {"text_1": self.wish["prompt"], "text_2": self.wish["prompt"]}
        document, latency = self._ask("/score", body)
        scores = [entry.get("score") for entry in document.get("data") or [] if isinstance(entry, dict)]
        if not scores or scores[0] is None:
            raise _unmet("no_answer", "%s answered without a score" % self._name(), "look at its log")
        return {"latency": round(latency, 4), "score": scores[0]}

    def _check_metrics(self, dummy: int) -> dict[str, Any]:
        started = time.monotonic()
        metrics = self._counted()
        return {
            "latency": round(time.monotonic() - started, 4),
            "running": metrics.running,
            "waiting": metrics.waiting,
            "kv_cache_usage": metrics.kv_cache_usage,
        }

    def _counted(self) -> Metrics:
        """Return the Metrics of a server that counts."""
        metrics = self._read_metrics()
        if not metrics.known:
            raise _unmet(
                "no_metrics",
                "%s/metrics does not count requests" % self.server.url,
                "start the server without disable_log_stats",
            )
        return metrics

    def _check_progress(self, dummy: int) -> dict[str, Any]:
        started = time.monotonic()
        first = self._counted()
        movement = self._movement(first)
        if movement == "still":
            why = self._hung(time.monotonic() - started)
            raise _Unmet(Look("hung", why, counted=True, doing=self._load()))
        return {"latency": round(time.monotonic() - started, 4), "moving": movement == "moving"}

    def _model_card(self) -> tuple[str, dict[str, Any], float]:
        """Return (name, what the server lists of it, seconds)."""
        listed, latency = self.server.get_json("/v1/models")
        cards = {str(entry.get("id")): entry for entry in listed.get("data") or [] if isinstance(entry, dict)}
        if not cards:
            raise _unmet("model_not_served", "%s serves no model" % self.server.url, "look at its log")
        name = self.wish["model"] or next(iter(cards))
        if name not in cards:
            served = ", ".join(sorted(cards))
            raise _unmet(
                "model_not_served",
                "%s serves %s, not %s" % (self.server.url, served, name),
                "correct the name, or add it to served_model_names",
            )
        self.result["model"] = name
        return name, cards[name], latency

    def _name(self) -> str:
        name: str = self.result.get("model") or self.wish["model"] or self._model_card()[0]
        return name

    def _ask(self, path: str, body: Mapping[str, Any]) -> tuple[dict[str, Any], float]:
        return self._timed(lambda: self.server.post(path, dict(body, model=self._name()), self.wish["request_timeout"]))

    def _generate(self, path: str, body: Mapping[str, Any], max_tokens: int) -> dict[str, Any]:
        body = dict(body, model=self._name(), max_tokens=max_tokens, temperature=0)
        answer = self._timed(lambda: self.server.generate(path, body, self.wish["request_timeout"]))
        wanted = self.wish["expect_text"]
        if path == _openai.COMPLETIONS and "chat" in self._checks():
            # A chat model need not go on with a bare text.
            wanted = None
        if wanted and wanted.lower() not in answer["text"].lower() and max_tokens == self.wish["max_tokens"]:
            raise _unmet(
                "wrong_answer",
                "%s answered '%s', which does not contain '%s'" % (body["model"], answer["text"], wanted),
                "see whether it is the right model with the right chat template, or correct expect_text",
            )
        return answer

    def _timed(self, request: Callable[[], T]) -> T:
        """Return what request returns; know the counters of before, should it take too long."""
        try:
            self._read_metrics()
        except RequestFailed:
            self._metrics = None
        return request()

    # What a failed request means.

    def _judge(self, check: str, error: RequestFailed) -> Look:
        """Return the Look of a server that did not answer a check as it should."""
        where = self.server.url + error.path
        status = error.status
        if error.kind in ("refused", "reset", "unreachable"):
            return self._not_listening(error)
        if error.kind == "tls":
            why = Diagnosis(
                "tls", "%s has no certificate to trust (%s)" % (where, error.message), "correct ca_path or the address"
            )
            return Look("failed", why, final=True)
        if error.kind == "timeout":
            return self._judge_timeout(check, error)
        if error.kind == "broken":
            why = Diagnosis("broken", "%s broke off (%s)" % (where, error.message), "look at its log")
            return Look("failed", why, counted=True)
        if error.kind == "empty":
            why = Diagnosis("no_answer", "%s answered without a single token" % where, "look at its log")
            return Look("failed", why, final=True)
        if error.kind == "garbage":
            return Look("failed", _not_vllm(where, error.message), final=True)
        if status in (401, 403):
            why = Diagnosis(
                "wrong_key",
                "%s wants an API key, or another one than the one passed" % where,
                "pass the server's own (api_key or api_key_file)",
            )
            return Look("failed", why, final=True)
        if status == 429 or (status == 503 and _TAKES_NO_MORE.search(error.message)):
            return self._judge_rejection(where, error)
        if status is not None and status >= 500:
            return self._judge_server_error(where, error)
        return Look("failed", self._refusal(where, error), final=check != "http", counted=True)

    def _judge_rejection(self, where: str, error: RequestFailed) -> Look:
        """A full queue is work as long as it moves."""
        if self._movement() == "still":
            return Look("hung", self._hung(self.wish["request_timeout"]), counted=True, doing=self._load())
        cause = "%s takes no more requests (%s: %s)" % (where, error.status, error.message)
        return Look("saturated", Diagnosis("saturated", cause, _WAIT_OR_ADD), doing="it takes no more requests")

    def _judge_server_error(self, where: str, error: RequestFailed) -> Look:
        cause = "%s answers %s" % (where, error.status)
        if "EngineCore" in error.message or error.path == "/health" or error.status in (502, 503, 504):
            self._was_dead, self._alive_since = True, None
            if self.container:
                why = self._death_in_the_log()
                why = why or Diagnosis("engine_died", "%s, its engine has died" % cause, "look at its log")
                return Look("failed", why, counted=True)
            # Behind a proxy it may be one that has yet to start.
            why = Diagnosis(
                "engine_died", "%s: its engine has died, or a proxy has no server for it" % cause, "look at its log"
            )
            return Look("down", why)
        why = Diagnosis("server_error", "%s: %s" % (cause, error.message or "nothing"), "look at its log")
        return Look("failed", why, counted=True)

    def _refusal(self, where: str, error: RequestFailed) -> Diagnosis:
        """Return the Diagnosis of a request that the server understood and refused."""
        if "chat template" in error.message:
            return Diagnosis(
                "no_chat_template",
                "%s has no chat template, so nobody can chat with it" % self._name(),
                "set chat_template, or use the check 'completion' for a model that only completes text",
            )
        if error.status == 404 and "does not exist" in error.message:
            return Diagnosis(
                "model_not_served",
                "%s does not serve %s" % (self.server.url, self._name()),
                "correct the name, or add it to served_model_names",
            )
        if error.status in (404, 405):
            return Diagnosis(
                "no_endpoint",
                "%s answers %s, the server has no such endpoint" % (where, error.status),
                "set task to what the model does (generate, embed, score), and url to the server itself",
            )
        return Diagnosis(
            "bad_request", "%s answers %s: %s" % (where, error.status, error.message), "correct what it names"
        )

    def _judge_timeout(self, check: str, error: RequestFailed) -> Look:
        limit = self.wish["request_timeout"]
        asked = check in ("chat", "completion", "embeddings", "score")
        if error.path != "/metrics" and (error.tokens or not asked):
            movement = self._movement()
            if movement == "still":
                return Look("hung", self._hung(limit), counted=True, doing=self._load())
            if movement == "moving" and not error.tokens:
                return Look("saturated", self._busy(limit), doing=self._load())
        if error.tokens:
            why = Diagnosis(
                "saturated",
                "%s sent %d tokens within %g s and did not end" % (self.server.url, error.tokens, limit),
                "raise request_timeout, decrease max_tokens, or add servers",
            )
            return Look("saturated", why, doing="%d tokens within %g s" % (error.tokens, limit))
        if not asked:
            why = Diagnosis(
                "hung", "%s%s does not answer (%s)" % (self.server.url, error.path, error.message), _RESTART_IT
            )
            return Look("hung", why, counted=True)
        before, now = self._metrics, None
        with contextlib.suppress(RequestFailed):
            now = self._read_metrics()
        if before is None or now is None or not now.known:
            why = Diagnosis(
                "no_answer",
                "%s gave no answer within %g s, and without metrics nobody can tell whether it is busy or hangs"
                % (self.server.url, limit),
                "start it without disable_log_stats, or raise request_timeout",
            )
            return Look("failed", why, counted=True)
        # Our own request was in it for all of this time.
        if now.is_stuck_since(before) or now.work == before.work:
            return Look("hung", self._hung(limit), counted=True, doing=self._load())
        return Look("saturated", self._busy(limit), doing=self._load())

    def _busy(self, limit: float) -> Diagnosis:
        cause = "%s is busy: %d requests run, %d wait, and it had no answer for us within %g s" % (
            self.server.url,
            self._counters.running,
            self._counters.waiting,
            limit,
        )
        return Diagnosis("saturated", cause, _WAIT_OR_ADD)

    def _hung(self, seconds: float) -> Diagnosis:
        requests = self._counters.in_flight
        cause = "%s has %s and did nothing for %g s" % (
            self.server.url,
            "%d requests" % requests if requests > 1 else "a request",
            round(seconds, 1),
        )
        return Diagnosis("hung", cause, _RESTART_IT)

    # Its counters.

    @property
    def _counters(self) -> Metrics:
        """As they were read last."""
        return self._metrics or Metrics("")

    def _read_metrics(self) -> Metrics:
        # What was counted before is no answer to this look.
        self._metrics = None
        self._metrics = metrics = Metrics(self.server.get("/metrics")[0])
        if metrics.known:
            self.result.update(running=metrics.running, waiting=metrics.waiting, kv_cache_usage=metrics.kv_cache_usage)
        return metrics

    def _movement(self, first: Metrics | None = None) -> str:
        """Return what the server does for its requests: idle (it has none), moving, still, or unknown.

        first: Metrics that have just been read. That requests stand still is known after request_timeout.
        """
        try:
            first = now = first or self._read_metrics()
            until = time.monotonic() + self.wish["request_timeout"]
            while now.in_flight and (now.work == first.work or now.is_stuck_since(first)):
                if time.monotonic() >= until:
                    return "still" if now.known else "unknown"
                time.sleep(_MOVE_INTERVAL)
                now = self._read_metrics()
        except RequestFailed:
            return "unknown"
        if not now.known:
            return "unknown"
        return "moving" if now.work != first.work else "idle"

    def _load(self) -> str:
        return "%d requests run, %d wait" % (self._counters.running, self._counters.waiting)

    # What it can do.

    def _capabilities(self) -> dict[str, bool]:
        """Ask for each capability; return {name: bool}. Costs a dozen short answers."""
        name, limit = self._name(), self.wish["request_timeout"]

        def answers(path: str, **body: Any) -> list[str] | None:
            """Return the texts of the answers, or None when the server refuses the request."""
            try:
                document = self.server.post(path, dict(body, model=name), limit)[0]
            except RequestFailed as error:
                if error.kind == "status" and (error.status or 0) < 500:
                    return None
                raise
            choices = [choice for choice in document.get("choices") or [] if isinstance(choice, dict)]
            return [_text_of(choice) for choice in choices]

        def chat(**body: Any) -> list[str] | None:
            return answers(_openai.CHAT, **dict({"messages": _messages(self.wish["prompt"]), "max_tokens": 12}, **body))

        able = {"chat": chat(max_tokens=1) is not None}
        able["completions"] = answers(_openai.COMPLETIONS, prompt=self.wish["prompt"], max_tokens=1) is not None
        try:
            able["embeddings"] = bool(self.server.post("/v1/embeddings", {"model": name, "input": "a"}, limit)[0])
        except RequestFailed as error:
            if error.kind != "status":
                raise
            able["embeddings"] = False
        if not able["chat"]:
            return dict(able, system_role=False, streaming=False, temperature=False, top_p=False, tools=False)
        system = [{"role": "system", "content": "Answer in one word."}]
        able["system_role"] = chat(messages=system + _messages(self.wish["prompt"]), max_tokens=1) is not None
        body = {"model": name, "messages": _messages(self.wish["prompt"]), "max_tokens": 12}
        able["streaming"] = self.server.generate(_openai.CHAT, body, limit)["chunks"] > 1
        # The hottest answers differ, unless the server has a temperature of its own; of the same heat but from the
        # likeliest token alone, they are one and the same, unless it does not heed top_p.
        hot = {str(chat(temperature=2)) for dummy in range(3)}
        narrow = {str(chat(temperature=2, top_p=0.000001)) for dummy in range(3)}
        able["temperature"] = len(hot) > 1
        able["top_p"] = len(hot) > 1 and len(narrow) == 1
        able["tools"] = chat(tools=[_TOOL], tool_choice="auto", max_tokens=1) is not None
        return able


_STARTS = Diagnosis("starting", "it starts", "wait")
# What vLLM says since 0.29 when its queue is full (max_num_queued_reqs, max_num_queued_tokens).
_TAKES_NO_MORE = re.compile(r"currently busy|backlog limit|try again later")
_RESTART_IT = "restart it, and look at its log for what it did last"
_WAIT_OR_ADD = "wait, raise request_timeout, or add servers"
_TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a town.",
        "parameters": {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]},
    },
}


def _messages(prompt: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}]


def _text_of(choice: Mapping[str, Any]) -> str:
    message = choice.get("message") or {}
    words = (message.get("reasoning_content") or message.get("reasoning"), message.get("content"), choice.get("text"))
    return " ".join(word for word in words if isinstance(word, str))


def _not_vllm(where: str, message: str) -> Diagnosis:
    return Diagnosis(
        "not_vllm", "%s answers with %s" % (where, message), "see whether it is the address of a vLLM server"
    )


def _named(container: Container, why: Diagnosis) -> Diagnosis:
    """Return the Diagnosis of a container's end, as one of this container."""
    why.cause = "the container '%s' %s" % (container.name, _of_a_container(why.cause))
    return why


def _of_a_container(cause: str) -> str:
    """Return the cause so that it goes on a sentence that began with the container."""
    for start in ("it was ", "it ended ", "it crashed "):
        if cause.startswith(start):
            return cause[len("it ") :]
    return "failed: " + cause
