"""The known faults of the application's sweep, on its model and on ours."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psycopg
import pytest

from ingest.catalog.database import Database
from ingest.catalog.sweep import sweep, sweep_queue
from tests.catalog.bench import Bench
from tests.catalog.collection import Collection
from tests.catalog.old_worker import OldError, OldSweep
from tests.catalog.sweeping import WANTED, add_books, blocked_job, received, swept

OUTAGES = 3


def check_progress(sent: list[str], behind: list[str]) -> None:
    assert set(behind) <= set(sent), "the rows behind are never sent"


def check_once(sent: list[str]) -> None:
    twice = [job for job, number in Counter(sent).items() if number > 1]
    assert not twice, f"{len(twice)} jobs were sent twice"


def check_waits(collection: Collection) -> None:
    given_up = collection.rows(
        "SELECT 1 FROM image_processing_jobs WHERE status = 'permanently_failed'"
    )
    assert not given_up, f"{len(given_up)} jobs were given up because of an outage"


def ids(bodies: list[Any]) -> list[str]:
    return [str(body["job_id"]) for body in bodies]


def old_sweep(url: str, bodies: list[Any], committed: Callable[[], object]) -> OldSweep:
    return OldSweep(url, lambda body: bodies.append(json.loads(body)), committed)


def test_15_a_row_that_cannot_wait_does_not_keep_the_others(
    bench: Bench, database: Database, collection: Collection
) -> None:
    blocked_job(collection)
    behind = add_books(collection, 3)
    bodies: list[Any] = []
    for _ in range(3):
        with suppress(psycopg.errors.UniqueViolation):
            old_sweep(collection.url, bodies, lambda: None).run()
    with pytest.raises(AssertionError, match="the rows behind are never sent"):
        check_progress(ids(bodies), behind)
    swept(bench, database)
    check_progress(ids(received(bench)), behind)


def test_16_two_sweeps_at_once_send_each_row_once(
    bench: Bench, database: Database, collection: Collection
) -> None:
    add_books(collection, 4)
    bodies: list[Any] = []
    # The API's sweep comes when the Lambda's has committed its first row.
    pending = [old_sweep(collection.url, bodies, lambda: None)]
    old_sweep(collection.url, bodies, lambda: pending and pending.pop().run()).run()
    with pytest.raises(AssertionError, match="3 jobs were sent twice"):
        check_once(ids(bodies))

    collection.execute("UPDATE image_processing_jobs SET status = 'queue_failed'")
    others = [None]

    def another(_: str) -> None:
        if others:
            others.pop()
            swept(bench, database)

    queue = sweep_queue(bench.url, bench.config.aws)
    sweep(database, queue, WANTED, on_row=another)
    found = ids(received(bench))
    check_once(found)
    assert len(found) == 4


def test_17_an_outage_of_the_queue_gives_up_no_job(
    bench: Bench, database: Database, collection: Collection
) -> None:
    def refuse(_: str) -> None:
        raise OldError("the queue does not answer")

    add_books(collection, 2)
    for _ in range(OUTAGES):
        OldSweep(collection.url, refuse).run()
    with pytest.raises(AssertionError, match="2 jobs were given up"):
        check_waits(collection)

    collection.execute(
        "UPDATE image_processing_jobs SET status = 'queue_failed', queue_retry_count = 0"
    )
    dead = bench.config.aws.model_copy(update={"endpoint_url": "http://127.0.0.1:9"})
    for _ in range(OUTAGES):
        assert sweep(database, sweep_queue(bench.url, dead), WANTED).error is not None
    check_waits(collection)
    [row] = collection.rows("SELECT DISTINCT status, queue_retry_count FROM image_processing_jobs")
    assert row == {"status": "queue_failed", "queue_retry_count": 0}
