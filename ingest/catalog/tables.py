"""The columns of the application's tables that Foreedge uses, and their check.

The tables belong to the application, which changes them. Columns that are not named here may come
and go, as long as a row can be inserted without them. ``alembic_version`` is not looked at, since
the application's own migrations do not keep it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    DateTime,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    Uuid,
    inspect,
)
from sqlalchemy.types import TypeEngine

from serve_app.errors import InvalidConfig

_METADATA = MetaData()

BOOKS = Table("books", _METADATA, Column("id", Integer, primary_key=True))
IMAGES = Table(
    "book_images",
    _METADATA,
    Column("id", Integer, primary_key=True),
    Column("book_id", Integer, nullable=False),
    Column("s3_key", String(500), nullable=False),
    Column("cloudfront_url", String(500)),
    Column("image_type", String(50)),
    Column("display_order", Integer, nullable=False),
    Column("is_primary", Boolean, nullable=False),
    Column("is_background_processed", Boolean, nullable=False),
)
JOBS = Table(
    "image_processing_jobs",
    _METADATA,
    Column("id", Uuid, primary_key=True),
    Column("book_id", Integer, nullable=False),
    Column("source_image_id", Integer),
    Column("processed_image_id", Integer),
    Column("status", String(20), nullable=False),
    Column("attempt_count", Integer, nullable=False),
    Column("model_used", String(50)),
    Column("failure_reason", Text),
    Column("created_at", DateTime(timezone=True)),
    Column("updated_at", DateTime(timezone=True)),
    Column("completed_at", DateTime(timezone=True)),
    Column("queue_retry_count", Integer, nullable=False),
)
_INSERTED = (IMAGES, JOBS)
"""Tables into which Foreedge inserts rows: of cut-outs, and of the jobs that it queues itself."""
ACTIVE = ("pending", "processing")
"""States in which a job blocks another one for the same image."""


def check_tables(connection: Connection) -> list[str]:
    """Check that the database has what Foreedge uses, and return warnings.

    Raises:
        InvalidConfig: A table or a column is missing or has another type, or a new column must be
            given by whoever inserts a row.
    """
    problems = [
        problem for table in (BOOKS, IMAGES, JOBS) for problem in _problems(connection, table)
    ]
    if problems:
        raise InvalidConfig(
            f"catalog: the database does not have the tables that Foreedge uses: "
            f"{'; '.join(problems)}. Check that the settings name the right database, and "
            "docs/catalog.md for the columns"
        )
    indexes = inspect(connection).get_indexes(JOBS.name)
    if not any(_allows_one_active_job(index) for index in indexes):
        return [
            f"{JOBS.name} has no unique index on (book_id, source_image_id) of active jobs, so the "
            "application may queue an image twice"
        ]
    return []


def _problems(connection: Connection, table: Table) -> Iterator[str]:
    inspector = inspect(connection)
    if not inspector.has_table(table.name):
        yield f"table {table.name} is missing"
        return
    found = {column["name"]: column for column in inspector.get_columns(table.name)}
    for column in table.columns:
        if column.name not in found:
            yield f"{table.name}.{column.name} is missing"
            continue
        present = found[column.name]["type"]
        if not _holds(present, column.type):
            yield f"{table.name}.{column.name} is {present!r}, and {column.type!r} is needed"
    if table in _INSERTED:
        for name, other in found.items():
            if name not in table.columns and _must_be_given(other):
                yield (
                    f"{table.name}.{name} ({other['type']!r} NOT NULL, without a default) must be "
                    "given in each new row, and Foreedge does not know it"
                )


def _must_be_given(column: Any) -> bool:
    """Return whether a row cannot be inserted without a value for a column."""
    filled = column["default"] is not None or "identity" in column or "computed" in column
    return not column["nullable"] and not filled


def _holds(present: TypeEngine[Any], needed: TypeEngine[Any]) -> bool:
    """Return whether a column of a type holds every value that is written to it."""
    if isinstance(needed, String):
        length = present.length if isinstance(present, String) else 0
        # A text has no length. The reasons of failures are cut at 1,000 characters.
        return length is None or length >= (needed.length or 1_000)
    if isinstance(needed, DateTime):
        return isinstance(present, DateTime) and present.timezone
    if isinstance(needed, Uuid):
        return isinstance(present, Uuid)
    return isinstance(present, type(needed))


def _allows_one_active_job(index: Any) -> bool:
    return bool(index["unique"]) and index["column_names"] == ["book_id", "source_image_id"]
