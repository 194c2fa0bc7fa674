"""Who is admitted while the endpoint is busy: bounds that refuse at once and never let wait."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from serve_app.errors import Overloaded

_RETRY_MIN_S = 1
_RETRY_MAX_S = 30
# Weight of the newest stay in the mean of stays.
_NEWEST = 0.1


def _retry_after_s(stay_s: float) -> int:
    """Return when to ask again: after one or two mean stays.

    By then all who are here now have left. Not the same for everybody, or else all who were
    refused would come back together, and most of them be refused again.
    """
    return max(_RETRY_MIN_S, min(_RETRY_MAX_S, math.ceil(stay_s * random.uniform(1, 2))))


class ConcurrencyLimit:
    """A number of places, and how long they are kept. Belongs to one event loop."""

    def __init__(
        self, limit: int, setting: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Make free places.

        Args:
            limit: How many.
            setting: That says so, for the message of a refusal.
            clock: In seconds.
        """
        self._limit = limit
        self._setting = setting
        self._clock = clock
        self._taken = 0
        self._stay_s = 0.0

    @property
    def taken(self) -> int:
        """Places that are taken."""
        return self._taken

    def check(self) -> None:
        """Raise Overloaded where no place is free."""
        if self._taken >= self._limit:
            raise Overloaded(
                f"all {self._limit} places are taken ({self._setting})",
                _retry_after_s(self._stay_s),
            )

    @contextmanager
    def take(self) -> Iterator[None]:
        """Keep a place for as long as the context lasts.

        Raises:
            Overloaded: None is free.
        """
        self.check()
        self._taken += 1
        since = self._clock()
        try:
            yield
        finally:
            self._taken -= 1
            stay_s = self._clock() - since
            self._stay_s += (stay_s - self._stay_s) * (_NEWEST if self._stay_s else 1)


class ByteBudget:
    """A number of bytes that may be held at the same time. Belongs to one event loop."""

    def __init__(self, limit: int, setting: str) -> None:
        """Make an unused budget.

        Args:
            limit: In bytes.
            setting: That says so, for the message of a refusal.
        """
        self._limit = limit
        self._setting = setting
        self._held = 0

    @property
    def held(self) -> int:
        """Bytes that are held."""
        return self._held

    @contextmanager
    def open(self) -> Iterator[Callable[[int], None]]:
        """Yield a function that holds more bytes, until the context ends.

        The function raises Overloaded where they do not fit.
        """
        mine = 0

        def hold(count: int) -> None:
            nonlocal mine
            if self._held + count > self._limit:
                raise Overloaded(f"{self._held:,} bytes are being held ({self._setting})")
            self._held += count
            mine += count

        try:
            yield hold
        finally:
            self._held -= mine
