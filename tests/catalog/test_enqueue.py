"""``foreedge catalog enqueue``: which books get a job, and what belongs to their run."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ingest.catalog.database import Database
from ingest.catalog.queued_rows import insert_queued, let_queued_wait
from ingest.cli.main import app
from ingest.sources.base import Entry
from serve_app.errors import InvalidConfig
from tests.catalog.bench import Bench
from tests.catalog.collection import Collection, Image, photographs
from tests.catalog.commands import command, json_answer, settings_file
from tests.catalog.stand_in_pipeline import jpeg
from tests.catalog.sweeping import add_unqueued, received

JOBS = "SELECT * FROM image_processing_jobs ORDER BY book_id"


@pytest.fixture
def file(bench: Bench, tmp_path: Path) -> str:
    return settings_file(bench, tmp_path)


def add_states(collection: Collection) -> dict[str, int]:
    """Add a book in each state, and return the ids by what they are."""
    found = {}
    for status in ("pending", "processing", "queue_failed", "failed", "permanently_failed"):
        found[status], [image] = collection.add_book(*photographs(1))
        collection.queue(found[status], image, status)
    found["cut out"], [_, _] = collection.add_book(
        Image("{book}_a.jpg"), Image("{book}_processed_1_a.png", primary=True, processed=True)
    )
    found["without images"], _ = collection.add_book()
    # A user has deleted the cut-out.
    found["completed"], [image] = collection.add_book(*photographs(1))
    collection.queue(found["completed"], image, "completed")
    found["plain"], _ = collection.add_book(
        Image("books/{book}/image_01.jpg", primary=True), Image("{book}/cover.webp", "cover")
    )
    found["sold"], _ = collection.add_book(*photographs(1))
    collection.execute("UPDATE books SET status = 'SOLD' WHERE id = %s", found["sold"])
    return found


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", {"plain", "sold", "completed", "permanently_failed"}),
        ("--failed", {"plain", "sold", "completed", "permanently_failed", "failed"}),
        ("--status SOLD", {"sold"}),
        ("--books {plain},{pending},{failed}", {"plain"}),
        ("--books {plain},{sold} --status ON_HAND", {"plain"}),
    ],
)
def test_the_books_of_a_run(
    options: str, expected: set[str], file: str, bench: Bench, collection: Collection
) -> None:
    books = add_states(collection)
    names = {book: name for name, book in books.items()}
    words = ["catalog", "enqueue", *options.format(**books).split()]
    before = collection.rows(JOBS)
    assert json_answer(*words, "--dry-run", settings=file) == {
        "run_id": None, "books": len(expected), "sent": False,
    }  # fmt: skip
    assert collection.rows(JOBS) == before
    answer = json_answer(*words, "--run-id", "r1", settings=file)
    assert answer == {"run_id": "r1", "books": len(expected), "sent": True}
    bodies = received(bench)
    assert {names[body["book_id"]] for body in bodies} == expected
    assert len(bodies) == len(expected)
    for body in bodies:
        [row] = collection.rows("SELECT * FROM image_processing_jobs WHERE id = %s", body["job_id"])
        assert body["run_id"] == "r1"
        assert (row["book_id"], row["source_image_id"]) == (body["book_id"], body["image_id"])
        assert (row["status"], row["attempt_count"]) == ("pending", 0)
        if names[body["book_id"]] == "plain":
            [cover] = collection.rows(
                "SELECT id FROM book_images WHERE image_type = 'cover' AND book_id = %s",
                books["plain"],
            )
            assert body["image_id"] == cover["id"]
    assert json_answer(*words, settings=file)["books"] == 0
    assert received(bench) == []


async def test_a_run_is_watched_verified_and_sent_again_as_every_run(
    file: str, bench: Bench, collection: Collection
) -> None:
    bench.s3.put_object(Bucket=bench.bucket, Key="books/shared.jpg", Body=jpeg())
    good = add_unqueued(collection, 3)
    bad = add_unqueued(collection, 2, "missing.jpg")
    words = ["catalog", "enqueue", "--run-id", "r1", "--limit"]
    assert json_answer(*words, "5", settings=file)["books"] == 5
    async with bench.consuming():
        await bench.drained()
    found = json_answer("status", "r1", settings=file)
    assert found["counts"] == {"done": 3, "skipped_existing": 0, "failed": 2, "missing": 0}
    assert found["codes"] == {"source_not_found": 2}
    assert json_answer("verify", "r1", settings=file)["sound"]
    for book in good:
        assert len(collection.order(book)) == 2

    refused = CliRunner().invoke(app, ["redrive", "r1", "--config", file, "--recipe", "mask"])
    assert "Leave out --recipe" in str(refused.exception)
    assert json_answer("redrive", "r1", settings=file)["redriven"] == 2
    bodies = received(bench)
    assert sorted(body["book_id"] for body in bodies) == bad
    for body in bodies:
        assert body.keys() == {"job_id", "run_id", "book_id", "image_id"}
        assert body["run_id"] == "r1"

    # Those messages are lost now, and verify finds it.
    command("verify", "r1", "--enqueue-missing", settings=file, code=1)
    again = received(bench)
    assert sorted(body["job_id"] for body in again) == sorted(body["job_id"] for body in bodies)
    assert all(body.keys() == bodies[0].keys() for body in again)


def test_a_run_without_books_is_no_run(file: str, collection: Collection) -> None:
    answer = json_answer("catalog", "enqueue", settings=file)
    assert answer == {"run_id": None, "books": 0, "sent": False}


@pytest.mark.parametrize("books", ["1,two", "0", "1,-2", "3000000000", "1,"])
def test_a_wrong_list_of_books_is_refused(books: str, file: str, collection: Collection) -> None:
    answer = CliRunner().invoke(app, ["catalog", "enqueue", "--config", file, "--books", books])
    assert f"--books {books} is not a list of ids" in str(answer.exception)


def entries_of(collection: Collection, number: int) -> list[Entry]:
    books = add_unqueued(collection, number)
    rows = collection.rows("SELECT id, book_id FROM book_images ORDER BY book_id")
    ids = [f"00000000-0000-4000-8000-{book:012d}" for book in books]
    return [
        Entry("b", "books/shared.jpg", job_id=job_id, book_id=row["book_id"], image_id=row["id"])
        for job_id, row in zip(ids, rows, strict=True)
    ]


def test_a_book_and_an_image_that_were_deleted_meanwhile(
    database: Database, collection: Collection
) -> None:
    gone, without, kept = entries_of(collection, 3)
    collection.execute("DELETE FROM books WHERE id = %s", gone.book_id)
    collection.execute("DELETE FROM book_images WHERE id = %s", without.image_id)
    insert = partial(insert_queued, entries=[gone, without, kept], run_id="r1")
    for _ in range(2):
        database.run(insert)
    rows = {str(row["id"]): row for row in collection.rows(JOBS)}
    assert rows.keys() == {without.job_id, kept.job_id}
    assert rows[without.job_id or ""]["source_image_id"] is None
    assert rows[kept.job_id or ""]["source_image_id"] == kept.image_id
    assert {row["status"] for row in rows.values()} == {"queue_failed"}


def test_an_image_that_a_user_has_queued_meanwhile_keeps_the_job_of_the_user(
    database: Database, collection: Collection
) -> None:
    first, taken, last = entries = entries_of(collection, 3)
    database.run(partial(insert_queued, entries=entries, run_id="r1"))
    theirs = collection.queue(taken.book_id or 0, taken.image_id)
    # A consumer was faster than the sender.
    collection.execute(
        "UPDATE image_processing_jobs SET status = 'completed' WHERE id = %s", last.job_id
    )
    database.run(partial(let_queued_wait, entries=entries))
    rows = {str(row["id"]): row for row in collection.rows(JOBS)}
    assert rows[first.job_id or ""]["status"] == "pending"
    assert rows[taken.job_id or ""]["failure_reason"].startswith("superseded: ")
    assert rows[taken.job_id or ""]["status"] == "failed"
    assert rows[last.job_id or ""]["status"] == "completed"
    assert rows[theirs.job_id]["status"] == "pending"


def test_tables_that_take_no_row_are_told_before_anything_is_queued(
    file: str, bench: Bench, collection: Collection
) -> None:
    add_unqueued(collection, 1)
    collection.execute("ALTER TABLE image_processing_jobs ADD priority integer NOT NULL")
    answer = CliRunner().invoke(app, ["catalog", "enqueue", "--config", file])
    assert isinstance(answer.exception, InvalidConfig)
    assert "image_processing_jobs.priority (INTEGER() NOT NULL" in answer.exception.message
    assert received(bench) == []
    assert list(bench.store.keys(bench.bucket, "")) == []


def test_a_setting_of_the_command_line_counts(
    file: str, bench: Bench, collection: Collection
) -> None:
    add_unqueued(collection, 1)
    other = bench.aws.create_queue(f"{bench.bucket}-other")
    words = ["catalog", "enqueue", "--set", f"queue.url={other}"]
    assert json_answer(*words, settings=file)["books"] == 1
    assert received(bench) == []
    assert len(bench.sqs.receive_message(QueueUrl=other)["Messages"]) == 1
