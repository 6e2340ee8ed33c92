# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""How far a snapshot is, in one line: percent, rate, time left, file, and what holds it up."""

from __future__ import annotations

import collections
import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator

from ansible_collections.llmops.vllm.plugins.module_utils._progress import human_bytes

# Seconds over which the rate is taken, and after which silence is said.
WINDOW = 15.0
SILENCE = 5.0


class Meter:
    """Counts the bytes of a job. name: of the repository. doing: what happens to the bytes."""

    def __init__(
        self,
        name: str,
        total: int,
        begun_with: int = 0,
        doing: str = "fetched",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.total = total
        self.doing = doing
        self.done = begun_with
        self.moved = 0
        self._clock = clock
        self._lock = threading.Lock()
        self._samples = collections.deque([(clock(), 0)])
        self._last_at = clock()
        self._notes: dict[str, str] = {}
        self._folders: set[str] = set()

    def add(self, count: int) -> None:
        """Count bytes that have come."""
        with self._lock:
            self.done += count
            self.moved += count
            self._last_at = self._clock()

    def take_back(self, count: int) -> None:
        """Count bytes out again that have to come once more."""
        with self._lock:
            self.done -= count

    @contextlib.contextmanager
    def file(self, path: str) -> Iterator[Callable[[str], None]]:
        """Name a file while it is worked on; gives a function that says what holds it up, "" for nothing."""

        def note(text: str) -> None:
            self._notes[path] = text

        note("")
        try:
            yield note
        finally:
            self._notes.pop(path, None)

    @contextlib.contextmanager
    def folder(self, path: str) -> Iterator[None]:
        """Count what somebody else writes into a folder; what comes of a failure comes once more."""
        came = 0
        self._folders.add(path)
        try:
            yield
            came = folder_bytes(path)
        finally:
            self._folders.discard(path)
            self.add(came)

    def line(self) -> str:
        """Return the line as of now."""
        with self._lock:
            # A copy: downloads begin and end meanwhile.
            elsewhere = sum(folder_bytes(path) for path in tuple(self._folders))
            done, moved = self.done + elsewhere, self.moved + elsewhere
        now = self._clock()
        self._samples.append((now, moved))
        while len(self._samples) > 2 and now - self._samples[0][0] > WINDOW:
            self._samples.popleft()
        since, before = self._samples[0]
        rate = max(moved - before, 0) / max(now - since, 0.1)
        words = [
            "%s of %s" % (human_bytes(max(done, 0)), human_bytes(self.total)),
            "%s/s" % human_bytes(rate),
        ]
        if rate >= 1 and done < self.total:
            words.append("%s left" % human_seconds((self.total - done) / rate))
        notes = dict(self._notes)
        held_up = sorted(path for path in notes if notes[path])
        if held_up:
            words.append("%s: %s" % (held_up[0], notes[held_up[0]]))
        elif notes:
            more = len(notes) - 1
            words.append(next(iter(notes)) + (" and %d more" % more if more else ""))
            if now - self._last_at >= SILENCE and not self._folders:
                words.append("no byte for %d s" % (now - self._last_at))
        # 100 % is what is done, not what is nearly so.
        percent = int(100.0 * max(done, 0) / max(self.total, 1))
        return "%s: %d %% %s (%s)" % (self.name, percent, self.doing, ", ".join(words))


def folder_bytes(folder: str) -> int:
    """Return the bytes of all files below folder."""
    total = 0
    for root, dummy, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.path.getsize(os.path.join(root, name))
    return total


def human_seconds(seconds: float) -> str:
    """Return a duration in at most two units: 45 s, 3 min 20 s, 2 h 5 min."""
    whole = int(seconds + 0.5)
    if whole < 60:
        return "%d s" % whole
    if whole < 3600:
        return "%d min %d s" % divmod(whole, 60)
    return "%d h %d min" % divmod(whole // 60, 60)
