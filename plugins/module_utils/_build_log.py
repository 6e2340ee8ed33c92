# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""How BuildKit writes its plain progress, how far a build is, and why it failed. Pure logic.

For the client inside of Docker 20.10 and for buildx; where they differ, a comment says so.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable

# "#7 text" is a step's name or state, "#7 0.234 text" is what it prints.
_LINE = re.compile(r"#(?P<number>\d+) (?P<time>\d+\.\d+(?: |\Z))?(?P<text>.*)\Z", re.DOTALL)
_END = re.compile(r"(?:DONE(?: \d+\.\d+s)?|CACHED|CANCELED|ERROR(?:: (?P<error>.*))?)\Z")
# 20.10 prints the digest of a step below its name; with more text behind it, it is a layer that is pulled.
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
_HASH = re.compile(r"\b(sha256:[0-9a-f]{12})[0-9a-f]{52}\b")
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
# The last word of a failed build; 20.10 has no ERROR there: "failed to solve with frontend dockerfile.v0: ...".
_LAST_WORD = re.compile(r"\AERROR: |\bfailed to solve\b")
_WRAPPING = re.compile(
    r"\A(?:ERROR: |failed to (?:build|solve(?: with frontend [\w.]+)?|create LLB definition|build LLB): "
    r"|rpc error: code = \w+ desc = )+"
)

# Lines kept of a step. A compiler is killed long before its end: the other jobs finish, then Python traces.
_KEPT = 200
_SHOWN = 15
_LONGEST_LINE = 1000
_LONGEST_DOING = 150
_LONGEST_NAME = 80

_MEMORY = re.compile(r"\bKilled\b|exit code: 137\b|signal: killed|signal 9\b|(?i:cannot allocate memory)")
_SPACE = re.compile(r"no space left on device", re.I)
_NETWORK = re.compile(
    r"could not resolve host|temporary failure (?:in name resolution|resolving)|name or service not known"
    r"|network is unreachable|failed to lookup address|no such host",
    re.I,
)
_PULL = re.compile(r"failed to resolve source metadata|pull access denied|dial tcp|failed to do request", re.I)
_UNKNOWN_INSTRUCTION = re.compile(r"unknown instruction: (\S+)", re.I)
_IMAGE = re.compile(
    r"(?:load metadata for|source metadata for|\] FROM) (?P<image>\S+?)(?:@sha256:[0-9a-f]+|:)?(?:\s|\Z)"
)
# Lines that tell no cause: they say that something failed, or what pip would like.
_NO_CAUSE = re.compile(r"CalledProcessError|\[notice\]|\bnote: |\bhint: |^\W*$|ninja: build stopped|^\s*File \"")
_CAUSE = re.compile(r"\berror\b|\bfatal\b|^E: |No such file|not found|Exception\b|Error: ", re.I)


