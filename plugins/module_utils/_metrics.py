# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What vLLM's metrics say of its work. Pure logic, for vLLM 0.4.2 to 0.33.0."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

# name{label="value",...} number [timestamp]
_SAMPLE = re.compile(r"^(vllm:\w+)(\{.*\})? (\S+)(?: -?\d+)?$")
# Of several engines behind one port (data parallel) each counts for itself.
_ENGINE = re.compile(r'[{,]engine="([^"]*)"')
# V0 had a third state; its number is one of waiting.
_RUNNING, _WAITING = ("vllm:num_requests_running",), ("vllm:num_requests_waiting", "vllm:num_requests_swapped")
# Until 0.10.2, and since 0.9.2.
_KV_USAGE = ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc")
# Each grows when the engine does something.
_PROGRESS = (
    "vllm:prompt_tokens_total",
    "vllm:generation_tokens_total",
    "vllm:iteration_tokens_total_sum",
    "vllm:request_success_total",
)


class Metrics:
    """One look at /metrics, summed over engines.

    running, waiting: requests; kv_cache_usage: fraction of the KV cache in use, or None; engines:
    {name: (requests in it, a number that grows with every step of it)}.
    known is False when the server counts nothing (started with disable_log_stats).
    """

    def __init__(self, text: str) -> None:
        sums: dict[str, float] = {}
        counts: dict[str, int] = {}
        by_engine: dict[str, dict[str, float]] = {}
        for line in text.splitlines():
            sample = _SAMPLE.match(line)
            if not sample:
                continue
            name, labels, number = sample.groups()
            try:
                value = float(number)
            except ValueError:
                continue
            if not math.isfinite(value):
                continue
            sums[name] = sums.get(name, 0.0) + value
            counts[name] = counts.get(name, 0) + 1
            engine = _ENGINE.search(labels or "")
            of_engine = by_engine.setdefault(engine.group(1) if engine else "", {})
            of_engine[name] = of_engine.get(name, 0.0) + value
        self.known = _RUNNING[0] in sums
        self.running = int(_sum(sums, _RUNNING))
        self.waiting = int(_sum(sums, _WAITING))
        usages = [sums[name] / counts[name] for name in _KV_USAGE if name in sums]
        self.kv_cache_usage = round(usages[0], 4) if usages else None
        self.engines = {
            name: (int(_sum(values, _RUNNING + _WAITING)), _sum(values, _PROGRESS))
            for name, values in by_engine.items()
        }

    @property
    def in_flight(self) -> int:
        """Requests that are in the server."""
        return self.running + self.waiting

    @property
    def work(self) -> float:
        """A number that grows when any engine does something."""
        return sum(work for dummy, work in self.engines.values())

    def is_stuck_since(self, before: Metrics) -> bool:
        """Return whether an engine has had requests since an earlier look and has done nothing for them.

        Where none was in the server then, those that came since stand still when nothing at all has moved.
        """
        for name, (requests, work) in self.engines.items():
            had, did = before.engines.get(name, (0, 0.0))
            if requests and work == did and (had or (not before.in_flight and self.work == before.work)):
                return True
        return False


def _sum(values: Mapping[str, float], names: Iterable[str]) -> float:
    return sum(values.get(name, 0) for name in names)
