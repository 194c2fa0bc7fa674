"""The waits of messages for a place that refuses, in which they keep their leases.

A message that waits costs no receive and holds no permit. While the breaker of its place is open,
the messages that wait take turns: one of them at a time tries the place.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from ingest.consumer.breakers import Breakers
from ingest.consumer.lease import Lease
from ingest.consumer.leases import Leases
from ingest.sqs.backoff import RETRY_MAX_S, backoff_s
from serve_app.config import QueueConfig
from serve_app.contracts.place import Place

_PROBE_MAX_S = 10.0
"""Longest pause, in seconds, between two attempts at a place whose breaker is open."""


class PlaceWaits:
    """The waits of one consumer. Belongs to one event loop."""

    def __init__(
        self,
        breakers: Breakers,
        leases: Leases,
        config: QueueConfig,
        clock: Callable[[], float],
    ) -> None:
        self._breakers = breakers
        self._leases = leases
        self._config = config
        self._clock = clock
        # A place is forgotten when no job waits for it: producers may name any number of buckets.
        self._turns: WeakValueDictionary[Place, asyncio.Lock] = WeakValueDictionary()
        self._waiting: Counter[Lease] = Counter()
        self._hurried = asyncio.Event()

    def __len__(self) -> int:
        """Return the number of messages with jobs that wait. They hold no permits."""
        return len(self._waiting)

    def hurry(self) -> None:
        """End every wait now."""
        self._hurried.set()

    @asynccontextmanager
    async def turn(
        self, place: Place, lease: Lease, attempt: int, *, has_job: bool = True
    ) -> AsyncIterator[bool]:
        """Wait until a place may be tried again, which the ``with`` block does.

        Args:
            place: Place that has refused.
            lease: Lease of the message that waits.
            attempt: Number of attempts so far.
            has_job: Whether a job of the message waits. A message whose jobs have ended, and whose
                outcomes wait to be stored, has returned its permit already.

        Yields:
            Whether to try again. The lease may have ended meanwhile, or a stop was requested.
        """
        self._breakers.begin_waiting(place)
        if has_job:
            self._waiting[lease] += 1
        try:
            async with self._turns.setdefault(place, asyncio.Lock()):
                given_up = self._breakers.is_given_up(place, self._clock())
                if self._breakers.is_open(place) and not given_up:
                    await self._pause(self._breakers.probe_number(place), _PROBE_MAX_S)
                    yield self._may_go_on(lease)
                    return
            if not given_up:
                await self._pause(attempt, RETRY_MAX_S)
            yield self._may_go_on(lease)
        finally:
            self._breakers.end_waiting(place)
            if has_job:
                self._waiting[lease] -= 1
                if not self._waiting[lease]:
                    del self._waiting[lease]

    def _may_go_on(self, lease: Lease) -> bool:
        in_time = self._clock() < lease.jobs_end_at
        return in_time and not self._hurried.is_set() and self._leases.holds(lease)

    async def _pause(self, attempt: int, max_s: float) -> None:
        longest_s = min(max_s, self._config.retry_max_s)
        try:
            async with asyncio.timeout(backoff_s(self._config.retry_base_s, attempt, longest_s)):
                await self._hurried.wait()
        except TimeoutError:
            return
