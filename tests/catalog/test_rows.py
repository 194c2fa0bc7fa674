"""The transactions of a job, on a real PostgreSQL."""

from __future__ import annotations

from functools import partial

import pytest

from ingest.catalog import rows
from ingest.catalog.database import Database
from ingest.catalog.finish import CutoutRow, Entered, finish
from ingest.catalog.rows import Claimed, Completed, Missing
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
    return database.run(partial(finish, job=job, cutout=made))


def test_a_job_waits_since_it_became_pending(database: Database, collection: Collection) -> None:
    book, [first, *_] = collection.add_book(*photographs(2))
    collection.queue(book, first, "pending")
    old = "now() - interval '90 days'"
    collection.execute(f"UPDATE image_processing_jobs SET created_at = {old}, updated_at = now()")
    counts = database.run(partial(rows.count_jobs, stale_after_s=600))
    assert counts.oldest_pending_s is not None
    assert counts.oldest_pending_s < 60
    # A row that nobody has changed waits since it was made.
    collection.execute("UPDATE image_processing_jobs SET updated_at = NULL")
    counts = database.run(partial(rows.count_jobs, stale_after_s=600))
    assert counts.oldest_pending_s == pytest.approx(90 * 86_400, abs=7_200)


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
    again = partial(finish, job=job, cutout=cutout(job, source), again=True)
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
    assert database.run(partial(finish, job=job, cutout=new, again=True)) == Entered(new.s3_key)
    assert collection.images(book)[0]["s3_key"] == new.s3_key


def test_a_cut_out_whose_objects_are_made_again_of_itself_stays_the_first(
    database: Database, collection: Collection
) -> None:
    book, [former, other] = collection.add_book(
        Image("{book}_processed_old.png", None, primary=True, processed=True), Image("b")
    )
    collection.execute("UPDATE book_images SET is_background_processed = true")
    job = collection.queue(book, former, "completed")
    collection.execute("UPDATE image_processing_jobs SET processed_image_id = %s", former)
    made = cutout(job, former)
    again = partial(finish, job=job, cutout=made, again=True)
    assert database.run(again) == Entered(made.s3_key)
    assert collection.order(book) == [former, other]
    assert collection.images(book)[0]["s3_key"] == made.s3_key


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
