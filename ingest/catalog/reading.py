"""The transactions that only read, for commands that look at a whole collection.

They are short, and each reads a page, so that no snapshot is held while objects are looked up. The
server refuses every change in them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, func, or_, select, text

from ingest.catalog.database import Database
from ingest.catalog.rows import IMAGE_COLUMNS
from ingest.catalog.rules import BookImage
from ingest.catalog.tables import ACTIVE, BOOKS, IMAGES, JOBS

_READ_ONLY = text("SET TRANSACTION READ ONLY")
_WAITING = ("pending", "queue_failed")
_GIVEN_UP = "permanently_failed"

BookImages = dict[int, list[BookImage]]
"""The images of books, by the id of the book."""


@dataclass(frozen=True, slots=True)
class OpenJob:
    """A job that has not ended, or that was given up."""

    job_id: str
    """Id of the job."""
    book_id: int
    """Id of its book."""
    status: str
    """State of the job."""
    age_s: float | None
    """Time, in seconds, since its row changed. None if the row does not say."""


def books_after(connection: Connection, after: int, most: int) -> BookImages:
    """Return the images of the books that follow an id, in the order of their ids.

    Args:
        connection: Connection in a transaction.
        after: Id of the last book of the page before, or 0.
        most: Number of books.
    """
    connection.execute(_READ_ONLY)
    page = select(BOOKS.c.id).where(BOOKS.c.id > after).order_by(BOOKS.c.id).limit(most)
    return _with_images(connection, connection.scalars(page).all())


def books_of(connection: Connection, book_ids: Sequence[int]) -> BookImages:
    """Return the images of the books that exist among some ids."""
    connection.execute(_READ_ONLY)
    page = select(BOOKS.c.id).where(BOOKS.c.id.in_(book_ids)).order_by(BOOKS.c.id)
    return _with_images(connection, connection.scalars(page).all())


def busy_books(connection: Connection, book_ids: Sequence[int]) -> set[int]:
    """Return the books among some ids that have a job which waits or is taken."""
    connection.execute(_READ_ONLY)
    busy = select(JOBS.c.book_id).where(JOBS.c.book_id.in_(book_ids), JOBS.c.status.in_(ACTIVE))
    return set(connection.scalars(busy))


def open_jobs(
    database: Database, taken_s: float, waiting_s: float, book_ids: Sequence[int] | None
) -> Iterator[OpenJob]:
    """Yield the jobs that have not ended for too long, and those that were given up. Blocks.

    Args:
        database: Database of the application.
        taken_s: Time, in seconds, after which no consumer works on a job that was taken.
        waiting_s: Time, in seconds, after which a job that waits counts as lost.
        book_ids: Ids of the books whose jobs are looked at. None for all.

    Raises:
        DatabaseUnavailable: The database does not answer.
    """
    changed_at = func.coalesce(JOBS.c.updated_at, JOBS.c.created_at)
    age_s = func.extract("epoch", func.now() - changed_at)
    late = or_(
        (JOBS.c.status == "processing") & (func.coalesce(age_s, taken_s) >= taken_s),
        JOBS.c.status.in_(_WAITING) & (func.coalesce(age_s, waiting_s) >= waiting_s),
        JOBS.c.status == _GIVEN_UP,
    )
    query = select(JOBS.c.id, JOBS.c.book_id, JOBS.c.status, age_s).where(late)
    if book_ids is not None:
        query = query.where(JOBS.c.book_id.in_(book_ids))
    for job_id, book_id, status, age in database.stream(query.order_by(JOBS.c.book_id, JOBS.c.id)):
        yield OpenJob(str(job_id), book_id, status, None if age is None else float(age))


def _with_images(connection: Connection, book_ids: Sequence[int]) -> BookImages:
    found: BookImages = {book_id: [] for book_id in book_ids}
    query = select(IMAGES.c.book_id, *IMAGE_COLUMNS).where(IMAGES.c.book_id.in_(book_ids))
    for book_id, *image in connection.execute(query):
        found[book_id].append(BookImage(*image))
    return found
