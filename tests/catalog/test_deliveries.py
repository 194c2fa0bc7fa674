"""Deliveries of one job at once and again, and what users delete meanwhile."""

from __future__ import annotations

import pytest

from serve_app.contracts.job import Job
from serve_app.contracts.outcome import Outcome
from tests.catalog.bench import Bench, in_run
from tests.catalog.collection import Collection, photographs


async def test_two_deliveries_at_once_and_one_later_make_one_cut_out(
    bench: Bench, collection: Collection
) -> None:
    book, [source, other] = collection.add_book(*photographs(2))
    bench.upload(book)
    job, again = collection.queue(book, source), collection.queue(book, other)
    await bench.serve(job, job, again, again)
    order, keys = collection.order(book), bench.objects()
    assert len(order) == 3
    await bench.serve(job, again)
    assert collection.order(book) == order
    assert bench.objects() == keys
    ids = {collection.job(each)["processed_image_id"] for each in (job, again)}
    assert ids == {order[0]}


@pytest.mark.parametrize("missing", ["", "thumb_"])
async def test_an_object_of_a_completed_job_that_is_missing_is_made_again(
    missing: str, bench: Bench, collection: Collection
) -> None:
    book, [source] = collection.add_book(*photographs(1))
    bench.upload(book)
    job = collection.queue(book, source)
    await bench.serve(job)
    before, keys = collection.images(book), bench.objects()
    key = f"books/{missing}{before[0]['s3_key']}"
    bench.s3.delete_object(Bucket=bench.bucket, Key=key)
    await bench.serve(job)
    assert bench.objects() == keys
    assert collection.images(book) == before


async def test_objects_that_are_deleted_before_the_commit_are_made_again(
    bench: Bench, collection: Collection
) -> None:
    book, [source] = collection.add_book(*photographs(1))
    bench.upload(book)
    job = collection.queue(book, source)

    async def deleted_meanwhile(inner: Job) -> Outcome:
        outcome = await bench.pipeline.process(inner)
        if len(bench.pipeline.processed) == 1:
            bench.s3.delete_object(Bucket=bench.bucket, Key=outcome.output_key)
        return outcome

    await bench.serve(job, process=deleted_meanwhile)
    assert len(bench.pipeline.processed) == 2
    made = collection.images(book)[0]
    assert f"books/{made['s3_key']}" in bench.objects()
    assert collection.job(job)["status"] == "completed"


async def test_a_source_that_is_deleted_meanwhile_is_named_and_nothing_is_inserted(
    bench: Bench, collection: Collection
) -> None:
    book, [source, other] = collection.add_book(*photographs(2))
    bench.upload(book)
    job = collection.queue(book, source)

    async def deleted_meanwhile(inner: Job) -> Outcome:
        outcome = await bench.pipeline.process(inner)
        collection.execute("DELETE FROM book_images WHERE id = %s", source)
        return outcome

    await bench.serve(job, process=deleted_meanwhile)
    assert collection.job(job)["status"] == "failed"
    assert collection.job(job)["failure_reason"].startswith("source_deleted: ")
    assert [row["id"] for row in collection.images(book)] == [other]


async def test_a_book_that_is_deleted_meanwhile_ends_quietly(
    bench: Bench, collection: Collection
) -> None:
    book, [source] = collection.add_book(*photographs(1))
    bench.upload(book)
    job = in_run(collection.queue(book, source))

    async def deleted_meanwhile(inner: Job) -> Outcome:
        outcome = await bench.pipeline.process(inner)
        collection.execute("DELETE FROM books")
        return outcome

    await bench.serve(job, process=deleted_meanwhile)
    assert bench.dead_letters() == []
    [record] = bench.records("r1")
    assert (record.status, record.code) == ("skipped_existing", "job_gone")


async def test_the_model_of_a_result_that_existed_gets_into_the_row(
    bench: Bench, collection: Collection
) -> None:
    book, [source] = collection.add_book(*photographs(1))
    bench.upload(book)
    bench.pipeline.model = "Bücher"
    # A consumer made the objects and died before it entered them.
    job = collection.queue(book, source)
    await bench.serve(job)
    collection.execute("DELETE FROM book_images WHERE is_background_processed")
    collection.execute("UPDATE image_processing_jobs SET status = 'processing', model_used = NULL")
    await bench.serve(job)
    assert len(bench.pipeline.processed) == 2
    assert collection.job(job)["model_used"] == "Bücher"
