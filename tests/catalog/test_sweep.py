"""The sweep: rows that need a message get one, whatever is wrong with the rows before them."""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import Any

import psycopg
import pytest

from ingest.catalog.database import Database
from ingest.catalog.login import Login
from ingest.catalog.rows import fail
from ingest.catalog.unsent import Wanted, run_mark
from serve_app.config import AwsConfig, CatalogConfig
from serve_app.contracts.job import DEFAULT_RUN
from serve_app.contracts.outcome import Outcome
from tests.catalog.bench import Bench
from tests.catalog.collection import Collection, photographs
from tests.catalog.old_worker import OldSweep
from tests.catalog.sweeping import (
    DAY_S,
    WANTED,
    add_books,
    blocked_job,
    received,
    swept,
)


def states(collection: Collection) -> dict[str, int]:
    query = "SELECT status, count(*) AS number FROM image_processing_jobs GROUP BY status"
    return {row["status"]: row["number"] for row in collection.rows(query)}


def row(collection: Collection, job_id: str) -> dict[str, Any]:
    [found] = collection.rows("SELECT * FROM image_processing_jobs WHERE id = %s", job_id)
    return found


def age(collection: Collection, job_id: str, days: float) -> None:
    """Let a job have moved last some days ago."""
    query = "UPDATE image_processing_jobs SET updated_at = now() - %s * interval '1 day'"
    collection.execute(f"{query} WHERE id = %s", days, job_id)


def test_the_row_that_stopped_the_application_is_closed_and_the_sweep_goes_on(
    bench: Bench, database: Database, collection: Collection
) -> None:
    blocked, active = blocked_job(collection)
    behind = add_books(collection, 3)
    with pytest.raises(psycopg.errors.UniqueViolation):
        OldSweep(collection.url, lambda _: None).run()
    found = swept(bench, database)
    assert found.error is None
    assert found.ends == {"superseded": 1, "sent": 3}
    closed = row(collection, blocked)
    assert closed["status"] == "failed"
    assert closed["failure_reason"].startswith("superseded: ")
    assert closed["completed_at"] is not None
    assert row(collection, active)["status"] == "pending"
    bodies = received(bench)
    assert sorted(body["job_id"] for body in bodies) == sorted(behind)
    for body in bodies:
        sent = row(collection, body["job_id"])
        assert (sent["status"], sent["queue_retry_count"]) == ("pending", 0)
        assert (body["book_id"], body["image_id"]) == (sent["book_id"], sent["source_image_id"])
    assert swept(bench, database).ends == {}
    assert received(bench) == []


@pytest.mark.parametrize(
    ("wrong", "end", "status"),
    [
        ("UPDATE books SET id = 0 WHERE id = {book}", "invalid", "failed"),
        (
            "ALTER TABLE image_processing_jobs ADD CHECK"
            " (NOT (book_id = {book} AND status = 'pending'))",
            "left",
            "queue_failed",
        ),
    ],
)
def test_no_row_keeps_the_others_from_being_sent(
    wrong: str, end: str, status: str, bench: Bench, database: Database, collection: Collection
) -> None:
    first, *others = add_books(collection, 3)
    constraint = "image_processing_jobs_book_id_fkey"
    collection.execute(
        f"ALTER TABLE image_processing_jobs DROP CONSTRAINT {constraint},"
        f" ADD CONSTRAINT {constraint} FOREIGN KEY (book_id) REFERENCES books (id)"
        " ON UPDATE CASCADE ON DELETE CASCADE;"
        "ALTER TABLE book_images DROP CONSTRAINT book_images_book_id_fkey"
    )
    collection.execute(wrong.format(book=row(collection, first)["book_id"]))
    found = swept(bench, database)
    assert found.error is None
    assert found.ends == {end: 1, "sent": 2}
    assert row(collection, first)["status"] == status
    assert {body["job_id"] for body in received(bench)} == set(others)


