# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What the log of a vLLM container says of its start."""

from __future__ import annotations

import re

# The last line is seldom the cause: the first one that matches and is not only a pointer is
# (unknown option, wrong quantization, truncated weights, ...: seen with vLLM 0.32).
_CAUSE = re.compile(
    r"Value error,|Input should be |\b\w*(?:Error|error|Exception): |^\w+Error$|Insufficient space|No such file"
)
# Of pydantic's errors the line below the first one says what is wrong.
_NO_CAUSE = re.compile(
    r"Engine core initialization failed|WorkerProc initialization failed|Traceback|\d validation errors? for "
)
# What vLLM itself does not take for an error.
_CALM = re.compile(r"\b(?:DEBUG|INFO|WARNING) \d\d-\d\d ")
# "(EngineCore pid=71) INFO 11-22 21:53:10 [core.py:93] text", "(APIServer pid=1) text"
_PREFIX = re.compile(r"^(?:\([^)]*\) ?)?(?:[A-Z]+ \d\d-\d\d \d\d:\d\d:\d\d (?:\[[^\]]*\] ?)?)?")
# A line of level INFO, or a bar of tqdm: "Loading safetensors checkpoint shards:  50% Completed".
_PROGRESS = re.compile(r"\bINFO \d\d-\d\d|\d%")
# What pydantic puts behind a message: " [type=value_error, input_value=ArgsKwargs((), {...".
_DUMP = re.compile(r" \[type=.*$")
_ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def plain(line):
    """Return a log line without colours, process names, level and time."""
    return _PREFIX.sub("", _ESCAPES.sub("", line).strip()).strip()


def decisive_line(log):
    """Return the line of a failed start's log that says why, or its last line, or ''."""
    last = ""
    for line in log.splitlines():
        text = plain(line)
        if _CAUSE.search(text) and not _NO_CAUSE.search(text) and not _CALM.search(line):
            return _DUMP.sub("", text)[:500]
        last = text or last
    return last[:500]


def stage(log):
    """Return the newest line of the log that tells progress, short enough for one line of a terminal.

    That is a line of level INFO or a progress bar, or, when there is none, any line.
    """
    newest = ""
    # tqdm redraws its bar with carriage returns inside one line.
    for line in log.replace("\r", "\n").splitlines():
        text = plain(line)
        # The answers to our own looks at the server are no news.
        if text and '"GET /' not in text and (_PROGRESS.search(line) or not _PROGRESS.search(newest)):
            newest = line
    text = plain(newest)
    return text if len(text) <= 90 else text[:89] + "…"
