"""The counters of a consumer."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from ingest.consumer.verdicts import error_of
from serve_app.contracts.outcome import Outcome
from serve_app.serving.recent_metrics import RecentFailure

Stored = tuple[str, str, str]
"""Status, error code and model of a stored outcome. Code and model may be empty."""


def describe_stored(outcome: Outcome) -> Stored:
    """Return what is counted of a stored outcome."""
    model = "" if outcome.cutout is None else outcome.cutout.model
    return outcome.status, error_of(outcome).code if outcome.status == "failed" else "", model


def describe_failure(outcome: Outcome) -> RecentFailure:
    """Return what the operations page says about a failed job."""
    error, source = error_of(outcome), outcome.source
    return RecentFailure(
        at_s=outcome.finished_at.timestamp(),
        way_in="queue",
        code=error.code,
        message=error.message,
        subject="" if source is None else f"s3://{source.bucket}/{source.key}",
        job_id=outcome.job_id,
        run_id=outcome.run_id,
    )


def count_failures(stored: Counter[Stored]) -> dict[str, int]:
    """Return the numbers of failures by their code."""
    failed: Counter[str] = Counter()
    for (status, code, _), number in stored.items():
        if status == "failed":
            failed[code] += number
    return dict(failed)


@dataclass(frozen=True, slots=True)
class ConsumerStats:
    """What a consumer has done since its start, and what it holds now."""

    received: int
    """Messages received."""
    receives: int
    """Receives that SQS answered."""
    empty_receives: int
    """Receives that found no message."""
    done: int
    """Jobs with a stored result, including those whose result existed already."""
    nothing_to_do: int
    """Messages without a job to be done: events of objects that are no images, or out of date."""
    failed: dict[str, int]
    """Jobs with a stored failure, by error code."""
    retried: dict[str, int]
    """Messages released because of a transient failure, by error code."""
    alone: int
    """Jobs that ran in isolation, because the replica that held them was lost."""
    released: int
    """Messages released, for any reason."""
    dead_lettered: int
    """Messages copied to the dead-letter queue."""
    lease_lost: int
    """Messages whose lease was lost before they were deleted or released."""
    deleted: int
    """Messages deleted."""
    heartbeats: int
    """Extensions of single leases."""
    in_flight: int
    """Messages whose jobs are running now, or wait for a place that refuses."""
    unsettled: int
    """Messages held now, whether their jobs are running or wait for the ledger or a deletion."""
    permits_free: int
    """Messages that could be dispatched now in addition. Those that wait need no permit."""
    oldest_received_s: float
    """Age, in seconds, of the oldest message of the last receive. 0 if it found none."""
    ledger_lag_s: float
    """Seconds for which the oldest outcome that is not stored has waited."""
