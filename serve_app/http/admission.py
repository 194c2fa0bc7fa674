"""Admission control: limits on concurrency, bytes and rates that reject at once, never queue."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from serve_app.errors import Overloaded, RateLimited

Reserve = Callable[[int], None]
"""Function that counts further buffered bytes. Raises Overloaded when the buffer is full."""

_RETRY_MIN_S = 1
_RETRY_MAX_S = 30
# Weight of the latest duration in the moving average of how long a slot is kept.
_LATEST_WEIGHT = 0.1


def _retry_after_s(mean_s: float) -> int:
    """Return the seconds after which a rejected client should try again: one to two mean durations.

    By then, everything in progress now has finished. The value is random, because clients that were
    rejected together would otherwise return together, and most would be rejected again.
    """
    return max(_RETRY_MIN_S, min(_RETRY_MAX_S, math.ceil(mean_s * random.uniform(1, 2))))


class ConcurrencyLimit:
    """A fixed number of slots, and how long each is kept. Belongs to one event loop."""

    def __init__(
        self, limit: int, setting: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Create the limit with all slots free.

        Args:
            limit: Number of slots.
            setting: Name of the setting that holds the limit, for the error message.
            clock: Function that returns the time in seconds.
        """
        self._limit = limit
        self._setting = setting
        self._clock = clock
        self._taken = 0
        self._mean_s = 0.0

    @property
    def taken(self) -> int:
        """Number of slots in use."""
        return self._taken

    def check(self) -> None:
        """Raise Overloaded if no slot is free."""
        if self._taken >= self._limit:
            raise Overloaded(
                f"The server is busy: all {self._limit} slots are in use ({self._setting}). "
                "Try again later.",
                _retry_after_s(self._mean_s),
                self._setting,
            )

    @contextmanager
    def take(self) -> Iterator[None]:
        """Keep a slot for the duration of the context.

        Raises:
            Overloaded: No slot is free.
        """
        self.check()
        self._taken += 1
        started_at = self._clock()
        try:
            yield
        finally:
            self._taken -= 1
            kept_s = self._clock() - started_at
            self._mean_s += (kept_s - self._mean_s) * (_LATEST_WEIGHT if self._mean_s else 1)


class RequestRate:
    """A token bucket: requests per minute, of which a minute's may come at once.

    Belongs to one event loop.
    """

    def __init__(
        self, per_minute: int, owner: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Create the bucket, full.

        Args:
            per_minute: Requests per minute, and the size of the bucket.
            owner: Name of the one who sends the requests, for the error message.
            clock: Function that returns the time in seconds.
        """
        self._per_minute = per_minute
        self._owner = owner
        self._clock = clock
        self._tokens = float(per_minute)
        self._filled_at = clock()

    def take(self) -> None:
        """Count a request.

        Raises:
            RateLimited: The bucket is empty.
        """
        now = self._clock()
        gained = (now - self._filled_at) * self._per_minute / 60
        self._tokens = min(self._per_minute, self._tokens + gained)
        self._filled_at = now
        if self._tokens < 1:
            raise RateLimited(
                f"{self._owner} may send {self._per_minute:,} requests per minute "
                "(http.requests_per_minute). Try again later.",
                math.ceil((1 - self._tokens) * 60 / self._per_minute),
                "http.requests_per_minute",
            )
        self._tokens -= 1


class ByteBudget:
    """The number of bytes that may be buffered at the same time. Belongs to one event loop."""

    def __init__(self, limit: int, setting: str) -> None:
        """Create the budget with nothing reserved.

        Args:
            limit: Maximum number of bytes.
            setting: Name of the setting that holds the limit, for the error message.
        """
        self._limit = limit
        self._setting = setting
        self._reserved = 0

    @property
    def reserved(self) -> int:
        """Number of bytes in use."""
        return self._reserved

    @contextmanager
    def reservation(self) -> Iterator[Reserve]:
        """Yield a function that reserves bytes. The end of the context releases all of them.

        The function raises Overloaded if the bytes do not fit.
        """
        mine = 0

        def reserve(count: int) -> None:
            nonlocal mine
            if self._reserved + count > self._limit:
                raise Overloaded(
                    f"The server is busy: {self._reserved:,} of {self._limit:,} bytes of the "
                    f"upload buffer are in use ({self._setting}). Try again later.",
                    limit=self._setting,
                )
            self._reserved += count
            mine += count

        try:
            yield reserve
        finally:
            self._reserved -= mine
