"""Leases: our hold on deliveries, for as long as SQS hides their messages from others.

Everything that a consumer asks of its queue goes through here, so this is also where it is known
how the queue does. A lease ends in one of three ways: its message is deleted, it is released, or
it is lost, because an extension failed or came too late; SQS may then have given the message to
somebody else, and what we know of it no longer counts.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from ingest.sqs.backoff import RETRY_BASE_S, RETRY_MAX_S, backoff_s
from ingest.sqs.limits import BATCH_ENTRIES
from ingest.sqs.queue import Message, Queue
from serve_app.errors import QueueUnavailable

T = TypeVar("T")

_logger = logging.getLogger(__name__)


_DELETE_LINGER_S = 0.05
_FAILURES_UNTIL_UNHEALTHY = 3


@dataclass(slots=True, eq=False)
class Lease:
    """Our hold on one delivery of a message."""

    message: Message
    received_at: float
    expires_at: float
    lost: bool = False
    released: bool = False
    deleted: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the deletion succeeded, or can no longer be tried."""

    @property
    def handle(self) -> str:
        """Names the delivery in calls of the queue."""
        return self.message.receipt_handle


class Leases:
    """The leases of one consumer: extended, released and deleted in batches."""

    def __init__(self, queue: Queue, visibility_s: int, clock: Callable[[], float]) -> None:
        self._queue = queue
        self._visibility_s = visibility_s
        self._clock = clock
        self._all: set[Lease] = set()
        self._deletions: list[Lease] = []
        self._deleting: set[asyncio.Task[None]] = set()
        self._failures: Counter[str] = Counter()
        self._trouble = ""
        self.counts: Counter[str] = Counter()
        """``received``, ``released``, ``lost``, ``deleted``, ``dead_lettered``, ``heartbeats``."""

    def __len__(self) -> int:
        return len(self._all)

    @property
    def trouble(self) -> str | None:
        """What is wrong with the queue, once a call has failed three times in a row."""
        failing = max(self._failures.values(), default=0) >= _FAILURES_UNTIL_UNHEALTHY
        return self._trouble if failing else None

    async def receive(self, max_messages: int, wait_s: int) -> list[Message]:
        """Return messages, which are not held yet; raises QueueUnavailable."""
        call = self._queue.receive(max_messages, wait_s, self._visibility_s)
        messages = await self._ask("receive", call)
        self.counts["received"] += len(messages)
        return messages

    def receive_pause_s(self) -> float:
        """Return how long to wait before the next receive, given how the last ones went."""
        return backoff_s(RETRY_BASE_S, self._failures["receive"], RETRY_MAX_S)

    def take(self, message: Message) -> Lease:
        """Hold a message that was received just now."""
        now = self._clock()
        lease = Lease(message, now, now + self._visibility_s)
        self._all.add(lease)
        return lease

    def forget(self, lease: Lease) -> None:
        """Hold a message no longer."""
        self.counts["lost"] += lease.lost and not lease.deleted
        self._all.discard(lease)

    def holds(self, lease: Lease) -> bool:
        """Return whether a lease is still ours; once lost, it stays lost."""
        if lease.released or lease.deleted:
            return False
        if self._clock() >= lease.expires_at:
            lease.lost = True
        return not lease.lost

    async def keep(self) -> None:
        """Extend every lease three times in each visibility time-out, for ever."""
        while True:
            held = [lease for lease in self._all if self.holds(lease)]
            extending = [self._extend(batch) for batch in _batches(held)]
            await asyncio.gather(asyncio.sleep(self._visibility_s / 3), *extending)

    async def release(self, lease: Lease, delay_s: float) -> None:
        """Let a message be delivered again after ``delay_s``; never raises."""
        if not self.holds(lease):
            return
        # Before the call: a heartbeat in between would hide the message again.
        lease.released = True
        self.counts["released"] += 1
        try:
            await self._ask("release", self._queue.release(lease.message, delay_s))
        except QueueUnavailable as error:
            _logger.warning("%s; the message comes back when its lease ends", error.message)

    async def release_now(self, leases: Sequence[Lease]) -> None:
        """Let messages be delivered again at once; never raises."""
        held = [lease for lease in leases if self.holds(lease)]
        for batch in _batches(held):
            for lease in batch:
                lease.released = True
            self.counts["released"] += len(batch)
            handles = [lease.handle for lease in batch]
            try:
                await self._ask("release", self._queue.extend(handles, 0))
            except QueueUnavailable as error:
                _logger.warning("%s; the messages come back when their leases end", error.message)

    async def dead_letter(self, lease: Lease, code: str, reason: str, job_id: str) -> bool:
        """Put a message where its failure can be looked at; return whether it may be deleted."""
        send = self._queue.dead_letter(lease.message, code, reason, job_id)
        try:
            self.counts["dead_lettered"] += await self._ask("dead_letter", send)
        except QueueUnavailable as error:
            _logger.warning("%s; the message is given back", error.message)
            return False
        return True

    async def delete(self, lease: Lease) -> bool:
        """Delete a message together with others; return whether it is gone."""
        if not self.holds(lease):
            return False
        self._deletions.append(lease)
        if len(self._deletions) >= BATCH_ENTRIES:
            self._delete_waiting()
        elif len(self._deletions) == 1:
            asyncio.get_running_loop().call_later(_DELETE_LINGER_S, self._delete_waiting)
        await lease.ended.wait()
        return lease.deleted

    def close(self) -> None:
        """Give up deletions that are still being tried."""
        for task in self._deleting:
            task.cancel()

    def _delete_waiting(self) -> None:
        batch, self._deletions = self._deletions, []
        if batch:
            task = asyncio.create_task(self._delete_batch(batch))
            self._deleting.add(task)
            task.add_done_callback(self._deleting.discard)

    async def _delete_batch(self, batch: list[Lease]) -> None:
        """Delete messages; try again those that fail for as long as their leases live."""
        attempt = 0
        while batch := [lease for lease in batch if self._still_to_delete(lease)]:
            if attempt:
                await asyncio.sleep(backoff_s(RETRY_BASE_S, attempt, RETRY_MAX_S))
            attempt += 1
            handles = [lease.handle for lease in batch]
            try:
                failed = await self._ask("delete", self._queue.delete(handles))
            except QueueUnavailable as error:
                _logger.warning("%s; again", error.message)
                continue
            for lease in batch:
                if lease.handle not in failed:
                    lease.deleted = True
                    self.counts["deleted"] += 1

    def _still_to_delete(self, lease: Lease) -> bool:
        if self.holds(lease):
            return True
        lease.ended.set()
        return False

    async def _extend(self, batch: Sequence[Lease]) -> None:
        asked_at = self._clock()
        handles = [lease.handle for lease in batch]
        try:
            # A call that takes longer than a beat must not keep the next beat waiting.
            async with asyncio.timeout(self._visibility_s / 3):
                failed = await self._ask("extend", self._queue.extend(handles, self._visibility_s))
        except (QueueUnavailable, TimeoutError) as error:
            # The leases live until they expire: the next heartbeat may still be in time.
            _logger.warning("%s; %d leases were not extended", error, len(batch))
            return
        for lease in batch:
            if lease.handle in failed:
                lease.lost = True
            else:
                lease.expires_at = asked_at + self._visibility_s
                self.counts["heartbeats"] += 1

    async def _ask(self, what: str, call: Awaitable[T]) -> T:
        """Await a call of the queue, and keep account of how the queue does."""
        try:
            answer = await call
        except QueueUnavailable as error:
            self._failures[what] += 1
            self._trouble = f"{error.code}: {error.message}"
            raise
        self._failures[what] = 0
        return answer


def _batches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), BATCH_ENTRIES):
        yield items[start : start + BATCH_ENTRIES]
