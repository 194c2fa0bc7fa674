"""Connections, logins and the mapping of what a database answers, on a real PostgreSQL."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import Any, Literal

import psycopg
import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from ingest.catalog.database import Database
from ingest.catalog.finish import Entered, finish
from ingest.catalog.login import Login, read_secret
from ingest.catalog.rows import Claimed
from ingest.catalog.sql_errors import map_database_error
from ingest.catalog.try_again import TryAgain
from ingest.local.aws import LocalAws
from serve_app.aws import aws_client
from serve_app.config import AwsConfig, CatalogConfig
from serve_app.errors import DatabaseUnavailable, ForeedgeError, InternalError, InvalidConfig
from tests.catalog.collection import Collection, photographs
from tests.catalog.conftest import BUCKET
from tests.catalog.test_rows import cutout, end, take
from tests.support.cutting_proxy import CuttingProxy
from tests.support.postgres_server import PASSWORD, PostgresServer

STATES = {
    kind.sqlstate: kind
    for kind in vars(psycopg.errors).values()
    if isinstance(kind, type) and issubclass(kind, psycopg.Error) and kind.sqlstate
}
"""The errors that PostgreSQL knows, by SQLSTATE."""
JOBS_OWN = {"22", "23"}
"""Classes of errors of data: only these and statements that are wrong are held against a job."""
AT_ONCE = ("08", "40001", "40P01", "55P03", "57P01", "57P02", "57P03", "57P05", "25P03", "25P04")


def mapped(kind: type[psycopg.Error]) -> ForeedgeError | TryAgain:
    return map_database_error(DBAPIError("SELECT secret", {}, kind("text of the server")))


def opened(url: str, *, patience_s: float = 10) -> Database:
    settings = CatalogConfig.model_validate({"database_url": url, "images_bucket": BUCKET})
    return Database(Login(settings, AwsConfig()), patience_s=patience_s)


class OldLogin(Login):
    """The old worker's login, which read its secret once for each process."""

    def renewed(self) -> dict[str, Any]:
        return self.options()


def opened_by_secret(
    name: str, aws: AwsConfig, clock: Callable[[], float], kind: type[Login] = Login
) -> Database:
    settings = CatalogConfig.model_validate({"database_secret": name, "images_bucket": BUCKET})
    return Database(kind(settings, aws, clock))


def one(connection: Connection) -> int:
    found: int = connection.execute(text("SELECT 1")).scalar_one()
    return found


def test_a_url_may_set_the_options_of_libpq_that_we_set(url: str) -> None:
    options = "?connect_timeout=3&application_name=books&keepalives_idle=60&tcp_user_timeout=9000"
    joined = url + (options.replace("?", "&") if "?" in url else options)
    with closing(opened(joined)) as database:
        name = database.run(lambda c: c.scalar(text("SELECT current_setting('application_name')")))
    assert name == "books"


def test_postgres_has_many_errors() -> None:
    assert len(STATES) > 200


@pytest.mark.parametrize("state", sorted(STATES))
def test_every_error_of_postgres_is_mapped(state: str) -> None:
    found = mapped(STATES[state])
    if state.startswith(AT_ONCE):
        assert isinstance(found, TryAgain)
        assert isinstance(found.error, DatabaseUnavailable)
        found = found.error
    elif state[:2] in {"53", "57", "58", "25", "28", "3D", "3F", "XX"}:
        assert isinstance(found, DatabaseUnavailable)
    elif state[:2] in JOBS_OWN:
        assert isinstance(found, InternalError)
    assert isinstance(found, DatabaseUnavailable | InternalError)
    assert "text of the server" in found.message
    assert "secret" not in found.message


@pytest.mark.parametrize("kind", [psycopg.OperationalError, psycopg.InterfaceError])
def test_a_connection_that_is_lost_is_opened_again(kind: type[psycopg.Error]) -> None:
    found = mapped(kind)
    assert isinstance(found, TryAgain)
    assert not found.contended


def test_a_full_pool_is_not_the_jobs_fault() -> None:
    assert isinstance(map_database_error(PoolTimeout()), DatabaseUnavailable)


