"""Visibility leases: keep received messages hidden from other consumers until each one ends.

A lease ends in one of three ways: its message is deleted, its message is released, or the lease is
lost because an extension failed or came too late. SQS may give the message of a lost lease to
another consumer, so what this consumer knows about it no longer counts.

All calls of a consumer to its queue go through this module, which therefore also knows whether the
queue works.
"""

from __future__ import annotations

import asyncio
import logging
import math
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
    """This consumer's hold on one delivery of a message."""

    message: Message
    received_at: float
    """Time of the receive, in seconds of the consumer's clock."""
    expires_at: float
    """Time at which SQS makes the message visible again, in seconds of the consumer's clock."""
    lost: bool = False
    released: bool = False
    deleted: bool = False
    deletion_ended: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the deletion has succeeded or can no longer be tried."""

    @property
    def handle(self) -> str:
        """Receipt handle, which names the delivery in calls of the queue."""
        return self.message.receipt_handle


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """Verdict on a message whose outcomes are stored: delete it."""


@dataclass(frozen=True, slots=True)
class Release:
    """Verdict on a message that is to be tried again: let SQS deliver it."""

    delay_s: float
    """Seconds until SQS may deliver the message."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Verdict on a message with a stored failure: copy it to the dead-letter queue, delete it."""

    code: str
    """Error code of the failure."""
    reason: str
    """Text of the failure."""
    job_id: str
    """Id of the job that failed."""
    retry_delay_s: float
    """Seconds until SQS may deliver the message again if it cannot be copied."""


Verdict = Acknowledge | Release | DeadLetter


