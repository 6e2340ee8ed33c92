# Copyright: (c) 2026, The llmops.vllm authors
# Apache License 2.0 (see LICENSE or https://www.apache.org/licenses/LICENSE-2.0)
"""When to ask a server again, and how long to wait before."""

from __future__ import annotations

import email.utils
import random
import time

# Too many requests, and what a server says that will be back; all others are meant as they are.
PASSING_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
# Seconds before the first retry, doubled for each further one, and the most of it.
FIRST_DELAY = 1.0
LONGEST_DELAY = 60.0
# The Hub counts its limits in windows of 5 minutes, so it asks for no longer pause than that:
# https://huggingface.co/docs/hub/rate-limits
LONGEST_RETRY_AFTER = 330.0


class Passing(Exception):
    """An attempt that failed in a way that may pass. retry_after: what the server asked for, or None."""

    def __init__(self, message: str, retry_after: str | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


def delay(attempt: int, retry_after: str | None = None, now: float | None = None) -> float:
    """Return the seconds to wait after the attempt of this number (from 1) has failed.

    retry_after: the header of that name, seconds or a date (RFC 9110, 10.2.3), or None. Half of
    the wait is random, so that the hosts of a fleet do not come back all at once.
    """
    asked = _seconds(retry_after, time.time() if now is None else now)
    if asked is not None:
        return min(asked, LONGEST_RETRY_AFTER) + random.uniform(0, FIRST_DELAY)
    return min(FIRST_DELAY * 2.0 ** (attempt - 1), LONGEST_DELAY) * random.uniform(0.5, 1)


def _seconds(retry_after: str | None, now: float) -> float | None:
    text = (retry_after or "").strip()
    if text.isdecimal():
        return float(text)
    try:
        return max(email.utils.parsedate_to_datetime(text).timestamp() - now, 0.0)
    except (TypeError, ValueError, OverflowError):
        return None
