"""The rows of jobs that need a message: what was never sent, what was lost, and what failed.

Each function is a part of one transaction, as in ``rows``. A row is locked with SKIP LOCKED, so
that two sweeps, ours or the application's, never wait for each other and never send a row twice.

How often a lost job was sent again is counted in ``queue_retry_count``. The application counts
there how often it tried to send a ``queue_failed`` job, sets it back to 0 once that is sent, and
never reads it in another state.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Connection,
    Interval,
    Select,
    and_,
    bindparam,
    func,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy import tuple_ as row_of
from sqlalchemy.exc import IntegrityError

from ingest.catalog.rows import RUN_MARK, failed_values
from ingest.catalog.sql_errors import UNIQUE_VIOLATION, sqlstate_of
from ingest.catalog.tables import ACTIVE, JOBS

MOST_RESENDS = 3
"""Number of times that a lost job is sent again."""
ABANDONED = "abandoned"
"""Code of a job that was sent again as often as is allowed, and never ended."""
UNDER_WAY = "superseded"
"""Code of a job that was not sent, because another job for its image is active."""
UNDER_WAY_MESSAGE = "another job for the same image is active"

_NEVER = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which jobs need a message."""

    lost_after_s: float
    """Time, in seconds, after which the message of a job that waits counts as lost."""
    stale_after_s: float
    """Time, in seconds, after which no worker works on a job that was taken."""
    lost: bool = True
    """Whether lost jobs are wanted. Otherwise only those that were never sent are."""
    permanently_failed: bool = False
    """Whether jobs are wanted that the application has given up to send."""
    failed: bool = False
    """Whether jobs are wanted that have failed."""
    code: str | None = None
    """Code of those failures. None for all, except those that were left to another job."""

    def condition(self) -> ColumnElement[bool]:
        """Return the condition on the row of a job."""
        states = ["queue_failed", *(["permanently_failed"] if self.permanently_failed else [])]
        wanted: list[ColumnElement[bool]] = [JOBS.c.status.in_(states)]
        if self.lost:
            moved = func.coalesce(JOBS.c.updated_at, JOBS.c.created_at, literal(_NEVER))
            for state, limit_s in (
                ("pending", self.lost_after_s),
                ("processing", self.stale_after_s),
            ):
                before = func.now() - func.make_interval(0, 0, 0, 0, 0, 0, limit_s, type_=Interval)
                wanted.append(and_(JOBS.c.status == state, moved < before))
        if self.failed:
            reason = func.coalesce(JOBS.c.failure_reason, "")
            of_code = reason.startswith(f"{self.code or UNDER_WAY}: ", autoescape=True)
            wanted.append(
                and_(JOBS.c.status == "failed", ~of_code if self.code is None else of_code)
            )
        return or_(*wanted)


NEVER_SENT = Wanted(0, 0, lost=False)
"""The jobs whose message was never sent."""


@dataclass(frozen=True, slots=True)
class Found:
    """The place of a job in the order in which jobs are sent: the oldest first."""

    created_at: datetime
    """Time at which the job was queued. 1970 if the row does not say it."""
    job_id: UUID
    """Id of the job."""


def find_unsent(
    connection: Connection, wanted: Wanted, after: Found | None, limit: int
) -> list[Found]:
    """Return jobs that need a message, the oldest first. Nothing is locked.

    Args:
        connection: Connection in a transaction.
        wanted: Choice of the jobs.
        after: Last job that was returned before. None for the first ones.
        limit: Number of jobs to return at most.
    """
    created_at = func.coalesce(JOBS.c.created_at, literal(_NEVER))
    query = select(created_at, JOBS.c.id).where(wanted.condition())
    if after is not None:
        place = row_of(literal(after.created_at), literal(after.job_id))
        query = query.where(row_of(created_at, JOBS.c.id) > place)
    found = connection.execute(query.order_by(created_at, JOBS.c.id).limit(limit))
    return [Found(*row) for row in found]


@dataclass(frozen=True, slots=True)
class UnsentJob:
    """A job that needs a message, and whose row is locked."""

    job_id: UUID
    book_id: int
    image_id: int | None
    """Id of the image that was asked for. None if it was deleted."""
    status: str
    resends: int
    """Number of times that the job was sent again after it was lost."""
    reason: str | None
    """What ``failure_reason`` says."""

    @property
    def lost(self) -> bool:
        """Whether the job was sent before."""
        return self.status in ACTIVE

    @property
    def run_id(self) -> str | None:
        """Id of the run that the job belongs to, or None."""
        found = re.search(RUN_MARK, self.reason or "")
        return None if found is None else found[2]


def run_mark(run_id: str) -> str:
    """Return what ``failure_reason`` says of a job that is queued and belongs to a run."""
    return f"queued: run {run_id}"


def lock_unsent(connection: Connection, wanted: Wanted, job_id: UUID) -> UnsentJob | None:
    """Lock the row of a job, and return it.

    Returns:
        None if another transaction has the row, or if the job needs no message any more.
    """
    row = connection.execute(_locking(wanted), {"job_id": job_id}).first()
    return None if row is None else UnsentJob(*row)


@lru_cache(16)
def _locking(wanted: Wanted) -> Select[*tuple[Any, ...]]:
    """Return the query that locks a row, which a sweep needs for each of thousands of rows."""
    columns = (
        JOBS.c.id,
        JOBS.c.book_id,
        JOBS.c.source_image_id,
        JOBS.c.status,
        JOBS.c.queue_retry_count,
        JOBS.c.failure_reason,
    )
    query = select(*columns).where(JOBS.c.id == bindparam("job_id"), wanted.condition())
    return query.with_for_update(key_share=True, skip_locked=True)


def let_wait(connection: Connection, job: UnsentJob) -> bool:
    """Let a job wait for a worker, and return whether it may.

    It may not if another job for its image is active, which the database does not allow twice.
    """
    waits: dict[str, Any] = {
        "status": "pending",
        "queue_retry_count": job.resends + 1 if job.lost else 0,
        "updated_at": func.now(),
        "completed_at": None,
    }
    try:
        with connection.begin_nested():
            connection.execute(update(JOBS).where(JOBS.c.id == job.job_id).values(waits))
    except IntegrityError as error:
        if sqlstate_of(error) == UNIQUE_VIOLATION:
            return False
        raise
    return True


def close_unsent(connection: Connection, job: UnsentJob, code: str, message: str) -> None:
    """Let a job that is not sent fail."""
    failed = update(JOBS).where(JOBS.c.id == job.job_id)
    connection.execute(failed.values(failed_values(code, message)))