@pytest.mark.parametrize("where", ["before", "after"])
@pytest.mark.parametrize("step", ["claim", "finish"])
def test_a_connection_that_is_cut_at_its_commit_costs_nothing(
    where: Literal["before", "after"],
    step: str,
    collection: Collection,
    postgres: PostgresServer,
    url: str,
) -> None:
    book, [source, *_] = collection.add_book(*photographs(3))
    job = collection.queue(book, source)
    with CuttingProxy(postgres.port) as proxy:
        through = url.replace(f":{postgres.port}/", f":{proxy.port}/")
        with closing(opened(through)) as database:
            database.run(one)
            if step == "claim":
                proxy.cut = where
            assert isinstance(take(database, job), Claimed)
            if step == "finish":
                proxy.cut = where
            assert isinstance(end(database, job, cutout(job, source)), Entered)
            assert proxy.cuts == 1
            assert database.trouble is None
    assert len(collection.order(book)) == 4
    assert collection.job(job)["status"] == "completed"
    idle = "SELECT 1 FROM pg_stat_activity WHERE state LIKE 'idle in transaction%%'"
    assert collection.rows(idle) == []


def test_a_backend_that_is_terminated_is_replaced(
    database: Database, collection: Collection
) -> None:
    database.run(one)
    collection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'foreedge'"
    )
    # Whoever does not repeat a transaction does not notice either.
    assert database.run_once(one) == 1


def test_a_server_that_restarts_is_found_again(postgres: PostgresServer, template: str) -> None:
    with closing(opened(postgres.url(postgres.create(template)))) as database:
        database.run(one)
        for mode in ("fast", "immediate"):
            postgres.stop(mode)
            with pytest.raises(DatabaseUnavailable, match="does not answer"):
                database.run(one)
            assert database.trouble is not None
            postgres.start()
            assert database.run(one) == 1
            assert database.trouble is None


@pytest.mark.parametrize(
    ("prepare", "expected"),
    [
        ("ALTER DATABASE {name} SET default_transaction_read_only = on", "read-only"),
        ("REVOKE UPDATE ON image_processing_jobs FROM worker", "lacks a right"),
        ("ALTER TABLE book_images RENAME s3_key TO key", "a column is missing"),
        ("ALTER TABLE book_images RENAME TO images", "a table is missing"),
    ],
)
def test_a_database_that_does_not_let_us_work_is_not_the_jobs_fault(
    prepare: str, expected: str, collection: Collection, postgres: PostgresServer, url: str
) -> None:
    name = url.rpartition("/")[2]
    role = f"worker_{name}"
    collection.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'w'")
    collection.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}")
    book, [source] = collection.add_book(*photographs(1))
    job = collection.queue(book, source)
    collection.execute(prepare.replace("{name}", name).replace("worker", role))
    with closing(opened(postgres.url(name, role, "w"))) as database:
        with pytest.raises(DatabaseUnavailable, match=expected):
            take(database, job)
        assert database.trouble is not None


def test_a_full_disk_is_not_the_jobs_fault(database: Database, collection: Collection) -> None:
    book, [source] = collection.add_book(*photographs(1))
    job = collection.queue(book, source)
    # What the server answers if it cannot extend the table.
    collection.execute(
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS "
        "$$BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END$$"
    )
    collection.execute(
        "CREATE TRIGGER t BEFORE INSERT ON book_images FOR EACH ROW EXECUTE FUNCTION full_disk()"
    )
    take(database, job)
    with pytest.raises(DatabaseUnavailable, match="disk of the database is full"):
        end(database, job, cutout(job, source))
    assert len(collection.images(book)) == 1


def test_a_sequence_that_lags_is_named_and_makes_no_duplicate(
    database: Database, collection: Collection
) -> None:
    book, [source, *_] = collection.add_book(*photographs(2))
    job = collection.queue(book, source)
    collection.execute("SELECT setval('book_images_id_seq', 1, false)")
    take(database, job)
    with pytest.raises(DatabaseUnavailable, match=r"sequence of book_images\.id lags"):
        end(database, job, cutout(job, source))
    assert len(collection.images(book)) == 2
    # Each attempt takes a number, so that the sequence catches up.
    with pytest.raises(DatabaseUnavailable):
        end(database, job, cutout(job, source))
    assert isinstance(end(database, job, cutout(job, source)), Entered)


