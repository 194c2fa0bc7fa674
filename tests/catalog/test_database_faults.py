"""What can be wrong with a database while a consumer runs: no receive is spent, no row is wrong."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from ingest.consumer.consumer import Consumer
from tests.catalog.bench import in_run
from tests.catalog.catalog_bench import PATIENCE_S
from tests.catalog.collection import Collection, photographs
from tests.catalog.quick_bench import QuickBench
from tests.support.postgres_server import PostgresServer

JOBS = 8
FULL = (
    "CREATE OR REPLACE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS "
    "$$BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '53100'; END$$; "
    "CREATE TRIGGER full_disk BEFORE UPDATE ON image_processing_jobs"
    " FOR EACH ROW EXECUTE FUNCTION full_disk()"
)
FAULTS = {
    "a login that is refused": (
        "ALTER ROLE {role} PASSWORD 'other'",
        "ALTER ROLE {role} PASSWORD 'w'",
        "password authentication failed",
    ),
    "no free connections": (
        "ALTER ROLE {role} CONNECTION LIMIT 0",
        "ALTER ROLE {role} CONNECTION LIMIT -1",
        "too many connections",
    ),
    "read-only": (
        "ALTER ROLE {role} SET default_transaction_read_only = on",
        "ALTER ROLE {role} RESET default_transaction_read_only",
        "read-only",
    ),
    "a full disk": (FULL, "DROP TRIGGER full_disk ON image_processing_jobs", "disk"),
    "a sequence that lags": (
        "SELECT setval('book_images_id_seq', 1, false)",
        "SELECT setval('book_images_id_seq', 1000)",
        "sequence of book_images.id lags",
    ),
    "a right that is missing": (
        "REVOKE UPDATE ON image_processing_jobs FROM {role}",
        "GRANT UPDATE ON image_processing_jobs TO {role}",
        "lacks a right",
    ),
}
END_SESSIONS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'"


def wait_until_refused(consumer: Consumer) -> None:
    """Return when a consumer has found out that a place refuses its jobs."""
    until = time.monotonic() + PATIENCE_S
    while consumer.reason is None:
        assert time.monotonic() < until, "nothing refuses the jobs"
        time.sleep(0.02)


@pytest.mark.parametrize("what", FAULTS)
async def test_jobs_wait_for_a_database_that_does_not_let_them_work(
    what: str, collection: Collection, postgres: PostgresServer, tmp_path: Path
) -> None:
    begin, end, expected = FAULTS[what]
    name = collection.url.rpartition("/")[2]
    role = f"jobs_{name}"
    for statement in (
        f"CREATE ROLE {role} LOGIN PASSWORD 'w'",
        f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}",
        f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role}",
    ):
        collection.execute(statement)
    bench = QuickBench(tmp_path, collection, postgres.url(name, role, "w"))
    books = [collection.add_book(*photographs(2)) for _ in range(JOBS)]
    bench.upload(*(book for book, _ in books))
    jobs = [in_run(collection.queue(book, images[0])) for book, images in books]
    async with bench.consuming() as consumer:
        # Sessions that are open keep what they were given at their login.
        for statement in (begin, END_SESSIONS):
            collection.execute(statement.format(role=role))
        bench.send(*jobs)
        await asyncio.to_thread(wait_until_refused, consumer)
        assert consumer.reason is not None
        assert consumer.reason.startswith("database: database_unavailable: ")
        assert expected in consumer.reason
        assert {collection.job(job)["status"] for job in jobs} <= {"pending", "processing"}
        assert all(len(collection.images(book)) == 2 for book, _ in books)
        for statement in (end, END_SESSIONS):
            collection.execute(statement.format(role=role))
        await bench.drained()
        assert consumer.healthy
    assert {record.receive_count for record in bench.records("r1")} == {1}
    for (book, images), job in zip(books, jobs, strict=True):
        assert collection.job(job)["status"] == "completed"
        assert collection.order(book)[1:] == [images[1], images[0]]
