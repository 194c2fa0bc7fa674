"""What the commands of the catalog share: its settings, its database, and a choice of books."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from serve_app.config import AppConfig, CatalogConfig
from serve_app.config.catalog import missing_packages
from serve_app.errors import InvalidConfig

if TYPE_CHECKING:
    from ingest.catalog.database import Database

BooksOption = Annotated[
    str | None, typer.Option("--books", help="Only the books with these ids, e.g. 1,2.")
]


def parse_books(text: str | None) -> tuple[int, ...] | None:
    """Return the ids of books that an option lists, or None if it is not given.

    Raises:
        InvalidConfig: It is not a list of ids.
    """
    if text is None:
        return None
    try:
        ids = tuple(int(part) for part in text.split(","))
    except ValueError:
        ids = (0,)
    if not all(0 < each < 2**31 for each in ids):
        raise InvalidConfig(f"--books {text} is not a list of ids; write them as 1,2,7")
    return ids


def require_catalog(config: AppConfig) -> CatalogConfig:
    """Return the settings of the catalog.

    Raises:
        InvalidConfig: No catalog is configured.
    """
    if config.catalog is None:
        raise InvalidConfig(
            "no catalog is configured; set catalog.images_bucket, and catalog.database_url or "
            "catalog.database_secret"
        )
    return config.catalog


@contextmanager
def open_database(config: AppConfig) -> Iterator[Database]:
    """Open the database of the catalog, and close it at the end of the context.

    Raises:
        InvalidConfig: No catalog is configured, or its packages are missing.
    """
    catalog = require_catalog(config)
    try:
        # SQLAlchemy and psycopg are in the extra ``catalog``, which few installations have.
        from ingest.catalog.database import Database
        from ingest.catalog.login import Login
    except ImportError as error:
        raise missing_packages(error) from error
    database = Database(Login(catalog, config.aws))
    try:
        yield database
    finally:
        database.close()
