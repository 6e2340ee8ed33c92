"""Tests of haproxy_servers: what HAProxy's answers say, what is changed, what is waited for, and what a reload does.

The answers in tests/data/haproxy are those of a real HAProxy; a double answers where it matters what comes when.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
import shutil
import socket
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.llmops.vllm.plugins.module_utils import _haproxy, _haproxy_cli
from ansible_collections.llmops.vllm.plugins.modules import haproxy_servers

DATA = Path(__file__).parents[1] / "data" / "haproxy"
VERSIONS = ("2.6", "3.0")
G1, G2, G3 = "gpu1:karakuri-70b", "gpu2:karakuri-70b", "gpu3:karakuri-70b"
DOWN = {"status": "DOWN", "check_desc": "Layer4 connection problem", "check_code": "", "last_chk": "Connection refused"}


def recorded(version: str, name: str) -> list[str]:
    return _haproxy.split_answers((DATA / f"{version}_{name}.txt").read_text())


def recorded_servers(version: str, name: str = "drained", old: tuple[str, ...] = ()) -> dict[str, _haproxy.Server]:
    _info, told, state = recorded(version, name)
    return {server.label: server for server in _haproxy.servers(told, state, old)}


def server(flags: int = 0, status: str = "UP", old: int = 0, **columns: Any) -> _haproxy.Server:
    row = {**TEMPLATE, "status": status, **{name: str(value) for name, value in columns.items()}}
    state = {"srv_admin_state": str(flags), "srv_addr": "192.0.2.1", "srv_port": "30080"}
    return _haproxy.Server(row, state, [{**row, "scur": str(old), "qcur": "0"}])


TEMPLATE = next(iter(_haproxy.read_stat(recorded("2.6", "drained")[1]).values()))
TEMPLATE = {**TEMPLATE, "scur": "0", "qcur": "0"}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("label", "status", "admin", "sessions", "queue", "check"),
    [
        (f"karakuri/{G1}", "DRAIN", "drain", 2, 0, "Layer7 check passed: 200"),
        (f"karakuri/{G2}", "MAINT", "maint", 0, 0, ""),
        (f"karakuri/{G3}", "UP", "ready", 0, 0, "Layer7 check passed: 200"),
        ("karakuri/gpu4:karakuri-70b", "DOWN", "ready", 0, 0, "Layer4 connection problem: Connection refused"),
        ("embed/gpu1:embed", "no check", "ready", 0, 0, ""),
        # `disabled` in the configuration
        ("embed/gpu2:embed", "MAINT", "maint", 0, 0, ""),
        ("embed/gpu3:embed", "NOLB", "ready", 0, 0, "Layer7 check conditionally passed: 404"),
        (f"fixed/{G1}", "no check", "ready", 1, 2, ""),
        # These three track others.
        ("tracks/gpu4:embed", "DOWN", "ready", 0, 0, ""),
        ("tracks/gpu5:embed", "DRAIN", "drain", 0, 0, ""),
        ("tracks/gpu2:embed", "MAINT", "maint", 0, 0, ""),
        (f"sixteen/{G1}", "UP", "ready", 0, 0, "Layer4 check passed"),
    ],
)
def test_what_a_real_haproxy_says(
    version: str, label: str, status: str, admin: str, sessions: int, queue: int, check: str
) -> None:
    result = recorded_servers(version)[label].result
    assert (result["status"], result["admin"]) == (status, admin)
    assert (result["sessions"], result["queue"], result["check"]) == (sessions, queue, check)
    assert f"{result['backend']}/{result['name']}" == label


@pytest.mark.parametrize("version", VERSIONS)
def test_all_that_is_told_of_a_server(version: str) -> None:
    found = recorded_servers(version)
    # Each got four requests; one was answered with 500, and one with something that is no HTTP. Two more are under way.
    one, two = found[f"karakuri/{G1}"].result, found[f"karakuri/{G2}"].result
    assert (one["requests"], one["responses_5xx"], one["response_errors"]) == (6, 1, 0)
    assert (two["requests"], two["responses_5xx"], two["response_errors"]) == (3, 0, 1)
    assert (one["address"], one["port"]) == ("127.0.0.1", {"2.6": 21001, "3.0": 22001}[version])
    assert (found["tracks/gpu4:embed"].result["address"], found["embed/gpu6:embed"].result["weight"]) == ("::1", 0)
    assert set(one) == {
        "backend", "name", "address", "port", "status", "admin", "sessions", "queue", "old_sessions", "weight",
        "requests", "responses_5xx", "connection_errors", "response_errors", "retries", "redispatches", "check",
        "since",
    }  # fmt: skip
    assert not any(name.endswith(("FRONTEND", "BACKEND")) for name in found)


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_under_way_in_the_process_from_before_a_reload_is_counted(version: str) -> None:
    alone = recorded_servers(version, "after_reload")[f"karakuri/{G1}"]
    assert (alone.result["admin"], alone.is_idle()) == ("drain", True)
    info, told = recorded(version, "old")
    assert _haproxy.read_info(info)["Stopping"] == "1"
    found = recorded_servers(version, "after_reload", (told,))
    assert (found[f"karakuri/{G1}"].result["old_sessions"], found[f"karakuri/{G1}"].is_idle()) == (2, False)
    assert found[f"fixed/{G1}"].result["old_sessions"] == 2
    assert found[f"karakuri/{G3}"].is_idle()


@pytest.mark.parametrize("version", VERSIONS)
def test_old_workers_are_told_from_the_others(version: str) -> None:
    workers, old = _haproxy.read_workers((DATA / f"{version}_proc.txt").read_text())
    assert [len(workers), len(old)] == [1, 1]
    assert workers == [_haproxy.read_info(recorded(version, "after_reload")[0])["Pid"]]
    assert old == [_haproxy.read_info(recorded(version, "drained")[0])["Pid"]]
    assert _haproxy.read_workers("") == ([], [])


@pytest.mark.parametrize(
    ("text", "answers"),
    [
        ("", []),
        ("\n", [""]),
        ("\nNo such server.\n\n\n", ["", "No such server.", ""]),
        ("1\n# a\n\n\n", ["1\n# a", ""]),
        # cut off
        ("1\n# a\n", []),
        ("\n# px", [""]),
    ],
)
def test_answers_end_with_an_empty_line(text: str, answers: list[str]) -> None:
    assert _haproxy.split_answers(text) == answers


@pytest.mark.parametrize(
    ("flags", "admin", "drained", "ready"),
    [
        (0, "ready", True, False),
        (8, "drain", False, True),
        # drained with the one that it tracks: nothing that could be taken back here
        (16, "drain", False, False),
        (24, "drain", False, True),
        # maintenance by command, with another, by the configuration, and with a drain from before
        (1, "maint", False, False),
        (2, "maint", False, False),
        (5, "maint", False, False),
        (9, "maint", False, False),
        # a name that does not resolve may do so in the middle of a rollout
        (32, "ready", True, False),
        (40, "drain", False, True),
    ],
)
def test_what_has_to_be_changed(flags: int, admin: str, drained: bool, ready: bool) -> None:
    one = server(flags)
    assert one.result["admin"] == admin
    assert _haproxy.to_change([one], "drained") == ([one] if drained else [])
    assert _haproxy.to_change([one], "ready") == ([one] if ready else [])
    assert _haproxy.to_change([one], None) == []


@pytest.mark.parametrize(
    ("one", "drained", "ready"),
    [
        (server(), False, False),
        (server(status="no check"), False, False),
        (server(8, "DRAIN"), False, True),
        (server(8, "DRAIN", scur=1), True, True),
        (server(8, "DRAIN", qcur=1), True, True),
        (server(8, "DRAIN", old=1), True, True),
        # connections that are kept open for later requests
        (server(8, "DRAIN", srv_icur=4, idle_conn_cur=4, need_conn_est=4), False, True),
        (server(status="DOWN"), False, True),
        (server(status="DOWN 1/2"), False, True),
        # the last check was bad
        (server(status="UP 1/2"), False, True),
        (server(status="NOLB"), False, True),
        (server(1, "MAINT"), False, False),
        # what an operator has taken out may still have requests
        (server(1, "MAINT", scur=1), True, False),
        (server(2, "MAINT (via a/b)"), False, False),
        (server(32, "MAINT (resolution)"), False, True),
    ],
)
def test_what_is_waited_for(one: _haproxy.Server, drained: bool, ready: bool) -> None:
    assert _haproxy.unfinished([one], "drained") == ([one] if drained else [])
    assert _haproxy.unfinished([one], "ready") == ([one] if ready else [])


@pytest.mark.parametrize(
    ("left", "state", "said"),
    [
        (
            [server(8, "DRAIN", scur=2, qcur=1)],
            "drained",
            "after 30 s karakuri/gpu1:karakuri-70b still has 2 sessions, 1 queued request: "
            "wait longer, or stop what serves there and let them break off",
        ),
        (
            [server(8, "DRAIN", scur=1), server(8, "DRAIN", old=3, svname="gpu2")],
            "drained",
            "after 30 s karakuri/gpu1:karakuri-70b still has 1 session; karakuri/gpu2 still has "
            "3 requests in processes from before a reload: "
            "wait longer, or stop what serves there and let them break off",
        ),
        (
            [server(**DOWN)],
            "ready",
            "after 30 s karakuri/gpu1:karakuri-70b is still DOWN (Layer4 connection problem: Connection refused): "
            "see in the log of what serves there why its check does not pass, or wait longer",
        ),
        (
            [server(16, "DRAIN")],
            "ready",
            "after 30 s karakuri/gpu1:karakuri-70b is still DRAIN (drained): make the server ready that it tracks",
        ),
    ],
)
def test_what_is_said_when_the_time_is_over(left: list[_haproxy.Server], state: str, said: str) -> None:
    assert _haproxy.why_unfinished(left, state, 30) == said


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("column", "value", "same", "same_decisions"),
    [
        (None, None, True, True),
        # seconds, and a check under way
        (9, "99", True, True),
        (13, "7", True, True),
        (5, "0", False, True),
        (6, "8", False, False),
        (7, "50", False, True),
        (18, "1", False, True),
    ],
)
def test_whether_a_state_file_says_what_haproxy_says(
    version: str, column: int | None, value: str, same: bool, same_decisions: bool
) -> None:
    text = recorded(version, "drained")[2]
    lines = text.splitlines()
    words = lines[4].split(" ")
    if column is not None:
        assert words[column] != value
        words[column] = value
    other = "\n".join([*lines[:4], " ".join(words), *lines[5:]])
    assert _haproxy.same_states(other, text, admin_alone=False) is same
    assert _haproxy.same_states(other, text, admin_alone=True) is same_decisions
    assert not _haproxy.same_states("", text, admin_alone=True)
    assert not _haproxy.same_states("\n".join(lines[:-1]), text, admin_alone=True)
    assert not _haproxy.same_states("1\n# be_id be_name srv_id srv_name \n3 x", text, admin_alone=True)


class Haproxy:
    """A double of HAProxy's admin socket. servers: by label, the columns and flags that it has.

    before: called with the number of each connection before it is answered; what it returns, if anything, is the whole
    answer.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "admin.sock"
        self.pid, self.stopping, self.disabled = "100", "0", False
        self.servers: dict[str, dict[str, Any]] = {
            f"karakuri/{G1}": {}, f"karakuri/{G2}": {}, f"other/{G1}": {}, "other/gpu1:embed": {},
        }  # fmt: skip
        self.lines: list[str] = []
        self.before: Callable[[int], str | None] = lambda number: None
        self.level_admin = True
        self.waits_for_more = False
        self.keeps = True
        self.answers_to = self._answer
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.path))
        self.listener.listen(16)
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def set(self) -> list[str]:
        return [command for line in self.lines for command in line.split(";") if command.startswith("set ")]

    def flags(self, label: str) -> int:
        return self.servers[label].get("flags", 0)

    def close(self) -> None:
        # close() alone leaves accept() waiting.
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _address = self.listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                line = connection.makefile().readline().rstrip("\n")
                self.lines.append(line)
                answer = self.before(len(self.lines))
                if answer is None:
                    answer = "".join(self.answers_to(command) for command in line.split(";"))
                connection.sendall(answer.encode())
                if self.waits_for_more:
                    connection.recv(1)

    def _answer(self, command: str) -> str:
        if command == "show info":
            return f"Name: HAProxy\nPid: {self.pid}\nStopping: {self.stopping}\n\n"
        if command == "show stat":
            return self.show_stat() + "\n"
        if command == "show servers state":
            return self.show_state() + "\n"
        words = command.split(" ")
        if words[:2] != ["set", "server"] or words[3] != "state":
            return "Unknown command\n\n"
        if not self.level_admin:
            return "Permission denied\n\n"
        if self.disabled:
            return "Proxy is disabled.\n\n"
        if words[2] not in self.servers:
            return "No such server.\n\n"
        if self.keeps:
            self.servers[words[2]]["flags"] = {"drain": 8, "ready": 0}[words[4]]
        return "\n"

    def show_stat(self) -> str:
        out = io.StringIO()
        table = csv.DictWriter(out, list(TEMPLATE), lineterminator="\n", extrasaction="ignore")
        table.writeheader()
        for label, columns in self.servers.items():
            backend, _slash, name = label.partition("/")
            status = "DRAIN" if columns.get("flags", 0) & 8 else "UP"
            table.writerow({**TEMPLATE, "pxname": backend, "svname": name, "status": status, **columns})
        table.writerow({**TEMPLATE, "svname": "BACKEND", "scur": 7})
        return "# " + out.getvalue()

    def show_state(self) -> str:
        header, first = recorded("2.6", "drained")[2].splitlines()[1:3]
        lines = ["1", header]
        for label, columns in self.servers.items():
            words = first.split(" ")
            words[1], _slash, words[3] = label.partition("/")
            words[5], words[6] = str(columns.get("op_state", 2)), str(columns.get("flags", 0))
            lines.append(" ".join(words))
        return "\n".join(lines) + "\n"


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_haproxy_cli, "PAUSE", 0.01)
    monkeypatch.setattr(haproxy_servers, "INTERVAL", 0.01)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a path that is short enough for a socket."""
    path = Path(tempfile.mkdtemp(prefix="haproxy-"))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def haproxy(folder: Path) -> Iterator[Haproxy]:
    running = Haproxy(folder)
    yield running
    running.close()


@pytest.fixture
def run(run_module: Any, folder: Path) -> Callable[..., dict[str, Any]]:
    def start(check_mode: bool = False, **params: Any) -> dict[str, Any]:
        base = {"socket": str(folder / "admin.sock"), "master_socket": str(folder / "master.sock")}
        return run_module(haproxy_servers.main, check_mode=check_mode, **{**base, **params})

    return start


@pytest.fixture
def file(folder: Path) -> Path:
    return folder / "server-state"


def test_a_look_at_all_servers(haproxy: Haproxy, run: Any) -> None:
    haproxy.servers[f"karakuri/{G2}"] = {"flags": 1, "status": "MAINT"}
    result = run()
    assert (result["failed"], result["changed"], result["actions"], result["maintenance"]) == (False, False, [], True)
    assert [f"{each['backend']}/{each['name']}" for each in result["servers"]] == list(haproxy.servers)
    assert haproxy.set == []
    assert "diff" not in result


def test_a_look_at_some(haproxy: Haproxy, run: Any) -> None:
    assert [each["backend"] for each in run(servers=[G1])["servers"]] == ["karakuri", "other"]
    assert [each["name"] for each in run(backends=["karakuri"])["servers"]] == [G1, G2]
    assert [each["name"] for each in run(backends=["karakuri"], servers=[G1])["servers"]] == [G1]


def test_a_drain_in_check_mode_for_real_and_again(haproxy: Haproxy, run: Any) -> None:
    actions = [f"drain karakuri/{G1}", f"drain other/{G1}"]
    first = run(check_mode=True, servers=[G1], state="drained")
    assert haproxy.set == []
    second = run(servers=[G1], state="drained")
    for result in (first, second):
        assert (result["failed"], result["changed"], result["actions"]) == (False, True, actions)
        assert [each["admin"] for each in result["servers"]] == ["drain", "drain"]
        assert result["diff"]["before"] == f"karakuri/{G1} ready\nother/{G1} ready\n"
        assert result["diff"]["after"] == f"karakuri/{G1} drain\nother/{G1} drain\n"
    assert haproxy.set == [f"set server karakuri/{G1} state drain", f"set server other/{G1} state drain"]
    # in one connection
    assert sum("set server" in line for line in haproxy.lines) == 1
    third = run(servers=[G1], state="drained", wait=5)
    assert (third["changed"], third["actions"]) == (False, [])
    assert "diff" not in third
    assert len(haproxy.set) == 2


def test_one_of_two_that_is_drained_already(haproxy: Haproxy, run: Any) -> None:
    haproxy.servers[f"karakuri/{G1}"] = {"flags": 8}
    result = run(servers=[G1], state="drained")
    assert result["actions"] == [f"drain other/{G1}"]
    assert result["diff"]["before"] == f"other/{G1} ready\n"


def test_a_wait_for_what_is_under_way(haproxy: Haproxy, run: Any) -> None:
    haproxy.servers[f"karakuri/{G1}"] = {"scur": 2}
    haproxy.servers[f"other/{G1}"] = {"qcur": 1}

    def go_on(number: int) -> None:
        if number == 4:
            haproxy.servers[f"other/{G1}"]["qcur"] = 0
        if number == 6:
            haproxy.servers[f"karakuri/{G1}"]["scur"] = 0

    haproxy.before = go_on
    result = run(servers=[G1], state="drained", wait=30)
    assert not result["failed"]
    assert [each["sessions"] + each["queue"] for each in result["servers"]] == [0, 0]
    assert len(haproxy.lines) == 6
    assert len(haproxy.set) == 2


def test_a_wait_that_is_over_too_early(haproxy: Haproxy, run: Any, file: Path) -> None:
    haproxy.servers[f"karakuri/{G1}"] = {"scur": 2}
    result = run(servers=[G1], state="drained", wait=1, save_state=str(file))
    assert result["failed"]
    assert result["msg"].startswith(f"after 1 s karakuri/{G1} still has 2 sessions: wait longer")
    # It stays drained, through a reload as well, and the result says so.
    assert haproxy.flags(f"karakuri/{G1}") == 8
    assert (result["changed"], result["servers"][0]["admin"]) == (True, "drain")
    assert _haproxy.same_states(file.read_text(), haproxy.show_state(), admin_alone=True)


def test_without_wait_it_does_not_wait(haproxy: Haproxy, run: Any) -> None:
    haproxy.servers[f"karakuri/{G1}"] = {"scur": 2}
    assert run(servers=[G1], state="drained")["servers"][0]["sessions"] == 2
    assert run(check_mode=True, servers=[G1], state="drained", wait=30)["failed"] is False


def test_a_server_that_is_down_can_be_drained(haproxy: Haproxy, run: Any) -> None:
    haproxy.servers[f"karakuri/{G1}"] = {**DOWN}
    result = run(servers=[G1], backends=["karakuri"], state="drained", wait=30)
    assert (result["failed"], result["changed"]) == (False, True)
    assert (result["servers"][0]["status"], result["servers"][0]["admin"]) == ("DOWN", "drain")
    assert run(servers=[G1], backends=["karakuri"], state="drained", wait=30)["changed"] is False


def test_ready_waits_for_the_check(haproxy: Haproxy, run: Any) -> None:
    haproxy.servers[f"karakuri/{G1}"] = {"flags": 8, **DOWN}
    statuses = {4: "DOWN 1/2", 5: "UP 1/2", 7: "UP"}

    def go_on(number: int) -> None:
        haproxy.servers[f"karakuri/{G1}"].update({"status": statuses[number]} if number in statuses else {})

    haproxy.before = go_on
    result = run(servers=[G1], backends=["karakuri"], state="ready", wait=30)
    assert (result["failed"], result["changed"]) == (False, True)
    assert result["actions"] == [f"make karakuri/{G1} ready"]
    assert result["servers"][0]["status"] == "UP"
    assert len(haproxy.lines) == 7
    assert run(servers=[G1], backends=["karakuri"], state="ready", wait=30)["changed"] is False


def test_ready_fails_with_what_the_check_says(haproxy: Haproxy, run: Any) -> None:
    haproxy.servers[f"karakuri/{G1}"] = {"flags": 8, **DOWN}
    result = run(servers=[G1], state="ready", wait=1)
    assert result["failed"]
    assert result["msg"] == (
        f"after 1 s karakuri/{G1} is still DOWN (Layer4 connection problem: Connection refused): "
        "see in the log of what serves there why its check does not pass, or wait longer"
    )


@pytest.mark.parametrize("state", ["drained", "ready"])
def test_maintenance_is_left_alone(haproxy: Haproxy, run: Any, state: str) -> None:
    haproxy.servers[f"karakuri/{G2}"] = {"flags": 1, "status": "MAINT"}
    result = run(servers=[G2], state=state, wait=30)
    assert (result["failed"], result["changed"], result["maintenance"]) == (False, False, True)
    assert result["servers"][0]["admin"] == "maint"
    assert haproxy.set == []


@pytest.mark.parametrize(
    ("params", "said"),
    [
        (
            {"servers": ["gpu9", G1], "state": "drained"},
            f"no backend of HAProxy has a server 'gpu9' (they have gpu1:embed, {G1}, {G2}): correct the name, or leave "
            "out what is missing with missing_ok",
        ),
        (
            {"servers": ["gpu1:embed"], "backends": ["karakuri"], "state": "drained"},
            f"no backend of HAProxy among 'karakuri' has a server 'gpu1:embed' (they have {G1}, {G2}): correct the "
            "name, or leave out what is missing with missing_ok",
        ),
        (
            {"backends": ["a", "b"]},
            "HAProxy has no backend 'a', 'b' with servers (it has karakuri, other): correct the name, or leave out "
            "what is missing with missing_ok",
        ),
    ],
)
def test_names_that_are_not_there(haproxy: Haproxy, run: Any, params: dict, said: str) -> None:
    result = run(**params)
    assert (result["failed"], result["msg"]) == (True, said)
    assert haproxy.set == []


def test_names_that_may_be_missing(haproxy: Haproxy, run: Any) -> None:
    result = run(servers=["gpu9", G1], backends=["karakuri", "a"], state="drained", missing_ok=True)
    assert result["actions"] == [f"drain karakuri/{G1}"]
    assert run(servers=["gpu9"], state="drained", missing_ok=True)["servers"] == []


def test_all_servers_are_never_drained_at_once(haproxy: Haproxy, run: Any) -> None:
    result = run(state="drained", missing_ok=True)
    assert result["msg"] == (
        "no server is named, and all of them are never drained at once: name those that are meant in servers"
    )
    assert haproxy.lines == []


def test_a_socket_without_the_level_admin(haproxy: Haproxy, run: Any) -> None:
    haproxy.level_admin = False
    result = run(servers=[G2], state="drained")
    assert result["failed"]
    assert result["running"]
    assert result["msg"] == (
        f"HAProxy does not allow 'set server karakuri/{G2} state drain' on {haproxy.path}: the socket needs "
        "'level admin' in its configuration"
    )
    assert result["changed"] is False


def test_no_socket(run: Any, folder: Path) -> None:
    result = run()
    assert result["running"] is False
    assert result["msg"] == (
        f"there is no socket {folder}/admin.sock: start HAProxy on this host, or name its admin socket "
        "('stats socket' in its configuration)"
    )


def test_a_socket_that_a_dead_haproxy_has_left(haproxy: Haproxy, run: Any) -> None:
    haproxy.close()
    result = run()
    assert result["running"] is False
    assert result["msg"] == (
        f"nobody answers on {haproxy.path}, so HAProxy does not run: start it; its log tells why it ended"
    )


def test_a_socket_that_may_not_be_used(haproxy: Haproxy, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(_haproxy_cli, "talk", refuse)
    monkeypatch.setattr(_haproxy_cli.getpass, "getuser", lambda: "deploy")
    assert run()["msg"] == (
        f"deploy may not use {haproxy.path}: run the task with become, or as a member of the socket's group"
    )


def test_something_else_on_the_socket(haproxy: Haproxy, run: Any) -> None:
    haproxy.before = lambda number: "HTTP/1.1 400 Bad Request\n\n"
    assert run()["msg"] == (
        f"{haproxy.path} answered 'HTTP/1.1 400 Bad Request' to 'show info': name the admin socket of HAProxy "
        "('stats socket' in its configuration)"
    )


def test_a_haproxy_that_does_not_answer(haproxy: Haproxy, run: Any) -> None:
    answered = threading.Event()
    haproxy.before = lambda number: str(answered.wait(30))
    result = run(timeout=1)
    answered.set()
    assert result["msg"] == (
        f"HAProxy did not answer on {haproxy.path} within 1 s: see its load and its log, or raise timeout"
    )


def test_an_answer_that_nobody_expects(haproxy: Haproxy, run: Any) -> None:
    haproxy.before = lambda number: "Pid: 1\n\n\nsorry\n\n" if "set" in haproxy.lines[-1] else None
    result = run(servers=[G1], state="drained")
    assert result["msg"] == f"HAProxy answered 'sorry' to 'set server other/{G1} state drain'"


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("answer", ["", "Name: HAProxy\nPid: 100\n", "Name: HAProxy\nPid: 100\nStopping: 0\n\n"])
def test_a_connection_that_ends_early_is_tried_again(haproxy: Haproxy, run: Any, number: int, answer: str) -> None:
    haproxy.before = lambda now: answer if now == number else None
    result = run(servers=[G1], state="drained")
    assert (result["failed"], result["changed"]) == (False, True)
    assert haproxy.flags(f"karakuri/{G1}") == haproxy.flags(f"other/{G1}") == 8
    assert len(haproxy.lines) == 4


def test_a_connection_that_ends_early_twice(haproxy: Haproxy, run: Any) -> None:
    haproxy.before = lambda number: ""
    assert run()["msg"] == (
        f"HAProxy closed {haproxy.path} in the middle of an answer: see in its log whether it ended, and run again"
    )
    assert len(haproxy.lines) == 2


def test_a_process_on_its_way_out_is_not_believed(haproxy: Haproxy, run: Any) -> None:
    # The old process still has the connection, the new one the next.
    def reload(number: int) -> None:
        haproxy.stopping = "1" if number == 2 else "0"

    haproxy.before = reload
    result = run(servers=[G1], state="drained")
    assert (result["failed"], len(haproxy.set)) == (False, 4)
    haproxy.before = lambda number: setattr(haproxy, "stopping", "1")
    assert run()["msg"] == (
        f"the HAProxy behind {haproxy.path} is stopping, and no other has taken its place: see its log, and run again"
    )


def test_a_process_that_stops_between_two_commands(haproxy: Haproxy, run: Any) -> None:
    def reload(number: int) -> None:
        haproxy.disabled = number == 2

    haproxy.before = reload
    assert run(servers=[G1], state="drained")["failed"] is False
    assert haproxy.flags(f"other/{G1}") == 8


def test_a_reload_that_loses_the_drain_at_once(haproxy: Haproxy, run: Any) -> None:
    def reload(number: int) -> None:
        if number == 3:
            haproxy.pid = "200"
            haproxy.servers[f"karakuri/{G1}"]["flags"] = 0

    haproxy.before = reload
    result = run(servers=[G1], state="drained")
    assert (result["failed"], haproxy.flags(f"karakuri/{G1}")) == (False, 8)
    assert haproxy.set[2:] == [f"set server karakuri/{G1} state drain"]


def test_a_reload_that_loses_the_drain_during_the_wait(haproxy: Haproxy, run: Any, file: Path) -> None:
    haproxy.servers[f"karakuri/{G1}"] = {"scur": 1}

    def reload(number: int) -> None:
        if number == 5:
            haproxy.pid = "200"
            haproxy.servers[f"karakuri/{G1}"]["flags"] = 0
        if number == 8:
            haproxy.servers[f"karakuri/{G1}"]["scur"] = 0

    haproxy.before = reload
    result = run(servers=[G1], backends=["karakuri"], state="drained", wait=30, save_state=str(file))
    assert result["failed"] is False
    assert result["actions"] == [
        f"drain karakuri/{G1}",
        f"save the states of all servers in {file}",
        f"drain karakuri/{G1} again, since a reload has lost it",
    ]
    assert haproxy.flags(f"karakuri/{G1}") == 8
    assert _haproxy.same_states(file.read_text(), haproxy.show_state(), admin_alone=True)


def test_somebody_else_has_it_ready_during_the_wait(haproxy: Haproxy, run: Any) -> None:
    haproxy.servers[f"karakuri/{G1}"] = {"scur": 1}

    def interfere(number: int) -> None:
        if number == 5:
            haproxy.servers[f"karakuri/{G1}"]["flags"] = 0

    haproxy.before = interfere
    result = run(servers=[G1], state="drained", wait=30)
    assert result["msg"] == (
        f"somebody else has set karakuri/{G1} to ready meanwhile: ask who works on this HAProxy, and run again"
    )
    assert len(haproxy.set) == 2


def test_a_haproxy_that_does_not_keep_it(haproxy: Haproxy, run: Any) -> None:
    haproxy.keeps = False
    result = run(servers=[G2], state="drained")
    assert result["msg"] == (
        f"HAProxy does not keep karakuri/{G2} drained: see in its log whether it is reloaded all the time, and run "
        "again"
    )
    assert len(haproxy.set) == 2


def test_a_server_that_a_reload_takes_away(haproxy: Haproxy, run: Any) -> None:
    haproxy.servers[f"karakuri/{G2}"] = {"scur": 1}
    haproxy.before = lambda number: haproxy.servers.pop(f"karakuri/{G2}", None) and None if number == 5 else None
    result = run(servers=[G2], state="drained", wait=30)
    assert result["msg"].startswith(f"no backend of HAProxy has a server '{G2}'")


def test_many_servers_are_changed_in_few_connections(haproxy: Haproxy, run: Any) -> None:
    haproxy.servers = {f"b{number}/{G1}": {} for number in range(300)}
    assert len(run(servers=[G1], state="drained")["actions"]) == 300
    assert len(haproxy.set) == 300
    changing = [line for line in haproxy.lines if "set server" in line]
    assert 1 < len(changing) < 5
    assert max(map(len, changing)) < _haproxy_cli.LONGEST_LINE + 100


def test_the_states_are_saved(haproxy: Haproxy, run: Any, file: Path) -> None:
    action = f"save the states of all servers in {file}"
    assert run(check_mode=True, servers=[G2], state="drained", save_state=str(file))["actions"][1:] == [action]
    assert not file.exists()
    assert run(servers=[G2], state="drained", save_state=str(file))["actions"][1:] == [action]
    assert file.read_text() == haproxy.show_state()
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    before = file.stat()
    again = run(servers=[G2], state="drained", save_state=str(file))
    assert (again["changed"], again["actions"]) == (False, [])
    assert file.stat() == before
    assert sorted(path.name for path in file.parent.iterdir()) == ["admin.sock", "server-state"]


def test_a_drain_that_a_killed_run_has_not_saved(haproxy: Haproxy, run: Any, file: Path) -> None:
    file.write_text(haproxy.show_state())
    haproxy.servers[f"karakuri/{G2}"]["flags"] = 8
    result = run(servers=[G2], state="drained", save_state=str(file))
    assert (result["changed"], result["actions"]) == (True, [f"save the states of all servers in {file}"])
    assert haproxy.set == []
    assert file.read_text() == haproxy.show_state()


def test_what_checks_find_is_no_change_of_a_drain_and_one_of_the_file(haproxy: Haproxy, run: Any, file: Path) -> None:
    haproxy.servers[f"karakuri/{G2}"]["flags"] = 8
    file.write_text(haproxy.show_state())
    haproxy.servers[f"karakuri/{G2}"]["op_state"] = 0
    assert run(servers=[G2], state="drained", save_state=str(file))["changed"] is False
    assert file.read_text() != haproxy.show_state()
    # before a reload
    assert run(check_mode=True, save_state=str(file))["changed"] is True
    assert file.read_text() != haproxy.show_state()
    assert run(save_state=str(file))["changed"] is True
    assert file.read_text() == haproxy.show_state()
    assert run(save_state=str(file))["changed"] is False


def test_what_the_checks_have_found_after_the_wait_is_saved(haproxy: Haproxy, run: Any, file: Path) -> None:
    haproxy.servers[f"karakuri/{G2}"] = {"flags": 8, "op_state": 0, **DOWN}

    before: list[str] = []

    def go_on(number: int) -> None:
        if number == 5:
            before.append(file.read_text())
            haproxy.servers[f"karakuri/{G2}"] = {}

    haproxy.before = go_on
    assert run(servers=[G2], state="ready", wait=30, save_state=str(file))["failed"] is False
    # op_state and admin_state of the server that was down
    assert (" 0 0 1 1 " in before[0], " 0 0 1 1 " in file.read_text()) == (True, False)
    assert file.read_text() == haproxy.show_state()


@pytest.mark.parametrize("text", ["", "nonsense\n", "1\n# be_name srv_name\n"])
def test_a_state_file_that_is_none_is_replaced(haproxy: Haproxy, run: Any, file: Path, text: str) -> None:
    file.write_text(text)
    file.chmod(0o600)
    run(servers=[G2], state="ready", save_state=str(file))
    assert file.read_text() == haproxy.show_state()
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_the_owner_of_the_state_file_stays(
    haproxy: Haproxy, run: Any, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owners: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "fchown", lambda handle, uid, gid: owners.append((uid, gid)))
    run(servers=[G2], state="drained", save_state=str(file))
    assert owners == []
    run(servers=[G2], state="ready", save_state=str(file))
    assert owners == [(file.stat().st_uid, file.stat().st_gid)]


def test_a_folder_that_is_not_there_is_said_before_anything_changes(haproxy: Haproxy, run: Any, folder: Path) -> None:
    result = run(servers=[G2], state="drained", save_state=f"{folder}/none/state")
    assert result["msg"] == (
        f"the folder of {folder}/none/state is not there: make it, or name another file in save_state"
    )
    assert haproxy.lines == []


def test_a_file_that_cannot_be_written_leaves_nothing_behind(
    haproxy: Haproxy, run: Any, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    result = run(servers=[G2], state="drained", save_state=str(file))
    assert result["failed"]
    assert "No space left on device" in result["msg"]
    assert [path.name for path in file.parent.iterdir()] == ["admin.sock"]
    assert result["changed"] is True


class Master(Haproxy):
    """A double of the master's socket, with an old worker. worker: the one that it says is the present one."""

    def __init__(self, folder: Path, haproxy: Haproxy) -> None:
        self.worker, self.old = haproxy.pid, "50"
        super().__init__(folder / "master")
        self.answers_to = self._answer_master
        self.waits_for_more = True

    def _answer_master(self, command: str) -> str:
        if command == "show proc":
            old = f"# old workers\n{self.old}  worker  1\n" if self.old else ""
            return f"#<PID>  <type>\n1  master  1\n# workers\n{self.worker}  worker  0\n{old}# programs\n\n"
        if command == f"@!{self.old} show stat":
            return self.show_stat() + "\n"
        return "Can't find the target PID matching the prefix '@!'\n"