def test_a_server_without_free_connections_is_not_the_jobs_fault(
    postgres: PostgresServer, template: str, url: str
) -> None:
    name = postgres.create(template)
    with postgres.connect(name) as admin:
        admin.execute(f"CREATE ROLE few_{name} LOGIN PASSWORD 'w' CONNECTION LIMIT 0".encode())
    with (
        closing(opened(postgres.url(name, f"few_{name}", "w"))) as database,
        pytest.raises(DatabaseUnavailable, match="too many connections"),
    ):
        database.run(one)


def test_a_password_that_was_rotated_is_read_again_at_once(
    aws: LocalAws, postgres: PostgresServer, template: str
) -> None:
    name = postgres.create(template)
    client = aws_client("secretsmanager", aws.aws)
    content = {
        "username": f"rotated_{name}",
        "password": PASSWORD,
        "host": "127.0.0.1",
        "port": postgres.port,
        "database": name,
    }
    client.create_secret(Name=name, SecretString=json.dumps(content))
    minutes = itertools.count(0, 60.0)
    with (
        postgres.connect(name) as admin,
        closing(opened_by_secret(name, aws.aws, lambda: next(minutes))) as database,
        closing(opened_by_secret(name, aws.aws, lambda: next(minutes), OldLogin)) as old,
    ):
        role = f"rotated_{name}".encode()
        admin.execute(b"CREATE ROLE " + role + b" LOGIN PASSWORD '" + PASSWORD.encode() + b"'")
        assert database.run(one) == old.run(one) == 1
        admin.execute(b"ALTER ROLE " + role + b" PASSWORD 'new'")
        client.put_secret_value(
            SecretId=name, SecretString=json.dumps({**content, "password": "new"})
        )
        database.close()
        old.close()
        assert database.run(one) == 1
        with pytest.raises(DatabaseUnavailable, match="password authentication failed"):
            old.run(one)


@pytest.mark.parametrize(
    ("secret", "missing"),
    [
        ("not json hunter2", "not a JSON object"),
        ('["hunter2"]', "not a JSON object"),
        ('{"username": "u", "password": "hunter2", "host": "h"}', "lacks dbname"),
        ('{"username": "", "password": "hunter2", "host": "h", "dbname": "d"}', "lacks username"),
    ],
)
def test_a_secret_that_is_wrong_is_described_and_not_quoted(secret: str, missing: str) -> None:
    with pytest.raises(InvalidConfig, match=missing) as raised:
        read_secret(secret, "name")
    assert "hunter2" not in raised.value.message
    assert raised.value.__cause__ is None


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:hun@ter2@host/db",
        "postgresql://user:hun/ter2@host/db",
        "postgresql://user:hunter2@host:port/db",
        "postgresql://user:hunter2@host/db?no_such_option=1",
    ],
)
def test_a_url_that_libpq_reads_otherwise_is_refused_and_not_quoted(url: str) -> None:
    with (
        closing(opened(url)) as database,
        pytest.raises(InvalidConfig, match=r"catalog\.database_url") as raised,
    ):
        database.run(one)
    assert "ter2" not in raised.value.message
    assert raised.value.__cause__ is None


def test_no_transaction_outlives_its_time_outs(database: Database) -> None:
    def settings(connection: Connection) -> list[str]:
        names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
        return [connection.scalar(text(f"SHOW {name}")) for name in names]

    assert database.run(settings) == ["5s", "250ms", "10s"]

    def sleep(connection: Connection) -> None:
        connection.execute(text("SET LOCAL statement_timeout = '50ms'"))
        connection.execute(text("SELECT pg_sleep(5)"))

    with pytest.raises(DatabaseUnavailable, match="longer than its limit"):
        database.run(sleep)


def test_rows_that_stay_locked_are_given_up_after_a_while(collection: Collection, url: str) -> None:
    book, [source] = collection.add_book(*photographs(1))
    job = collection.queue(book, source)
    finishing: Callable[[Connection], Any] = partial(finish, job=job, cutout=cutout(job, source))
    with psycopg.connect(url) as user, closing(opened(url, patience_s=0.5)) as database:
        take(database, job)
        user.execute("UPDATE book_images SET caption = ''")
        with pytest.raises(DatabaseUnavailable, match="another transaction holds the rows"):
            database.run(finishing)
        # The database itself is well.
        assert database.trouble is None
        user.rollback()
        assert isinstance(database.run(finishing), Entered)
