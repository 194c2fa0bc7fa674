"""The check of the application's tables: as they are, without each column, and changed."""

from __future__ import annotations

import pytest

from ingest.catalog.database import Database
from ingest.catalog.tables import BOOKS, IMAGES, JOBS, check_tables
from serve_app.errors import InvalidConfig
from tests.catalog.collection import Collection

COLUMNS = [f"{table.name}.{column.name}" for table in (BOOKS, IMAGES, JOBS) for column in table.c]

WRONG = {
    "a table that is missing": ("DROP TABLE image_processing_jobs", "image_processing_jobs is m"),
    "a state that is too short": (
        "ALTER TABLE image_processing_jobs ALTER status TYPE varchar(10)",
        r"image_processing_jobs.status is VARCHAR\(length=10\)",
    ),
    "a reason that is too short": (
        "ALTER TABLE image_processing_jobs ALTER failure_reason TYPE varchar(500)",
        "image_processing_jobs.failure_reason is VARCHAR",
    ),
    "an id of another type": (
        "ALTER TABLE image_processing_jobs ALTER id DROP DEFAULT, ALTER id TYPE text",
        "image_processing_jobs.id is TEXT",
    ),
    "times without a zone": (
        "ALTER TABLE image_processing_jobs ALTER updated_at TYPE timestamp",
        "image_processing_jobs.updated_at is TIMESTAMP",
    ),
    "a new column of images that must be given": (
        "ALTER TABLE book_images ADD licence text NOT NULL",
        r"book_images.licence \(TEXT\(\) NOT NULL, without a default\) must be given",
    ),
    "a new column of jobs that must be given": (
        "ALTER TABLE image_processing_jobs ADD priority integer NOT NULL",
        r"image_processing_jobs.priority \(INTEGER\(\) NOT NULL, without a default\) must be given",
    ),
}
FINE = {
    "a new column": "ALTER TABLE book_images ADD licence text",
    "a new column with a default": "ALTER TABLE book_images ADD licence text NOT NULL DEFAULT ''",
    "a new column of jobs": "ALTER TABLE image_processing_jobs ADD priority integer",
    "a new column of books": "ALTER TABLE books ADD licence text NOT NULL",
    "a column that counts": (
        "ALTER TABLE image_processing_jobs ADD number bigint GENERATED ALWAYS AS IDENTITY"
    ),
    "a column that is computed": (
        "ALTER TABLE book_images"
        " ADD folder text NOT NULL GENERATED ALWAYS AS (split_part(s3_key, '/', 1)) STORED"
    ),
    "wider keys": "ALTER TABLE book_images ALTER s3_key TYPE varchar(1024)",
    "a text": "ALTER TABLE image_processing_jobs ALTER status TYPE text",
    "wider ids": "ALTER TABLE book_images ALTER id TYPE bigint",
    "no alembic": "CREATE TABLE alembic_version (version_num varchar(32))",
}


def test_the_tables_as_they_are_have_everything(database: Database, url: str) -> None:
    assert database.run(check_tables) == []


@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_that_is_missing_is_named(
    name: str, database: Database, collection: Collection
) -> None:
    table, column = name.split(".")
    collection.execute(f"ALTER TABLE {table} RENAME {column} TO other")
    with pytest.raises(InvalidConfig, match=f"{name} is missing"):
        database.run(check_tables)


@pytest.mark.parametrize("what", WRONG)
def test_what_does_not_fit_is_named(what: str, database: Database, collection: Collection) -> None:
    statement, expected = WRONG[what]
    collection.execute(statement)
    with pytest.raises(InvalidConfig, match=expected):
        database.run(check_tables)


@pytest.mark.parametrize("what", FINE)
def test_changes_that_do_no_harm_are_accepted(
    what: str, database: Database, collection: Collection
) -> None:
    collection.execute(FINE[what])
    assert database.run(check_tables) == []


def test_a_missing_index_is_a_warning(database: Database, collection: Collection) -> None:
    collection.execute("DROP INDEX ix_image_processing_jobs_pending_unique")
    [warning] = database.run(check_tables)
    assert "unique index" in warning