class Leases:
    """The leases of one consumer, extended, released and deleted in batches."""

    def __init__(self, queue: Queue, visibility_s: int, clock: Callable[[], float]) -> None:
        self._queue = queue
        self._visibility_s = visibility_s
        self._clock = clock
        self._all: set[Lease] = set()
        self._releases_from = -math.inf
        self._deletions: list[Lease] = []
        self._deleting: set[asyncio.Task[None]] = set()
        self._failures: Counter[str] = Counter()
        self._last_failure = ""
        self.counts: Counter[str] = Counter()
        """``received``, ``released``, ``lost``, ``deleted``, ``dead_lettered``, ``heartbeats``."""

    def __len__(self) -> int:
        return len(self._all)

    @property
    def trouble(self) -> str | None:
        """What is wrong with the queue, after three failures in a row of one kind of call."""
        failing = max(self._failures.values(), default=0) >= _FAILURES_UNTIL_UNHEALTHY
        return self._last_failure if failing else None

    async def receive(self, max_messages: int, wait_s: int) -> list[Message]:
        """Receive messages, for which ``start`` begins a lease. Raises QueueUnavailable."""
        call = self._queue.receive(max_messages, wait_s, self._visibility_s)
        messages = await self._call_queue("receive", call)
        self.counts["received"] += len(messages)
        return messages

    def receive_pause_s(self) -> float:
        """Return how long to wait before the next receive, by the failures of the last ones."""
        return backoff_s(RETRY_BASE_S, self._failures["receive"], RETRY_MAX_S)

    def start(self, message: Message) -> Lease:
        """Start the lease of a message that was received just now."""
        now = self._clock()
        lease = Lease(message, now, now + self._visibility_s)
        self._all.add(lease)
        return lease

    def forget(self, lease: Lease) -> None:
        """Stop extending a lease."""
        self.counts["lost"] += lease.lost and not lease.deleted
        self._all.discard(lease)

    def holds(self, lease: Lease) -> bool:
        """Return whether a lease has not ended. A lost lease stays lost."""
        if lease.released or lease.deleted:
            return False
        if self._clock() >= lease.expires_at:
            lease.lost = True
        return not lease.lost

    async def keep_extending(self) -> None:
        """Extend every lease three times in each visibility timeout, until cancelled."""
        while True:
            held = [lease for lease in self._all if self.holds(lease)]
            extending = [self._extend(batch) for batch in _batches(held)]
            await asyncio.gather(asyncio.sleep(self._visibility_s / 3), *extending)

    # verdicts

    async def settle(self, lease: Lease, verdict: Verdict) -> None:
        """Carry out a verdict step by step, for as long as the lease is held.

        Failures of the queue do not raise: the message is delivered again when its lease expires.
        Each step may take long, and a lease may be lost meanwhile. This is why it is checked here,
        before every step, and nowhere else on the way.
        """
        step: Verdict | None = verdict
        while step is not None and self.holds(lease):
            step = await self._take_step(lease, step)

    def hold_releases_until(self, at: float) -> None:
        """Release no message before a time, in seconds of the consumer's clock."""
        self._releases_from = at

    def release_wait_s(self) -> float:
        """Return the seconds until messages may be released, which is 0 if they may be now."""
        return max(0.0, self._releases_from - self._clock())

    async def release_now(self, leases: Sequence[Lease]) -> None:
        """Let SQS deliver messages again without delay. Failures of the queue do not raise."""
        await asyncio.sleep(self.release_wait_s())
        held = [lease for lease in leases if self.holds(lease)]
        for batch in _batches(held):
            handles = [lease.handle for lease in batch]
            await self._release(batch, self._queue.extend(handles, 0))

    def close(self) -> None:
        """Cancel the deletions that are still being tried."""
        for task in self._deleting:
            task.cancel()

    async def _take_step(self, lease: Lease, step: Verdict) -> Verdict | None:
        """Take one step of a verdict, and return the next step, or None after the last one."""
        match step:
            case Acknowledge():
                await self._delete(lease)
                return None
            case DeadLetter():
                copied = await self._copy_to_dead_letters(lease, step)
                return Acknowledge() if copied else Release(step.retry_delay_s)
            case Release(delay_s):
                if wait_s := self.release_wait_s():
                    await asyncio.sleep(wait_s)
                    return step  # The lease may have been lost during the wait.
                await self._release([lease], self._queue.release(lease.message, delay_s))
                return None

    async def _release(self, leases: Sequence[Lease], call: Awaitable[object]) -> None:
        # Marked before the call, since a heartbeat during it would hide the messages again.
        for lease in leases:
            lease.released = True
        self.counts["released"] += len(leases)
        try:
            await self._call_queue("release", call)
        except QueueUnavailable as error:
            text = "%s; messages not released: %d. SQS delivers them when their leases expire"
            _logger.warning(text, error.message, len(leases))

    async def _copy_to_dead_letters(self, lease: Lease, verdict: DeadLetter) -> bool:
        """Copy a message to the dead-letter queue, and return whether it may be deleted now.

        It may be deleted without a copy if there is no dead-letter queue.
        """
        send = self._queue.dead_letter(lease.message, verdict.code, verdict.reason, verdict.job_id)
        try:
            self.counts["dead_lettered"] += await self._call_queue("dead_letter", send)
        except QueueUnavailable as error:
            _logger.warning("%s; the message is released", error.message)
            return False
        return True

    async def _delete(self, lease: Lease) -> None:
        """Delete a message together with others and return when it is deleted or no longer held."""
        self._deletions.append(lease)
        if len(self._deletions) >= BATCH_ENTRIES:
            self._start_deletion()
        elif len(self._deletions) == 1:
            asyncio.get_running_loop().call_later(_DELETE_LINGER_S, self._start_deletion)
        await lease.deletion_ended.wait()

    def _start_deletion(self) -> None:
        batch, self._deletions = self._deletions, []
        if batch:
            task = asyncio.create_task(self._delete_batch(batch))
            self._deleting.add(task)
            task.add_done_callback(self._deleting.discard)

    async def _delete_batch(self, batch: list[Lease]) -> None:
        """Delete messages, and try again those that fail for as long as their leases are held."""
        attempt = 0
        while batch := [lease for lease in batch if self._still_to_delete(lease)]:
            if attempt:
                await asyncio.sleep(backoff_s(RETRY_BASE_S, attempt, RETRY_MAX_S))
            attempt += 1
            handles = [lease.handle for lease in batch]
            try:
                failed = await self._call_queue("delete", self._queue.delete(handles))
            except QueueUnavailable as error:
                _logger.warning("%s; the deletion is tried again", error.message)
                continue
            for lease in batch:
                if lease.handle not in failed:
                    lease.deleted = True
                    self.counts["deleted"] += 1

    def _still_to_delete(self, lease: Lease) -> bool:
        if self.holds(lease):
            return True
        lease.deletion_ended.set()
        return False

    # heartbeats

    async def _extend(self, batch: Sequence[Lease]) -> None:
        called_at = self._clock()
        handles = [lease.handle for lease in batch]
        try:
            # A call that takes longer than a beat must not delay the next beat.
            async with asyncio.timeout(self._visibility_s / 3):
                extend = self._queue.extend(handles, self._visibility_s)
                failed = await self._call_queue("extend", extend)
        except (QueueUnavailable, TimeoutError) as error:
            # The leases are held until they expire. The next heartbeat may still be in time.
            _logger.warning(
                "%s; leases not extended: %d", str(error) or "extending took too long", len(batch)
            )
            return
        for lease in batch:
            if lease.handle in failed:
                lease.lost = True
            else:
                lease.expires_at = called_at + self._visibility_s
                self.counts["heartbeats"] += 1

    async def _call_queue(self, kind: str, call: Awaitable[T]) -> T:
        """Await a call of the queue, and keep count of the failures in a row of its kind."""
        try:
            answer = await call
        except QueueUnavailable as error:
            self._failures[kind] += 1
            self._last_failure = f"{error.code}: {error.message}"
            raise
        self._failures[kind] = 0
        return answer


def _batches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), BATCH_ENTRIES):
        yield items[start : start + BATCH_ENTRIES]
