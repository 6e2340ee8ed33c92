# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""The sockets of a running HAProxy: that of its worker, for commands, and that of its master, for old workers."""

from __future__ import annotations

import getpass
import os
import socket
import time
from collections.abc import Iterable, Iterator, Sequence

from ansible_collections.llmops.vllm.plugins.module_utils import _haproxy
from ansible_collections.llmops.vllm.plugins.module_utils._haproxy import HaproxyError, NotRunning

# Seconds that a reload may need until its new process, or its master, answers.
PAUSE = 1.0
# Well below the 16 KiB that HAProxy reads at once (tune.bufsize).
LONGEST_LINE = 8000


class Passing(Exception):
    """A process that is on its way out, or one that is not there yet, as during a reload. error: its lasting class."""

    error = HaproxyError


class Absent(Passing):
    """No process at all."""

    error = NotRunning


class Cli:
    """Commands to a HAProxy. pid: the process that has answered last."""

    def __init__(self, path: str, master_path: str | None, timeout: float) -> None:
        self.path = path
        self.master_path = master_path
        self.timeout = timeout
        self.pid = ""
        self.unread_master = ""

    def ask(self, commands: Iterable[str]) -> list[str]:
        """Return the answers to commands. They are sent twice where the first process was on its way out."""
        answers = []
        for some in _in_lines(commands):
            try:
                answers += self._ask(some)
            except Passing:
                time.sleep(PAUSE)
                try:
                    answers += self._ask(some)
                except Passing as error:
                    raise error.error(str(error)) from None
        return answers

    def look(self) -> tuple[list[_haproxy.Server], str]:
        """Return all servers, and the text of a server state file."""
        stat, state = self.ask(["show stat", "show servers state"])
        return _haproxy.servers(stat, state, self._old_stats()), state + "\n"

    def set_state(self, servers: Iterable[_haproxy.Server], word: str) -> None:
        """Have servers drained or ready."""
        commands = ["set server %s state %s" % (server.label, word) for server in servers]
        for number, answer in enumerate(self.ask(commands)):
            if answer:
                raise HaproxyError("HAProxy answered '%s' to '%s'" % (_haproxy.first_line(answer), commands[number]))

    def _ask(self, commands: Sequence[str]) -> list[str]:
        # A reload leaves the old process with the connections that it has, and it would take commands in vain.
        sent = ["show info", *commands]
        answers = _haproxy.split_answers(self._talk(";".join(sent)))
        if len(answers) > 0 and "Pid" not in _haproxy.read_info(answers[0]):
            raise HaproxyError(
                "%s answered '%s' to 'show info': name the admin socket of HAProxy ('stats socket' in its "
                "configuration)" % (self.path, _haproxy.first_line(answers[0]))
            )
        if len(answers) < len(sent):
            raise Passing(
                "HAProxy closed %s in the middle of an answer: see in its log whether it ended, and run again"
                % self.path
            )
        info = _haproxy.read_info(answers[0])
        if info.get("Stopping", "0") != "0" or "Proxy is disabled." in answers:
            raise Passing(
                "the HAProxy behind %s is stopping, and no other has taken its place: see its log, and run again"
                % self.path
            )
        self.pid = info["Pid"]
        for number, answer in enumerate(answers):
            if answer.startswith("Permission denied"):
                raise HaproxyError(
                    "HAProxy does not allow '%s' on %s: the socket needs 'level admin' in its configuration"
                    % (sent[number], self.path)
                )
        return answers[1:]

    def _talk(self, line: str) -> str:
        try:
            return talk(self.path, line, self.timeout)
        except FileNotFoundError:
            raise Absent(
                "there is no socket %s: start HAProxy on this host, or name its admin socket ('stats socket' in its "
                "configuration)" % self.path
            ) from None
        except ConnectionRefusedError:
            raise Absent(
                "nobody answers on %s, so HAProxy does not run: start it; its log tells why it ended" % self.path
            ) from None
        except PermissionError:
            raise HaproxyError(
                "%s may not use %s: run the task with become, or as a member of the socket's group"
                % (_user(), self.path)
            ) from None
        except socket.timeout:
            # Python 3.9 has it apart from TimeoutError.
            raise HaproxyError(
                "HAProxy did not answer on %s within %d s: see its load and its log, or raise timeout"
                % (self.path, self.timeout)
            ) from None
        except ConnectionError as error:
            raise Passing(
                "HAProxy broke off on %s (%s): see in its log whether it ended, and run again" % (self.path, error)
            ) from None
        except OSError as error:
            raise HaproxyError(
                "%s cannot be used (%s): name the admin socket of HAProxy" % (self.path, error)
            ) from None

    def _old_stats(self) -> list[str]:
        """Return `show stat` of each worker that a reload has left behind with the requests that it had."""
        workers, old = _haproxy.read_workers(self._ask_master("show proc"))
        # It may be the master of another HAProxy on this host.
        if self.pid not in workers:
            return []
        answers = [self._ask_master("@!%s show stat" % pid) for pid in old]
        # One that has ended meanwhile is not found.
        return [answer for answer in answers if answer.startswith("# pxname")]

    def _ask_master(self, line: str) -> str:
        """Return an answer of the master, '' where there is none."""
        if not self.master_path or not os.path.exists(self.master_path):
            return ""
        for last in (False, True):
            try:
                return talk(self.master_path, line, self.timeout)
            except (ConnectionError, FileNotFoundError):
                # While it takes over a new configuration, it does not listen.
                if not last:
                    time.sleep(PAUSE)
            except OSError as error:
                self.unread_master = str(error)
                break
        return ""


def talk(path: str, line: str, timeout: float) -> str:
    """Return all that a socket answers to a line."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(timeout)
        connection.connect(path)
        connection.sendall((line + "\n").encode())
        # The master keeps a connection open for more commands otherwise.
        connection.shutdown(socket.SHUT_WR)
        parts: list[bytes] = []
        while True:
            part = connection.recv(65536)
            if not part:
                return b"".join(parts).decode("utf-8", "replace")
            parts.append(part)
    finally:
        connection.close()


def _in_lines(commands: Iterable[str]) -> Iterator[list[str]]:
    """Yield commands, so many at once as go into a line."""
    some: list[str] = []
    length = 0
    for command in commands:
        if some and length + len(command) > LONGEST_LINE:
            yield some
            some, length = [], 0
        some.append(command)
        length += len(command) + 1
    if some:
        yield some


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "user %d" % os.getuid()
