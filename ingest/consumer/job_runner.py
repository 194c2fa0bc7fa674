"""Attempts: how one job of a message is done, within one receive of it.

A replica that dies takes every image with it that it holds, and nothing tells which of them
killed it. So a job whose replica is lost is done again at once, from the same receive, in a lane
where one such job runs at a time. Only a job whose replica is lost there, too, has its message
released and its receive counted: an image that kills replicas uses up its own receives and no
one else's.

Where the store or the models are away, every job fails and none is to blame. A job that fails so
while no other one succeeds keeps its lease and its permit and is done again after a back-off:
what waits on the queue is not taken, and an outage costs no message its receives.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable

from ingest.consumer.leases import Lease, Leases
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
_SURROUNDINGS = {error.code for error in (StorageUnavailable, ModelUnavailable, Overloaded)}
"""What fails whatever the job is, as a rule."""


class JobRunner:
    """Has the jobs of one consumer done. Belongs to one event loop."""

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
        self._lane = asyncio.Lock()
        self._suspects: deque[str] = deque(maxlen=_SUSPECTS_REMEMBERED)
        self._succeeded_at = -math.inf
        self._hurried = asyncio.Event()
        self.alone = 0
        """Jobs that were run alone, since a replica was lost that held them."""
        self._waiting: set[int] = set()
        self._outage = ""

    @property
    def outage(self) -> str | None:
        """Why jobs wait to be done again; None where none does, or one has succeeded since."""
        return self._outage or None if self._waiting else None

    def hurry(self) -> None:
        """Let no job wait for the end of an outage any more."""
        self._hurried.set()

    async def make(self, job: Job, lease: Lease) -> Outcome:
        """Return how a job ended; raises only where this task is cancelled."""
        try:
            return await self._make(job, lease)
        finally:
            self._waiting.discard(id(job))

    async def _make(self, job: Job, lease: Lease) -> Outcome:
        since = self._clock()
        for number in itertools.count(1):
            began_at = self._clock()
            outcome = await self._run(job, lease)
            if outcome.status != "failed":
                self._succeeded_at, self._outage = self._clock(), ""
                return outcome
            if outcome.code not in _SURROUNDINGS or self._succeeded_at >= since:
                return outcome
            since = began_at
            self._waiting.add(id(job))
            self._outage = f"{outcome.code}: {outcome.message}"
            most_s = min(RETRY_MAX_S, self._config.retry_max_s)
            await self._pause(backoff_s(self._config.retry_base_s, number, most_s))
            late = self._clock() >= lease.received_at + self._config.job_deadline_s
            if late or self._hurried.is_set() or not self._leases.holds(lease):
                return outcome
        raise AssertionError("unreachable")

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._hurried.wait()
        except TimeoutError:
            return

    async def _run(self, job: Job, lease: Lease) -> Outcome:
        """Do a job beside others, and alone where that has lost its replica."""
        message_id = lease.message.message_id
        if message_id not in self._suspects:
            outcome = await self._once(job, lease)
            if outcome.code != ReplicaLost.code:
                return outcome
        self.alone += 1
        async with self._lane:
            outcome = await self._once(job, lease)
        if outcome.code == ReplicaLost.code:
            text = "job %s lost its replica when it ran alone"
            _logger.warning(text, job.job_id, extra=_labels(job))
            self._suspects.append(message_id)
        return outcome

    async def _once(self, job: Job, lease: Lease) -> Outcome:
        error: ForeedgeError
        limit_s = self._config.job_deadline_s
        deadline = asyncio.timeout(lease.received_at + limit_s - self._clock())
        try:
            async with deadline, self._slots:
                outcome = await self._process(job)
        except ForeedgeError as raised:
            outcome = Outcome.failed(job, raised)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Something below us was cancelled, and we were not.
            outcome = Outcome.failed(job, InternalError("the job was cancelled from below"))
        except Exception as raised:
            if deadline.expired():
                error = DeadlineExceeded(
                    f"no result within {limit_s:g} s of receipt (queue.job_deadline_s)"
                )
            else:
                _logger.exception("job %s failed unexpectedly", job.job_id, extra=_labels(job))
                error = InternalError(f"{type(raised).__name__}: {raised}")
            outcome = Outcome.failed(job, error)
        return outcome.model_copy(update={"receive_count": lease.message.receive_count})


def _labels(job: Job) -> dict[str, str]:
    return {"job_id": job.job_id, "run_id": job.run_id}
