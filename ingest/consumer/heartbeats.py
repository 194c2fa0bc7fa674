"""Heartbeats: the extensions of leases whose messages are still worked on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence

from ingest.consumer.batched_calls import batches_of
from ingest.consumer.lease import Lease
from ingest.consumer.queue_health import QueueHealth
from ingest.sqs.call_times import beat_s, short_call_s
from ingest.sqs.queue import Queue
from serve_app.errors import QueueUnavailable

_logger = logging.getLogger(__name__)

_WORTH_S = 1.0
"""Seconds that an extension must gain."""


class Heartbeats:
    """Extends each lease a beat after the last time, and sooner again if that failed.

    A beat is at most a third of the visibility timeout. Leases are looked at four times in a beat.
    An extension that hangs ends within half a beat, so that another fits in before a lease expires.
    """

    def __init__(
        self,
        queue: Queue,
        health: QueueHealth,
        visibility_s: float,
        clock: Callable[[], float],
        on_lost: Callable[[Lease], None],
    ) -> None:
        """Start without extensions.

        Args:
            queue: Queue of the messages.
            health: Health of the queue.
            visibility_s: Visibility timeout in seconds.
            clock: Function that returns seconds and never goes back.
            on_lost: Called with a lease that SQS does not extend.
        """
        self._queue = queue
        self._health = health
        self._visibility_s = visibility_s
        self._clock = clock
        self._on_lost = on_lost
        self._calls: set[asyncio.Task[None]] = set()
        self.pause_s = beat_s(visibility_s) / 4
        """Seconds between two calls of ``beat``."""
        self.extended = 0
        """Number of extensions of single leases."""

    def beat(self, held: Iterable[Lease]) -> None:
        """Start to extend the leases whose time has come. ``held`` is in the order of receipt."""
        now = self._clock()
        due = [lease for lease in held if self._is_due(lease, now)]
        # Neighbours were received at about the same time, so a batch has one remaining time.
        for batch in batches_of(due):
            seconds = min(self._visibility_s, *(lease.hideable_s(now) for lease in batch))
            task = asyncio.create_task(self._extend(batch, seconds))
            self._calls.add(task)
            task.add_done_callback(self._calls.discard)
            for lease in batch:
                lease.heartbeat = task

    def close(self) -> None:
        """Cancel the extensions under way."""
        for task in self._calls:
            task.cancel()

    def _is_due(self, lease: Lease, now: float) -> bool:
        if lease.heartbeat is not None:
            return False
        aged = now - lease.extended_at >= beat_s(self._visibility_s) - self.pause_s / 2
        # SQS hides a message for twelve hours in all. At their end there is nothing to gain.
        return aged and now + lease.hideable_s(now) >= lease.expires_at + _WORTH_S

    async def _extend(self, batch: Sequence[Lease], seconds: float) -> None:
        called_at = self._clock()
        extend = self._queue.extend([lease.handle for lease in batch], seconds)
        try:
            limit_s = short_call_s(self._visibility_s)
            failed = await self._health.call("extend", extend, limit_s)
        except QueueUnavailable as error:
            # The leases are held until they expire. The next heartbeat may still be in time.
            _logger.warning("%s; leases not extended: %d", error.message, len(batch))
            return
        finally:
            for lease in batch:
                lease.heartbeat = None
        for lease in batch:
            if lease.handle in failed:
                self._on_lost(lease)
            else:
                lease.extended_at = called_at
                lease.expires_at = called_at + seconds
                self.extended += 1
