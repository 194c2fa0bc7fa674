"""Catalog messages through the real consumer: from SQS over the rows and S3 to the ledger."""

from __future__ import annotations

import asyncio
import json
import uuid

import psycopg

from serve_app.contracts.job import CatalogJob, Job
from serve_app.contracts.outcome import Outcome
from serve_app.errors import NoSubject, StorageUnavailable
from tests.catalog.bench import Bench, in_run
from tests.catalog.collection import Collection, Image, photographs


async def no_subject(job: Job) -> Outcome:
    return Outcome.failed(job, NoSubject("folio found no subject"))


async def test_a_message_becomes_a_completed_row_with_both_objects(
    bench: Bench, collection: Collection
) -> None:
    book, [first, asked] = collection.add_book(*photographs(2))
    bench.upload(book)
    before = bench.objects()
    job = in_run(collection.queue(book, asked))
    await bench.serve(job)
    [made, *others] = collection.order(book)
    assert others == [asked, first]
    row = collection.job(job)
    assert (row["status"], row["attempt_count"], row["processed_image_id"]) == (
        "completed",
        1,
        made,
    )
    assert row["model_used"] == "u2net-alpha"
    [image] = collection.rows("SELECT * FROM book_images WHERE id = %s", made)
    assert image["s3_key"].startswith(f"{book}_processed_{first}_")
    assert image["cloudfront_url"] == f"https://cdn.example/books/{image['s3_key']}"
    assert {key: kind for key, kind in bench.objects().items() if key not in before} == {
        f"books/{image['s3_key']}": "image/png",
        f"books/thumb_{image['s3_key']}": "image/jpeg",
    }
    [record] = bench.records("r1")
    assert (record.status, record.job_id, record.receive_count) == ("done", job.job_id, 1)
    assert (record.book_id, record.image_id) == (book, asked)
    assert bench.dead_letters() == []


async def test_keys_of_every_kind_lead_to_their_objects(
    bench: Bench, collection: Collection
) -> None:
    keys = ("{book}/image_01.webp", "{book}_0a.PNG", "books/{book}/image_02.jpg", "{book}_b.jpeg")
    books = [collection.add_book(Image(key, None)) for key in keys]
    bench.upload(*(book for book, _ in books))
    jobs = [collection.queue(book, image) for book, [image] in books]
    await bench.serve(*jobs)
    assert {collection.job(job)["status"] for job in jobs} == {"completed"}
    for book, [image] in books:
        made, source = collection.order(book)
        assert source == image != made


async def test_a_permanent_failure_ends_the_row_once_with_code_and_reason(
    bench: Bench, collection: Collection
) -> None:
    book, [source] = collection.add_book(*photographs(1))
    job = in_run(collection.queue(book, source))
    await bench.serve(job, process=no_subject)
    row = collection.job(job)
    assert row["status"] == "failed"
    assert row["failure_reason"] == "no_subject: folio found no subject"
    assert row["completed_at"] is not None
    assert row["attempt_count"] == 1
    [(code, body)] = bench.dead_letters()
    assert code == "no_subject"
    assert CatalogJob.model_validate(body) == job
    [record] = bench.records("r1")
    assert (record.status, record.book_id, record.image_id) == ("failed", book, source)
    assert collection.order(book) == [source]


async def test_a_row_that_the_database_refuses_keeps_neither_the_record_nor_the_message(
    bench: Bench, collection: Collection
) -> None:
    book, [source] = collection.add_book(*photographs(1))
    job = in_run(collection.queue(book, source))
    collection.execute("ALTER TABLE image_processing_jobs ADD CHECK (status <> 'failed')")
    await bench.serve(job, process=no_subject)
    assert [record.code for record in bench.records("r1")] == ["no_subject"]
    assert [code for code, _ in bench.dead_letters()] == ["no_subject"]
    # The sweep finds it.
    assert collection.job(job)["status"] == "pending"


async def test_a_passing_failure_leaves_no_trace_in_the_row(
    bench: Bench, collection: Collection
) -> None:
    book, [source] = collection.add_book(*photographs(1))
    bench.upload(book)
    job = in_run(collection.queue(book, source))
    seen: list[str] = []

    async def fail_first(inner: Job) -> Outcome:
        if not seen:
            seen.append(collection.job(job)["status"])
            raise RuntimeError("a defect")
        seen.append(collection.job(job)["status"])
        return await bench.pipeline.process(inner)

    await bench.serve(job, process=fail_first)
    row = collection.job(job)
    assert (row["status"], row["failure_reason"], row["attempt_count"]) == ("completed", None, 2)
    assert seen == ["processing", "processing"]
    assert [record.receive_count for record in bench.records("r1")] == [2]


async def test_the_last_receive_of_a_passing_failure_ends_the_row(
    bench: Bench, collection: Collection
) -> None:
    book, [source] = collection.add_book(*photographs(1))
    job = in_run(collection.queue(book, source))

    async def fail(_: Job) -> Outcome:
        assert collection.job(job)["status"] == "processing"
        raise RuntimeError("a defect")

    await bench.serve(job, process=fail)
    row = collection.job(job)
    assert row["status"] == "failed"
    assert row["failure_reason"] == "internal_error: RuntimeError: a defect"
    assert row["attempt_count"] == 5
    assert [code for code, _ in bench.dead_letters()] == ["internal_error"]


