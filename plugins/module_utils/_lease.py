# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""A lease on a host: one rollout at a time, also when its owner dies."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
import time
from collections.abc import Iterator
from typing import TypedDict, cast


class Lease(TypedDict):
    """Who has a host.

    owner: a name for the rollout. holder: for people. controller, process: where the owner runs and since when, to tell
    whether it still does. since, until: seconds since 1970, by the host's own clock.
    """

    owner: str
    holder: str
    controller: str
    process: str
    since: float
    until: float


_KEYS = frozenset(Lease.__annotations__)


class LeaseError(Exception):
    """The lease cannot be read or written; its message is the one sentence."""


class LeaseHeld(Exception):
    """Somebody else has the lease. lease: theirs."""

    def __init__(self, lease: Lease) -> None:
        super().__init__(
            "%s has a lease on this host since %s, until %s at the latest"
            % (lease["holder"], text_of(lease["since"]), text_of(lease["until"]))
        )
        self.lease = lease


def text_of(seconds: float) -> str:
    """Return a time for people."""
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))


def decide(found: Lease | None, wish: Lease, now: float, take_over: str = "") -> tuple[Lease | None, str]:
    """Return (the lease that is to stand, or None where it stands already; why somebody else's was ended, or '').

    found: the lease that is there, or None. wish: the lease that is wanted. take_over: name of an owner whose lease may
    be ended. Raises LeaseHeld.
    """
    if found is None:
        return wish, ""
    if found["owner"] == wish["owner"]:
        # It may be longer, and begins when it began.
        later: Lease = {**wish, "since": found["since"], "until": max(found["until"], wish["until"])}
        return (later, "") if later != found else (None, "")
    if found["until"] <= now:
        return wish, "the lease of %s ran out at %s" % (found["holder"], text_of(found["until"]))
    if take_over == found["owner"]:
        return wish, "the lease of %s was taken over" % found["holder"]
    raise LeaseHeld(found)


class LeaseFile:
    """The lease of this host, in a file of root's."""

    def __init__(self, path: str) -> None:
        self.path = path

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Have nobody else read or write the lease meanwhile."""
        try:
            os.makedirs(os.path.dirname(self.path), mode=0o755, exist_ok=True)
            lock = os.open(self.path + ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise LeaseError("the lease %s cannot be used: %s" % (self.path, error)) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def read(self) -> Lease | None:
        """Return the lease that is there, or None."""
        try:
            with open(self.path, encoding="utf-8") as stream:
                found = json.load(stream)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise LeaseError("the lease %s cannot be read: %s" % (self.path, error)) from error
        except ValueError:
            found = None
        if not isinstance(found, dict) or set(found) != _KEYS:
            raise LeaseError("%s is no lease: see what it is, and remove it when no rollout is under way" % self.path)
        return cast(Lease, found)

    def write(self, lease: Lease) -> None:
        """Have this lease stand; a reader never sees half of it."""
        try:
            handle, new = tempfile.mkstemp(prefix=".lease-", dir=os.path.dirname(self.path))
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as stream:
                    json.dump(lease, stream, sort_keys=True)
                    stream.write("\n")
                    stream.flush()
                    os.fsync(stream.fileno())
                os.replace(new, self.path)
            except BaseException:
                os.unlink(new)
                raise
        except OSError as error:
            raise LeaseError("the lease %s cannot be written: %s" % (self.path, error)) from error

    def remove(self) -> None:
        """Have no lease stand."""
        try:
            os.unlink(self.path)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise LeaseError("the lease %s cannot be removed: %s" % (self.path, error)) from error
