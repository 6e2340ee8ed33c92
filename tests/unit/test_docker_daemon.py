"""Tests of docker_daemon: whose settings are whose, how a change takes effect, and what is refused.

A double answers for Docker's API here; the scenarios docker_engine and nvidia_container_toolkit have real ones.
"""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.llmops.vllm.plugins.module_utils import _docker_daemon, _dockerd
from ansible_collections.llmops.vllm.plugins.modules import docker_daemon

NVIDIA = {"runtimes": {"nvidia": {"path": "nvidia-container-runtime", "args": []}}}
MINE = {"log-opts": {"max-size": "9m"}, "runtimes": {"mine": {"path": "runc"}}}


def merged(document: dict, settings: dict, record: list | None = None) -> tuple[dict, list]:
    return _docker_daemon.merge(document, record or [], settings)


@pytest.mark.parametrize(
    ("document", "settings", "result"),
    [
        ({}, NVIDIA, NVIDIA),
        (MINE, NVIDIA, {**MINE, "runtimes": {**MINE["runtimes"], **NVIDIA["runtimes"]}}),
        (MINE, {"log-opts": {"max-file": "3"}}, {**MINE, "log-opts": {"max-size": "9m", "max-file": "3"}}),
        # A list takes the place of the one that is there.
        ({"registry-mirrors": ["a"]}, {"registry-mirrors": ["b"]}, {"registry-mirrors": ["b"]}),
        ({"debug": True}, {}, {"debug": True}),
    ],
)
def test_settings_are_merged_and_taken_out_again(document: dict, settings: dict, result: dict) -> None:
    before = json.dumps(document)
    first, record = merged(document, settings)
    assert first == result
    assert merged(first, settings, record) == (first, record)
    assert merged(first, {}, record) == (json.loads(before), [])
    assert json.dumps(document) == before


def test_what_was_there_already_stays_when_the_owner_goes() -> None:
    document, record = merged({"live-restore": True}, {"live-restore": True})
    assert record == []
    assert merged(document, {}, record) == ({"live-restore": True}, [])


def test_what_somebody_has_changed_since_stays_when_the_owner_goes() -> None:
    document, record = merged({}, {"live-restore": True, "debug": True})
    document["debug"] = False
    assert merged(document, {}, record) == ({"debug": False}, [])


def test_an_owner_that_wants_another_value_still_knows_what_was_before() -> None:
    document, record = merged({"max-concurrent-downloads": 2}, {"max-concurrent-downloads": 5})
    document, record = merged(document, {"max-concurrent-downloads": 9}, record)
    assert merged(document, {}, record) == ({"max-concurrent-downloads": 2}, [])


def test_two_owners_leave_each_other_alone() -> None:
    document, one = merged({}, NVIDIA)
    document, other = merged(document, {"runtimes": {"other": {"path": "crun"}}})
    document, one = merged(document, {}, one)
    assert document == {"runtimes": {"other": {"path": "crun"}}}


def test_a_value_in_the_place_of_an_object() -> None:
    with pytest.raises(_docker_daemon.DaemonConfigError) as caught:
        merged({"runtimes": "mine"}, NVIDIA)
    assert str(caught.value) == (
        "'runtimes' of the daemon's settings is \"mine\", and would have to be an object: correct it by hand"
    )


@pytest.mark.parametrize(
    ("before", "after", "how"),
    [
        ({}, {}, "nothing"),
        ({}, NVIDIA, "reload"),
        ({}, {"live-restore": True, "registry-mirrors": ["m"]}, "reload"),
        ({"live-restore": True}, {}, "reload"),
        ({}, {"log-opts": {"max-size": "1m"}}, "restart"),
        ({}, {"live-restore": True, "data-root": "/data"}, "restart"),
        ({}, {"features": {"cdi": True}}, "restart"),
        # A reload would go on with what it had.
        ({"shutdown-timeout": 5}, {}, "restart"),
    ],
)
def test_how_a_change_takes_effect(before: dict, after: dict, how: str) -> None:
    assert _docker_daemon.how_to_apply(before, after) == how


