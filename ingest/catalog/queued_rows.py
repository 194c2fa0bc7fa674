"""The rows of jobs that Foreedge queues itself, as the application would have queued them.

Each function is the body of one transaction, as in ``rows``.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import (
    Connection,
    Integer,
    Uuid,
    and_,
    column,
    func,
    literal,
    select,
    update,
    values,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError

from ingest.catalog.sql_errors import FOREIGN_KEY_VIOLATION, UNIQUE_VIOLATION, sqlstate_of
from ingest.catalog.tables import BOOKS, IMAGES, JOBS
from ingest.catalog.try_again import RowsChanged
from ingest.catalog.unsent import (
    NEVER_SENT,
    UNDER_WAY,
    UNDER_WAY_MESSAGE,
    close_unsent,
    let_wait,
    lock_unsent,
    run_mark,
)
from ingest.sources.base import Entry


def insert_queued(connection: Connection, entries: Sequence[Entry], run_id: str) -> None:
    """Insert the rows of jobs as ``queue_failed``, except those that exist already.

    A book that was deleted gets none. An image that was deleted is left out of its row.

    Args:
        connection: Connection in a transaction.
        entries: Jobs with their books and images.
        run_id: Id of their run.

    Raises:
        RowsChanged: A book or an image was deleted at this moment; begin again.
    """
    wanted = values(
        column("job_id", Uuid), column("book_id", Integer), column("image_id", Integer), name="job"
    ).data([(UUID(each.job_id), each.book_id, each.image_id) for each in entries])
    chosen = (
        select(
            wanted.c.job_id,
            BOOKS.c.id,
            IMAGES.c.id,
            literal("queue_failed"),
            literal(0),
            literal(0),
            literal(run_mark(run_id)),
            func.now(),
            func.now(),
        )
        .join(BOOKS, BOOKS.c.id == wanted.c.book_id)
        .outerjoin(
            IMAGES, and_(IMAGES.c.id == wanted.c.image_id, IMAGES.c.book_id == wanted.c.book_id)
        )
    )
    names = (
        JOBS.c.id,
        JOBS.c.book_id,
        JOBS.c.source_image_id,
        JOBS.c.status,
        JOBS.c.attempt_count,
        JOBS.c.queue_retry_count,
        JOBS.c.failure_reason,
        JOBS.c.created_at,
        JOBS.c.updated_at,
    )
    statement = insert(JOBS).from_select([each.name for each in names], chosen)
    try:
        connection.execute(statement.on_conflict_do_nothing())
    except IntegrityError as error:
        if sqlstate_of(error) == FOREIGN_KEY_VIOLATION:
            raise RowsChanged("a book was deleted while its job was queued") from error
        raise


def let_queued_wait(connection: Connection, entries: Sequence[Entry]) -> None:
    """Let jobs wait that were sent, where their rows are still ``queue_failed``.

    Rows that others hold are left: a sweep that holds one sends it. The row of an image with
    another active job, which a user has queued meanwhile, is closed.

    Args:
        connection: Connection in a transaction.
        entries: Jobs that were sent.
    """
    job_ids = [UUID(each.job_id) for each in entries]
    unsent = (
        select(JOBS.c.id)
        .where(JOBS.c.id.in_(job_ids), JOBS.c.status == "queue_failed")
        .with_for_update(key_share=True, skip_locked=True)
    )
    waits = {"status": "pending", "queue_retry_count": 0, "updated_at": func.now()}
    try:
        with connection.begin_nested():
            connection.execute(update(JOBS).where(JOBS.c.id.in_(unsent)).values(waits))
    except IntegrityError as error:
        if sqlstate_of(error) != UNIQUE_VIOLATION:
            raise
    else:
        return
    for job_id in job_ids:
        job = lock_unsent(connection, NEVER_SENT, job_id)
        if job is not None and not let_wait(connection, job):
            close_unsent(connection, job, UNDER_WAY, UNDER_WAY_MESSAGE)
