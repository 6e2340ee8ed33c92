# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""How vLLM writes its log, and how far a start is. Pure logic, for vLLM 0.4.2 to 0.33.0.

The texts are those of vLLM's source; each pattern names the versions that print it.
"""

from __future__ import annotations

import re

# "(EngineCore pid=71) INFO 11-22 21:53:10 [core.py:93] text"; before 0.10 "INFO 05-12 12:11:25 core.py:93] text".
_PREFIX = re.compile(r"^(?:\([^)]*\) ?)?(?:[A-Z]+ \d\d-\d\d \d\d:\d\d:\d\d (?:\[?[^\]\s]+\] ?)?)?")
_ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
# What vLLM, Python and torch ("[rank0]:[W1122 21:53:13.1 socket.cpp:752] ...") do not take for an error themselves.
_CALM = re.compile(r"\b(?:DEBUG|INFO|WARNING) \d\d-\d\d \d\d:|^INFO: |\b[A-Z]\w*Warning: |\bW\d{4} \d\d:\d\d:\d\d")
# The answers to our own looks at the server are no news, and its arguments can hold a key (until 0.28).
_NO_NEWS = re.compile(r'"(?:GET|POST) /|\bargs: ')
# Application startup complete: uvicorn's, in all versions. The other: what it prints without lifespan messages.
READY = re.compile(r"Application startup complete|Uvicorn running on ")
# Only a server that is up prints these, for as long as it runs; the line above is soon too far back to be read.
_SERVES = re.compile(r'HTTP/1\.[01]" \d{3}\b|Avg prompt throughput: ')

# (phase, pattern), of which the last one that fits a line counts; the number is the percentage of tqdm's bar.
_PHASES = [
    ("starting vLLM", r"\bversion v?\d+\.\d+"),
    ("starting the engine", r"Initializing an? (?:V1 )?LLM engine"),
    ("loading weights", r"Starting to load model |Loading (?:model )?weights|Model loading took "),
    # "Loading safetensors checkpoint shards:  50% Completed", "Multi-thread loading shards: 50%" and other loaders'.
    ("loading weights", r"[Ll]oading [\w -]*(?:shards|[Ss]treamer|[Ll]oader)[^:]*: +(?P<percent>\d+)%"),
    # 0.6.5 to 0.17 "takes", later "took"; "Starting torch.compile" and the others since 0.8.
    (
        "compiling",
        r"[Tt]orch\.compile (?:takes|took)|Starting torch\.compile|Dynamo bytecode|Compiling a graph|load the compiled",
    ),
    ("warming up", r"[Ww]arming up"),
    ("capturing graphs", r"Capturing (?:the )?(?:model|cudagraphs|CUDA graph)|Graph capturing finished"),
    ("capturing graphs", r"Capturing [\w -]*(?:graph|model)[^:]*: +(?P<percent>\d+)%"),
    # 0.4.2 to 0.7.3, 0.8.0 to 0.29.0, and 0.30.0 with the name of the device.
    ("making the KV cache", r"# (?:GPU|CPU|cuda|cpu) blocks: |KV cache size: |Available KV cache memory: "),
    (
        "opening the port",
        r"init engine \(|Starting vLLM (?:API )?server|Started server process|Waiting for application",
    ),
    ("ready", READY.pattern),
]
PHASES = [(phase, re.compile(pattern)) for phase, pattern in _PHASES]
_KV_TOKENS = re.compile(r"KV cache size: ([\d,]+) tokens")
# vLLM with paged blocks of 16 tokens said how many of them there are (..0.7.3).
_KV_BLOCKS = re.compile(r"# (?:GPU|cuda|CPU|cpu) blocks: (\d+)")
_BLOCK_TOKENS = 16


def plain(line: str) -> str:
    """Return a log line without colours, process names, level and time."""
    return _PREFIX.sub("", _ESCAPES.sub("", line).strip()).strip()


def is_calm(line: str) -> bool:
    """Return whether vLLM itself takes the line for no error."""
    return bool(_CALM.search(_ESCAPES.sub("", line)))


def lines_of(log: str) -> list[str]:
    """Return the lines of a log; tqdm redraws its bar with carriage returns inside one line."""
    return log.replace("\r", "\n").splitlines()


def is_ready(log: str) -> bool:
    """Return whether the server said that it is up."""
    return bool(READY.search(log) or _SERVES.search(log))


def kv_cache_tokens(log: str) -> int | None:
    """Return how many tokens the KV cache holds, or None when the log does not say."""
    tokens = _KV_TOKENS.findall(log)
    if tokens:
        return int(tokens[-1].replace(",", ""))
    blocks = _KV_BLOCKS.findall(log)
    return int(blocks[0]) * _BLOCK_TOKENS if blocks else None


class Startup:
    """How far a start is.

    phase: one of those of PHASES, or '' when no line tells one; percent: int of the phase, or
    None; line: the newest line that tells progress, plain.
    """

    def __init__(self, log: str) -> None:
        self.phase, self.percent, self.line = "", None, ""
        for raw in lines_of(log):
            line = plain(raw)
            if not line or _NO_NEWS.search(line):
                continue
            for phase, pattern in PHASES:
                found = pattern.search(line)
                if found:
                    percent = found.groupdict().get("percent")
                    self.phase, self.percent = phase, None if percent is None else int(percent)
                    self.line = line[:200]
            if not self.phase:
                self.line = line[:200]

    def __str__(self) -> str:
        text = self.phase or self.line
        if self.percent is not None:
            text = "%s %d %%" % (text, self.percent)
        return text if len(text) <= 90 else text[:89] + "…"