class BuildLog:
    """A build's progress. feed() takes its lines; doing, failure() and sentence() tell what they said.

    Of finished steps nothing is kept but the name.
    """

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        # The step that said something last comes last.
        self._running: dict[str, _Step] = {}
        self._latest: _Step | None = None
        self._failed: _Step | None = None
        self._error = ""
        self._loose: deque[str] = deque(maxlen=_SHOWN)

    def feed(self, line: str) -> None:
        """Take one line of the output."""
        found = _LINE.match(line.rstrip("\r\n"))
        if not found:
            line = _plain(line)
            if line:
                self._loose.append(line)
            return
        number, text = found.group("number"), _plain(found.group("text"))
        if number == "0":
            # Which builder buildx works with, which is no step and has no end.
            return
        if found.group("time"):
            self._output(number, text)
            return
        name = _HASH.sub(r"\1", " ".join(text.split()))
        if number not in self._names or self._names[number] == name:
            self._begin(number, name)
        elif number in self._running:
            self._state(number, text)

    @property
    def doing(self) -> str:
        """What the build does now, in one short line: a step and what it printed last."""
        if not self._latest:
            return ""
        name = _cut(self._latest.name, _LONGEST_NAME)
        return _cut("%s: %s" % (name, self._latest.lines[-1].strip()) if self._latest.lines else name, _LONGEST_DOING)

    def failure(self) -> tuple[str, list[str]]:
        """Return (step, lines): the step that failed and what it printed last.

        The step is '' where none had failed when the build did: a Dockerfile that cannot be read, a missing stage.
        """
        if self._failed:
            return self._failed.name, list(self._failed.lines)[-_SHOWN:] or [self._error]
        last_words = [line for line in self._loose if _LAST_WORD.search(line)]
        return "", last_words[-1:] or list(self._loose)

    def sentence(self, max_jobs: object = None) -> str:
        """Return why the build failed and what to do, in one sentence. max_jobs: as it was given, if it was."""
        step, lines = self.failure()
        all_lines = [self._error] + list(self._failed.lines) if self._failed else lines
        where = "step %s" % _cut(step, _LONGEST_NAME) if step else "the build"
        if _any(_SPACE, all_lines):
            return "%s found no space left on device: free some where Docker keeps its images" % where
        if _any(_MEMORY, all_lines):
            return "%s ran out of memory: %s" % (where, _less_memory(max_jobs))
        lines = [self._error] + lines
        if "] RUN " in step:
            if _any(_NETWORK, lines):
                return "%s needs the network and did not get through: let this host reach it, or set a proxy" % where
        elif _IMAGE.search(step) or _any(_PULL, lines):
            image = _IMAGE.search("\n".join([step] + lines))
            return (
                "the base image%s cannot be pulled (%s): check its name and that this host reaches its registry, "
                "or name another with a build argument"
                % (" '%s'" % image.group("image") if image else "", _cut(self._error or _said(lines), _LONGEST_DOING))
            )
        unknown = _UNKNOWN_INSTRUCTION.search("\n".join(lines))
        if unknown:
            return (
                "this Docker takes '%s' for an instruction, as those do that are too old for heredocs: "
                "build on a host with Docker 23 or newer" % unknown.group(1)
            )
        return "%s failed: %s" % (where, _cut(_said(all_lines), 2 * _LONGEST_DOING))

    def _begin(self, number: str, name: str) -> None:
        self._names[number] = name
        # BuildKit names a step again whenever it comes back to it, also to one that was done: images are pulled late.
        step = self._running.pop(number, None) or _Step(name)
        self._running[number] = self._latest = step

    def _output(self, number: str, text: str) -> None:
        step = self._running.pop(number, None)
        # Where a build fails, 20.10 repeats what the step had printed.
        if not step:
            return
        self._running[number] = self._latest = step
        if text:
            step.lines.append(text)

    def _state(self, number: str, text: str) -> None:
        ended = _END.match(text)
        if not ended:
            if text != "..." and not _DIGEST.match(text):
                self._output(number, _HASH.sub(r"\1", text))
            return
        step = self._running.pop(number)
        # A cache that cannot be read is an error that does not end the build; then another one comes later.
        if ended.group("error") is not None:
            self._failed, self._error = step, ended.group("error")
        if self._running:
            self._latest = list(self._running.values())[-1]


class _Step:
    def __init__(self, name: str) -> None:
        self.name = name
        self.lines: deque[str] = deque(maxlen=_KEPT)


def _plain(text: str) -> str:
    """Return a text without colours, and only the last of what carriage returns overwrite."""
    drawn = [part for part in _ESCAPES.sub("", text).split("\r") if part.strip()]
    if not drawn:
        return ""
    return _LINE.sub(r"\g<text>", drawn[-1]).rstrip()[:_LONGEST_LINE]


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _any(pattern: re.Pattern[str], lines: Iterable[str]) -> bool:
    return any(pattern.search(line) for line in lines)


def _less_memory(max_jobs: object) -> str:
    jobs = int(str(max_jobs)) if str(max_jobs).isdigit() else 0
    if jobs == 1:
        return "give this host more of it, as a single compiler job is too much"
    return "set max_jobs to %d or less, it was %d" % (jobs // 2, jobs) if jobs else "set max_jobs lower"


def _said(lines: Iterable[str]) -> str:
    """Return the line that tells most of a failure: the last that names an error, or the last that says anything."""
    lines = [line.strip() for line in lines if line.strip()]
    telling = [line for line in lines if not _NO_CAUSE.search(line)]
    causes = [line for line in telling if _CAUSE.search(line)]
    return _WRAPPING.sub("", (causes or telling or lines or ["it printed nothing"])[-1])
