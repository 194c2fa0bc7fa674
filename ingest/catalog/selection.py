"""The images that would be cut out, read from the tables as a stream.

The tables may have millions of rows, of which those of one book are in memory at a time.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from operator import itemgetter
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import select

from ingest.catalog.database import Database
from ingest.catalog.rows import IMAGE_COLUMNS
from ingest.catalog.rules import BookImage, choose_source
from ingest.catalog.tables import IMAGES, JOBS


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
