# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What a long-running module says of how far it is.

The module writes one line of text into a small file while it works, below one that names its
process; the action plugin of the same name reads that file, shows the line, and sees whether
the process is still there (plugins/plugin_utils/progress.py). A module that is run without its
action plugin gets no file, and everything here does nothing.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator

PROGRESS_FILE_SPEC = dict(type="path")


class Progress:
    """A line of text in a file of mode 0600; the file is gone when the module has ended."""

    def __init__(self, path: str | None = None) -> None:
        self.path = path
        self.process = process() if path else ""

    def say(self, line: str) -> None:
        """Replace the line, as a whole, so that a reader never sees half of it."""
        if not self.path:
            return
        beside = self.path + ".new"
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(fd, "w", encoding="utf-8") as stream:
            stream.write("%s\n%s" % (self.process, line))
        os.replace(beside, self.path)

    @contextlib.contextmanager
    def every(self, seconds: float, describe: Callable[[], str]) -> Iterator[None]:
        """Say what describe() returns, now and every so many seconds, while the block runs."""
        if not self.path:
            yield
            return
        stop = threading.Event()

        def run() -> None:
            while not stop.is_set():
                self.say(describe())
                stop.wait(seconds)

        timer = threading.Thread(target=run, daemon=True)
        timer.start()
        try:
            yield
        finally:
            stop.set()
            timer.join()

    def __enter__(self) -> Progress:
        if self.path:
            os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
            self.say("")
        return self

    def __exit__(self, *dummy: object) -> None:
        if self.path and os.path.exists(self.path):
            os.unlink(self.path)


def process() -> str:
    """Return this process as its number and its start, "-" where nobody can tell; the number alone is given anew."""
    try:
        with open("/proc/self/stat", encoding="utf-8") as stream:
            # The name of the program, before the parenthesis, may hold spaces.
            start = stream.read().rpartition(")")[2].split()[19]
    except OSError:
        return "-"
    return "%d %s" % (os.getpid(), start)


def human_bytes(count: float) -> str:
    """Return a size in decimal units, as download tools print it: 117.6 MB."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return "%.0f %s" % (size, unit) if unit == "B" else "%.1f %s" % (size, unit)
        size /= 1000
    return "%.1f TB" % size
