"""Tests of what vLLM's metrics say; the texts are those of vLLM 0.4 to 0.33."""

from __future__ import annotations

import pytest

from ansible_collections.llmops.vllm.plugins.module_utils._metrics import Metrics

NEW = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a {b} c"} 2.0
vllm:num_requests_running{engine="1",model_name="a"} 1.0
vllm:num_requests_waiting{engine="0",model_name="a"} 4.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="a",reason="capacity"} 4.0
vllm:kv_cache_usage_perc{engine="0",model_name="a"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="a"} 0.5
vllm:prompt_tokens_total{engine="0",model_name="a"} 74.0
vllm:prompt_tokens_created{engine="0",model_name="a"} 1.7954864412591853e+09
vllm:generation_tokens_total{engine="0",model_name="a"} 16.0
vllm:iteration_tokens_total_bucket{engine="0",le="1.0",model_name="a"} 14.0
vllm:iteration_tokens_total_count{engine="0",model_name="a"} 16.0
vllm:iteration_tokens_total_sum{engine="0",model_name="a"} 90.0
vllm:request_success_total{engine="0",finished_reason="stop",model_name="a"} 2.0
python_gc_objects_collected_total{generation="0"} 12.0
"""
OLD = """\
vllm:num_requests_running{model_name="a"} 1.0
vllm:num_requests_swapped{model_name="a"} 2.0
vllm:num_requests_waiting{model_name="a"} 4.0
vllm:gpu_cache_usage_perc{model_name="a"} 0.125 1700000000000
vllm:prompt_tokens_total{model_name="a"} 1e3
vllm:generation_tokens_total{model_name="a"} NaN?
"""


def test_engines_are_added() -> None:
    metrics = Metrics(NEW)
    assert (metrics.known, metrics.running, metrics.waiting, metrics.in_flight) == (True, 3, 4, 7)
    assert metrics.kv_cache_usage == 0.375
    assert metrics.work == 74 + 16 + 90 + 2


def test_v0() -> None:
    metrics = Metrics(OLD)
    assert (metrics.known, metrics.running, metrics.waiting, metrics.kv_cache_usage) == (True, 1, 6, 0.125)
    assert metrics.work == 1000


@pytest.mark.parametrize("text", ["", "<html>", "python_info 1.0\n", "vllm:num_requests_running"])
def test_a_server_that_counts_nothing(text: str) -> None:
    metrics = Metrics(text)
    assert (metrics.known, metrics.in_flight, metrics.work, metrics.kv_cache_usage) == (False, 0, 0, None)


def test_a_number_that_is_none_does_not_count() -> None:
    assert Metrics('vllm:num_requests_running NaN\nvllm:num_requests_waiting{engine="0"} +Inf\n').known is False


def engines(**of: tuple[int, int]) -> Metrics:
    """Engines by name: how many requests each has, and how many tokens it has made."""
    lines = [
        f'vllm:num_requests_running{{engine="{name}"}} {requests}\n'
        f'vllm:generation_tokens_total{{engine="{name}"}} {made}'
        for name, (requests, made) in of.items()
    ]
    return Metrics("\n".join(lines))


@pytest.mark.parametrize(
    ("before", "now", "stuck"),
    [
        ({"a": (1, 5)}, {"a": (1, 6)}, False),
        ({"a": (1, 5)}, {"a": (1, 5)}, True),
        ({"a": (1, 5)}, {"a": (0, 5)}, False),
        # One of them works, the other does not.
        ({"a": (1, 5), "b": (1, 5)}, {"a": (1, 9), "b": (1, 5)}, True),
        # What has just come to one of them has had no time.
        ({"a": (1, 5), "b": (0, 5)}, {"a": (1, 9), "b": (1, 5)}, False),
        # Our own request, with nobody else.
        ({"a": (0, 5), "b": (0, 5)}, {"a": (0, 5), "b": (1, 5)}, True),
        ({"a": (0, 5), "b": (0, 5)}, {"a": (0, 6), "b": (1, 5)}, False),
    ],
)
def test_an_engine_that_stands_still(before: dict, now: dict, stuck: bool) -> None:
    assert engines(**now).is_stuck_since(engines(**before)) is stuck
