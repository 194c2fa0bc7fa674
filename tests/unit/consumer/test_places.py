"""A place that refuses every job is no job's fault: nothing is charged, and nothing is final."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from serve_app.contracts.job import Job
from serve_app.contracts.outcome import Outcome
from serve_app.contracts.place import Place
from serve_app.errors import (
    DatabaseUnavailable,
    ForeedgeError,
    ModelUnavailable,
    SourceForbidden,
    SourceNotFound,
    StorageRejected,
    StorageUnavailable,
)
from tests.support.consumer_bench import ConsumerBench, message, success
from tests.support.virtual_time import now, virtual

OUTAGE_S = 1_800.0
"""Three times as long as the deadline of a job."""
SOURCE, OUTPUT = Place.of_bucket("source", "b"), Place.of_bucket("output", "o")
MODEL = Place("model", "folio")


def refused(job: Job, place: Place, error: ForeedgeError, *served: Place) -> Outcome:
    """Return the outcome that the pipeline returns if a place refuses."""
    changes = {"refused_by": place, "answered_by": served}
    return Outcome.failed(job, error).model_copy(update=changes)


def served(job: Job) -> Outcome:
    places = (
        Place.of_bucket("source", job.source.bucket),
        MODEL,
        Place.of_bucket("output", job.output.bucket),
    )
    return success(job).model_copy(update={"answered_by": places})


REFUSALS: dict[str, Callable[[Job], Outcome]] = {
    "a denied source": lambda job: refused(job, SOURCE, SourceForbidden("denied")),
    "a source without a bucket": lambda job: refused(job, SOURCE, SourceNotFound("no bucket")),
    "a denied output": lambda job: refused(job, OUTPUT, SourceForbidden("denied"), SOURCE, MODEL),
    "an output that rejects": lambda job: refused(job, OUTPUT, StorageRejected("no"), SOURCE),
    "an output that throttles": lambda job: refused(job, OUTPUT, StorageUnavailable("slow down")),
    "a model that fails": lambda job: refused(job, MODEL, ModelUnavailable("broken"), SOURCE),
    "a pipeline without places": lambda job: Outcome.failed(job, SourceForbidden("denied")),
    "no pipeline": lambda job: Outcome.failed(job, ModelUnavailable("no replica")),
}

PLACES = dict(zip(REFUSALS, [SOURCE, SOURCE, OUTPUT, OUTPUT, OUTPUT, MODEL, SOURCE], strict=False))
PLACES["no pipeline"] = Place("model")


@pytest.mark.parametrize("what", REFUSALS)
@virtual
async def test_a_place_that_refuses_for_half_an_hour_costs_nothing(what: str) -> None:
    async def process(job: Job) -> Outcome:
        await asyncio.sleep(0.2)
        return REFUSALS[what](job) if 1 < now() < OUTAGE_S else served(job)

    bench = ConsumerBench(process, max_receives=3, max_in_flight=8, visibility_timeout_s=600)
    bench.start()
    for n in range(100):
        bench.send(f"j{n}")
        await asyncio.sleep(0.03)
    await asyncio.sleep(500)
    received = bench.consumer.stats.received
    assert received < 70
    assert bench.consumer.reason is not None
    assert bench.consumer.reason.startswith(f"{PLACES[what]}: ")
    await asyncio.sleep(OUTAGE_S - now() - 1)
    # Now and then a message is received, which might belong to another place.
    assert bench.consumer.stats.received - received < OUTAGE_S / 30
    assert bench.events("release", "dead_letter", "redrive") == []
    await asyncio.sleep(30)
    assert bench.consumer.healthy
    await asyncio.sleep(60)
    assert not bench.queue.stored
    records = bench.ledger.records
    assert {(item.status, item.receive_count) for item in records} == {("done", 1)}
    assert len(records) == 100
    await bench.stop()
    assert bench.consumer.stats.retried == {}


@virtual
async def test_while_a_place_refuses_it_is_asked_by_one_job_at_a_time() -> None:
    asked = most = attempts = 0

    async def process(job: Job) -> Outcome:
        nonlocal asked, most, attempts
        asked += 1
        attempts += 1
        if now() > 60:
            most = max(most, asked)
        await asyncio.sleep(0.5)
        asked -= 1
        return refused(job, OUTPUT, SourceForbidden("denied"))

    bench = ConsumerBench(process)
    await bench.serve(*(f"j{n}" for n in range(100)), for_s=60)
    before = attempts
    await asyncio.sleep(500)
    assert most == 1
    assert 500 / 12 < attempts - before < 500 / 3
    await bench.stop()


@virtual
async def test_a_denied_object_among_sound_ones_is_a_dead_letter_and_stops_nobody() -> None:
    async def process(job: Job) -> Outcome:
        await asyncio.sleep(0.2)
        if job.job_id.startswith("denied"):
            return refused(job, SOURCE, SourceForbidden("denied"))
        return served(job)

    bench = ConsumerBench(process, max_in_flight=8, retry_max_s=20)
    bench.start()
    for n in range(200):
        bench.send(f"denied{n}" if n % 20 == 7 or n > 196 else f"j{n}")
        await asyncio.sleep(0.1)
    bench.send("last")
    await asyncio.sleep(120)
    assert not bench.queue.stored
    assert {item.code for item in bench.queue.dead} == {"source_forbidden"}
    assert sorted(str(item.job_id) for item in bench.queue.dead) == sorted(
        f"denied{n}" for n in range(200) if n % 20 == 7 or n > 196
    )
    assert {item.receive_count for item in bench.ledger.records} == {1}
    assert bench.consumer.healthy
    await bench.stop()


@pytest.mark.parametrize("permits", [1, 4])
@virtual
async def test_the_last_object_of_a_quiet_queue_is_judged_by_those_before(permits: int) -> None:
    async def process(job: Job) -> Outcome:
        await asyncio.sleep(0.2)
        if job.job_id == "denied":
            return refused(job, SOURCE, SourceForbidden("denied"))
        return served(job)

    bench = ConsumerBench(process, retry_max_s=100, max_in_flight=permits)
    await bench.serve("before", "denied", "after", for_s=50)
    assert permits == 1 or bench.queue.dead == [], "the bucket may have begun to deny just now"
    await asyncio.sleep(200)
    assert [item.job_id for item in bench.queue.dead] == ["denied"]
    await bench.stop()


@virtual
async def test_jobs_that_were_served_before_a_refusal_blame_nobody() -> None:
    """The results of slow jobs, read before the bucket denied, come in after the first denials."""

    async def process(job: Job) -> Outcome:
        if now() < 1:
            await asyncio.sleep(30 + float(job.job_id[1:]))
            return served(job)
        await asyncio.sleep(0.1)
        return refused(job, SOURCE, SourceForbidden("denied")) if now() < 900 else served(job)

    bench = ConsumerBench(process, max_in_flight=20, max_receives=2)
    await bench.serve(*(f"j{n}" for n in range(10)), for_s=2)
    bench.send(*(f"k{n}" for n in range(30)))
    await asyncio.sleep(890)
    assert bench.events("release", "dead_letter") == []
    await asyncio.sleep(100)
    assert len(bench.ledger.records) == 40
    assert {(item.status, item.receive_count) for item in bench.ledger.records} == {("done", 1)}
    await bench.stop()


def of_bucket(bucket: str, name: str) -> str:
    return message(name, source={"bucket": bucket, "key": f"{name}.jpg"})


async def wrong_bucket(job: Job) -> Outcome:
    await asyncio.sleep(0.2)
    if job.source.bucket == "wrong":
        return refused(job, Place.of_bucket("source", "wrong"), SourceForbidden("denied"))
    return served(job)


@virtual
async def test_a_wrong_bucket_among_others_delays_nobody_and_is_given_up_in_the_end() -> None:
    bench = ConsumerBench(wrong_bucket, max_in_flight=16, job_deadline_s=600)
    bench.start()
    for n in range(300):
        bench.queue.send(of_bucket("wrong" if n % 3 == 0 else "right", f"j{n}"))
        await asyncio.sleep(0.1)
    await asyncio.sleep(30)
    assert len(bench.ledger.records) == 200
    assert bench.queue.dead == []
    assert bench.consumer.reason == "source s3://wrong: source_forbidden: denied"
    await asyncio.sleep(700)
    assert len(bench.queue.dead) == 100
    assert bench.consumer.healthy
    bench.queue.send(of_bucket("wrong", "late"))
    await asyncio.sleep(1)
    assert bench.queue.dead[-1].job_id == "late"
    await bench.stop()


@virtual
async def test_a_wrong_bucket_alone_at_the_head_of_the_queue_stops_the_others_for_a_while() -> None:
    bench = ConsumerBench(wrong_bucket, max_in_flight=16, job_deadline_s=600)
    for n in range(20):
        bench.queue.send(of_bucket("wrong", f"w{n}"))
    for n in range(50):
        bench.queue.send(of_bucket("right", f"j{n}"))
    bench.start()
    await asyncio.sleep(590)
    assert bench.ledger.records == []
    await asyncio.sleep(600)
    assert sum(item.status == "done" for item in bench.ledger.records) == 50
    assert {item.code for item in bench.queue.dead} == {"source_forbidden"}
    assert not bench.queue.stored
    await bench.stop()


@virtual
async def test_a_stop_gives_back_what_waits_without_a_verdict() -> None:
    async def process(job: Job) -> Outcome:
        return refused(job, OUTPUT, SourceForbidden("denied"))

    bench = ConsumerBench(process, max_in_flight=16)
    await bench.serve(*(f"j{n}" for n in range(40)), for_s=100)
    await bench.stop()
    assert len(bench.queue.stored) == 40
    assert bench.queue.dead == []
    assert bench.ledger.records == []
    assert max(item.receive_count for item in bench.queue.stored.values()) == 1


@virtual
async def test_results_that_existed_do_not_keep_a_breaker_open() -> None:
    """All jobs that waited had been processed before, so that no result is written any more."""

    async def process(job: Job) -> Outcome:
        await asyncio.sleep(0.1)
        if now() < 300:
            return refused(job, OUTPUT, SourceForbidden("denied"))
        return Outcome(job_id=job.job_id, run_id="r", status="skipped_existing", source=job.source)

    bench = ConsumerBench(process, max_in_flight=8)
    await bench.serve(*(f"j{n}" for n in range(100)), for_s=400)
    assert len(bench.ledger.records) == 100
    assert bench.consumer.healthy
    await bench.stop()


@pytest.mark.parametrize("refusal", [SourceForbidden("denied"), StorageUnavailable("slow down")])
@virtual
async def test_a_ledger_that_refuses_stops_receiving_and_is_written_when_it_serves(
    refusal: ForeedgeError,
) -> None:
    bench = ConsumerBench(max_in_flight=16, max_receives=2)
    bench.ledger.refusal = refusal
    await bench.serve(*(f"j{n}" for n in range(200)), for_s=OUTAGE_S)
    assert bench.events("record", "delete", "dead_letter", "release") == []
    assert bench.consumer.reason == f"ledger: {refusal.code}: {refusal.message}"
    assert bench.consumer.fatal is None, "another process would be refused as well"
    assert bench.consumer.stats.received < 150
    bench.ledger.refusal = None
    await asyncio.sleep(30)
    assert bench.consumer.healthy
    await asyncio.sleep(60)
    assert not bench.queue.stored
    assert {(item.status, item.receive_count) for item in bench.ledger.records} == {("done", 1)}
    assert len(bench.ledger.records) == 200
    await bench.stop()


@virtual
async def test_a_database_that_takes_no_outcome_is_named_and_not_the_ledger() -> None:
    bench = ConsumerBench()
    bench.ledger.refusal = DatabaseUnavailable("no connection")
    await bench.serve(*(f"j{n}" for n in range(40)), for_s=60)
    assert bench.consumer.reason == "database: database_unavailable: no connection"
    assert {each.boundary for each in bench.consumer.troubles} == {"database"}
    assert bench.consumer.stats.permits_free == bench.config.max_in_flight
    bench.ledger.refusal = SourceForbidden("denied")
    await asyncio.sleep(60)
    assert {each.boundary for each in bench.consumer.troubles} == {"ledger"}
    assert bench.consumer.reason == "ledger: source_forbidden: denied"
    bench.ledger.refusal = None
    await asyncio.sleep(60)
    assert bench.consumer.troubles == []
    assert {(item.status, item.receive_count) for item in bench.ledger.records} == {("done", 1)}
    assert len(bench.ledger.records) == 40
    await bench.stop()


@virtual
async def test_a_ledger_that_does_not_answer_is_told_and_stops_receiving() -> None:
    bench = ConsumerBench(max_in_flight=4)
    bench.ledger.present.clear()
    bench.start()
    for n in range(60):
        bench.send(f"j{n}")
        await asyncio.sleep(1)
    assert bench.consumer.reason is not None
    assert bench.consumer.reason.startswith("ledger: ")
    received = bench.consumer.stats.received
    assert received < 40
    await asyncio.sleep(OUTAGE_S)
    assert bench.consumer.stats.received == received
    bench.ledger.present.set()
    await asyncio.sleep(30)
    assert bench.consumer.healthy
    assert not bench.queue.stored
    assert len(bench.ledger.records) == 60
    await bench.stop()
