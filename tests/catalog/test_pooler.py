"""PgBouncer between a consumer and the database, which gives each transaction any connection."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, select, text

from ingest.catalog import rows
from ingest.catalog.tables import BOOKS
from ingest.catalog.try_again import TryAgain
from serve_app.contracts.job import Job
from serve_app.contracts.outcome import Outcome
from serve_app.errors import DatabaseUnavailable
from tests.catalog.bench import in_run
from tests.catalog.catalog_bench import PATIENCE_S
from tests.catalog.collection import Collection, photographs
from tests.catalog.quick_bench import QuickBench
from tests.catalog.sweeping import add_books
from tests.catalog.test_database import opened
from tests.support.pgbouncer import PROGRAM, PgBouncer
from tests.support.postgres_server import PostgresServer

pytestmark = pytest.mark.skipif(
    PROGRAM is None, reason="pgbouncer is not installed (apt-get install pgbouncer)"
)

JOBS = 48
WORK_S = 0.02
LIMITS = (
    "SELECT pg_backend_pid(), current_setting('statement_timeout'),"
    " current_setting('lock_timeout'), current_setting('idle_in_transaction_session_timeout')"
)


@pytest.fixture
def pooler(postgres: PostgresServer) -> Iterator[PgBouncer]:
    """Yield a pooler with fewer connections than one consumer opens."""
    with PgBouncer(postgres, connections=2) as opened_pooler:
        yield opened_pooler


@pytest.fixture
def narrow(postgres: PostgresServer) -> Iterator[PgBouncer]:
    """Yield a pooler whose clients share one connection."""
    with PgBouncer(postgres, connections=1) as opened_pooler:
        yield opened_pooler


def name_of(collection: Collection) -> str:
    return collection.url.rpartition("/")[2]


def wait_until_completed(collection: Collection, jobs: int) -> int:
    """Return the number of completed jobs once it is so large."""
    query = "SELECT count(*) AS jobs FROM image_processing_jobs WHERE status = 'completed'"
    until = time.monotonic() + PATIENCE_S
    while (done := int(collection.rows(query)[0]["jobs"])) < jobs:
        assert time.monotonic() < until, f"{done} jobs are completed"
        time.sleep(0.005)
    return done


async def test_jobs_run_through_a_pooler_that_restarts(
    pooler: PgBouncer, postgres: PostgresServer, collection: Collection, tmp_path: Path
) -> None:
    bench = QuickBench(tmp_path, collection, pooler.url(name_of(collection)), max_in_flight=16)
    books = [collection.add_book(*photographs(2)) for _ in range(JOBS)]
    bench.upload(*(book for book, _ in books))
    jobs = [in_run(collection.queue(book, images[0])) for book, images in books]
    before = len(postgres.log())

    async def process(job: Job) -> Outcome:
        await asyncio.sleep(WORK_S)
        return await bench.pipeline.process(job)

    async with bench.consuming(process):
        bench.send(*jobs)
        done = await asyncio.to_thread(wait_until_completed, collection, JOBS // 4)
        assert done < JOBS
        pooler.stop()
        # In this thread: the pooler is to die with the thread that has started it.
        pooler.start()
        await bench.drained()
        pooled = collection.rows(
            "SELECT 1 FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = 'foreedge'"
        )
    assert 1 <= len(pooled) <= 2
    assert {record.receive_count for record in bench.records("r1")} == {1}
    for (book, images), job in zip(books, jobs, strict=True):
        assert collection.job(job)["status"] == "completed"
        assert collection.order(book)[1:] == [images[1], images[0]]
    for log in (postgres.log()[before:], pooler.log()):
        assert "prepared statement" not in log


def test_the_time_outs_of_a_transaction_hold_and_do_not_reach_the_next_client(
    narrow: PgBouncer, postgres: PostgresServer, collection: Collection
) -> None:
    url = narrow.url(name_of(collection))
    book, [image] = collection.add_book(*photographs(1))
    job = collection.queue(book, image)

    def limits(connection: Connection) -> tuple[Any, ...]:
        return tuple(connection.execute(text(LIMITS)).one())

    def sleep(connection: Connection) -> None:
        connection.execute(text("SELECT pg_sleep(60)"))

    with (
        closing(opened(url)) as database,
        psycopg.connect(url, autocommit=True, prepare_threshold=None) as next_client,
    ):
        pid, *found = database.run_once(limits)
        assert found == ["5s", "250ms", "10s"]
        free = (pid, "0", "0", "0")
        assert next_client.execute(LIMITS).fetchone() == free
        with postgres.connect(name_of(collection)) as user, user.transaction():
            user.execute("SELECT 1 FROM image_processing_jobs FOR UPDATE")
            with pytest.raises(TryAgain, match="lock timeout"):
                database.run_once(partial(rows.claim, job=job))
            assert next_client.execute(LIMITS).fetchone() == free
        with pytest.raises(DatabaseUnavailable, match="statement timeout"):
            database.run_once(sleep)
        assert next_client.execute(LIMITS).fetchone() == free
        # What was ended has left the connection as it was.
        assert isinstance(database.run(partial(rows.claim, job=job)), rows.Claimed)


def test_a_cursor_and_the_lock_of_the_sweep_need_no_session(
    pooler: PgBouncer, collection: Collection
) -> None:
    add_books(collection, 2_500)
    url = pooler.url(name_of(collection))
    with closing(opened(url)) as one, closing(opened(url)) as other:
        assert len(list(one.stream(select(BOOKS.c.id)))) == 2_500
        with one.locked(7) as held, other.locked(7) as refused:
            assert held is not None
            assert refused is None
        with other.locked(7) as freed:
            assert freed is not None