@pytest.fixture
def master(folder: Path, haproxy: Haproxy) -> Iterator[Master]:
    (folder / "master").mkdir()
    running = Master(folder, haproxy)
    yield running
    running.close()


def test_a_wait_for_processes_from_before_a_reload(haproxy: Haproxy, master: Master, run: Any) -> None:
    master.servers = {f"karakuri/{G1}": {"scur": 1, "qcur": 1}, f"gone/{G1}": {"scur": 1}}
    looked = run(servers=[G1], master_socket=str(master.path))
    assert [each["old_sessions"] for each in looked["servers"]] == [2, 0]

    def go_on(number: int) -> None:
        if number == 9:
            master.old = ""

    master.before = go_on
    result = run(servers=[G1], state="drained", wait=30, master_socket=str(master.path))
    assert result["failed"] is False
    assert [each["old_sessions"] for each in result["servers"]] == [0, 0]
    assert len(master.lines) == 9


def test_a_process_from_before_a_reload_that_ends_meanwhile(haproxy: Haproxy, master: Master, run: Any) -> None:
    master.servers = {f"karakuri/{G1}": {"scur": 1}}
    master.before = lambda number: "Can't find the target PID matching the prefix '@!50'\n" if number == 2 else None
    assert run(servers=[G1], master_socket=str(master.path))["servers"][0]["old_sessions"] == 0


