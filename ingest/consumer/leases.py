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
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from ingest.consumer.batched_calls import BatchedCalls, batches_of
from ingest.consumer.heartbeats import Heartbeats
from ingest.consumer.lease import (
    LONGEST_LEASE_S,
    Acknowledge,
    DeadLetter,
    Lease,
    Release,
    Verdict,
)
from ingest.consumer.queue_health import RECEIVE, QueueHealth
from ingest.sqs.backoff import RETRY_BASE_S, RETRY_MAX_S, backoff_s
from ingest.sqs.call_times import receive_limit_s, short_call_s
from ingest.sqs.queue import Message, Queue
from serve_app.errors import QueueUnavailable

_logger = logging.getLogger(__name__)

_RECEIVE_RETRY_MAX_S = 15.0
"""Longest pause in seconds after a receive that failed. With the longest call it stays below the
half minute in which a queue that answers again is noticed."""

RELEASES_S = 3.0
"""Time in seconds that a consumer that stops spends on giving messages back."""
_DELIVERED_LATER = "SQS delivers them when their leases expire"


class Leases:
    """The leases of one consumer, extended, released and deleted in batches."""

    def __init__(
        self,
        queue: Queue,
        visibility_s: int,
        clock: Callable[[], float],
        *,
        on_lost: Callable[[Lease], None] = lambda _: None,
    ) -> None:
        """Start without leases.

        Args:
            queue: Queue of the messages.
            visibility_s: Visibility timeout in seconds.
            clock: Function that returns seconds and never goes back.
            on_lost: Called once with each lease that is lost.
        """
        self._queue = queue
        self._visibility_s = visibility_s
        self._short_call_s = short_call_s(visibility_s)
        self._clock = clock
        self._on_lost = on_lost
        self._health = QueueHealth(clock)
        self._heartbeats = Heartbeats(queue, self._health, visibility_s, clock, self._lose)
        # A dictionary keeps the order of receipt, by which heartbeats form their batches.
        self._all: dict[Lease, None] = {}
        self._releases_from = -math.inf
        self._deletions: BatchedCalls[Lease] = BatchedCalls(self._delete_batch)
        self._releases: BatchedCalls[tuple[Lease, float]] = BatchedCalls(self._release_batch)
        self._counts: Counter[str] = Counter()
        self.oldest_received_s = 0.0
        """Age, in seconds, of the oldest message of the last receive. 0 if it found none."""

    @property
    def counts(self) -> Counter[str]:
        """Numbers of messages, calls and extensions, by what became of them."""
        return self._counts | Counter(heartbeats=self._heartbeats.extended)

    @property
    def trouble(self) -> str | None:
        """What is wrong with the queue: silence, or three failures in a row of one kind of call."""
        return self._health.trouble(holding=bool(self._all))

    async def receive(self, max_messages: int, wait_s: int) -> list[Message]:
        """Receive messages, for which ``start`` begins a lease.

        Args:
            max_messages: Maximum number of messages.
            wait_s: Time in seconds to wait for messages. After a failure it is 0, so that a queue
                that does not answer is left soon, and one that answers again is noticed soon.

        Raises:
            QueueUnavailable: The queue does not answer, or refuses.
        """
        if self._health.failures(RECEIVE):
            wait_s = 0
        limit_s = receive_limit_s(wait_s) if wait_s else self._short_call_s
        call = self._queue.receive(max_messages, wait_s, self._visibility_s)
        messages = await self._health.call(RECEIVE, call, limit_s)
        self._counts["receives"] += 1
        self._counts["empty_receives"] += not messages
        self._counts["received"] += len(messages)
        self.oldest_received_s = _oldest_s(messages)
        return messages

    def receive_pause_s(self) -> float:
        """Return how long to wait before the next receive, or 0 if the last one succeeded."""
        failures = self._health.failures(RECEIVE)
        return backoff_s(RETRY_BASE_S, failures, _RECEIVE_RETRY_MAX_S) if failures else 0.0

    def start(self, message: Message) -> Lease:
        """Start the lease of a message that was received just now."""
        now = self._clock()
        lease = Lease(message, now, now + min(self._visibility_s, LONGEST_LEASE_S), now)
        self._all[lease] = None
        return lease

    def forget(self, lease: Lease) -> None:
        """Stop extending a lease."""
        if lease.lost and not lease.deleted:
            self._counts["lost"] += 1
        self._all.pop(lease, None)

    def holds(self, lease: Lease) -> bool:
        """Return whether a lease has not ended. A lost lease stays lost."""
        if lease.released or lease.deleted:
            return False
        if self._clock() >= lease.expires_at:
            self._lose(lease)
        return not lease.lost

    async def keep_extending(self) -> None:
        """Extend every lease before it expires, until cancelled."""
        while True:
            self._heartbeats.beat([lease for lease in list(self._all) if self.holds(lease)])
            await asyncio.sleep(self._heartbeats.pause_s)

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
        """Let SQS deliver messages again without delay, in as many calls at once as it takes.

        Failures of the queue do not raise. What cannot be released within three seconds is
        delivered when its lease expires.
        """
        await asyncio.sleep(self.release_wait_s())
        held = [(lease, 0.0) for lease in leases if self.holds(lease)]
        for lease, _ in held:
            lease.released = True
        if calls := [asyncio.create_task(self._release_batch(b)) for b in batches_of(held)]:
            _, late = await asyncio.wait(calls, timeout=RELEASES_S)
            for call in late:
                call.cancel()
            if late:
                text = "the queue did not take back messages of %d calls within %g s; %s"
                _logger.warning(text, len(late), RELEASES_S, _DELIVERED_LATER)

    def close(self) -> None:
        """Cancel every call that is still being tried."""
        for calls in (self._deletions, self._releases, self._heartbeats):
            calls.close()

    async def _take_step(self, lease: Lease, step: Verdict) -> Verdict | None:
        """Take one step of a verdict, and return the next step, or None after the last one."""
        match step:
            case Acknowledge():
                self._deletions.add(lease)
                await lease.ended.wait()
                return None
            case DeadLetter():
                copied = await self._copy_to_dead_letters(lease, step)
                return Acknowledge() if copied else Release(step.retry_delay_s)
            case Release(delay_s):
                if wait_s := self.release_wait_s():
                    await asyncio.sleep(wait_s)
                    return step  # The lease may have been lost during the wait.
                # Marked before the call, so that no heartbeat begins that would follow it.
                lease.released = True
                self._releases.add((lease, delay_s))
                await lease.ended.wait()
                return None

    async def _release_batch(self, batch: Sequence[tuple[Lease, float]]) -> None:
        # A heartbeat that is under way would hide the messages again if it came second.
        if under_way := {lease.heartbeat for lease, _ in batch if lease.heartbeat is not None}:
            await asyncio.wait(under_way)
        now = self._clock()
        delays_s = {
            lease.handle: min(delay_s, lease.hideable_s(now))
            for lease, delay_s in batch
            if not lease.lost
        }
        try:
            if delays_s:
                release = self._queue.release(delays_s)
                failed = await self._health.call("release", release, self._short_call_s)
                self._counts["released"] += len(delays_s) - len(failed)
                if failed:
                    text = "SQS refused to take back %d messages; %s"
                    _logger.warning(text, len(failed), _DELIVERED_LATER)
        except QueueUnavailable as error:
            text = "%s; messages not released: %d; %s"
            _logger.warning(text, error.message, len(delays_s), _DELIVERED_LATER)
        finally:
            for lease, _ in batch:
                lease.ended.set()

    async def _copy_to_dead_letters(self, lease: Lease, verdict: DeadLetter) -> bool:
        """Copy a message to the dead-letter queue, and return whether it may be deleted now.

        It may be deleted without a copy if there is no dead-letter queue.
        """
        send = self._queue.dead_letter(lease.message, verdict.code, verdict.reason, verdict.job_id)
        try:
            copied = await self._health.call("dead_letter", send, self._short_call_s)
        except QueueUnavailable as error:
            _logger.warning("%s; the message is released", error.message)
            return False
        self._counts["dead_lettered"] += copied
        return True

    async def _delete_batch(self, batch: list[Lease]) -> None:
        """Delete messages, and try again those that fail for as long as their leases are held."""
        attempt = 0
        while batch := [lease for lease in batch if self._still_to_delete(lease)]:
            if attempt:
                await asyncio.sleep(backoff_s(RETRY_BASE_S, attempt, RETRY_MAX_S))
            attempt += 1
            delete = self._queue.delete([lease.handle for lease in batch])
            try:
                failed = await self._health.call("delete", delete, self._short_call_s)
            except QueueUnavailable as error:
                _logger.warning("%s; the deletion is tried again", error.message)
                continue
            for lease in batch:
                if lease.handle not in failed:
                    lease.deleted = True
                    self._counts["deleted"] += 1

    def _still_to_delete(self, lease: Lease) -> bool:
        if self.holds(lease):
            return True
        lease.ended.set()
        return False

    def _lose(self, lease: Lease) -> None:
        if not lease.lost:
            lease.lost = True
            self._on_lost(lease)


def _oldest_s(messages: Sequence[Message]) -> float:
    if not messages:
        return 0.0
    sent_at = min(message.sent_at for message in messages)
    return max(0.0, (datetime.now(UTC) - sent_at).total_seconds())