def test_a_row_that_another_transaction_holds_is_left(
    bench: Bench, database: Database, collection: Collection
) -> None:
    first, second = add_books(collection, 2)
    with psycopg.connect(collection.url) as other:
        other.execute("SELECT 1 FROM image_processing_jobs WHERE id = %s FOR UPDATE", [first])
        assert swept(bench, database).ends == {"left": 1, "sent": 1}
    assert [body["job_id"] for body in received(bench)] == [second]
    assert swept(bench, database).ends == {"sent": 1}


def test_an_image_that_the_application_queues_at_the_moment_is_left_for_the_next_sweep(
    bench: Bench, database: Database, collection: Collection
) -> None:
    book, [image] = collection.add_book(*photographs(1))
    job = collection.queue(book, image, "queue_failed")
    [other] = add_books(collection, 1)
    insert = "INSERT INTO image_processing_jobs (book_id, source_image_id) VALUES (%s, %s)"
    with psycopg.connect(collection.url) as user:
        user.execute(insert, [book, image])
        assert swept(bench, database).ends == {"left": 1, "sent": 1}
        assert collection.job(job)["status"] == "queue_failed"
    assert [body["job_id"] for body in received(bench)] == [other]
    assert swept(bench, database).ends == {"superseded": 1}


def test_sweeps_at_once_and_the_application_send_each_row(
    bench: Bench, database: Database, settings: CatalogConfig, collection: Collection
) -> None:
    jobs = add_books(collection, 120)
    by_application: list[str] = []

    def send(body: str) -> None:
        by_application.append(json.loads(body)["job_id"])
        bench.sqs.send_message(QueueUrl=bench.url, MessageBody=body)

    with ThreadPoolExecutor(3) as pool, closing(Database(Login(settings, AwsConfig()))) as second:
        theirs = pool.submit(OldSweep(collection.url, send).run)
        ours = [pool.submit(swept, bench, each) for each in (database, second)]
        assert theirs.result()["succeeded"] == len(by_application)
        ends = sum((each.result().ends for each in ours), Counter())
        assert [each.result().error for each in ours] == [None, None]
    assert states(collection) == {"pending": len(jobs)}
    sent = Counter(body["job_id"] for body in received(bench))
    assert sent.keys() == set(jobs)
    # Ours never send what another sweep sends. The application's does: its first COMMIT frees all
    # of its rows, which it then sends without a look.
    assert sent.total() == ends["sent"] + len(by_application)
    assert all(count == 1 for job, count in sent.items() if job not in by_application)


def test_lost_jobs_are_sent_again_three_times_and_then_abandoned(
    bench: Bench, database: Database, collection: Collection
) -> None:
    book, images = collection.add_book(*photographs(4))
    stale, fresh, lost, waiting = (
        collection.queue(book, image, status).job_id
        for image, status in zip(
            images, ("processing", "processing", "pending", "pending"), strict=True
        )
    )
    age(collection, stale, 0.01)
    age(collection, lost, 1.1)
    age(collection, waiting, 0.9)
    age(collection, fresh, 0.001)
    for count in range(1, 4):
        assert swept(bench, database).ends == {"sent": 2}
        assert {body["job_id"] for body in received(bench)} == {stale, lost}
        # Neither is sent again before it counts as lost once more.
        assert swept(bench, database).ends == {}
        for job_id in (stale, lost):
            found = row(collection, job_id)
            assert (found["status"], found["queue_retry_count"]) == ("pending", count)
            age(collection, job_id, 1.1)
    assert swept(bench, database).ends == {"abandoned": 2}
    assert received(bench) == []
    for job_id in (stale, lost):
        found = row(collection, job_id)
        assert found["status"] == "failed"
        assert found["failure_reason"].startswith("abandoned: ")
    assert row(collection, waiting)["status"] == "pending"
    assert row(collection, fresh)["status"] == "processing"


