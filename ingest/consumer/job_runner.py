"""Run one job of a message, retrying within a single SQS receive.

A replica that dies loses every image that it holds, and nothing shows which of them killed it. A
job whose replica is lost therefore runs again at once, from the same receive, while no other such
job runs. Only if its replica is lost again is the message released and its receive counted. An
image that kills replicas so uses up its own receives and nobody else's.

If a bucket or the models refuse, every job fails and none is to blame, whatever the answer says. A
job that a place refuses keeps its lease and runs again, until the place has served another job that
began later. If the place then refuses the job once more, it is the job's own fault. Until then it
has no verdict and costs its message no receive (``breakers``).
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ingest.consumer.breakers import Breakers
from ingest.consumer.lease import Lease
from ingest.consumer.place_waits import PlaceWaits
from serve_app.config import QueueConfig
from serve_app.contracts.job import AnyJob, Job
from serve_app.contracts.outcome import Outcome
from serve_app.contracts.place import Place
from serve_app.error_text import visible
from serve_app.errors import (
    DeadlineExceeded,
    ForeedgeError,
    InternalError,
    ModelUnavailable,
    Overloaded,
    ReplicaLost,
    SourceForbidden,
    StorageRejected,
    StorageUnavailable,
)

_logger = logging.getLogger(__name__)

_SUSPECTS_REMEMBERED = 1_000
_MODELS = Place("model")
_PIPELINE = Place("pipeline")
_STORE_CODES = {each.code for each in (StorageUnavailable, SourceForbidden, StorageRejected)}


@dataclass(slots=True, eq=False)
class _Run:
    """One job on its way to its outcome."""

    job: AnyJob
    lease: Lease
    waited_s: float = 0
    """Time in seconds that it has waited behind other jobs or for a place that refuses. It is its
    own, since the jobs of a message wait side by side."""


class JobRunner:
    """Runs the jobs of one consumer. Belongs to one event loop."""

    def __init__(
        self,
        process: Callable[[Any], Awaitable[Outcome]],
        config: QueueConfig,
        breakers: Breakers,
        waits: PlaceWaits,
        clock: Callable[[], float],
    ) -> None:
        self._process = process
        self._config = config
        self._breakers = breakers
        self._waits = waits
        self._clock = clock
        self._slots = asyncio.Semaphore(config.max_in_flight)
        self._isolation = asyncio.Lock()
        self._suspects: deque[str] = deque(maxlen=_SUSPECTS_REMEMBERED)
        self.alone = 0
        """Number of jobs that ran in isolation, because the replica that held them was lost."""

    async def run_job(self, job: AnyJob, lease: Lease) -> Outcome:
        """Run a job and return its outcome. Raises only if this task is cancelled."""
        run = _Run(job, lease)
        first_s = self._clock()
        outcome, place = await self._attempt(run)
        refused_s = self._clock()
        for attempt in itertools.count(1):
            if place is None or self._breakers.is_jobs_fault(place, first_s, self._clock()):
                return outcome
            waits_from_s = self._clock()
            async with self._waits.turn(place, lease, attempt) as may_try:
                if not may_try:
                    return _without_verdict(outcome)
                run.waited_s += self._clock() - waits_from_s
                has_served = self._breakers.has_served_since(place, refused_s)
                outcome, again = await self._attempt(run)
            if again == place and has_served:
                return outcome
            if again != place:
                place, refused_s = again, self._clock()
        raise AssertionError("unreachable")

    async def _attempt(self, run: _Run) -> tuple[Outcome, Place | None]:
        """Run a job once, and return its outcome and the place that refused it."""
        job = run.job
        began_s, waited_before_s = self._clock(), run.waited_s
        outcome = await self._run_isolating_suspects(run)
        now_s = self._clock()
        self._breakers.note_services(_places_that_served(job, outcome), began_s, now_s)
        if outcome.status == "skipped_existing":
            # The result was looked up, which does not show that images are read or results written.
            self._breakers.note_services(_buckets(job), began_s, now_s, conclusive=False)
        refusing = _place_that_refused(job, outcome)
        if refusing is not None:
            reason = f"{outcome.code}: {outcome.message}"
            self._breakers.note_refusal(refusing, job.job_id, reason, now_s)
            # The deadline is for what the job itself takes. Its waits for other jobs are a part of
            # the attempt.
            run.waited_s = waited_before_s + now_s - began_s
        return outcome, refusing

    async def _run_isolating_suspects(self, run: _Run) -> Outcome:
        """Run a job together with others, or in isolation if that loses its replica."""
        message_id = run.lease.message.message_id
        if message_id not in self._suspects:
            outcome = await self._call_in_time(run)
            if outcome.code != ReplicaLost.code:
                return outcome
        self.alone += 1
        waits_from = self._clock()
        async with self._isolation:
            run.waited_s += self._clock() - waits_from
            outcome = await self._call_in_time(run)
        if outcome.code == ReplicaLost.code:
            text = "job %s lost its replica while it ran in isolation"
            _logger.warning(text, visible(run.job.job_id), extra=_labels(run.job))
            self._suspects.append(message_id)
        return outcome

    def _ends_at(self, run: _Run) -> float:
        """Return when a job counts as failed, by the consumer's clock.

        A job that waits behind others is not charged for what those do.
        """
        limit_s = self._config.job_deadline_s + run.waited_s
        return min(run.lease.received_at + limit_s, run.lease.jobs_end_at)

    async def _call_in_time(self, run: _Run) -> Outcome:
        """Run a job once when there is room, within its deadline, and return errors as outcomes."""
        waits_from = self._clock()
        async with self._slots:
            now_s = self._clock()
            run.waited_s += now_s - waits_from
            deadline = asyncio.timeout(self._ends_at(run) - now_s)
            try:
                async with deadline:
                    outcome = await self._process(run.job)
            except ForeedgeError as raised:
                outcome = Outcome.failed(run.job, raised)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                # A call below this one was cancelled, and this task was not.
                error = InternalError("the call of the pipeline was cancelled")
                outcome = Outcome.failed(run.job, error)
            except Exception as raised:
                if deadline.expired():
                    outcome = Outcome.failed(run.job, self._deadline_exceeded(run))
                else:
                    text = "job %s failed unexpectedly"
                    _logger.exception(text, visible(run.job.job_id), extra=_labels(run.job))
                    error = InternalError(f"{type(raised).__name__}: {raised}")
                    outcome = Outcome.failed(run.job, error)
        receives = run.lease.message.receive_count
        # At its first delivery, which is that of most messages, there is nothing to change.
        if outcome.receive_count == receives:
            return outcome
        return outcome.model_copy(update={"receive_count": receives})

    def _deadline_exceeded(self, run: _Run) -> DeadlineExceeded:
        limit_s = self._ends_at(run) - run.lease.received_at - run.waited_s
        return DeadlineExceeded(
            f"no result within {limit_s:g} s of receipt, apart from the waits of the consumer "
            "(queue.job_deadline_s, and the twelve hours of SQS)"
        )


def _place_that_refused(job: AnyJob, outcome: Outcome) -> Place | None:
    """Return the place because of which a job failed, or None if the failure is of another kind."""
    if outcome.refused_by is not None or outcome.status != "failed":
        return outcome.refused_by
    # The call of the pipeline failed, or the pipeline is of a version that names no places.
    if outcome.code in _STORE_CODES and isinstance(job, Job):
        return Place.of_bucket("source", job.source.bucket)
    by_code = {ModelUnavailable.code: _MODELS, Overloaded.code: _PIPELINE}
    return by_code.get(outcome.code or "")


def _places_that_served(job: AnyJob, outcome: Outcome) -> Sequence[Place]:
    """Return the places that did their part of a job."""
    served = [*outcome.answered_by]
    if outcome.status != "failed" or outcome.retry == "permanent":
        served.append(_PIPELINE)
    if outcome.status == "done" and not served[:-1]:
        served += _buckets(job)
    if outcome.status == "done" or any(place.kind == "model" for place in served):
        served.append(_MODELS)
    return served


def _buckets(job: AnyJob) -> Sequence[Place]:
    if not isinstance(job, Job):
        return ()
    source = Place.of_bucket("source", job.source.bucket)
    return source, Place.of_bucket("output", job.output.bucket)


def _without_verdict(outcome: Outcome) -> Outcome:
    """Return an outcome after which the message is released, whatever the place has answered."""
    return outcome.model_copy(update={"retry": "transient"})


def _labels(job: AnyJob) -> dict[str, str]:
    return {"job_id": job.job_id, "run_id": job.run_id}
