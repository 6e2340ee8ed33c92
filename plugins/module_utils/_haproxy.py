# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What a running HAProxy says of its servers, and what is to be done to have them drained or ready.

Pure logic: no socket, no files. The format of the answers is that of HAProxy's management guide (management.txt, 9.1
"CSV format" and 9.3 "Unix Socket commands").
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

# By the name of the column; and by (backend, server).
Row = dict[str, str]
Rows = dict[tuple[str, str], Row]

# Bits of srv_admin_state: maintenance by command, by a tracked server, by the configuration ("disabled"). A fourth one,
# of a name that does not resolve, is nobody's decision.
MAINTENANCE = 0x01 | 0x02 | 0x04
DRAINED = 0x08
DRAINED_WITH_ANOTHER = 0x10
# How `set server` calls what the module calls by its result.
WORDS = {"drained": "drain", "ready": "ready"}
# What a server state file has that does not change by itself; srv_check_state does, while a check is under way.
_LASTING = (
    "srv_addr",
    "srv_port",
    "srv_fqdn",
    "srv_op_state",
    "srv_admin_state",
    "srv_uweight",
    "srv_iweight",
)


class HaproxyError(Exception):
    """One sentence about HAProxy and its servers."""


class NotRunning(HaproxyError):
    """Nobody listens on its socket, or there is none."""


class Server:
    """A server of a backend. old_rows: its statistics in processes that a reload has left behind."""

    def __init__(self, row: Row, state: Row, old_rows: Iterable[Row] = ()) -> None:
        self.backend = row["pxname"]
        self.name = row["svname"]
        self.label = "%s/%s" % (self.backend, self.name)
        self.flags = int(state["srv_admin_state"])
        # Such as "DOWN 1/2" while checks have begun to say something else, "MAINT (via other/server)", "no check".
        self.told = row["status"]
        self.old_sessions = sum(_number(old["scur"]) + _number(old["qcur"]) for old in old_rows)
        self.result: dict[str, Any] = {
            "backend": self.backend,
            "name": self.name,
            "address": "" if state["srv_addr"] == "-" else state["srv_addr"],
            "port": _number(state["srv_port"]),
            "status": self.told if self.told == "no check" else self.told.split(" ")[0],
            "admin": admin_of(self.flags),
            "sessions": _number(row["scur"]),
            "queue": _number(row["qcur"]),
            "old_sessions": self.old_sessions,
            "weight": _number(row["weight"]),
            # stot has those as well that were sent elsewhere in the end; TCP knows sessions alone.
            "requests": _number(row["req_tot"] or row["stot"]),
            "responses_5xx": _number(row["hrsp_5xx"]),
            "connection_errors": _number(row["econ"]),
            "response_errors": _number(row["eresp"]),
            "retries": _number(row["wretr"]),
            "redispatches": _number(row["wredis"]),
            "check": _check(row),
            "since": _number(row["lastchg"]),
        }

    def in_maintenance(self) -> bool:
        return bool(self.flags & MAINTENANCE)

    def is_idle(self) -> bool:
        """Whether nothing is under way to it. Connections that HAProxy keeps open for later requests are nothing."""
        return not (self.result["sessions"] or self.result["queue"] or self.old_sessions)

    def is_up(self) -> bool:
        """Whether its last check was good, and the ones before that HAProxy asks for."""
        return self.told in ("UP", "no check")


def admin_of(flags: int) -> str:
    """Return what was decided about a server, whatever its checks say: maint, drain or ready."""
    if flags & MAINTENANCE:
        return "maint"
    return "drain" if flags & (DRAINED | DRAINED_WITH_ANOTHER) else "ready"


def split_answers(text: str) -> list[str]:
    """Return the answers to commands that were sent at once; each ends with an empty line, and one cut off is none."""
    answers, lines = [], []
    for line in text.splitlines():
        if line:
            lines.append(line)
        else:
            answers.append("\n".join(lines))
            lines = []
    return answers


def read_info(text: str) -> dict[str, str]:
    """Return the answer to `show info` as a dict."""
    return dict(line.partition(": ")[::2] for line in text.splitlines())


def read_stat(text: str) -> Rows:
    """Return the rows of servers in the answer to `show stat`, by (backend, server)."""
    if not text.startswith("# pxname,svname,"):
        raise HaproxyError("HAProxy answered '%s' to 'show stat'" % first_line(text))
    rows = csv.DictReader(io.StringIO(text.removeprefix("# ")))
    return {(row["pxname"], row["svname"]): row for row in rows if row["svname"] not in ("FRONTEND", "BACKEND")}


def read_state(text: str) -> Rows:
    """Return the rows of the answer to `show servers state`, or of a server state file, by (backend, server)."""
    lines = text.splitlines()
    if lines[:1] != ["1"] or not lines[1:2] or not lines[1].startswith("# be_id be_name srv_id srv_name "):
        raise HaproxyError("HAProxy answered '%s' to 'show servers state'" % first_line(text))
    rows = csv.DictReader([lines[1][2:], *lines[2:]], delimiter=" ")
    return {(row["be_name"], row["srv_name"]): row for row in rows}


