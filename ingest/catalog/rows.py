"""The transactions on the application's tables, apart from the one that enters a result.

Each function is the body of one transaction in READ COMMITTED, which ``Database.run`` begins,
commits and repeats. While a function holds a lock, it never waits for another one: rows that the
application holds raise at once, and the transaction begins again. So no statement of ours takes
part in a deadlock, and no request of a user waits for more than one of our transactions, which
take milliseconds.

Rows are locked FOR NO KEY UPDATE. It keeps them from being changed and deleted, and lets the
application insert rows that refer to them, such as a new job for an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Integer, Row, Uuid, bindparam, func, literal, select, update
from sqlalchemy.exc import IntegrityError

from ingest.catalog.rules import BookImage, choose_source, source_of_cutout
from ingest.catalog.sql_errors import UNIQUE_VIOLATION, sqlstate_of
from ingest.catalog.tables import ACTIVE, BOOKS, IMAGES, JOBS
from ingest.catalog.try_again import RowsChanged
from serve_app.contracts.job import CatalogJob
from serve_app.contracts.outcome import Outcome
from serve_app.errors import InvalidMessage, SourceDeleted

_REASON_LENGTH = 1_000
RUN_MARK = r"(?:^| \()(queued: run ([A-Za-z0-9._-]+))\)?$"
"""Regular expression of the part of ``failure_reason`` that names a run, for Python and for
PostgreSQL, whose ``substring`` returns the first group."""
IMAGE_COLUMNS = (
    IMAGES.c.id,
    IMAGES.c.s3_key,
    IMAGES.c.image_type,
    IMAGES.c.display_order,
    IMAGES.c.is_primary,
    IMAGES.c.is_background_processed,
)
"""Columns of a ``BookImage``, in its order."""
BOOK_ID = bindparam("of_book", type_=Integer)
JOB_ID = bindparam("of_job", type_=Uuid)
"""Parameters of statements, which ``ids_of`` fills in."""
_JOB_COLUMNS = (
    JOBS.c.book_id,
    JOBS.c.status,
    JOBS.c.source_image_id,
    JOBS.c.processed_image_id,
)
_TAKEN = (
    update(JOBS)
    .where(JOBS.c.id == JOB_ID, JOBS.c.book_id == BOOK_ID, JOBS.c.status != "completed")
    .where(select(IMAGES.c.id).where(IMAGES.c.book_id == BOOK_ID).exists())
    .values(
        status="processing",
        attempt_count=JOBS.c.attempt_count + 1,
        updated_at=func.now(),
        completed_at=None,
    )
    .returning(JOBS.c.source_image_id)
    .cte("taken")
)
_TAKE = select(*_TAKEN.c, *IMAGE_COLUMNS).join_from(_TAKEN, IMAGES, IMAGES.c.book_id == BOOK_ID)
"""Takes a job of a book that has images, and returns a row for each of them: ``source_image_id`` of
the job, and the columns of the image. It is made once, with parameters, since to build a statement
takes longer than to send it."""


JobRow = Row[*tuple[Any, ...]]
"""One row of ``image_processing_jobs``."""


class Superseded(Exception):
    """A newer job for the same image is active, so this one is left to it."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """A job whose row says ``processing`` now."""

    source: BookImage
    """Image to cut out."""


@dataclass(frozen=True, slots=True)
class Completed:
    """A job that is completed."""

    s3_key: str | None
    """``s3_key`` of its cut-out. None if somebody has deleted the cut-out since."""
    source: BookImage | None = None
    """Image to cut out if an object of the cut-out is missing. None if there is none."""


@dataclass(frozen=True, slots=True)
class Missing:
    """A job without a row."""

    book_exists: bool
    """Whether its book exists. The rows of a book's jobs are deleted with it."""


@dataclass(frozen=True, slots=True)
class JobCounts:
    """The jobs of the application by their states."""

    by_state: dict[str, int]
    """Number of jobs in each state that occurs."""
    oldest_pending_s: float | None
    """Longest time, in seconds, for which a job waits since it was queued or sent again. None if
    none waits."""
    stale: int
    """Number of jobs that were taken longer ago than any consumer works on one."""


def claim(connection: Connection, job: CatalogJob) -> Claimed | Completed | Missing:
    """Take a job, whatever its state is, unless it is completed.

    Args:
        connection: Connection in a transaction.
        job: Job of the message.

    Raises:
        InvalidMessage: The row names another book than the message.
        SourceDeleted: The book has no image.
        Superseded: A newer job for the same image is active.
        RowsChanged: The job or its book changed at this moment; begin again.
    """
    try:
        taken = connection.execute(_TAKE, ids_of(job)).all()
    except IntegrityError as error:
        # The only uniqueness that a state takes part in is that of active jobs for one image.
        if sqlstate_of(error) == UNIQUE_VIOLATION:
            raise Superseded(f"job {job.job_id}: a newer job for its image is active") from error
        raise
    images = [BookImage(*image) for _, *image in taken]
    source = choose_source(images, _asked_id(taken[0], job)) if taken else None
    return _not_taken(connection, job) if source is None else Claimed(source)


