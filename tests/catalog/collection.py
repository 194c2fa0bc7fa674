"""A book collection for the tests: what its application writes to its tables, in plain SQL.

It shares no code with ``ingest``, so that it can say what the rows must be.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

from serve_app.contracts.job import CatalogJob
from tests.support.postgres_server import PostgresServer

_SCHEMA = Path(__file__).with_name("schema.sql")

Record = dict[str, Any]


@dataclass(frozen=True)
class Image:
    """One image of a book, as a test describes it."""

    key: str
    kind: str | None = "detail"
    primary: bool = False
    processed: bool = False
    order: int | None = None
    """Position. None for the number of the images before it."""


def create_database(server: PostgresServer) -> str:
    """Create a database with the tables of the application, and return its name."""
    name = server.create()
    with server.connect(name) as connection:
        connection.execute(_SCHEMA.read_bytes())
    return name


class Collection:
    """The application's side of one database."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.connection = psycopg.connect(url, autocommit=True, row_factory=dict_row)

    def close(self) -> None:
        self.connection.close()

    def rows(self, query: str, *parameters: object) -> list[Record]:
        return list(self.connection.execute(query, parameters))

    def execute(self, query: str, *parameters: object) -> None:
        self.connection.execute(query, parameters)

    def add_book(self, *images: Image) -> tuple[int, list[int]]:
        """Add a book, and return its id and those of its images."""
        [book] = self.rows("INSERT INTO books DEFAULT VALUES RETURNING id")
        ids = [self.add_image(book["id"], image, n) for n, image in enumerate(images)]
        return book["id"], ids

    def add_image(self, book_id: int, image: Image, position: int) -> int:
        [row] = self.rows(
            "INSERT INTO book_images (book_id, s3_key, image_type, display_order, is_primary,"
            " is_background_processed) VALUES (%s, %s, %s, %s, %s, %s) RETURNING id",
            book_id,
            image.key.replace("{book}", str(book_id)),
            image.kind,
            position if image.order is None else image.order,
            image.primary,
            image.processed,
        )
        return int(row["id"])

    def queue(self, book_id: int, image_id: int | None, status: str = "pending") -> CatalogJob:
        """Add the row of a job, and return the job that its message asks for."""
        job_id = str(uuid.uuid4())
        self.execute(
            "INSERT INTO image_processing_jobs (id, book_id, source_image_id, status)"
            " VALUES (%s, %s, %s, %s)",
            job_id,
            book_id,
            image_id,
            status,
        )
        return CatalogJob(job_id=job_id, book_id=book_id, image_id=image_id)

    def job(self, job: CatalogJob) -> Record:
        [row] = self.rows("SELECT * FROM image_processing_jobs WHERE id = %s", job.job_id)
        return row

    def images(self, book_id: int) -> list[Record]:
        return self.rows(
            "SELECT * FROM book_images WHERE book_id = %s ORDER BY display_order, id", book_id
        )

    def order(self, book_id: int) -> list[int]:
        """Return the ids of a book's images in order, which must be dense with one primary."""
        images = self.images(book_id)
        assert [row["display_order"] for row in images] == list(range(len(images)))
        assert [row["is_primary"] for row in images] == [n == 0 for n in range(len(images))]
        return [row["id"] for row in images]


def photographs(count: int) -> Sequence[Image]:
    return [Image(f"{{book}}_{n:032x}.jpg", primary=n == 0) for n in range(count)]
