"""Messages that are events: what is out of date or no image costs no dead letter and no record."""

from __future__ import annotations

import json

import pytest

from serve_app.contracts.job import Job
from serve_app.contracts.outcome import Outcome
from serve_app.contracts.place import Place
from serve_app.errors import (
    ForeedgeError,
    ImageTooLarge,
    NoSubject,
    SourceChanged,
    SourceNotFound,
    StorageUnavailable,
)
from tests.support.consumer_bench import ConsumerBench, message, raising, s3_event, success
from tests.support.virtual_time import virtual

OWN_RESULT = "shelf/a/0123456789abcdef0123.png"


@pytest.mark.parametrize("error", [SourceNotFound("gone"), SourceChanged("replaced")])
@virtual
async def test_an_event_that_is_out_of_date_costs_no_dead_letter(error: ForeedgeError) -> None:
    bench = ConsumerBench(raising(error))
    bench.queue.send(s3_event("1.jpg"))
    await bench.serve()
    await bench.stop()
    assert bench.log == [("receive", "m1"), ("delete", "m1")]
    assert bench.queue.dead == []
    stats = bench.consumer.stats
    assert (stats.done, stats.failed, stats.nothing_to_do, stats.deleted) == (0, {}, 1, 1)


@virtual
async def test_the_present_content_of_an_image_that_was_replaced_is_processed() -> None:
    async def process(job: Job) -> Outcome:
        if job.source.etag:
            raise SourceChanged("replaced")
        return success(job)

    bench = ConsumerBench(process)
    event = json.loads(s3_event("1.jpg"))
    event["Records"][0]["s3"]["object"]["eTag"] = "d41d"
    bench.queue.send(json.dumps(event))
    bench.queue.send(message("named", source={"bucket": "b", "key": "1.jpg", "etag": "d41d"}))
    await bench.serve()
    await bench.stop()
    assert sorted(item.status for item in bench.ledger.records) == ["done", "failed"]
    assert [letter.job_id for letter in bench.queue.dead] == ["named"]


@pytest.mark.parametrize("error", [ImageTooLarge("long"), NoSubject("nothing")])
@virtual
async def test_an_event_whose_image_fails_is_a_failure(error: ForeedgeError) -> None:
    bench = ConsumerBench(raising(error))
    bench.queue.send(s3_event("1.jpg"))
    await bench.serve()
    await bench.stop()
    assert [letter.code for letter in bench.queue.dead] == [error.code]
    assert bench.consumer.stats.nothing_to_do == 0


@virtual
async def test_a_message_that_names_an_image_which_is_gone_is_a_failure() -> None:
    bench = ConsumerBench(raising(SourceNotFound("gone")))
    await bench.serve("j")
    await bench.stop()
    assert [(letter.job_id, letter.code) for letter in bench.queue.dead] == [
        ("j", "source_not_found")
    ]


@virtual
async def test_of_an_event_with_several_images_only_those_that_exist_are_recorded() -> None:
    async def process(job: Job) -> Outcome:
        if job.source.key == "gone.jpg":
            raise SourceNotFound("gone")
        return success(job)

    bench = ConsumerBench(process)
    bench.queue.send(s3_event("1.jpg", "gone.jpg", "folder/", OWN_RESULT, "2.jpg"))
    await bench.serve()
    await bench.stop()
    recorded = [item.source.key for item in bench.ledger.records if item.source]
    assert recorded == ["1.jpg", "2.jpg"]
    assert bench.queue.dead == []


@virtual
async def test_an_outage_is_not_taken_for_an_image_that_is_gone() -> None:
    bench = ConsumerBench(raising(StorageUnavailable("no answer"), times=2))
    bench.queue.send(s3_event("1.jpg"))
    await bench.serve(for_s=60)
    await bench.stop()
    assert (bench.consumer.stats.done, bench.consumer.stats.nothing_to_do) == (1, 0)


@virtual
async def test_a_message_without_a_job_id_has_one_at_every_delivery() -> None:
    seen: list[str] = []

    async def process(job: Job) -> Outcome:
        seen.append(job.job_id)
        raise NoSubject("nothing") if len(seen) > 2 else RuntimeError("try again")

    bench = ConsumerBench(process, retry_base_s=0.1)
    body = message("x").replace('"job_id": "x", ', "")
    bench.queue.send(body)
    await bench.serve(for_s=60)
    await bench.stop()
    assert seen == ["m1", "m1", "m1"]
    assert [letter.job_id for letter in bench.queue.dead] == ["m1"]


@virtual
async def test_two_messages_of_one_content_are_two_jobs() -> None:
    bench = ConsumerBench()
    body = message("x").replace('"job_id": "x", ', "")
    sent = [bench.queue.send(body), bench.queue.send(body)]
    await bench.serve()
    await bench.stop()
    assert sorted(item.job_id for item in bench.ledger.records) == sent


@pytest.mark.parametrize(
    ("changes", "identity"),
    [
        ({"recipe": "nonsense"}, ("r", "x", "b/x.jpg")),
        ({"recipe": {"format": "gif"}, "run_id": None}, ("live", "x", "b/x.jpg")),
        ({"recipe": "nonsense", "job_id": None}, ("r", "m1", "b/x.jpg")),
        ({"output": {"bucket": "s3://o"}}, ("r", "x", "b/x.jpg")),
        ({"source": {"bucket": "s3://b", "key": "k"}}, ("r", "x", None)),
        ({"surprise": 1}, ("r", "x", "b/x.jpg")),
        ({"surprise": 1, "run_id": None}, ("invalid", "x", "b/x.jpg")),
        ({"recipe": "nonsense", "run_id": ".."}, ("invalid", "x", "b/x.jpg")),
        ({"recipe": "nonsense", "job_id": ""}, ("r", "m1", "b/x.jpg")),
        ({"schema": 2}, ("invalid", "m1", None)),
    ],
)
@virtual
async def test_a_refused_message_is_recorded_under_its_own_ids(
    changes: dict[str, object], identity: tuple[str, str, str | None]
) -> None:
    bench = ConsumerBench()
    bench.queue.send(json.dumps(json.loads(message("x")) | changes))
    await bench.serve()
    await bench.stop()
    [record] = bench.ledger.records
    place = record.source and f"{record.source.bucket}/{record.source.key}"
    assert (record.run_id, record.job_id, place) == identity
    assert [letter.job_id for letter in bench.queue.dead] == [record.job_id]


@virtual
async def test_an_event_of_a_bucket_that_is_missing_is_not_out_of_date() -> None:
    async def process(job: Job) -> Outcome:
        failed = Outcome.failed(job, SourceNotFound("no such bucket"))
        missing = Place.of_bucket("source", job.source.bucket)
        return failed.model_copy(update={"refused_by": missing})

    bench = ConsumerBench(process)
    bench.queue.send(s3_event("1.jpg"))
    await bench.serve(for_s=1_000)
    await bench.stop()
    assert list(bench.queue.stored) == ["m1"]
    assert bench.queue.dead == []
