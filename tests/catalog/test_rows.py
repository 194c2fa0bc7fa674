"""The transactions of a job, on a real PostgreSQL."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

import psycopg
import pytest
from sqlalchemy import Connection, event

from ingest.catalog import rows
from ingest.catalog.database import Database
from ingest.catalog.rows import Claimed, Completed, CutoutRow, Entered, Missing
from ingest.catalog.try_again import TryAgain
from serve_app.contracts.job import CatalogJob
from serve_app.contracts.outcome import Outcome
from serve_app.errors import InvalidMessage, NoSubject, SourceDeleted
from tests.catalog.collection import Collection, Image, photographs

STATES = ("pending", "processing", "failed", "queue_failed", "permanently_failed")


def cutout(job: CatalogJob, source_id: int, name: str = "f1") -> CutoutRow:
    return CutoutRow(source_id, f"{job.book_id}_processed_{source_id}_{name}.png", None, "folio")


def take(database: Database, job: CatalogJob) -> Claimed | Completed | Missing:
    return database.run(partial(rows.claim, job=job))


def end(database: Database, job: CatalogJob, made: CutoutRow) -> Entered | Missing:
    return database.run(partial(rows.finish, job=job, cutout=made))


@pytest.mark.parametrize("state", STATES)
def test_a_job_in_every_open_state_is_taken(
    state: str, database: Database, collection: Collection
) -> None:
    book, [first, *_] = collection.add_book(*photographs(2))
    job = collection.queue(book, first, state)
    found = take(database, job)
    assert isinstance(found, Claimed)
    assert found.source.id == first
    row = collection.job(job)
    assert (row["status"], row["attempt_count"]) == ("processing", 1)
    assert row["updated_at"] > row["created_at"]
    assert row["completed_at"] is None


def test_a_cut_out_becomes_the_first_and_primary_image_and_its_source_the_last(
    database: Database, collection: Collection
) -> None:
    # Two primaries, and positions that are neither dense nor unique.
    book, [a, b, c] = collection.add_book(
        Image("a", order=4, primary=True), Image("b", order=1), Image("c", order=4, primary=True)
    )
    job = collection.queue(book, a)
    collection.execute(
        "UPDATE image_processing_jobs SET failure_reason = 'old', completed_at = now()"
    )
    take(database, job)
    made = CutoutRow(a, f"{book}_processed_{a}_f1.png", "https://cdn/x", "u2net-alpha")
    assert end(database, job, made) == Entered(made.s3_key)
    [new] = [row for row in collection.images(book) if row["id"] not in (a, b, c)]
    assert collection.order(book) == [new["id"], b, c, a]
    assert (
        new
        | {
            "s3_key": made.s3_key,
            "cloudfront_url": "https://cdn/x",
            "image_type": None,
            "caption": None,
            "original_filename": None,
            "content_hash": None,
            "is_background_processed": True,
        }
        == new
    )
    row = collection.job(job)
    assert row["status"] == "completed"
    assert row["processed_image_id"] == new["id"]
    assert row["source_image_id"] == a
    assert row["model_used"] == "u2net-alpha"
    assert row["failure_reason"] is None
    assert row["completed_at"] == row["updated_at"]
    assert row["queue_retry_count"] == 0


def test_a_commit_whose_answer_was_lost_is_done_again_and_changes_nothing(
    database: Database, collection: Collection
) -> None:
    book, [source, *_] = collection.add_book(*photographs(3))
    job = collection.queue(book, source)
    take(database, job)
    made = cutout(job, source)
    end(database, job, made)
    before = collection.images(book), collection.job(job)
    assert end(database, job, made) == Entered(made.s3_key)
    assert (collection.images(book), collection.job(job)) == before


def test_an_image_has_one_cut_out_whoever_queues_it_how_often(
    database: Database, collection: Collection
) -> None:
    book, [source, other] = collection.add_book(*photographs(2))
    for name in ("f1", "f1", "f2", "f1"):
        job = collection.queue(book, source)
        take(database, job)
        end(database, job, cutout(job, source, name))
        # The user drags the original to the top again.
        collection.execute("UPDATE book_images SET display_order = -1 WHERE id = %s", source)
    images = collection.images(book)
    assert len(images) == 3
    [made] = [row for row in images if row["is_background_processed"]]
    assert made["s3_key"] == f"{book}_processed_{source}_f1.png"
    jobs = collection.rows("SELECT status, processed_image_id FROM image_processing_jobs")
    assert jobs == [{"status": "completed", "processed_image_id": made["id"]}] * 4
    assert other in {row["id"] for row in images}


def test_a_completed_job_names_its_cut_out_and_the_image_that_it_was_made_of(
    database: Database, collection: Collection
) -> None:
    book, [cover, asked] = collection.add_book(Image("a", "cover"), Image("b"))
    job = collection.queue(book, asked)
    take(database, job)
    made = cutout(job, asked)
    end(database, job, made)
    found = take(database, job)
    assert isinstance(found, Completed)
    assert found.s3_key == made.s3_key
    assert found.source is not None
    assert found.source.id == asked != cover
    assert collection.job(job)["attempt_count"] == 1


def test_the_cut_out_of_a_completed_job_that_a_user_deleted_is_not_made_again(
    database: Database, collection: Collection
) -> None:
    book, [source] = collection.add_book(*photographs(1))
    job = collection.queue(book, source)
    take(database, job)
    end(database, job, cutout(job, source))
    collection.execute("DELETE FROM book_images WHERE is_background_processed")
    assert take(database, job) == Completed(None)
    again = partial(rows.finish, job=job, cutout=cutout(job, source), again=True)
    assert database.run(again) == Entered(None)
    assert len(collection.images(book)) == 1


def test_objects_that_were_made_again_under_another_name_get_into_the_row(
    database: Database, collection: Collection
) -> None:
    book, [source] = collection.add_book(*photographs(1))
    job = collection.queue(book, source)
    take(database, job)
    end(database, job, cutout(job, source))
    new = cutout(job, source, "f2")
    assert end(database, job, new) == Entered(cutout(job, source).s3_key)
    assert database.run(partial(rows.finish, job=job, cutout=new, again=True)) == Entered(
        new.s3_key
    )
    assert collection.images(book)[0]["s3_key"] == new.s3_key


def test_an_older_failed_job_is_left_to_the_newer_one(
    database: Database, collection: Collection
) -> None:
    book, [source] = collection.add_book(*photographs(1))
    old = collection.queue(book, source, "failed")
    collection.queue(book, source)
    before = collection.job(old)
    with pytest.raises(rows.Superseded):
        take(database, old)
    assert collection.job(old) == before


def test_the_book_of_the_row_counts_and_not_that_of_the_message(
    database: Database, collection: Collection
) -> None:
    book, [source] = collection.add_book(*photographs(1))
    other, _ = collection.add_book(*photographs(1))
    job = collection.queue(book, source)
    wrong = job.model_copy(update={"book_id": other})
    before = collection.job(job)
    with pytest.raises(InvalidMessage, match=f"belongs to book {book}"):
        take(database, wrong)
    failure = Outcome.of_error(
        InvalidMessage("x"), job_id=job.job_id, run_id="r", source=None
    ).model_copy(update={"book_id": other})
    database.run(partial(rows.fail, outcome=failure))
    assert collection.job(job) == before


def test_a_row_that_is_missing_is_told_from_a_book_that_is_gone(
    database: Database, collection: Collection
) -> None:
    book, [source] = collection.add_book(*photographs(1))
    job = collection.queue(book, source)
    collection.execute("DELETE FROM image_processing_jobs")
    assert take(database, job) == Missing(book_exists=True)
    assert end(database, job, cutout(job, source)) == Missing(book_exists=True)
    collection.execute("DELETE FROM books")
    assert take(database, job) == Missing(book_exists=False)
    assert end(database, job, cutout(job, source)) == Missing(book_exists=False)


def test_a_source_that_was_deleted_meanwhile_leaves_the_rows_as_they_are(
    database: Database, collection: Collection
) -> None:
    book, [source, other] = collection.add_book(*photographs(2))
    job = collection.queue(book, source)
    take(database, job)
    collection.execute("DELETE FROM book_images WHERE id = %s", source)
    with pytest.raises(SourceDeleted):
        end(database, job, cutout(job, source))
    assert [row["id"] for row in collection.images(book)] == [other]
    assert collection.job(job)["status"] == "processing"


def test_a_book_without_images_has_nothing_to_cut_out(
    database: Database, collection: Collection
) -> None:
    book, _ = collection.add_book()
    job = collection.queue(book, None)
    with pytest.raises(SourceDeleted, match="no image"):
        take(database, job)


def test_a_failure_is_written_once_and_never_over_a_result(
    database: Database, collection: Collection
) -> None:
    book, [source] = collection.add_book(*photographs(1))
    job = collection.queue(book, source)
    take(database, job)
    error = NoSubject("folio found no subject" + "!" * 2_000)
    outcome = Outcome.failed(job, error)
    database.run(partial(rows.fail, outcome=outcome))
    row = collection.job(job)
    assert row["status"] == "failed"
    assert row["failure_reason"].startswith("no_subject: folio found no subject!")
    assert len(row["failure_reason"]) <= 1_000
    assert row["completed_at"] is not None
    take(database, job)
    end(database, job, cutout(job, source))
    database.run(partial(rows.fail, outcome=outcome))
    assert collection.job(job)["status"] == "completed"
    assert collection.job(job)["failure_reason"] is None


def test_a_job_is_given_back_only_while_it_is_taken(
    database: Database, collection: Collection
) -> None:
    book, [source] = collection.add_book(*photographs(1))
    job = collection.queue(book, source)
    take(database, job)
    database.run(partial(rows.give_back, job=job))
    assert collection.job(job)["status"] == "pending"
    take(database, job)
    end(database, job, cutout(job, source))
    database.run(partial(rows.give_back, job=job))
    assert collection.job(job)["status"] == "completed"


def test_release_leaves_jobs_that_were_taken_lately(
    database: Database, collection: Collection
) -> None:
    book, images = collection.add_book(*photographs(3))
    old, new, done = (collection.queue(book, image, "processing") for image in images)
    collection.execute(
        "UPDATE image_processing_jobs SET updated_at = now() - interval '1 hour' WHERE id = %s",
        old.job_id,
    )
    collection.execute(
        "UPDATE image_processing_jobs SET status = 'completed' WHERE id = %s", done.job_id
    )
    assert database.run(partial(rows.release, older_than_s=600)) == 1
    assert collection.job(old)["status"] == "pending"
    assert collection.job(new)["status"] == "processing"
    assert database.run(partial(rows.release, older_than_s=0)) == 1
    assert collection.job(new)["status"] == "pending"
    assert collection.job(done)["status"] == "completed"


LOCKS = {
    "the book": "UPDATE books SET id = id WHERE id = %(book)s",
    "the book for deletion": "DELETE FROM books WHERE id = %(book)s",
    "an image": "UPDATE book_images SET caption = '' WHERE id = %(image)s",
    "the job": "UPDATE image_processing_jobs SET status = status WHERE book_id = %(book)s",
}


@pytest.mark.parametrize("what", LOCKS)
def test_finish_never_waits_for_a_row(
    what: str, database: Database, collection: Collection, url: str
) -> None:
    book, [source, other] = collection.add_book(*photographs(2))
    job = collection.queue(book, source)
    take(database, job)
    query = LOCKS[what].replace("id = id", "title = ''") if what == "the book" else LOCKS[what]
    finish = partial(rows.finish, job=job, cutout=cutout(job, source))
    with psycopg.connect(url) as user:
        user.execute(query.encode(), {"book": book, "image": other})
        if what == "the book":
            # The title of a book is nothing to us, so its editor is not waited for.
            assert isinstance(database.run_once(finish), Entered)
        else:
            with pytest.raises(TryAgain, match="another transaction holds the rows") as raised:
                database.run_once(finish)
            assert raised.value.contended
        user.rollback()
    assert isinstance(database.run(finish), Entered)


def test_a_claim_and_an_upload_that_queues_a_job_do_not_hinder_each_other(
    database: Database, collection: Collection, url: str
) -> None:
    # The application holds the new rows while it sends the message to SQS.
    book, [source, other] = collection.add_book(*photographs(2))
    job = collection.queue(book, source)
    with psycopg.connect(url) as api:
        api.execute(
            "INSERT INTO image_processing_jobs (book_id, source_image_id) VALUES (%s, %s)",
            [book, other],
        )
        take(database, job)
        assert isinstance(
            database.run_once(partial(rows.finish, job=job, cutout=cutout(job, source))), Entered
        )
        api.commit()


def test_a_transaction_waits_for_others_and_then_succeeds(
    database: Database, collection: Collection, url: str
) -> None:
    book, [source] = collection.add_book(*photographs(1))
    job = collection.queue(book, source)
    take(database, job)
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with psycopg.connect(url) as user:
            user.execute("UPDATE book_images SET caption = ''")
            held.set()
            done.wait(0.3)

    user = threading.Thread(target=hold)
    user.start()
    held.wait()
    assert isinstance(end(database, job, cutout(job, source)), Entered)
    user.join()


def test_an_image_that_appears_between_the_lock_and_the_reading_begins_the_transaction_again(
    database: Database, collection: Collection
) -> None:
    book, [source] = collection.add_book(*photographs(1))
    job = collection.queue(book, source)
    take(database, job)
    added: list[int] = []

    def upload(_: object, __: object, statement: str, *rest: object) -> None:
        # It commits after the statement that locks has taken its snapshot.
        if "FOR NO KEY UPDATE" in statement and "book_images" in statement and not added:
            added.append(collection.add_image(book, Image("late.jpg"), 1))

    def finish_with_upload(connection: Connection) -> Entered | Missing:
        event.listen(connection, "after_cursor_execute", upload)
        return rows.finish(connection, job, cutout(job, source))

    assert isinstance(database.run(finish_with_upload), Entered)
    order = collection.order(book)
    assert (order[1:], len(order)) == ([added[0], source], 3)


def test_two_deliveries_at_once_make_one_row(database: Database, collection: Collection) -> None:
    book, [source, *_] = collection.add_book(*photographs(5))
    job = collection.queue(book, source)
    other = collection.queue(book, None)
    barrier = threading.Barrier(4)
    made = cutout(job, source)

    def deliver(which: CatalogJob) -> None:
        take(database, which)
        barrier.wait()
        end(database, which, made)

    threads = [threading.Thread(target=deliver, args=[which]) for which in (job, job, other, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(collection.order(book)) == 6
    assert {collection.job(each)["status"] for each in (job, other)} == {"completed"}


def test_statements_of_a_job_are_few(database: Database, collection: Collection) -> None:
    book, [source, *_] = collection.add_book(*photographs(40))
    job = collection.queue(book, source)
    counted: list[str] = []

    def count(_: object, __: object, statement: str, *rest: object) -> None:
        counted.append(statement)

    def counting(work: Callable[[Connection], object]) -> Callable[[Connection], object]:
        def run(connection: Connection) -> object:
            event.listen(connection, "before_cursor_execute", count)
            return work(connection)

        return run

    database.run(counting(partial(rows.claim, job=job)))
    database.run(counting(partial(rows.finish, job=job, cutout=cutout(job, source))))
    # Each transaction sets its time-outs with one statement more.
    assert len(counted) + 2 <= 12
