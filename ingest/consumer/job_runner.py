"""Run one job of a message, retrying within a single SQS receive.

A replica that dies loses every image that it holds, and nothing shows which of them killed it. A
job whose replica is lost therefore runs again at once, from the same receive, while no other such
job runs. Only if its replica is lost again is the message released and its receive counted. An
image that kills replicas so uses up its own receives and nobody else's.

If the store or the models are unavailable, every job fails and none is to blame. A job that fails
in such a way while no other job succeeds keeps its lease and its permit, and runs again after a
back-off. No further messages are received meanwhile, and an outage costs no message its receives.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable

from ingest.consumer.lease import Lease
from ingest.consumer.leases import Leases
from ingest.sqs.backoff import RETRY_MAX_S, backoff_s
from serve_app.config import QueueConfig
from serve_app.contracts.job import Job
from serve_app.contracts.outcome import Outcome
from serve_app.errors import (
    DeadlineExceeded,
    ForeedgeError,
    InternalError,
    ModelUnavailable,
    Overloaded,
    ReplicaLost,
    StorageUnavailable,
)

_logger = logging.getLogger(__name__)

_SUSPECTS_REMEMBERED = 1_000
_OUTAGE_CODES = {error.code for error in (StorageUnavailable, ModelUnavailable, Overloaded)}
"""Codes of errors that usually have nothing to do with the job."""


class JobRunner:
    """Runs the jobs of one consumer. Belongs to one event loop."""

    def __init__(
        self,
        process: Callable[[Job], Awaitable[Outcome]],
        config: QueueConfig,
        leases: Leases,
        clock: Callable[[], float],
    ) -> None:
        self._process = process
        self._config = config
        self._leases = leases
        self._clock = clock
        self._slots = asyncio.Semaphore(config.max_in_flight)
        self._isolation = asyncio.Lock()
        self._suspects: deque[str] = deque(maxlen=_SUSPECTS_REMEMBERED)
        self._succeeded_at = -math.inf
        self._hurried = asyncio.Event()
        self._waiting: set[int] = set()
        self._last_outage = ""
        self.alone = 0
        """Number of jobs that ran in isolation, because the replica that held them was lost."""

    @property
    def outage(self) -> str | None:
        """Reason why jobs wait to run again, or None if none waits or one has succeeded since."""
        return self._last_outage or None if self._waiting else None

    def hurry(self) -> None:
        """Let no job wait for the end of an outage any more."""
        self._hurried.set()

    async def run_job(self, job: Job, lease: Lease) -> Outcome:
        """Run a job and return its outcome. Raises only if this task is cancelled."""
        try:
            return await self._run_through_outage(job, lease)
        finally:
            self._waiting.discard(id(job))

    async def _run_through_outage(self, job: Job, lease: Lease) -> Outcome:
        """Run a job again for as long as an outage lasts and the lease and the deadline allow."""
        since = self._clock()
        for attempt in itertools.count(1):
            began_at = self._clock()
            outcome = await self._run_isolating_suspects(job, lease)
            if outcome.status != "failed":
                self._succeeded_at, self._last_outage = self._clock(), ""
                return outcome
            if outcome.code not in _OUTAGE_CODES or self._succeeded_at >= since:
                return outcome
            since = began_at
            self._waiting.add(id(job))
            self._last_outage = f"{outcome.code}: {outcome.message}"
            max_s = min(RETRY_MAX_S, self._config.retry_max_s)
            await self._pause(backoff_s(self._config.retry_base_s, attempt, max_s))
            late = self._clock() >= self._ends_at(lease)
            if late or self._hurried.is_set() or not self._leases.holds(lease):
                return outcome
        raise AssertionError("unreachable")

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._hurried.wait()
        except TimeoutError:
            return

    async def _run_isolating_suspects(self, job: Job, lease: Lease) -> Outcome:
        """Run a job together with others, or in isolation if that loses its replica."""
        message_id = lease.message.message_id
        if message_id not in self._suspects:
            outcome = await self._call_pipeline(job, lease)
            if outcome.code != ReplicaLost.code:
                return outcome
        self.alone += 1
        waits_from = self._clock()
        async with self._isolation:
            lease.waited_s += self._clock() - waits_from
            outcome = await self._call_pipeline(job, lease)
        if outcome.code == ReplicaLost.code:
            text = "job %s lost its replica while it ran in isolation"
            _logger.warning(text, job.job_id, extra=_labels(job))
            self._suspects.append(message_id)
        return outcome

    def _ends_at(self, lease: Lease) -> float:
        """Return when the jobs of a message count as failed, by the consumer's clock.

        A job that waits behind others is not charged for what those do.
        """
        limit_s = self._config.job_deadline_s + lease.waited_s
        return min(lease.received_at + limit_s, lease.jobs_end_at)

    async def _call_pipeline(self, job: Job, lease: Lease) -> Outcome:
        """Run a job once, when there is room for it."""
        waits_from = self._clock()
        async with self._slots:
            lease.waited_s += self._clock() - waits_from
            return await self._call_in_time(job, lease)

    async def _call_in_time(self, job: Job, lease: Lease) -> Outcome:
        """Run a job once, within its deadline, and return errors as a failed outcome."""
        error: ForeedgeError
        deadline = asyncio.timeout(self._ends_at(lease) - self._clock())
        try:
            async with deadline:
                outcome = await self._process(job)
        except ForeedgeError as raised:
            outcome = Outcome.failed(job, raised)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # A call below this one was cancelled, and this task was not.
            outcome = Outcome.failed(job, InternalError("the call of the pipeline was cancelled"))
        except Exception as raised:
            if deadline.expired():
                limit_s = self._ends_at(lease) - lease.received_at - lease.waited_s
                error = DeadlineExceeded(
                    f"no result within {limit_s:g} s of receipt, apart from waiting behind other "
                    "jobs (queue.job_deadline_s, and the twelve hours of SQS)"
                )
            else:
                _logger.exception("job %s failed unexpectedly", job.job_id, extra=_labels(job))
                error = InternalError(f"{type(raised).__name__}: {raised}")
            outcome = Outcome.failed(job, error)
        return outcome.model_copy(update={"receive_count": lease.message.receive_count})


def _labels(job: Job) -> dict[str, str]:
    return {"job_id": job.job_id, "run_id": job.run_id}
