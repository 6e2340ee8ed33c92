"""Tests of how long one waits before a server is asked again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from ansible_collections.llmops.vllm.plugins.module_utils import _retry

NOW = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("attempt", "retry_after", "least", "most"),
    [
        (1, None, 0.5, 1),
        (2, None, 1, 2),
        (5, None, 8, 16),
        (50, None, 30, 60),
        (1, "0", 0, 1),
        (1, "17", 17, 18),
        (5, " 17 ", 17, 18),
        (1, "86400", 330, 331),
        (1, format_datetime(NOW + timedelta(seconds=40), usegmt=True), 40, 41),
        (1, format_datetime(NOW - timedelta(seconds=40), usegmt=True), 0, 1),
        (1, "soon", 0.5, 1),
        (1, "-3", 0.5, 1),
        (1, "\xb2", 0.5, 1),
        (1, "1e3", 0.5, 1),
        (1, "9" * 400, 330, 331),
        (1, "Sat, 99 Foo 2026 12:00:00 GMT", 0.5, 1),
        (1, "", 0.5, 1),
    ],
)
def test_delay(
    attempt: int, retry_after: str | None, least: float, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_retry, "FIRST_DELAY", 1.0)
    delays = [_retry.delay(attempt, retry_after, NOW.timestamp()) for _number in range(50)]
    assert least <= min(delays) and max(delays) <= most
    assert len(set(delays)) > 1, "the hosts of a fleet would come back all at once"


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_what_passes(status: int) -> None:
    assert status in _retry.PASSING_STATUS


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 416, 501])
def test_what_does_not_pass(status: int) -> None:
    assert status not in _retry.PASSING_STATUS
