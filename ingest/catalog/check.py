"""The checks of ``foreedge catalog check``: what a consumer of catalog jobs needs, one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from sqlalchemy import Connection, false, func, insert, literal, select, update
from sqlalchemy.exc import DBAPIError

from ingest.catalog.database import Database
from ingest.catalog.login import Login
from ingest.catalog.rules import object_key
from ingest.catalog.tables import BOOKS, IMAGES, JOBS, check_tables
from ingest.catalog.try_again import TryAgain
from ingest.runs.ledger_check import check_ledger
from ingest.sqs.queue_client import QueueClient
from ingest.sqs.redrive_policy import read_redrive_policy
from serve_app.aws import aws_client
from serve_app.config import AppConfig, CatalogConfig, QueueConfig
from serve_app.errors import ForeedgeError, InvalidConfig
from serve_app.storage import open_store

_RECENT_IMAGES = 5
_PROBE_KEY = "books/0_foreedge_check"
_DENIED = {"AccessDenied", "AccessDeniedException", "403", "Forbidden"}
_QUICK = {"max_attempts": 1, "connect_timeout_s": 2, "read_timeout_s": 25}
"""Settings of AWS's clients with which a check ends within seconds."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    check: str
    """What was checked."""
    problem: str | None = None
    """What is wrong and what to do, or None."""
    detail: str = ""
    """What was found."""


def check_catalog(config: AppConfig) -> Iterator[Finding]:
    """Yield the result of each check. Blocks. Nothing is changed.

    Args:
        config: Settings of the application.

    Raises:
        InvalidConfig: No catalog is configured.
    """
    if config.catalog is None or config.queue is None or config.ledger is None:
        raise InvalidConfig(
            "no catalog is configured; set catalog.images_bucket, and catalog.database_url or "
            "catalog.database_secret"
        )
    quick = config.model_copy(update={"aws": config.aws.model_copy(update=_QUICK)})
    store, ledger = open_store(quick), config.ledger
    database = Database(Login(config.catalog, quick.aws))
    try:
        answers = True
        for finding in _check_database(database):
            answers &= finding.problem is None
            yield finding
        yield from _check_bucket(quick, config.catalog, database if answers else None)
    finally:
        database.close()
    yield from _check_queue(quick, config.queue)

    def check_records() -> str:
        check_ledger(store, ledger)
        return f"records can be stored in s3://{ledger.bucket}"

    yield _checked("ledger", check_records)


def _checked(check: str, work: Callable[[], str]) -> Finding:
    """Return the finding of a check that returns what it found."""
    try:
        return Finding(check, detail=work())
    except ForeedgeError as error:
        return Finding(check, error.message)
    except TryAgain as again:
        return Finding(check, again.error.message)


def _check_database(database: Database) -> Iterator[Finding]:
    # Not repeated: whoever waits for the answer can repeat the command.
    ask = database.run_once
    version = select(func.current_setting("server_version"))
    found = _checked("database", lambda: f"PostgreSQL {ask(lambda c: c.scalar(version))}")
    yield found
    if found.problem is None:
        tables = _checked("tables", lambda: "; ".join(ask(check_tables)) or "complete")
        yield tables
        if tables.problem is None:
            yield _checked("rights in the database", lambda: ask(_try_rights))


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
        if getattr(error.orig, "sqlstate", None) == "42501":
            return False
        raise
    return True


def _check_bucket(
    config: AppConfig, catalog: CatalogConfig, database: Database | None
) -> Iterator[Finding]:
    """Yield what was found about the bucket, and its images if the database names them."""
    client = aws_client("s3", config.aws)
    bucket, url = catalog.images_bucket, f"s3://{catalog.images_bucket}"
    found = _tried("s3:ListBucket", lambda: _head_missing(client, bucket), url)
    yield found
    if found.problem is not None:
        return
    yield _tried("s3:PutObject", lambda: _begin_upload(client, bucket), url)
    if database is None:
        return
    store = open_store(config)

    def find_images() -> str:
        newest = select(IMAGES.c.s3_key).order_by(IMAGES.c.id.desc()).limit(_RECENT_IMAGES)
        keys = [object_key(key) for key in database.run_once(lambda c: c.scalars(newest).all())]
        if keys and all(store.head(bucket, key) is None for key in keys):
            raise InvalidConfig(
                f"none of the newest images of the table is in s3://{bucket}, such as {keys[0]}; "
                "correct catalog.images_bucket or the database"
            )
        return f"{len(keys)} of the newest rows looked up"

    yield _checked("images in the bucket", find_images)


def _head_missing(client: Any, bucket: str) -> str:
    """Look up an object that cannot exist. Without ListBucket, S3 answers 403 and not 404."""
    try:
        client.head_object(Bucket=bucket, Key=f"{_PROBE_KEY}/missing")
    except ClientError as error:
        if error.response.get("Error", {}).get("Code") != "404":
            raise
        # The same answer stands for a bucket that does not exist.
        client.head_bucket(Bucket=bucket)
    return "a missing object is answered with 404"


def _begin_upload(client: Any, bucket: str) -> str:
    """Begin an upload in parts and abort it, which needs the right to write and writes nothing."""
    begun = client.create_multipart_upload(Bucket=bucket, Key=_PROBE_KEY)
    client.abort_multipart_upload(Bucket=bucket, Key=_PROBE_KEY, UploadId=begun["UploadId"])
    return "an upload can be begun below books/"


def _check_queue(config: AppConfig, queue: QueueConfig) -> Iterator[Finding]:
    client = QueueClient(aws_client("sqs", config.aws), queue.url)

    def read_policy() -> str:
        policy = read_redrive_policy(client)
        if policy is None:
            raise InvalidConfig(
                f"{queue.url} has no redrive policy, so that failures have no dead-letter queue; "
                "give it one with a maxReceiveCount of 3 or more"
            )
        return f"{policy.max_receives} receives, then {policy.dead_letter_url}"

    policy = _checked("queue and dead-letter queue", read_policy)
    yield policy
    if policy.problem is None:
        url = queue.url
        yield _tried("sqs:ChangeMessageVisibility", lambda: _extend_nothing(client), url)
        yield _tried("sqs:DeleteMessage", lambda: _delete_nothing(client), url)


def _extend_nothing(queue: QueueClient) -> str:
    queue.client.change_message_visibility(
        QueueUrl=queue.url, ReceiptHandle="none", VisibilityTimeout=0
    )
    return "allowed"


def _delete_nothing(queue: QueueClient) -> str:
    queue.client.delete_message(QueueUrl=queue.url, ReceiptHandle="none")
    return "allowed"


def _tried(right: str, action: Callable[[], str], where: str) -> Finding:
    """Return the finding of a call of AWS, whose answer says whether it is allowed."""
    try:
        return Finding(right, detail=action())
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "").rpartition(".")[2]
        if code in _DENIED:
            return Finding(right, f"the role may not {right} on {where}; allow it")
        if code.startswith("ReceiptHandle") or code == "InvalidParameterValue":
            # The call was allowed, and there is no such message.
            return Finding(right, detail="allowed")
        return Finding(right, f"{where}: {error}")
    except (BotoCoreError, ValueError) as error:
        return Finding(right, f"{where}: {error}")