def test_what_is_gone_is_let_go_by_its_default() -> None:
    before = {"live-restore": True, "registry-mirrors": ["m"], "debug": True}
    assert _docker_daemon.for_reload(before, {"debug": True}) == {
        "debug": True,
        "live-restore": False,
        "registry-mirrors": [],
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is no JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1))"),
        ("[1]", "is no JSON object"),
        ('{"a": 1,}', "is no JSON ("),
    ],
)
def test_a_file_that_is_none(text: str, said: str) -> None:
    with pytest.raises(_docker_daemon.DaemonConfigError) as caught:
        _docker_daemon.read(text, "/etc/docker/daemon.json")
    assert str(caught.value).startswith(f"/etc/docker/daemon.json {said}")
    assert "it is left as it is" in str(caught.value)


def test_an_empty_file_is_no_settings() -> None:
    assert _docker_daemon.read(" \n", "path") == {}


def test_a_diff_shows_no_password() -> None:
    text = '{"proxies": {"http-proxy": "http://user:secret@proxy:3128"}, "registry-mirrors": ["https://m"]}'
    shown = _docker_daemon.without_secrets(text)
    assert "secret" not in shown
    assert "http://***@proxy:3128" in shown
    assert "https://m" in shown


class Docker(_dockerd.Daemon):
    """A daemon that runs since a time, with containers, and does as it is told."""

    live = False
    swarm = "inactive"
    here = True
    alive = False
    begun = 0.0
    containers: dict[str, str] = {}
    done: list[str] = []
    starts = [True]
    file = Path()

    def __init__(self, path: str, timeout: int) -> None:
        super().__init__("/nonexistent", timeout)
        self.info = self.ask("/info")
        self.pid = 4711 if self.info else None
        self.arguments = ["dockerd"] if self.info else []

    def ask(self, path: str, method: str = "GET") -> Any:
        cls = type(self)
        if path.endswith("/start"):
            cls.done.append(path)
            return {}
        if path.startswith("/containers"):
            return [{"Names": [f"/{name}"], "Id": key} for name, key in cls.containers.items()]
        if not cls.here:
            return None
        return {
            "ServerVersion": "26.1.5",
            "LiveRestoreEnabled": cls.live,
            "Runtimes": {"runc": {}, **self.read().get("runtimes", {})},
            "Swarm": {"LocalNodeState": cls.swarm},
            "Images": 2,
            "Containers": 1,
            "DockerRootDir": "/var/lib/docker",
        }

    @classmethod
    def read(cls) -> dict:
        return json.loads(cls.file.read_text()) if cls.file.exists() else {}

    def started(self) -> float:
        return type(self).begun

    def is_elsewhere(self) -> bool:
        return False

    def is_alive(self) -> bool:
        return type(self).alive

    def reload(self) -> None:
        type(self).done.append("reload")
        type(self).live = self.read().get("live-restore", type(self).live)

    def restart(self) -> bool:
        cls = type(self)
        cls.done.append("restart")
        comes_up = cls.starts.pop(0) if len(cls.starts) > 1 else cls.starts[0]
        if comes_up:
            cls.live = self.read().get("live-restore", False)
            cls.begun = time.time()
        return comes_up

    def last_words(self) -> str:
        return "failed to start daemon: no"


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type[Docker]:
    class Fresh(Docker):
        containers: dict[str, str] = {}
        done: list[str] = []
        starts = [True]
        file = tmp_path / "etc" / "daemon.json"
        begun = time.time() - 1000

    (tmp_path / "bin").mkdir()
    monkeypatch.setattr(_dockerd, "Daemon", Fresh)
    monkeypatch.setattr(docker_daemon, "RECORD", str(tmp_path / "state" / "record.json"))
    monkeypatch.setattr(docker_daemon, "LOCK", str(tmp_path / "lock"))
    monkeypatch.setattr(docker_daemon, "SEARCH_PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(docker_daemon, "RELOAD_TIMEOUT", 0.3)
    monkeypatch.setattr(docker_daemon, "RELOAD_PAUSE", 0)
    monkeypatch.setattr(_dockerd, "orphans", lambda: 0)
    return Fresh


@pytest.fixture
def run(run_module: Any, docker: type[Docker]) -> Callable[..., dict[str, Any]]:
    def call(settings: dict | None = None, **params: Any) -> dict[str, Any]:
        base = {"owner": "role", "settings": settings or {}, "path": str(docker.file), "timeout": 1}
        return run_module(docker_daemon.main, **{**base, **params})

    return call


def write(docker: type[Docker], text: str) -> None:
    docker.file.parent.mkdir(exist_ok=True)
    docker.file.write_text(text)


def test_check_run_and_again(run: Any, docker: type[Docker]) -> None:
    write(docker, json.dumps(MINE))
    docker.file.chmod(0o640)
    foretold = run(NVIDIA, check_mode=True)
    assert (foretold["changed"], foretold["applied"]) == (True, "reload")
    assert json.loads(docker.file.read_text()) == MINE
    assert not os.path.exists(docker_daemon.RECORD)
    assert docker.done == []

    done = run(NVIDIA)
    assert (done["changed"], done["applied"], done["reasons"]) == (True, "reload", ["runtimes is set anew"])
    assert json.loads(docker.file.read_text())["runtimes"] == {**MINE["runtimes"], **NVIDIA["runtimes"]}
    assert stat.S_IMODE(docker.file.stat().st_mode) == 0o640
    assert json.loads(Path(done["backup_file"]).read_text()) == MINE
    assert stat.S_IMODE(os.stat(docker_daemon.RECORD).st_mode) == 0o600
    assert docker.done == ["reload"]

    again = run(NVIDIA)
    assert (again["changed"], again["applied"], "diff" in again) == (False, "nothing", False)
    assert docker.done == ["reload"]


def test_absent_leaves_what_was_there_and_no_record(run: Any, docker: type[Docker]) -> None:
    write(docker, json.dumps(MINE))
    run(NVIDIA)
    assert run(state="absent")["changed"]
    assert json.loads(docker.file.read_text()) == MINE
    assert not os.path.exists(docker_daemon.RECORD)
    assert not run(state="absent")["changed"]


def test_absent_removes_a_file_that_says_nothing_any_more(run: Any, docker: type[Docker]) -> None:
    run({"live-restore": True})
    assert docker.live
    run(state="absent")
    assert not docker.file.exists()
    assert not docker.live


def test_without_docker_the_file_waits_for_it(run: Any, docker: type[Docker]) -> None:
    docker.here = False
    assert run({"log-opts": {"max-size": "1m"}})["applied"] == "next start"
    assert docker.read() == {"log-opts": {"max-size": "1m"}}
    assert docker.done == []
    run(state="absent")
    assert not os.path.exists(docker_daemon.RECORD)
    run({"log-opts": {"max-size": "1m"}})
    # It is started after that, so there is nothing left to take over.
    docker.here, docker.begun = True, time.time()
    assert run({"log-opts": {"max-size": "1m"}})["applied"] == "nothing"


def test_a_restart_under_a_container_is_refused_before_anything_is_written(run: Any, docker: type[Docker]) -> None:
    docker.containers = {"karakuri-70b": "a1"}
    refused = run({"log-opts": {"max-size": "1m"}})
    assert refused["msg"] == (
        "Docker has to be restarted (log-opts is set anew), and karakuri-70b would stop with it: drain and stop it "
        "first, turn live-restore on, or allow the disruption"
    )
    assert not docker.file.exists()
    assert docker.done == []
    assert run({"log-opts": {"max-size": "1m"}}, check_mode=True)["msg"] == refused["msg"]


def test_with_live_restore_it_is_turned_on_before_the_restart(run: Any, docker: type[Docker]) -> None:
    docker.containers = {"karakuri-70b": "a1"}
    assert run({"log-opts": {"max-size": "1m"}, "live-restore": True})["applied"] == "restart"
    assert docker.done == ["reload", "restart"]


def test_live_restore_that_is_turned_off_with_the_restart_keeps_nobody_alive(run: Any, docker: type[Docker]) -> None:
    run({"live-restore": True})
    docker.containers = {"karakuri-70b": "a1"}
    assert "would stop with it" in run({"log-opts": {"max-size": "1m"}})["msg"]


def test_an_allowed_disruption_starts_again_what_ran(run: Any, docker: type[Docker], monkeypatch: Any) -> None:
    docker.containers = {"karakuri-70b": "a1"}

    def restart(self: Docker) -> bool:
        docker.containers = {}
        return True

    def ask(self: Docker, path: str, method: str = "GET") -> Any:
        if path == "/containers/a1/start":
            docker.containers = {"karakuri-70b": "a1"}
        return Docker.ask(self, path, method)

    monkeypatch.setattr(docker, "restart", restart)
    monkeypatch.setattr(docker, "ask", ask)
    assert run({"log-opts": {"max-size": "1m"}}, allow_disruption=True)["changed"]
    assert docker.containers == {"karakuri-70b": "a1"}
    assert docker.done == ["/containers/a1/start"]


def test_a_container_that_does_not_come_back_is_told(run: Any, docker: type[Docker], monkeypatch: Any) -> None:
    docker.containers = {"karakuri-70b": "a1"}
    monkeypatch.setattr(docker, "restart", lambda self: docker.containers.clear() or True)
    said = run({"log-opts": {"max-size": "1m"}}, allow_disruption=True)["msg"]
    assert said == "Docker was restarted, and karakuri-70b, which ran before, did not come back: docker logs tells why"


def test_a_docker_that_does_not_start_gets_its_file_back(run: Any, docker: type[Docker]) -> None:
    write(docker, json.dumps(MINE))
    run({"live-restore": True})
    with_it = {**MINE, "live-restore": True}
    docker.done.clear()
    docker.starts = [False, True]
    said = run({"live-restore": True, "storage-driver": "nonsense"})["msg"]
    assert said == (
        "Docker did not start with the new settings (failed to start daemon: no); "
        f"{docker.file} is as it was, and Docker runs again"
    )
    assert docker.read() == with_it
    assert docker.done == ["restart", "restart"]
    # Nothing is left of it, and what the owner had set before is still its own.
    run(state="absent")
    assert docker.read() == MINE


def test_a_docker_that_gets_its_file_back_ends_nobody(run: Any, docker: type[Docker], monkeypatch: Any) -> None:
    write(docker, json.dumps(MINE))
    docker.containers = {"karakuri-70b": "a1"}
    docker.starts = [False, True]
    alive: list[bool] = []

    def restart(self: Docker) -> bool:
        # One that starts without live-restore ends what it finds alive.
        alive.append(self.read().get("live-restore", False))
        return Docker.restart(self)

    monkeypatch.setattr(docker, "restart", restart)
    assert "Docker runs again" in run({"live-restore": True, "storage-driver": "nonsense"})["msg"]
    assert alive == [True, True]
    assert docker.read() == MINE
    assert not docker.live


def test_a_docker_that_does_not_tell_what_runs_is_not_restarted(
    run: Any, docker: type[Docker], monkeypatch: Any
) -> None:
    ask = docker.ask
    monkeypatch.setattr(
        docker, "ask", lambda self, path, method="GET": None if "containers" in path else ask(self, path)
    )
    assert "Docker does not tell which containers run" in run({"log-opts": {"max-size": "1m"}})["msg"]
    assert not docker.file.exists()


def test_containers_that_outlived_docker(run: Any, docker: type[Docker], monkeypatch: Any) -> None:
    write(docker, json.dumps({"live-restore": True}))
    docker.here = False
    monkeypatch.setattr(_dockerd, "orphans", lambda: 2)
    assert run({"log-opts": {"max-size": "1m"}})["running"] == ["containers that outlived Docker (2)"]
    write(docker, "{}")
    assert run({"log-opts": {"max-size": "2m"}})["msg"] == (
        "Docker does not answer, and containers that outlived Docker (2) would end with its next start: start it as it "
        "is first, or allow the disruption"
    )


def test_a_run_killed_before_the_file_forgets_nothing(run: Any, docker: type[Docker], monkeypatch: Any) -> None:
    write(docker, json.dumps({"max-concurrent-downloads": 2}))
    run({"max-concurrent-downloads": 5})

    def killed(self: Any, text: str) -> None:
        raise SystemExit(137)

    with monkeypatch.context() as patch, pytest.raises((SystemExit, json.JSONDecodeError)):
        patch.setattr(docker_daemon.DaemonSettings, "_write", killed)
        run(state="absent")
    assert docker.read() == {"max-concurrent-downloads": 5}
    run(state="absent")
    assert docker.read() == {"max-concurrent-downloads": 2}


def test_a_docker_that_does_not_answer_yet_is_restarted_by_the_next_run(run: Any, docker: type[Docker]) -> None:
    docker.here, docker.alive = False, True
    run({"log-opts": {"max-size": "1m"}})
    # It answers again, and had read its file before.
    docker.here, docker.begun = True, time.time() - 1000
    assert run({"log-opts": {"max-size": "1m"}})["applied"] == "restart"
    assert not run({"log-opts": {"max-size": "1m"}})["changed"]


def test_a_reload_that_is_not_taken_over_is_undone(run: Any, docker: type[Docker], monkeypatch: Any) -> None:
    monkeypatch.setattr(docker, "reload", lambda self: docker.done.append("reload"))
    said = run({"live-restore": True})["msg"]
    assert said.startswith("Docker did not take the settings over (live-restore is set anew)")
    assert not docker.file.exists()
    assert docker.done == ["reload", "reload"]


def test_what_a_killed_run_left_is_taken_over_by_the_next(run: Any, docker: type[Docker], monkeypatch: Any) -> None:
    def killed(self: Docker) -> None:
        raise SystemExit(137)

    monkeypatch.setattr(docker, "restart", killed)
    with pytest.raises((SystemExit, json.JSONDecodeError)):
        run({"log-opts": {"max-size": "1m"}})
    assert docker.read() == {"log-opts": {"max-size": "1m"}}
    monkeypatch.setattr(docker, "restart", Docker.restart)
    second = run({"log-opts": {"max-size": "1m"}})
    assert (second["changed"], second["applied"]) == (True, "restart")
    assert second["reasons"] == ["an earlier run was killed before Docker had taken its settings over"]
    assert not run({"log-opts": {"max-size": "1m"}})["changed"]


def test_a_program_that_came_after_the_start_means_a_restart_and_a_newer_one_does_not(
    run: Any, docker: type[Docker], tmp_path: Path
) -> None:
    hook = tmp_path / "bin" / "hook"
    hook.touch(mode=0o755)
    first = run(NVIDIA, looks_for=["hook"])
    assert (first["applied"], first["reasons"][-1]) == ("restart", "hook came after its start")
    assert not run(NVIDIA, looks_for=["hook"])["changed"]
    # As a package manager does it.
    time.sleep(0.02)
    newer = tmp_path / "bin" / "hook.new"
    newer.touch(mode=0o755)
    newer.rename(hook)
    assert not run(NVIDIA, looks_for=["hook"])["changed"]
    hook.unlink()
    assert not run(NVIDIA, looks_for=["hook"])["changed"]
    hook.touch(mode=0o755)
    assert run(NVIDIA, looks_for=["hook"])["applied"] == "restart"
    # It goes when its owner has gone, and comes back.
    assert run(state="absent", looks_for=["hook"])["applied"] == "reload"
    time.sleep(0.02)
    newer.touch(mode=0o755)
    newer.rename(hook)
    assert run(NVIDIA, looks_for=["hook"])["applied"] == "restart"


def test_a_swarm_has_no_live_restore(run: Any, docker: type[Docker]) -> None:
    docker.swarm = "active"
    assert run({"live-restore": True})["msg"] == (
        "Docker is part of a swarm, and would not start with live-restore: turn live-restore off for this host"
    )


def test_a_data_root_that_would_hide_what_there_is(run: Any, docker: type[Docker]) -> None:
    assert run({"data-root": "/data"})["msg"] == (
        "Docker would no longer see the 2 images and 1 containers that are under /var/lib/docker: stop it, move that "
        "folder to /data, and run again, or allow the disruption"
    )
    assert run({"data-root": "/data"}, allow_disruption=True)["applied"] == "restart"


def test_settings_that_dockerd_itself_refuses(run: Any, docker: type[Docker], tmp_path: Path) -> None:
    dockerd = tmp_path / "bin" / "dockerd"
    dockerd.write_text(
        "#!/bin/sh\n"
        'case "$*" in\n'
        "--help) echo '  --validate  Validate daemon configuration and exit' ;;\n"
        "*nonsense*) exit 3 ;;\n"
        '*--validate*) echo "unable to configure the Docker daemon with file $3: no" >&2; exit 1 ;;\n'
        "esac\n"
    )
    dockerd.chmod(0o755)
    said = run({"nonsense": 1})["msg"]
    assert said.startswith(
        "Docker would not start with these settings (unable to configure the Docker daemon with file"
    )
    assert said.endswith("no): correct them; nothing was changed")
    assert str(docker.file) in said
    assert not docker.file.exists()


def test_a_damaged_record_is_told(run: Any, docker: type[Docker]) -> None:
    run(NVIDIA)
    Path(docker_daemon.RECORD).write_text("{")
    assert run(NVIDIA)["msg"].startswith(f"{docker_daemon.RECORD}, which tells whose settings are whose, is damaged")
