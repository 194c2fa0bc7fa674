"""A run of jobs for the books that have images and no cut-out.

The run is listed and sent as every run is (``runs.send``), so that it can be stopped, resumed,
watched and verified. Each of its messages also has a row, which the application would have made.

The rows of some jobs are inserted as ``queue_failed`` and committed, then their messages are sent,
and then the rows say ``pending``. A crash at any point leaves rows that the sweep sends. Their
``failure_reason`` names the run, so that the sweep's messages belong to it too.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Iterator
from functools import partial

from ingest.catalog.database import Database
from ingest.catalog.queued_rows import insert_queued, let_queued_wait
from ingest.catalog.rules import object_key
from ingest.catalog.selection import BookChoice, unprocessed_books
from ingest.messages.build import message_body
from ingest.runs.send import RunPlan
from ingest.sources.base import Entry, ImageSource
from ingest.sqs.queue_client import QueueClient
from ingest.sqs.sender import RateLimiter, send_messages

_CHUNK = 500
"""Number of jobs whose rows are inserted before the first of their messages is sent."""
_SLOW_CHUNK = 10
"""The same if a rate is given: the rows of jobs that wait for their turn would be swept."""
_JOB_IDS = uuid.UUID("8d1a6f0e-6f0c-4d52-9c0f-2f0f4b1d9c11")
"""Namespace of the ids of jobs, which are functions of the run and the book (RFC 9562, UUIDv5)."""


class UnprocessedBooks(ImageSource):
    """The images of the books without a cut-out, one of each book, in the order of the books."""

    ordered = True

    def __init__(self, database: Database, bucket: str, run_id: str, choice: BookChoice) -> None:
        """Read nothing yet.

        Args:
            database: Database of the application.
            bucket: Bucket of the images.
            run_id: Id of the run.
            choice: Choice of the books.
        """
        super().__init__()
        self._database = database
        self._bucket = bucket
        self._run_id = run_id
        self._choice = choice

    def entries(self, after: str | None = None) -> Iterator[Entry]:
        """Yield the images. See ``ImageSource``. They are resumed after the id of a book."""
        for chosen in unprocessed_books(self._database, self._choice, int(after or 0)):
            book_id, image = chosen.book_id, chosen.image
            yield Entry(
                self._bucket,
                object_key(image.s3_key),
                job_id=str(uuid.uuid5(_JOB_IDS, f"{self._run_id}/{book_id}")),
                book_id=book_id,
                image_id=image.id,
            )

    def place_of(self, entry: Entry) -> str:
        """Return the id of the book of an image."""
        return str(entry.book_id)


class RowSender:
    """A sender of jobs whose rows are inserted before their messages are sent."""

    def __init__(self, database: Database, plan: RunPlan, rate: float | None) -> None:
        """Send nothing yet.

        Args:
            database: Database of the application.
            plan: The run.
            rate: Maximum number of messages per second. None for no limit.
        """
        self._database = database
        self._plan = plan
        self._limiter = RateLimiter(rate)
        self._chunk = _CHUNK if rate is None else _SLOW_CHUNK

    def __call__(
        self, queue: QueueClient, entries: Iterator[Entry], on_sent: Callable[[int], None]
    ) -> None:
        """Send jobs. See ``SendEntries``.

        A job whose row cannot be inserted is sent all the same. The consumer finds that its book
        is gone, and records this as the end of the job.

        Raises:
            DatabaseUnavailable: The database does not answer.
            QueueUnavailable: SQS did not accept some of the messages.
        """
        plan, output = self._plan, self._plan.output.model_dump()
        while chunk := list(itertools.islice(entries, self._chunk)):
            self._limiter.wait(len(chunk))
            self._database.run(partial(insert_queued, entries=chunk, run_id=plan.run_id))
            send_messages(
                queue, [message_body(plan.run_id, output, plan.recipe, each) for each in chunk]
            )
            self._database.run(partial(let_queued_wait, entries=chunk))
            on_sent(len(chunk))
