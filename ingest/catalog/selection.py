"""The images that would be cut out, read from the tables as a stream.

The tables may have millions of rows, of which those of one book are in memory at a time.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from operator import itemgetter
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, and_, literal_column, select

from ingest.catalog.database import Database
from ingest.catalog.rows import IMAGE_COLUMNS
from ingest.catalog.rules import BookImage, choose_source
from ingest.catalog.tables import ACTIVE, BOOKS, IMAGES, JOBS


class ChosenImage(NamedTuple):
    """The image of a book that is cut out."""

    book_id: int
    """Id of the book."""
    image: BookImage
    """The image."""
    job_id: UUID | None = None
    """Id of the job that would cut it out. None if there is no job."""


def images_of_jobs(database: Database, *, completed: bool) -> Iterator[ChosenImage]:
    """Yield the images that the jobs in the tables would cut out now, each once. Blocks.

    An image that several jobs would cut out has the id of the newest of them.

    Args:
        database: Database of the application.
        completed: Whether to take the jobs that are completed. Otherwise all others are taken.

    Raises:
        DatabaseUnavailable: The database does not answer.
    """
    done = JOBS.c.status == "completed"
    query = (
        select(JOBS.c.book_id, JOBS.c.id, JOBS.c.source_image_id, *IMAGE_COLUMNS)
        .join(IMAGES, IMAGES.c.book_id == JOBS.c.book_id)
        .where(done if completed else ~done)
        .order_by(JOBS.c.book_id, JOBS.c.created_at.desc().nulls_last(), JOBS.c.id)
    )
    for book_id, of_book in itertools.groupby(database.stream(query), itemgetter(0)):
        seen: set[int] = set()
        for (_, job_id, asked_id), of_job in itertools.groupby(of_book, itemgetter(0, 1, 2)):
            chosen = choose_source([BookImage(*row[3:]) for row in of_job], asked_id)
            if chosen is not None and chosen.id not in seen:
                seen.add(chosen.id)
                yield ChosenImage(book_id, chosen, job_id)


@dataclass(frozen=True, slots=True)
class BookChoice:
    """A choice of books that have images and no cut-out."""

    books: tuple[int, ...] | None = None
    """Ids of the books. None for all."""
    status: str | None = None
    """Status of the books in the application, such as ``ON_HAND``. None for all."""
    failed: bool = False
    """Whether books whose job has failed are wanted too. They would fail again if nothing has
    changed since."""

    def condition(self) -> ColumnElement[bool]:
        """Return the condition on a book."""
        images = select(IMAGES.c.id).where(IMAGES.c.book_id == BOOKS.c.id).correlate(BOOKS)
        busy = (*ACTIVE, "queue_failed", *(() if self.failed else ("failed",)))
        jobs = select(JOBS.c.id).where(JOBS.c.book_id == BOOKS.c.id, JOBS.c.status.in_(busy))
        wanted = [~images.where(IMAGES.c.is_background_processed).exists(), ~jobs.exists()]
        if self.books is not None:
            wanted.append(BOOKS.c.id.in_(self.books))
        if self.status is not None:
            # Not one of the columns that every consumer needs.
            wanted.append(literal_column("books.status") == self.status)
        return and_(*wanted)


def unprocessed_books(
    database: Database, choice: BookChoice, after: int = 0
) -> Iterator[ChosenImage]:
    """Yield an image of each book that has images and no cut-out, in the order of the ids. Blocks.

    Args:
        database: Database of the application.
        choice: Choice of the books.
        after: Id of the book after which to begin.

    Raises:
        DatabaseUnavailable: The database does not answer.
    """
    query = (
        select(IMAGES.c.book_id, *IMAGE_COLUMNS)
        .join(BOOKS, BOOKS.c.id == IMAGES.c.book_id)
        .where(BOOKS.c.id > after, choice.condition())
        .order_by(IMAGES.c.book_id)
    )
    for book_id, images in itertools.groupby(database.stream(query), itemgetter(0)):
        chosen = choose_source([BookImage(*row[1:]) for row in images], None)
        if chosen is not None:
            yield ChosenImage(book_id, chosen)