def read_workers(text: str) -> tuple[list[str], list[str]]:
    """Return the process IDs of workers, and of old ones, in the master's answer to `show proc`."""
    pids: dict[str, list[str]] = {"# workers": [], "# old workers": []}
    section = ""
    for line in text.splitlines():
        if line.startswith("#"):
            section = line
        elif line and section in pids:
            pids[section].append(line.split()[0])
    return pids["# workers"], pids["# old workers"]


def servers(stat: str, state: str, old_stats: Iterable[str] = ()) -> list[Server]:
    """Return all servers, in HAProxy's order. old_stats: `show stat` of processes that a reload has left behind."""
    rows, states = read_stat(stat), read_state(state)
    old = [read_stat(text) for text in old_stats]
    # One that was added or deleted between the two answers is in one of them alone.
    return [
        Server(row, states[key], [each[key] for each in old if key in each])
        for key, row in rows.items()
        if key in states
    ]


def select(found: Sequence[Server], names: Sequence[str], backends: Sequence[str], missing_ok: bool) -> list[Server]:
    """Return the servers that are meant: those of these names in these backends, where empty means all."""
    known = {server.backend for server in found}
    strange = [name for name in backends if name not in known]
    if strange and not missing_ok:
        raise HaproxyError(
            "HAProxy has no backend %s with servers (it has %s): correct the name, or leave out what is missing with "
            "missing_ok" % (_quoted(strange), _some(known))
        )
    within = [server for server in found if not backends or server.backend in backends]
    there = {server.name for server in within}
    strange = [name for name in names if name not in there]
    if strange and not missing_ok:
        raise HaproxyError(
            "no backend of HAProxy%s has a server %s (they have %s): correct the name, or leave out what is missing "
            "with missing_ok" % (" among %s" % _quoted(backends) if backends else "", _quoted(strange), _some(there))
        )
    return [server for server in within if not names or server.name in names]


def to_change(chosen: Iterable[Server], state: str) -> list[Server]:
    """Return the servers that a command has to be sent for. What an operator has in maintenance is left alone."""
    if state == "drained":
        return [server for server in chosen if admin_of(server.flags) == "ready"]
    if state == "ready":
        # One that is drained because it tracks another cannot be made ready by itself.
        return [server for server in chosen if not server.in_maintenance() and server.flags & DRAINED]
    return []


def unfinished(chosen: Iterable[Server], state: str) -> list[Server]:
    """Return the servers that a wait has to go on for."""
    if state == "drained":
        return [server for server in chosen if not server.is_idle()]
    return [server for server in chosen if not server.in_maintenance() and not server.is_up()]


def why_unfinished(left: Sequence[Server], state: str, seconds: float) -> str:
    """Return the sentence for a wait that was over too early."""
    if state == "drained":
        return "after %d s %s: wait longer, or stop what serves there and let them break off" % (
            seconds,
            "; ".join("%s still has %s" % (server.label, _under_way(server)) for server in left),
        )
    return "after %d s %s: %s" % (
        seconds,
        "; ".join("%s is still %s" % (server.label, _condition(server)) for server in left),
        "make the server ready that it tracks"
        if all(server.flags & DRAINED_WITH_ANOTHER for server in left)
        else "see in the log of what serves there why its check does not pass, or wait longer",
    )


def same_states(text: str, other: str, admin_alone: bool) -> bool:
    """Whether two server state files would give a HAProxy the same states.

    admin_alone: what was decided is compared, what checks have found and where servers are is not.
    """
    try:
        one, two = read_state(text), read_state(other)
    except HaproxyError:
        return False
    columns = ("srv_admin_state",) if admin_alone else _LASTING
    return _columns(one, columns) == _columns(two, columns)


def first_line(text: str) -> str:
    return (text.splitlines() or [""])[0][:120]


def _columns(rows: Rows, names: Iterable[str]) -> dict[tuple[str, str], list[str | None]]:
    return {key: [row.get(name) for name in names] for key, row in rows.items()}


def _check(row: Row) -> str:
    """Return what the last check found, in words."""
    detail = " ".join(part for part in (row["check_code"], row["last_chk"]) if part)
    return ": ".join(part for part in (row["check_desc"], detail) if part)


def _condition(server: Server) -> str:
    check = server.result["check"]
    if server.flags & (DRAINED | DRAINED_WITH_ANOTHER):
        return "%s (drained)" % server.told
    return "%s (%s)" % (server.told, check) if check else server.told


def _under_way(server: Server) -> str:
    result = server.result
    parts: tuple[tuple[int, str], ...] = (
        (result["sessions"], "session%s"),
        (result["queue"], "queued request%s"),
        (server.old_sessions, "request%s in processes from before a reload"),
    )
    return ", ".join("%d %s" % (count, words % ("" if count == 1 else "s")) for count, words in parts if count)


def _quoted(names: Iterable[str]) -> str:
    return ", ".join("'%s'" % name for name in names)


def _some(names: Iterable[str]) -> str:
    names = sorted(names)
    return (", ".join(names[:8]) + (" and %d more" % (len(names) - 8) if len(names) > 8 else "")) or "none"


def _number(text: str) -> int:
    return int(text) if text else 0