def test_the_master_of_another_haproxy_is_not_asked_further(haproxy: Haproxy, master: Master, run: Any) -> None:
    master.servers = {f"karakuri/{G1}": {"scur": 1}}
    master.worker = "77"
    assert run(servers=[G1], master_socket=str(master.path))["servers"][0]["old_sessions"] == 0
    assert master.lines == ["show proc"]


def test_a_master_that_is_busy_with_a_reload_is_asked_again(
    haproxy: Haproxy, master: Master, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    master.servers = {f"karakuri/{G1}": {"scur": 1}}
    talk, refused = _haproxy_cli.talk, []

    def busy(path: str, line: str, timeout: int) -> str:
        if path == str(master.path) and not refused:
            refused.append(line)
            raise ConnectionRefusedError(111, "Connection refused")
        return talk(path, line, timeout)

    monkeypatch.setattr(_haproxy_cli, "talk", busy)
    assert run(servers=[G1], master_socket=str(master.path))["servers"][0]["old_sessions"] == 1
    assert refused == ["show proc"]


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    texts: list[str] = []
    monkeypatch.setattr(haproxy_servers.AnsibleModule, "warn", lambda self, text: texts.append(text))
    return texts


def test_a_master_that_does_not_listen_is_none(haproxy: Haproxy, master: Master, run: Any, warnings: list[str]) -> None:
    master.close()
    assert run(servers=[G1], master_socket=str(master.path))["failed"] is False
    assert warnings == []


def test_a_master_that_may_not_be_asked_is_warned_about(
    haproxy: Haproxy, master: Master, run: Any, warnings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    talk = _haproxy_cli.talk

    def refuse(path: str, line: str, timeout: int) -> str:
        if path == str(master.path):
            raise PermissionError(13, "Permission denied")
        return talk(path, line, timeout)

    monkeypatch.setattr(_haproxy_cli, "talk", refuse)
    assert run(servers=[G1], master_socket=str(master.path))["failed"] is False
    assert warnings == [
        "requests that processes from before a reload still work on are not counted, since the master socket cannot "
        "be used: [Errno 13] Permission denied"
    ]
