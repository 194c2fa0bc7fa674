"""The consumer: takes messages from a queue, has their jobs done, and acknowledges them.

One task carries each message through its states::

    received ─► dispatched ─┬─► done | permanent ─► recorded ─► (dead-lettered) ─► deleted
                            └─► transient ─► released with back-off
    at any time: lease_lost (SQS may have given the message to somebody else)

What holds at every moment: **a message is deleted only after the part of the ledger that holds
its result is stored.** Whatever dies between two states leaves a message that is delivered again;
doing a job twice is harmless, since its output key is a function of its input.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from ingest.consumer.job_runner import JobRunner
from ingest.consumer.leases import Lease, Leases
from ingest.messages.build import INVALID_RUN
from ingest.messages.parse import parse_message
from ingest.runs.ledger import OutcomeSink
from ingest.sqs.backoff import backoff_s
from ingest.sqs.limits import BATCH_ENTRIES
from ingest.sqs.queue import Message, Queue
from serve_app.config import QueueConfig
from serve_app.contracts.job import Job
from serve_app.contracts.outcome import Outcome
from serve_app.errors import (
    BY_CODE,
    ForeedgeError,
    InternalError,
    PermanentError,
    QueueUnavailable,
)

T = TypeVar("T")

_logger = logging.getLogger(__name__)


_SETTLE_S = 5.0
_CANCEL_S = 1.0


@dataclass(frozen=True, slots=True)
class ConsumerStats:
    """What a consumer has done since it began, and what it holds now."""

    received: int
    """Messages."""
    done: int
    """Jobs whose result is recorded; skipped ones too."""
    failed: dict[str, int]
    """Jobs whose failure is recorded, by code."""
    retried: dict[str, int]
    """Messages given back because of a transient failure, by code."""
    alone: int
    """Jobs that were run alone, since a replica was lost that held them."""
    released: int
    """Messages given back, for whatever reason."""
    dead_lettered: int
    lease_lost: int
    deleted: int
    """Messages."""
    heartbeats: int
    """Leases extended."""
    in_flight: int
    """Messages whose jobs are with the pipeline now."""
    unsettled: int
    """Messages held now: in flight, or waiting for the ledger or for their deletion."""
    permits_free: int


class Consumer:
    """Serves one queue until it is stopped. Belongs to one event loop; runs once."""

    def __init__(
        self,
        queue: Queue,
        process: Callable[[Job], Awaitable[Outcome]],
        ledger: OutcomeSink,
        config: QueueConfig,
        *,
        part_records: int = 1_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make a consumer.

        Args:
            queue: Where messages come from.
            process: Does one job; returns its outcome, or raises a ForeedgeError.
            ledger: Where outcomes are recorded.
            config: Permits, times and defaults.
            part_records: Size of the ledger's parts: two of them may wait to be stored before
                pulling pauses, so that a ledger that is away cannot fill the memory.
            clock: Seconds; never goes back.
        """
        self._queue = queue
        self._ledger = ledger
        self._config = config
        self._clock = clock
        self._leases = Leases(queue, config.visibility_timeout_s, clock)
        self._max_unsettled = 2 * part_records + config.max_in_flight
        # A receive costs as much for one message as for ten: not one for each permit that is free.
        self._worth_a_receive = max(1, min(BATCH_ENTRIES, config.max_in_flight // 4))
        self._attempts = JobRunner(process, config, self._leases, clock)
        self._carrying: dict[Lease, asyncio.Task[None]] = {}
        self._dispatched: set[Lease] = set()
        self._changed = asyncio.Event()
        self._stop_at = math.inf
        """When a stop was first asked for."""
        self._running = False
        self._ended = asyncio.Event()
        self._done = 0
        self._failed: Counter[str] = Counter()
        self._retried: Counter[str] = Counter()
        self.fatal: ForeedgeError | None = None
        """Why no more messages are taken, for good; another process may do better."""

    @property
    def stats(self) -> ConsumerStats:
        """The counters and what is held, at this moment."""
        counts = self._leases.counts
        return ConsumerStats(
            received=counts["received"],
            done=self._done,
            failed=dict(self._failed),
            retried=dict(self._retried),
            alone=self._attempts.alone,
            released=counts["released"],
            dead_lettered=counts["dead_lettered"],
            lease_lost=counts["lost"],
            deleted=counts["deleted"],
            heartbeats=counts["heartbeats"],
            in_flight=len(self._dispatched),
            unsettled=len(self._carrying),
            permits_free=self._config.max_in_flight - len(self._dispatched),
        )

    @property
    def reason(self) -> str | None:
        """Why the consumer is not healthy; None where it is."""
        if self.fatal is not None:
            return f"{self.fatal.code}: {self.fatal.message}"
        return self._leases.trouble or self._attempts.outage

    @property
    def healthy(self) -> bool:
        """Whether messages are being taken."""
        return self.reason is None

    @property
    def _stopping(self) -> bool:
        return self._stop_at < math.inf

    async def run(self) -> None:
        """Serve the queue; return after ``stop``."""
        self._running = True
        try:
            async with asyncio.TaskGroup() as tasks:
                heartbeat = tasks.create_task(self._leases.keep())
                pulling = tasks.create_task(self._pull())
                await self._until(lambda: self._stopping)
                await self._drain(pulling)
                pulling.cancel()
                heartbeat.cancel()
        finally:
            for task in self._carrying.values():
                task.cancel()
            self._leases.close()
            self._ended.set()

    async def stop(self) -> None:
        """Take no more messages, end what fits in the grace time, and give the rest back."""
        self._stop_at = min(self._stop_at, self._clock())
        self._attempts.hurry()
        self._changed.set()
        if self._running:
            await self._ended.wait()

    # received

    async def _pull(self) -> None:
        try:
            while not self._stopping:
                if self._room() < self._worth_a_receive:
                    await self._until(
                        lambda: self._stopping or self._room() >= self._worth_a_receive
                    )
                    continue
                try:
                    messages = await self._leases.receive(self._room(), self._config.long_poll_s)
                except QueueUnavailable as error:
                    pause_s = self._leases.receive_pause_s()
                    _logger.warning("%s; again in %.1f s", error.message, pause_s)
                    await self._until(lambda: self._stopping, pause_s)
                    continue
                await self._take(messages)
        finally:
            self._changed.set()

    def _room(self) -> int:
        """Return how many messages may be pulled."""
        if self.fatal is not None:
            return 0
        permits = self._config.max_in_flight - len(self._dispatched)
        return max(0, min(BATCH_ENTRIES, permits, self._max_unsettled - len(self._carrying)))

    async def _take(self, messages: Sequence[Message]) -> None:
        leases = [self._leases.take(message) for message in messages]
        if self._stopping:
            await self._polls_over()
            await self._leases.release_now(leases)
            return
        for lease in leases:
            self._dispatched.add(lease)
            task = self._carrying[lease] = asyncio.create_task(self._carry(lease))
            # A task that is cancelled before its first step runs no ``finally``.
            task.add_done_callback(partial(self._let_go, lease))

    async def _carry(self, lease: Lease) -> None:
        """Take one message through its states."""
        try:
            outcomes = await self._dispatch(lease)
            self._give_permit_back(lease)
            await self._settle(lease, outcomes)
        except Exception:
            _logger.exception("message %s could not be settled", lease.message.message_id)
            await self._release(lease, self._retry_delay_s(lease))

    def _let_go(self, lease: Lease, task: asyncio.Task[None]) -> None:
        del self._carrying[lease]
        self._leases.forget(lease)
        self._give_permit_back(lease)

    def _give_permit_back(self, lease: Lease) -> None:
        self._dispatched.discard(lease)
        self._changed.set()

    # dispatched

    async def _dispatch(self, lease: Lease) -> list[Outcome]:
        """Return how each job of a message ended, in this attempt."""
        message = lease.message
        try:
            jobs = parse_message(message.body, self._config)
        except PermanentError as error:
            unread = Outcome(
                job_id=message.message_id,
                run_id=INVALID_RUN,
                status="failed",
                code=error.code,
                message=error.message,
                retry=error.retry,
                receive_count=message.receive_count,
            )
            return [unread]
        return await _all([self._attempts.make(job, lease) for job in jobs])

    # done, permanent or transient

    async def _settle(self, lease: Lease, outcomes: Sequence[Outcome]) -> None:
        """Release a message, or record its jobs' outcomes and delete it."""
        if not self._leases.holds(lease):
            return
        failed = [outcome for outcome in outcomes if outcome.status == "failed"]
        for outcome in failed:
            if outcome.retry == "fatal":
                self._end_for_good(_error_of(outcome))
                await self._release(lease, 0)
                return
        passing = [outcome for outcome in failed if outcome.retry == "transient"]
        if passing and lease.message.receive_count < self._queue.max_receives:
            self._retried[_error_of(passing[0]).code] += 1
            await self._release(lease, self._retry_delay_s(lease))
            return

        if not await self._record(outcomes):
            await self._release(lease, self._retry_delay_s(lease))
            return
        if failed and self._leases.holds(lease):
            first = _error_of(failed[0])
            job_id = failed[0].job_id
            if not await self._leases.dead_letter(lease, first.code, first.message, job_id):
                await self._release(lease, self._retry_delay_s(lease))
                return
        await self._leases.delete(lease)

    async def _record(self, outcomes: Sequence[Outcome]) -> bool:
        """Return once the outcomes are stored; False where the ledger refuses them."""
        try:
            await _all([self._ledger.record(outcome) for outcome in outcomes])
        except ForeedgeError as error:
            # Not the messages' fault: to go on would send a whole queue to its dead letters.
            self._end_for_good(error)
            return False
        for outcome in outcomes:
            if outcome.status == "failed":
                self._failed[_error_of(outcome).code] += 1
            else:
                self._done += 1
        return True

    async def _release(self, lease: Lease, delay_s: float) -> None:
        await self._polls_over()
        await self._leases.release(lease, delay_s)

    def _end_for_good(self, error: ForeedgeError) -> None:
        if self.fatal is None:
            _logger.critical("no more messages are taken: %s: %s", error.code, error.message)
            self.fatal = error

    def _retry_delay_s(self, lease: Lease) -> float:
        config = self._config
        return backoff_s(config.retry_base_s, lease.message.receive_count, config.retry_max_s)

    # the end

    async def _drain(self, pulling: asyncio.Task[None]) -> None:
        """End what fits in the grace time, and give the rest back."""
        await self._until(lambda: not self._dispatched, self._config.stop_grace_s)
        if self._dispatched:
            await self._polls_over()
            await self._give_back(list(self._dispatched))

        closing = asyncio.create_task(self._ledger.close())
        settling = {closing, *self._carrying.values()}
        await asyncio.wait(settling, timeout=self._polls_left_s() + _SETTLE_S)
        await self._give_back(list(self._carrying))
        closing.cancel()
        # What the last poll brings is given back, too.
        await asyncio.wait({closing, pulling}, timeout=self._polls_left_s() + _CANCEL_S)

    async def _give_back(self, leases: Sequence[Lease]) -> None:
        """Cancel what is being done for leases, and let others have their messages at once."""
        tasks = [self._carrying[lease] for lease in leases]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_CANCEL_S)
        await self._leases.release_now(leases)

    async def _polls_over(self) -> None:
        """While stopping, return once every long poll has ended that was begun before.

        None can be called off. Where all consumers stop at once, as when an application is
        deleted, the polls of each would receive what the others give back, and SQS counts each
        receive against the message.
        """
        if self._stopping:
            await asyncio.sleep(self._polls_left_s())

    def _polls_left_s(self) -> float:
        return max(0.0, self._stop_at + self._config.long_poll_s + _CANCEL_S - self._clock())

    async def _until(self, condition: Callable[[], bool], timeout_s: float | None = None) -> None:
        """Return when a condition holds, or after a time."""
        try:
            async with asyncio.timeout(timeout_s):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return


async def _all(calls: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Await calls at the same time; a single one, as in nearly every message, without a task."""
    return [await calls[0]] if len(calls) == 1 else await asyncio.gather(*calls)


def _error_of(outcome: Outcome) -> ForeedgeError:
    """Return the error that a failed outcome tells of."""
    return BY_CODE.get(outcome.code or "", InternalError)(outcome.message or "")
