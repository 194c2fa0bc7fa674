"""What is to become of a message, by the outcomes of its jobs."""

from __future__ import annotations

from collections.abc import Sequence

from ingest.consumer.lease import Acknowledge, DeadLetter, Release, Verdict
from ingest.messages.build import INVALID_RUN
from ingest.sqs.backoff import backoff_s
from ingest.sqs.queue import Message
from serve_app.config import QueueConfig
from serve_app.contracts.outcome import Outcome
from serve_app.errors import BY_CODE, ForeedgeError, InternalError, RunCancelled


def judge(
    outcomes: Sequence[Outcome], receives: int, max_receives: int, config: QueueConfig
) -> Verdict:
    """Return what is to become of a message, once the outcomes of its jobs are stored.

    Args:
        outcomes: Outcome of each job of the message.
        receives: Number of times that SQS has delivered the message.
        max_receives: Number of deliveries after which a message is not delivered again.
        config: Times of the back-off.
    """
    failed = [each for each in outcomes if each.status == "failed" and not _cancelled(each)]
    if any(outcome.retry == "fatal" for outcome in failed):
        return Release(0)
    if transient_failure(outcomes) is not None and receives < max_receives:
        return retry_later(receives, config)
    if not failed:
        return Acknowledge()
    error = error_of(failed[0])
    retry_delay_s = retry_later(receives, config).delay_s
    return DeadLetter(error.code, error.message, failed[0].job_id, retry_delay_s)


def _cancelled(outcome: Outcome) -> bool:
    """Return whether a job ended because its run is cancelled, which is nothing to repair."""
    return outcome.code == RunCancelled.code


def transient_failure(outcomes: Sequence[Outcome]) -> ForeedgeError | None:
    """Return the first error after which another attempt may succeed, or None."""
    return next((error_of(each) for each in outcomes if each.retry == "transient"), None)


def fatal_failure(outcomes: Sequence[Outcome]) -> ForeedgeError | None:
    """Return the first error that keeps the application from serving, or None."""
    return next((error_of(each) for each in outcomes if each.retry == "fatal"), None)


def retry_later(receives: int, config: QueueConfig) -> Release:
    """Return the release of a message that is to be tried again, with its back-off."""
    return Release(backoff_s(config.retry_base_s, receives, config.retry_max_s))


def unexpected_failure(
    message: Message, error: Exception, outcome: Outcome | None = None
) -> Outcome:
    """Return the outcome of a message on which the consumer itself failed.

    Args:
        message: The message.
        error: Error that no part of the consumer expects.
        outcome: Outcome that could not be settled, whose job is named. None if no job is known.
    """
    failure = Outcome.of_error(
        InternalError(f"{type(error).__name__}: {error}"),
        job_id=message.message_id if outcome is None else outcome.job_id,
        run_id=INVALID_RUN if outcome is None else outcome.run_id,
        source=None if outcome is None else outcome.source,
        receives=message.receive_count,
    )
    if outcome is None:
        return failure
    return failure.model_copy(update={"book_id": outcome.book_id, "image_id": outcome.image_id})


def error_of(outcome: Outcome) -> ForeedgeError:
    """Return the error that a failed outcome carries."""
    return BY_CODE.get(outcome.code or "", InternalError)(outcome.message or "")
