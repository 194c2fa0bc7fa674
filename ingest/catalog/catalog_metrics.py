"""The metrics of a catalog: its jobs by state, and how the database answers."""

from __future__ import annotations

from ingest.catalog.rows import JobCounts
from ingest.catalog.try_again import TryAgain
from serve_app.serving.metrics import (
    CATALOG_DATABASE_HEALTHY,
    CATALOG_JOBS,
    CATALOG_OLDEST_PENDING_SECONDS,
    CATALOG_REPETITIONS,
    CATALOG_STALE_JOBS,
    Metrics,
)

_STATES = (
    "pending",
    "processing",
    "completed",
    "failed",
    "queue_failed",
    "permanently_failed",
)
"""States that the application knows. Those without a job are 0, so that an alert can end."""


def record_counts(metrics: Metrics, counts: JobCounts) -> None:
    """Record the numbers of jobs."""
    for state, number in {**dict.fromkeys(_STATES, 0), **counts.by_state}.items():
        metrics.set(CATALOG_JOBS, number, state)
    metrics.set(CATALOG_OLDEST_PENDING_SECONDS, counts.oldest_pending_s or 0)
    metrics.set(CATALOG_STALE_JOBS, counts.stale)


def record_answer(metrics: Metrics, reason: str | None) -> None:
    """Record whether the database lets jobs work.

    Args:
        metrics: Metrics of the process.
        reason: Why it does not, or None if it does.
    """
    metrics.set(CATALOG_DATABASE_HEALTHY, reason is None)


def record_repetition(metrics: Metrics, again: TryAgain) -> None:
    """Record a transaction that was rolled back and is tried again."""
    metrics.add(CATALOG_REPETITIONS, 1, "rows_held" if again.contended else "connection_lost")
