"""Exponential back-off with full jitter."""

from __future__ import annotations

import random

RETRY_BASE_S = 0.5


RETRY_MAX_S = 30.0
"""Back-off of calls of the queue that failed; that of jobs is a setting."""


def backoff_s(base_s: float, attempt: int, max_s: float) -> float:
    """Return a random time that grows with the attempts: exponential, with full jitter.

    Args:
        base_s: Upper limit of the first.
        attempt: From 1.
        max_s: Upper limit of all.
    """
    return random.uniform(0, min(max_s, base_s * 2 ** min(attempt - 1, 32)))
