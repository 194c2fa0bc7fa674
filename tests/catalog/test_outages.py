"""A database that stops while a consumer runs: no receive is spent, and no row is wrong."""

from __future__ import annotations

import asyncio
from contextlib import closing

import pytest

from ingest.local.aws import LocalAws
from tests.catalog.bench import Bench, in_run
from tests.catalog.collection import Collection, photographs
from tests.support.postgres_server import PostgresServer


@pytest.mark.parametrize(
    ("mode", "away_s"), [("fast", 4), pytest.param("immediate", 30, marks=pytest.mark.slow)]
)
async def test_a_database_that_is_unavailable_costs_no_receive(
    mode: str, away_s: float, aws: LocalAws, postgres: PostgresServer, url: str
) -> None:
    with closing(Collection(url)) as before:
        bench = Bench(aws, before)
        books = [before.add_book(*photographs(2)) for _ in range(8)]
        bench.upload(*(book for book, _ in books))
        jobs = [in_run(before.queue(book, images[0])) for book, images in books]
    async with bench.consuming() as consumer:
        await asyncio.to_thread(postgres.stop, mode)
        try:
            bench.send(*jobs)
            # Longer than the back-off of a job that waits.
            await asyncio.sleep(away_s)
            assert consumer.reason is not None
            assert consumer.reason.startswith("database: database_unavailable: ")
            assert bench.backlog() == len(jobs)
        finally:
            # In this thread: the server is to die with the thread that has started it.
            postgres.start()
        await bench.drained()
        assert consumer.healthy
    assert {record.receive_count for record in bench.records("r1")} == {1}
    assert {record.status for record in bench.records("r1")} == {"done"}
    with closing(Collection(url)) as after:
        for (book, images), job in zip(books, jobs, strict=True):
            assert after.job(job)["status"] == "completed"
            assert after.order(book)[1:] == [images[1], images[0]]


async def test_a_failure_waits_for_its_row_before_the_ledger_has_it(
    aws: LocalAws, postgres: PostgresServer, url: str
) -> None:
    with closing(Collection(url)) as before:
        bench = Bench(aws, before)
        book, [source] = before.add_book(*photographs(1))
        job = in_run(before.queue(book, source))
    stopped = asyncio.Event()

    async def lose_the_database(inner: object) -> object:
        # The image is not in the bucket, and the database goes while that is found out.
        outcome = await bench.pipeline.process(inner)  # type: ignore[arg-type]
        if not stopped.is_set():
            await asyncio.to_thread(postgres.stop)
            stopped.set()
        return outcome

    bench.send(job)
    async with bench.consuming(lose_the_database):  # type: ignore[arg-type]
        try:
            await asyncio.wait_for(stopped.wait(), 30)
            await asyncio.sleep(2)
            assert bench.records("r1") == []
        finally:
            # In this thread: the server is to die with the thread that has started it.
            postgres.start()
        await bench.drained()
    [record] = bench.records("r1")
    assert (record.status, record.code, record.receive_count) == ("failed", "source_not_found", 1)
    with closing(Collection(url)) as after:
        assert after.job(job)["status"] == "failed"
