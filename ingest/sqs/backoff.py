"""Exponential back-off with full jitter."""

from __future__ import annotations

import random

RETRY_BASE_S = 0.5
"""Maximum first pause in seconds after a call of the queue that failed."""

RETRY_MAX_S = 30.0
"""Maximum pause in seconds after a call of the queue that failed, however often it did."""


def backoff_s(base_s: float, attempt: int, max_s: float) -> float:
    """Return a random pause in seconds, whose maximum doubles with each attempt.

    Args:
        base_s: Maximum pause after the first attempt.
        attempt: Number of attempts so far, at least 1.
        max_s: Maximum pause after any attempt.
    """
    return random.uniform(0, min(max_s, base_s * 2 ** min(attempt - 1, 32)))
