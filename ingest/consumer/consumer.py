"""The consumer: receives messages from a queue, runs their jobs, and acknowledges them.

One task carries each message through its states::

    received ─► dispatched ─┬─► done | permanent ─► recorded ─► (dead-lettered) ─► deleted
                            └─► transient ─► released with back-off
    at any time: lease lost (SQS may have given the message to another consumer)

The invariant: **a message is deleted only after the part of the ledger that holds its result is
stored.** ``Consumer._settle`` keeps it. If a consumer dies between two states, SQS delivers the
message again. To run a job twice is harmless, since its output key is a function of its input.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from ingest.consumer.breakers import Breakers
from ingest.consumer.job_runner import JobRunner
from ingest.consumer.lease import Acknowledge, Lease, Release, Verdict
from ingest.consumer.leases import Leases
from ingest.consumer.place_waits import PlaceWaits
from ingest.consumer.reading import read_jobs, recorded_outcomes, run_current
from ingest.consumer.receiving import Receiving
from ingest.consumer.recorder import Recorder
from ingest.consumer.room import Room
from ingest.consumer.stats import ConsumerStats, Stored, count_failures, describe_stored
from ingest.consumer.stop_times import CANCEL_S, StopTimes
from ingest.consumer.troubles import Trouble, find_troubles
from ingest.consumer.verdicts import (
    fatal_failure,
    judge,
    retry_later,
    transient_failure,
    unexpected_failure,
)
from ingest.runs.ledger import OutcomeSink
from ingest.sqs.queue import Message, Queue
from serve_app.config import QueueConfig
from serve_app.contracts.job import EventJob
from serve_app.contracts.outcome import Outcome
from serve_app.errors import ForeedgeError
from serve_app.serving.recent_metrics import MOST_FAILURES

_logger = logging.getLogger(__name__)


class Consumer:
    """Serves one queue until it is stopped. Belongs to one event loop, and runs once."""

    def __init__(
        self,
        queue: Queue,
        process: Callable[[Any], Awaitable[Outcome]],
        ledger: OutcomeSink,
        config: QueueConfig,
        *,
        part_records: int = 1_000,
        part_interval_s: float = 2,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make a consumer.

        Args:
            queue: Queue to receive from.
            process: Function that runs one job. It returns an outcome or raises a ForeedgeError.
            ledger: Sink that stores the outcomes.
            config: Permits, times and defaults.
            part_records: Number of records in a part of the ledger. Receiving pauses while two
                parts wait to be stored, so that an unavailable ledger cannot fill the memory.
            part_interval_s: Longest time, in seconds, that the ledger collects records of a part.
            clock: Function that returns seconds and never goes back.
        """
        self._queue = queue
        self._ledger = ledger
        self._config = config
        self._clock = clock
        self._leases = Leases(queue, config.visibility_timeout_s, clock, on_lost=self._abandon_jobs)
        patience = {"patience_s": config.job_deadline_s, "patience_with_one_s": config.retry_max_s}
        self._breakers = Breakers(config.max_in_flight, **patience)
        self._waits = PlaceWaits(self._breakers, self._leases, config, clock)
        self._runner = JobRunner(process, config, self._breakers, self._waits, clock)
        self._recorder = Recorder(ledger, self._breakers, self._waits, part_interval_s, clock)
        self._room = Room(
            config.max_in_flight, part_records, self._breakers, self._waits, self._recorder, clock
        )
        self._carrying: dict[Lease, asyncio.Task[None]] = {}
        self._dispatched: set[Lease] = set()
        self._changed = asyncio.Event()
        self._receiving = Receiving(
            self._leases,
            config.long_poll_s,
            lambda: self._room.worth(self._dispatched),
            lambda: 0 if self.fatal else self._room.messages(self._dispatched, self._carrying),
            self._accept,
            self._changed,
        )
        self._stopping = False
        self._running = False
        self._ended = asyncio.Event()
        self._nothing_to_do = 0
        self.stored: Counter[Stored] = Counter()
        """Numbers of outcomes that were stored."""
        self.failures: deque[Outcome] = deque(maxlen=MOST_FAILURES)
        """The last failures that were stored."""
        self._retried: Counter[str] = Counter()
        self.fatal: ForeedgeError | None = None
        """Error after which this process receives no more messages. Another process may succeed."""

    @property
    def stats(self) -> ConsumerStats:
        """Counters, and the messages that are held at this moment."""
        counts, failed = self._leases.counts, count_failures(self.stored)
        return ConsumerStats(
            received=counts["received"],
            receives=counts["receives"],
            empty_receives=counts["empty_receives"],
            done=self.stored.total() - sum(failed.values()),
            nothing_to_do=self._nothing_to_do,
            failed=failed,
            retried=dict(self._retried),
            alone=self._runner.alone,
            released=counts["released"],
            dead_lettered=counts["dead_lettered"],
            lease_lost=counts["lost"],
            deleted=counts["deleted"],
            heartbeats=counts["heartbeats"],
            in_flight=len(self._dispatched),
            unsettled=len(self._carrying),
            permits_free=self._room.permits_free(self._dispatched),
            oldest_received_s=self._leases.oldest_received_s,
            ledger_lag_s=self._recorder.lag_s,
        )

    @property
    def troubles(self) -> list[Trouble]:
        """What is wrong with what the consumer needs."""
        queue, ledger = self._leases.trouble, self._recorder.trouble
        return find_troubles(self.fatal, queue, ledger, self._breakers.refusing())

    @property
    def reason(self) -> str | None:
        """Reason why the consumer is not healthy, or None if it is."""
        return next((each.reason for each in self.troubles), None)

    @property
    def healthy(self) -> bool:
        """Whether messages are received and their jobs are run."""
        return self.reason is None

    async def run(self) -> None:
        """Serve the queue; return after ``stop``."""
        self._running = True
        try:
            async with asyncio.TaskGroup() as tasks:
                heartbeat = tasks.create_task(self._leases.keep_extending())
                receiving = tasks.create_task(self._receiving.run())
                await self._until(lambda: self._stopping)
                await self._drain(receiving)
                receiving.cancel()
                heartbeat.cancel()
        finally:
            for task in self._carrying.values():
                task.cancel()
            self._leases.close()
            self._ended.set()

    async def stop(self) -> None:
        """Stop receiving, finish what fits into the grace time, and release the rest."""
        if not self._stopping:
            self._stopping = True
            self._receiving.stop()
            # A long poll cannot be cancelled. If all consumers stop at once, as they do when the
            # application is deleted, each one's poll would receive the messages that the others
            # release, and SQS counts each receive against the message.
            polls_end_at = self._clock() + self._config.long_poll_s + CANCEL_S
            self._leases.hold_releases_until(polls_end_at)
        self._waits.hurry()
        self._changed.set()
        if self._running:
            await self._ended.wait()

    # received

    async def _accept(self, messages: Sequence[Message]) -> None:
        """Start a task for each received message."""
        self._breakers.note_sample(self._clock())
        leases = [self._leases.start(message) for message in messages]
        if self._stopping:
            await self._leases.release_now(leases)
            return
        for lease in leases:
            self._dispatched.add(lease)
            task = self._carrying[lease] = asyncio.create_task(self._carry(lease))
            # A task that is cancelled before its first step does not run its ``finally``.
            task.add_done_callback(partial(self._let_go, lease))

    async def _carry(self, lease: Lease) -> None:
        """Carry one message through its states."""
        message_id = lease.message.message_id
        try:
            outcomes = await self._dispatch(lease)
        except Exception as error:
            _logger.exception("message %s could not be dispatched", message_id)
            outcomes = [unexpected_failure(lease.message, error)]
        self._return_permit(lease)
        try:
            await self._settle(lease, outcomes)
        except Exception as error:
            _logger.exception("message %s could not be settled", message_id)
            await self._settle_after_defect(lease, outcomes, error)

    async def _settle_after_defect(
        self, lease: Lease, outcomes: Sequence[Outcome], error: Exception
    ) -> None:
        """Try a message again, or end it if this was its last receive.

        Without a redrive policy, SQS would deliver it indefinitely.
        """
        if lease.message.receive_count >= self._queue.max_receives:
            try:
                plain = [unexpected_failure(lease.message, error, each) for each in outcomes]
                await self._settle(lease, plain)
            except Exception:
                # A message is never deleted without a record, so this one stays.
                _logger.exception("message %s could not be failed", lease.message.message_id)
        await self._leases.settle(lease, self._retry_later(lease))

    def _abandon_jobs(self, lease: Lease) -> None:
        """Cancel the jobs of a lost lease, since another consumer may run them already.

        The permit is free when they have ended, and the pipeline has let their images go.
        """
        if lease in self._dispatched:
            self._carrying[lease].cancel()

    def _let_go(self, lease: Lease, task: asyncio.Task[None]) -> None:
        del self._carrying[lease]
        self._leases.forget(lease)
        self._return_permit(lease)

    def _return_permit(self, lease: Lease) -> None:
        self._dispatched.discard(lease)
        self._changed.set()

    # dispatched

    async def _dispatch(self, lease: Lease) -> list[Outcome]:
        """Run the jobs of a message, and return the outcome of each that is recorded."""
        jobs = await read_jobs(lease.message, self._config)
        if isinstance(jobs, Outcome):
            return [jobs]
        # This is most messages: one job, which is not an event's.
        if len(jobs) == 1 and not isinstance(jobs[0], EventJob):
            return [await self._runner.run_job(jobs[0], lease)]
        run = partial(self._runner.run_job, lease=lease)
        outcomes = await asyncio.gather(*[run_current(job, run) for job in jobs])
        return recorded_outcomes(jobs, outcomes)

    # done, permanent or transient

    async def _settle(self, lease: Lease, outcomes: Sequence[Outcome]) -> None:
        """Settle a message by the outcomes of its jobs: release it, or store them and delete it."""
        if not self._leases.holds(lease):
            return
        self._nothing_to_do += not outcomes
        verdict = self._judge(lease, outcomes)
        # Here and nowhere else: what is not released is stored first, and only then deleted.
        if not isinstance(verdict, Release) and not await self._store(outcomes, lease):
            verdict = self._retry_later(lease)
        await self._leases.settle(lease, verdict)

    def _judge(self, lease: Lease, outcomes: Sequence[Outcome]) -> Verdict:
        """Return what is to become of a message, and count it if it is tried again."""
        if "failed" not in [outcome.status for outcome in outcomes]:
            return Acknowledge()
        if (fatal := fatal_failure(outcomes)) is not None:
            self._stop_receiving(fatal)
        receives = lease.message.receive_count
        verdict = judge(outcomes, receives, self._queue.max_receives, self._config)
        transient = transient_failure(outcomes)
        if fatal is None and transient is not None and isinstance(verdict, Release):
            self._retried[transient.code] += 1
        return verdict

    async def _store(self, outcomes: Sequence[Outcome], lease: Lease) -> bool:
        """Return True once the outcomes are stored, or False if they cannot be."""
        if not await self._recorder.store(outcomes, lease):
            return False
        for outcome in outcomes:
            self.stored[describe_stored(outcome)] += 1
            if outcome.status == "failed":
                self.failures.append(outcome)
        return True

    def _retry_later(self, lease: Lease) -> Release:
        return retry_later(lease.message.receive_count, self._config)

    def _stop_receiving(self, error: ForeedgeError) -> None:
        if self.fatal is None:
            _logger.critical("no more messages are received: %s: %s", error.code, error.message)
            self.fatal = error

    # the end

    async def _drain(self, receiving: asyncio.Task[None]) -> None:
        """Finish what fits into the grace time, and release the rest."""
        times = StopTimes(self._config, self._clock())
        await self._until(lambda: not self._dispatched, self._config.stop_grace_s)
        if self._dispatched:
            # Jobs may still finish while their messages may not be released.
            await asyncio.sleep(self._leases.release_wait_s())
        given_up = await self._cancel(list(self._dispatched))
        releasing = asyncio.create_task(self._leases.release_now(given_up))
        closing = asyncio.create_task(self._ledger.close())
        settling = {releasing, closing, *self._carrying.values()}
        settle_s = times.settle_s(self._clock(), self._leases.release_wait_s())
        await asyncio.wait(settling, timeout=settle_s)
        await self._leases.release_now(await self._cancel(list(self._carrying)))
        closing.cancel()
        # The last poll may bring messages, which are released too.
        last_s = times.last_s(self._clock(), self._leases.release_wait_s())
        await asyncio.wait({releasing, closing, receiving}, timeout=last_s)

    async def _cancel(self, leases: list[Lease]) -> list[Lease]:
        """Cancel the tasks of messages, and return their leases."""
        tasks = [self._carrying[lease] for lease in leases]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=CANCEL_S)
        return leases

    async def _until(self, condition: Callable[[], bool], timeout_s: float | None = None) -> None:
        """Return when a condition holds, or after a time."""
        try:
            async with asyncio.timeout(timeout_s):
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return