def test_rows_without_times_count_as_old(
    bench: Bench, database: Database, collection: Collection
) -> None:
    [job_id] = add_books(collection, 1, "pending")
    collection.execute("UPDATE image_processing_jobs SET created_at = NULL, updated_at = NULL")
    assert swept(bench, database).ends == {"sent": 1}
    assert [body["job_id"] for body in received(bench)] == [job_id]


def test_what_has_failed_is_sent_by_hand_alone(
    bench: Bench, database: Database, collection: Collection
) -> None:
    book, images = collection.add_book(*photographs(4))
    reasons = ("abandoned: x", "too_large: 100%_x", "superseded: x", None)
    jobs = [collection.queue(book, image, "failed").job_id for image in images]
    for job_id, reason in zip(jobs, reasons, strict=True):
        collection.execute(
            "UPDATE image_processing_jobs SET failure_reason = %s, completed_at = now(),"
            " queue_retry_count = 3 WHERE id = %s", reason, job_id,
        )  # fmt: skip
    given_up = add_books(collection, 1, "permanently_failed")
    assert swept(bench, database).ends == {}

    def by_hand(**options: Any) -> set[str]:
        swept(bench, database, Wanted(DAY_S, 600, **options))
        return {body["job_id"] for body in received(bench)}

    assert by_hand(permanently_failed=True) == set(given_up)
    assert by_hand(failed=True, code="too_large") == {jobs[1]}
    assert by_hand(failed=True, code="too%") == set()
    assert by_hand(failed=True) == {jobs[0], jobs[3]}
    assert by_hand(failed=True, code="superseded") == {jobs[2]}
    found = row(collection, jobs[0])
    assert (found["status"], found["queue_retry_count"]) == ("pending", 0)
    assert found["completed_at"] is None


def test_a_job_of_a_run_is_sent_with_its_run_and_an_image_that_is_gone_as_null(
    bench: Bench, database: Database, collection: Collection
) -> None:
    first, second = add_books(collection, 2)
    query = "UPDATE image_processing_jobs SET failure_reason = %s, source_image_id = NULL"
    collection.execute(f"{query} WHERE id = %s", run_mark("r-1.x"), first)
    assert swept(bench, database, limit=1).ends == {"sent": 1}
    [body] = received(bench)
    assert (body["job_id"], body["run_id"], body["image_id"]) == (first, "r-1.x", None)
    assert swept(bench, database, WANTED).ends == {"sent": 1}
    assert received(bench)[0]["job_id"] == second


def test_a_job_of_a_run_that_has_failed_is_sent_with_its_run_however_often(
    bench: Bench, database: Database, collection: Collection
) -> None:
    ours, theirs = jobs = add_books(collection, 2, "pending")
    query = "UPDATE image_processing_jobs SET failure_reason = %s WHERE id = %s"
    collection.execute(query, run_mark("r-1.x"), ours)
    for message in ("no subject", "!" * 2_000, "what it names (queued: run other) is a text"):
        for job_id in jobs:
            failure = Outcome(
                job_id=job_id,
                run_id="r-1.x",
                status="failed",
                code="no_subject",
                message=message,
                book_id=row(collection, job_id)["book_id"],
            )
            database.run(partial(fail, outcome=failure))
        reasons = [row(collection, job_id)["failure_reason"] for job_id in jobs]
        assert reasons[0].endswith(" (queued: run r-1.x)")
        assert reasons[1] == f"no_subject: {message}"[:1_000]
        assert max(map(len, reasons)) <= 1_000
        by_code = Wanted(DAY_S, 600, failed=True, code="no_subject")
        assert swept(bench, database, by_code).ends == {"sent": 2}
        sent = {body["job_id"]: body.get("run_id") for body in received(bench)}
        assert sent.pop(ours) == "r-1.x"
        assert sent.pop(theirs) in (None, DEFAULT_RUN)
