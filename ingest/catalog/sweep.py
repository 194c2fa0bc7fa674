"""The sweep: jobs that need a message are sent, one after the other, the oldest first.

Each job has a transaction of its own: its row is locked, says ``pending``, the message is sent, and
then the row is committed. A crash in between leaves the row as it was, so that the next sweep sends
a second message, which does no harm. What is wrong with one row never keeps the others.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from pydantic import ValidationError
from sqlalchemy import Connection

from ingest.catalog.database import Database
from ingest.catalog.try_again import TryAgain
from ingest.catalog.unsent import (
    ABANDONED,
    MOST_RESENDS,
    UNDER_WAY,
    UNDER_WAY_MESSAGE,
    Found,
    UnsentJob,
    Wanted,
    close_unsent,
    find_unsent,
    let_wait,
    lock_unsent,
)
from ingest.messages.build import catalog_message_body
from ingest.sqs.errors import is_refused_message
from ingest.sqs.queue_client import QueueClient
from ingest.sqs.sender import send_batch
from serve_app.aws import aws_client
from serve_app.config import AwsConfig
from serve_app.contracts.base import describe_validation_error
from serve_app.contracts.job import DEFAULT_RUN, CatalogJob
from serve_app.errors import (
    DatabaseUnavailable,
    ForeedgeError,
    InternalError,
    InvalidMessage,
    QueueUnavailable,
)

_logger = logging.getLogger(__name__)

SWEEP_THREADS = 3
"""Number of rows that are sent at a time. One more connection is left for the lock of the sweep."""
_PAGE = 1_000
_QUICK = {"max_attempts": 1, "connect_timeout_s": 2, "read_timeout_s": 5}
"""Settings of AWS's client with which a call ends before the database ends the transaction that
waits for it."""

SENT = "sent"
FAILING = "failing"
LEFT = "left"
INVALID = "invalid"
ENDS = {
    SENT: "a message was sent, and the job waits",
    UNDER_WAY: "another job for the same image is active, so that this one has failed",
    ABANDONED: f"sent {MOST_RESENDS} times again without an end, so that it has failed",
    INVALID: "no message can carry its ids, so that it has failed",
    FAILING: "the queue does not take its message",
    LEFT: "another transaction holds it, or it needs no message any more",
}
"""What can happen to a row, with its meaning for people."""


@dataclass(slots=True)
class Swept:
    """What a sweep did."""

    ends: Counter[str] = field(default_factory=Counter)
    """Number of rows by what happened to them (``ENDS``)."""
    error: ForeedgeError | None = None
    """What ended the sweep before its time. None if it saw all rows."""


def sweep_queue(url: str, aws: AwsConfig) -> QueueClient:
    """Return the queue with a client that answers or fails within seconds."""
    quick = aws.model_copy(update=_QUICK)
    return QueueClient(aws_client("sqs", quick, connections=SWEEP_THREADS), url)


def sweep(
    database: Database,
    queue: QueueClient,
    wanted: Wanted,
    *,
    limit: int | None = None,
    on_row: Callable[[str], object] = lambda _: None,
) -> Swept:
    """Send the jobs that need a message. Blocks.

    An outage of the queue or of the database ends the sweep, and counts against no job.

    Args:
        database: Database of the application.
        queue: Queue to send to, with a client that fails within seconds (``sweep_queue``).
        wanted: Choice of the jobs.
        limit: Number of rows to look at, at most. None for all.
        on_row: Function that is called with what happened to each row. The sweep ends if it raises.
    """
    swept = Swept()

    def handle(found: Found) -> str | None:
        # The outage of one row is that of the rows behind it.
        return None if swept.error is not None else _send_row(database, queue, wanted, found, swept)

    pool = ThreadPoolExecutor(SWEEP_THREADS, "sweep")
    try:
        for page in _pages(database, wanted, limit):
            for end in pool.map(handle, page):
                if end is not None:
                    swept.ends[end] += 1
                    on_row(end)
            if swept.error is not None:
                break
    except ForeedgeError as error:
        swept.error = error
    finally:
        pool.shutdown(cancel_futures=True)
    return swept


def _pages(database: Database, wanted: Wanted, limit: int | None) -> Iterator[list[Found]]:
    seen, after = 0, None
    while limit is None or seen < limit:
        size = _PAGE if limit is None else min(_PAGE, limit - seen)
        page = database.run(partial(find_unsent, wanted=wanted, after=after, limit=size))
        if page:
            yield page
        if len(page) < size:
            return
        seen, after = seen + len(page), page[-1]


def _send_row(
    database: Database, queue: QueueClient, wanted: Wanted, found: Found, swept: Swept
) -> str:
    """Return what happened to a row. What ends the sweep is noted in ``swept``."""

    def work(connection: Connection) -> str:
        return _send_locked(connection, queue, lock_unsent(connection, wanted, found.job_id))

    try:
        return database.run_once(work)
    except QueueUnavailable as error:
        if is_refused_message(error):
            _logger.warning("catalog: job %s is not sent: %s", found.job_id, error.message)
        else:
            swept.error = error
        return FAILING
    except DatabaseUnavailable as error:
        swept.error = error
    except TryAgain as again:
        # The application is queueing the same image, or the connection was lost.
        if not again.contended:
            swept.error = again.error
    except InternalError as error:
        _logger.warning("catalog: job %s is not sent: %s", found.job_id, error.message)
    return LEFT


def _send_locked(connection: Connection, queue: QueueClient, job: UnsentJob | None) -> str:
    """Send a job whose row is locked, and return what happened to it.

    Raises:
        QueueUnavailable: SQS does not take the message. The row stays as it was.
    """
    if job is None:
        return LEFT
    if job.lost and job.resends >= MOST_RESENDS:
        message = f"sent {MOST_RESENDS} times again, and it did not end; sweep --failed sends it"
        close_unsent(connection, job, ABANDONED, message)
        return ABANDONED
    try:
        body = _message(job)
    except ValidationError as error:
        close_unsent(connection, job, InvalidMessage.code, describe_validation_error(error))
        return INVALID
    # Before the message: a job that may not wait must not be sent again and again.
    if not let_wait(connection, job):
        close_unsent(connection, job, UNDER_WAY, UNDER_WAY_MESSAGE)
        return UNDER_WAY
    [refusal] = send_batch(queue, [body], attempts=1)
    if refusal is not None:
        raise refusal
    return SENT


def _message(job: UnsentJob) -> str:
    return catalog_message_body(
        CatalogJob(
            job_id=str(job.job_id),
            run_id=job.run_id or DEFAULT_RUN,
            book_id=job.book_id,
            image_id=job.image_id,
        )
    )