async def test_a_stop_gives_the_rows_back(bench: Bench, collection: Collection) -> None:
    books = [collection.add_book(*photographs(1)) for _ in range(3)]
    jobs = [collection.queue(book, image) for book, [image] in books]
    working = 0
    all_work = asyncio.Event()

    async def never(_: Job) -> Outcome:
        nonlocal working
        working += 1
        if working == len(jobs):
            all_work.set()
        await asyncio.sleep(3_600)
        raise AssertionError("unreachable")

    bench.config = bench.config.model_copy(
        update={"queue": bench.config.queue.model_copy(update={"stop_grace_s": 0.2})}  # type: ignore[union-attr]
    )
    bench.send(*jobs)
    async with bench.consuming(never):
        await asyncio.wait_for(all_work.wait(), 20)
        assert {collection.job(job)["status"] for job in jobs} == {"processing"}
    assert {collection.job(job)["status"] for job in jobs} == {"pending"}
    assert bench.backlog() == 3
    assert bench.dead_letters() == []


async def test_a_row_that_comes_after_its_message_is_waited_for(
    bench: Bench, collection: Collection
) -> None:
    book, [source] = collection.add_book(*photographs(1))
    bench.upload(book)
    with psycopg.connect(collection.url) as api:
        job_id = str(uuid.uuid4())
        api.execute(
            "INSERT INTO image_processing_jobs (id, book_id, source_image_id) VALUES (%s, %s, %s)",
            [job_id, book, source],
        )
        job = in_run(CatalogJob(job_id=job_id, book_id=book, image_id=source))
        bench.send(job)
        async with bench.consuming():
            await asyncio.sleep(0.5)
            api.commit()
            await bench.drained()
    assert collection.job(job)["status"] == "completed"
    assert [record.receive_count for record in bench.records("r1")] == [1]


async def test_a_row_that_never_comes_is_a_dead_letter_unless_the_book_is_gone(
    bench: Bench, collection: Collection
) -> None:
    book, _ = collection.add_book(*photographs(1))
    unknown = in_run(CatalogJob(job_id=str(uuid.uuid4()), book_id=book, image_id=1))
    gone = in_run(CatalogJob(job_id=str(uuid.uuid4()), book_id=book + 1, image_id=None))
    await bench.serve(unknown, gone)
    assert [code for code, _ in bench.dead_letters()] == ["job_unknown"]
    records = {record.job_id: (record.status, record.code) for record in bench.records("r1")}
    assert records == {
        unknown.job_id: ("failed", "job_unknown"),
        gone.job_id: ("skipped_existing", "job_gone"),
    }


async def test_a_message_that_names_another_book_changes_nothing(
    bench: Bench, collection: Collection
) -> None:
    book, [source] = collection.add_book(*photographs(1))
    other, _ = collection.add_book(*photographs(1))
    job = collection.queue(book, source, "processing")
    before = collection.job(job)
    await bench.serve(job.model_copy(update={"book_id": other}))
    assert collection.job(job) == before
    assert [code for code, _ in bench.dead_letters()] == ["invalid_message"]


async def test_a_job_that_has_a_newer_one_ends_quietly(
    bench: Bench, collection: Collection
) -> None:
    book, [source] = collection.add_book(*photographs(1))
    old = in_run(collection.queue(book, source, "failed"))
    collection.queue(book, source)
    await bench.serve(old)
    assert collection.job(old)["status"] == "failed"
    assert bench.dead_letters() == []
    [record] = bench.records("r1")
    assert (record.status, record.code) == ("skipped_existing", "superseded")


async def test_a_bucket_that_refuses_lets_the_job_wait_without_a_receive(
    bench: Bench, collection: Collection
) -> None:
    book, [source] = collection.add_book(*photographs(1))
    bench.upload(book)
    job = in_run(collection.queue(book, source))
    states: list[str] = []

    async def refuse_twice(inner: Job) -> Outcome:
        if len(states) < 2:
            states.append(collection.job(job)["status"])
            raise StorageUnavailable("slow down")
        return await bench.pipeline.process(inner)

    await bench.serve(job, process=refuse_twice)
    assert collection.job(job)["status"] == "completed"
    assert states == ["processing", "processing"]


async def test_what_is_no_catalog_job_is_refused(bench: Bench, collection: Collection) -> None:
    book, [source] = collection.add_book(*photographs(1))
    job = collection.queue(book, source)
    body = json.loads(job.model_dump_json())
    for change in ({"job_id": "seven"}, {"book_id": "7"}, {"book_id": 2**31}, {"image_id": True}):
        bench.sqs.send_message(QueueUrl=bench.url, MessageBody=json.dumps({**body, **change}))
    async with bench.consuming():
        await bench.drained()
    assert [code for code, _ in bench.dead_letters()] == ["invalid_message"] * 4
    assert collection.job(job)["status"] == "pending"
