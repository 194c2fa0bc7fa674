"""From a message to its jobs, and from their outcomes to those that are recorded."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence

from ingest.messages.identity import identify_refused
from ingest.messages.parse import parse_off_loop
from ingest.sqs.dead_letters import earlier_job_id
from ingest.sqs.queue import Message
from serve_app.config import QueueConfig
from serve_app.contracts.job import AnyJob, EventJob
from serve_app.contracts.outcome import Outcome
from serve_app.error_text import visible
from serve_app.errors import PermanentError, SourceChanged, SourceNotFound

_logger = logging.getLogger(__name__)

_OUT_OF_DATE_CODES = {SourceNotFound.code, SourceChanged.code}


async def read_jobs(message: Message, config: QueueConfig) -> Sequence[AnyJob] | Outcome:
    """Return the jobs that a message asks for, or the failure of a message that is refused."""
    job_id = earlier_job_id(message.attributes) or message.message_id
    try:
        return await parse_off_loop(message.body, config, job_id)
    except PermanentError as error:
        identity = identify_refused(message.body, error, job_id)
        return Outcome.of_error(
            error,
            job_id=identity.job_id,
            run_id=identity.run_id,
            source=identity.source,
            receives=message.receive_count,
        )


async def run_current(job: AnyJob, run: Callable[[AnyJob], Awaitable[Outcome]]) -> Outcome:
    """Run a job, and that of an event again if its image was replaced meanwhile.

    What replaced the image usually has an event of its own, whose job then finds the result. If
    the bucket does not send that event, this one is all there is.

    Args:
        job: The job.
        run: Function that runs a job and returns its outcome.
    """
    outcome = await run(job)
    if isinstance(job, EventJob) and outcome.code == SourceChanged.code:
        return await run(job.of_present_content())
    return outcome


def recorded_outcomes(jobs: Sequence[AnyJob], outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Return the outcomes of the jobs that were still to be done.

    An event whose image was deleted before it was read asks for nothing any more.
    """
    kept = []
    for job, outcome in zip(jobs, outcomes, strict=True):
        # A bucket that is missing says nothing about one image of it.
        about_image = outcome.code in _OUT_OF_DATE_CODES and outcome.refused_by is None
        if about_image and isinstance(job, EventJob):
            text = "job %s: the event is out of date, so nothing is to do: %s"
            labels = {"job_id": job.job_id, "run_id": job.run_id}
            _logger.info(text, visible(job.job_id), outcome.message, extra=labels)
        else:
            kept.append(outcome)
    return kept