def _not_taken(connection: Connection, job: CatalogJob) -> Completed | Missing:
    """Return why a job was not taken, or raise it."""
    query = select(*_JOB_COLUMNS).where(JOBS.c.id == UUID(job.job_id))
    row = connection.execute(query.with_for_update(key_share=True)).first()
    if row is None:
        book = connection.scalar(select(BOOKS.c.id).where(BOOKS.c.id == job.book_id))
        return Missing(book_exists=book is not None)
    if row.book_id != job.book_id:
        raise InvalidMessage(
            f"job {job.job_id} belongs to book {row.book_id}, and the message names book "
            f"{job.book_id}; nothing was changed"
        )
    of_book = select(*IMAGE_COLUMNS).where(IMAGES.c.book_id == job.book_id)
    images = [BookImage(*each) for each in connection.execute(of_book)]
    source = choose_source(images, _asked_id(row, job))
    if row.status == "completed":
        return completed_job(row, images, source)
    if source is None:
        raise SourceDeleted(f"book {job.book_id} of job {job.job_id} has no image")
    raise RowsChanged(f"job {job.job_id} or its book changed while the job was taken")


def fail(connection: Connection, outcome: Outcome) -> None:
    """Write the final failure of a job to its row, unless the job has ended otherwise."""
    if (job_id := _uuid(outcome.job_id)) is None:
        return
    connection.execute(
        update(JOBS)
        .where(JOBS.c.id == job_id, JOBS.c.book_id == outcome.book_id)
        .where(JOBS.c.status.in_(ACTIVE))
        .values(failed_values(outcome.code, outcome.message))
    )


def failed_values(code: str | None, message: str | None) -> dict[str, Any]:
    """Return what the row of a job says that has failed.

    A row that names its run still does, so that the job can be sent again as one of that run.
    """
    mark = literal(" (").concat(func.substring(JOBS.c.failure_reason, RUN_MARK)).concat(")")
    mark = func.coalesce(mark, "")
    reason = func.left(f"{code}: {message}", _REASON_LENGTH - func.length(mark, type_=Integer))
    return {
        "status": "failed",
        "failure_reason": func.concat(reason, mark),
        "updated_at": func.now(),
        "completed_at": func.now(),
    }


def give_back(connection: Connection, job: CatalogJob) -> None:
    """Let a job that was taken wait again. The worker that Foreedge replaces can then take it."""
    waits = {"status": "pending", "updated_at": func.now()}
    connection.execute(
        update(JOBS)
        .where(JOBS.c.id == UUID(job.job_id), JOBS.c.book_id == job.book_id)
        .where(JOBS.c.status == "processing")
        .values(waits)
    )


def release(connection: Connection, older_than_s: float) -> int:
    """Let every job that was taken wait again, and return their number.

    Args:
        connection: Connection in a transaction.
        older_than_s: Jobs that were taken less than this time ago, in seconds, are left.
    """
    age = func.make_interval(0, 0, 0, 0, 0, 0, older_than_s)
    result = connection.execute(
        update(JOBS)
        .where(JOBS.c.status == "processing")
        .where(func.coalesce(JOBS.c.updated_at, func.now() - age) <= func.now() - age)
        .values({"status": "pending", "updated_at": func.now()})
    )
    return result.rowcount


def count_jobs(connection: Connection, stale_after_s: float) -> JobCounts:
    """Return how many jobs are in each state.

    Args:
        connection: Connection in a transaction.
        stale_after_s: Time, in seconds, after which a job that was taken counts as stale.
    """
    age = func.make_interval(0, 0, 0, 0, 0, 0, stale_after_s)
    stale = func.count().filter(JOBS.c.updated_at < func.now() - age)
    # An old row may have begun to wait only now: it was released, or sent again.
    since = func.min(func.coalesce(JOBS.c.updated_at, JOBS.c.created_at))
    oldest_s = func.extract("epoch", func.now() - since)
    query = select(JOBS.c.status, func.count(), oldest_s, stale).group_by(JOBS.c.status)
    found = {row[0]: row for row in connection.execute(query)}
    pending, taken = found.get("pending"), found.get("processing")
    return JobCounts(
        by_state={state: row[1] for state, row in sorted(found.items())},
        oldest_pending_s=None if pending is None or pending[2] is None else float(pending[2]),
        stale=0 if taken is None else taken[3],
    )


def _asked_id(row: JobRow, job: CatalogJob) -> int | None:
    """Return the id of the image that was asked for. The row forgets one that is deleted."""
    asked: int | None = row.source_image_id
    return job.image_id if asked is None else asked


def completed_job(row: JobRow, images: Sequence[BookImage], chosen: BookImage | None) -> Completed:
    """Return a completed job, whose cut-out says of which image it is made."""
    cutout = next((image for image in images if image.id == row.processed_image_id), None)
    if cutout is None:
        return Completed(None)
    source_id = source_of_cutout(cutout.s3_key, row.book_id)
    made_of = next((image for image in images if image.id == source_id), None)
    return Completed(cutout.s3_key, made_of or chosen)


def ids_of(job: CatalogJob) -> dict[str, Any]:
    """Return the parameters of a statement that are the ids of a job and of its book."""
    return {JOB_ID.key: UUID(job.job_id), BOOK_ID.key: job.book_id}


def _uuid(job_id: str) -> UUID | None:
    """Return the id of a job as the database has it. A dead letter may name any text."""
    try:
        return UUID(job_id)
    except ValueError:
        return None
