# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""What vLLM's metrics say of its work. Pure logic, for vLLM 0.4.2 to 0.33.0."""

from __future__ import annotations

import re

# name{label="value",...} number [timestamp]
_SAMPLE = re.compile(r"^(vllm:\w+)(?:\{.*\})? (\S+)(?: -?\d+)?$")
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

    running, waiting: requests; kv_cache_usage: fraction of the KV cache in use, or None; work: a
    number that grows with every step of the engine.
    known is False when the server counts nothing (started with disable_log_stats).
    """

    def __init__(self, text):
        sums, counts = {}, {}
        for line in text.splitlines():
            sample = _SAMPLE.match(line)
            if not sample:
                continue
            name = sample.group(1)
            try:
                sums[name] = sums.get(name, 0.0) + float(sample.group(2))
            except ValueError:
                continue
            counts[name] = counts.get(name, 0) + 1
        self.known = _RUNNING[0] in sums
        self.running = int(sum(sums.get(name, 0) for name in _RUNNING))
        self.waiting = int(sum(sums.get(name, 0) for name in _WAITING))
        self.work = sum(sums.get(name, 0) for name in _PROGRESS)
        usages = [sums[name] / counts[name] for name in _KV_USAGE if name in sums]
        self.kv_cache_usage = round(usages[0], 4) if usages else None

    @property
    def in_flight(self):
        """Requests that are in the server."""
        return self.running + self.waiting
