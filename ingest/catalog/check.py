"""The checks of what a consumer of catalog jobs needs: the database, its rights, and the images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from sqlalchemy import Connection, false, func, insert, literal, select, update
from sqlalchemy.exc import DBAPIError

from ingest.catalog.database import Database
from ingest.catalog.login import Login
from ingest.catalog.rules import FOLDER, object_key
from ingest.catalog.sql_errors import INSUFFICIENT_PRIVILEGE, sqlstate_of
from ingest.catalog.tables import BOOKS, IMAGES, JOBS, check_tables
from ingest.catalog.try_again import TryAgain
from ingest.findings import Finding, checked
from ingest.runs.bucket_check import check_result_bucket
from serve_app.config import AppConfig, CatalogConfig
from serve_app.errors import InvalidConfig
from serve_app.storage import open_store

T = TypeVar("T")

_RECENT_IMAGES = 5


def check_catalog_database(config: AppConfig, catalog: CatalogConfig) -> Iterator[Finding]:
    """Yield what was found about the database, its tables and the rights of the login. Blocks.

    Every statement of a job is tried on no row.

    Args:
        config: Settings of the connection to AWS, for the secret.
        catalog: Settings of the catalog.
    """
    database = Database(Login(catalog, config.aws))
    version = select(func.current_setting("server_version"))
    try:
        found = checked(
            "database", lambda: f"PostgreSQL {_ask(database, lambda c: c.scalar(version))}"
        )
        yield found
        if found.problem is None:
            tables = checked(
                "tables", lambda: "; ".join(_ask(database, check_tables)) or "complete"
            )
            yield tables
            if tables.problem is None:
                yield checked("rights in the database", lambda: _ask(database, _try_rights))
    finally:
        database.close()


def check_catalog_bucket(config: AppConfig, catalog: CatalogConfig) -> Iterator[Finding]:
    """Yield what was found about the bucket of the images. Blocks. Nothing is written.

    Args:
        config: Settings of the connection to AWS.
        catalog: Settings of the catalog.
    """
    yield from check_result_bucket(config.aws, catalog.images_bucket, FOLDER)


def check_catalog_images(config: AppConfig, catalog: CatalogConfig) -> Finding:
    """Return whether the bucket has images that the tables name. Blocks.

    Args:
        config: Settings of the connection to AWS.
        catalog: Settings of the catalog.
    """
    store, bucket = open_store(config), catalog.images_bucket
    newest = select(IMAGES.c.s3_key).order_by(IMAGES.c.id.desc()).limit(_RECENT_IMAGES)

    def find_images() -> str:
        database = Database(Login(catalog, config.aws))
        try:
            keys = [object_key(key) for key in _ask(database, lambda c: c.scalars(newest).all())]
        finally:
            database.close()
        present = [key for key in keys if store.head(bucket, key) is not None]
        if keys and not present:
            raise InvalidConfig(
                f"none of the newest images of the table is in s3://{bucket}, such as {keys[0]}; "
                "correct catalog.images_bucket or the database"
            )
        # HEAD and GET need the same right.
        return f"{len(present)} of the {len(keys)} newest rows have their object"

    return checked("images in the bucket", find_images)


def _ask(database: Database, work: Callable[[Connection], T]) -> T:
    """Return what a transaction returns. It is not repeated: the command can be."""
    try:
        return database.run_once(work)
    except TryAgain as again:
        raise again.error from again


def _try_rights(connection: Connection) -> str:
    """Try every statement that a job needs, on no row, and return that all are allowed.

    Raises:
        InvalidConfig: Some are not. The text names the rights.
    """
    lock: dict[str, Any] = {"key_share": True, "nowait": True}
    nothing = select(*(literal(None, column.type) for column in IMAGES.c)).where(false())
    statements = {
        "SELECT and UPDATE on books (id)": select(BOOKS.c.id)
        .where(false())
        .with_for_update(read=True, **lock),
        "SELECT on book_images": select(*IMAGES.c).where(false()),
        "UPDATE on book_images": update(IMAGES).where(false()).values(display_order=0),
        "INSERT on book_images": insert(IMAGES).from_select(list(IMAGES.c), nothing),
        "SELECT on image_processing_jobs": select(*JOBS.c).where(false()),
        "UPDATE on image_processing_jobs": update(JOBS).where(false()).values(status="pending"),
    }
    missing = [right for right, each in statements.items() if not _is_allowed(connection, each)]
    sequence = func.pg_get_serial_sequence(IMAGES.name, "id")
    # Only a statement that inserts a row asks for this right, so that it cannot be tried.
    if connection.scalar(select(func.has_sequence_privilege(sequence, "USAGE"))) is False:
        missing.append(f"USAGE on {connection.scalar(select(sequence))}")
    if missing:
        raise InvalidConfig(f"the role lacks {', '.join(missing)}; GRANT them (docs/catalog.md)")
    return "all that a job needs"


def _is_allowed(connection: Connection, statement: Any) -> bool:
    try:
        with connection.begin_nested():
            connection.execute(statement)
    except DBAPIError as error:
        if sqlstate_of(error) == INSUFFICIENT_PRIVILEGE:
            return False
        raise
    return True
