"""What a job's wait for a place costs: no permit, no time of its deadline, no memory afterwards."""

from __future__ import annotations

import asyncio
import gc

from serve_app.contracts.job import Job
from serve_app.contracts.outcome import Outcome
from serve_app.contracts.place import Place
from serve_app.errors import SourceForbidden
from tests.support.consumer_bench import ConsumerBench, message, s3_event, success
from tests.support.virtual_time import now, virtual


def denied(job: Job) -> Outcome:
    place = Place.of_bucket("source", job.source.bucket)
    error = SourceForbidden(f"{place} is denied")
    return Outcome.failed(job, error).model_copy(update={"refused_by": place})


def from_bucket(job_id: str, bucket: str) -> str:
    return message(job_id, source={"bucket": bucket, "key": f"{job_id}.jpg"})


@virtual
async def test_messages_that_wait_leave_their_permits_free() -> None:
    async def process(job: Job) -> Outcome:
        await asyncio.sleep(0.05)
        return denied(job) if job.source.bucket == "denied" else success(job)

    bench = ConsumerBench(process, max_in_flight=4, visibility_timeout_s=600)
    bench.start()
    for n in range(200):
        bench.queue.send(from_bucket(f"s{n}", "served"))
        bench.queue.send(from_bucket(f"d{n}", "denied"))
    await asyncio.sleep(60)
    stats = bench.consumer.stats
    assert stats.done == 200
    assert stats.in_flight > 4
    assert stats.permits_free == 4
    await bench.stop()


@virtual
async def test_a_wait_for_a_slot_is_taken_off_the_deadline_once() -> None:
    attempts: dict[str, int] = {}
    ended_at = 0.0

    async def process(job: Job) -> Outcome:
        nonlocal ended_at
        name = job.source.key
        attempts[name] = attempts.get(name, 0) + 1
        if name == "first.jpg":
            await asyncio.sleep(60)
            return success(job)
        if attempts[name] == 1:
            return denied(job)
        try:
            await asyncio.sleep(10_000)
        finally:
            ended_at = ended_at or now()
        return success(job)

    # The jobs of one message share its permit, and run one after the other.
    bench = ConsumerBench(process, max_in_flight=1, job_deadline_s=100, visibility_timeout_s=600)
    bench.queue.send(s3_event("first.jpg", "second.jpg"))
    bench.start()
    await asyncio.sleep(400)
    # A minute for the slot, and two seconds at most until the second attempt.
    assert 160 <= ended_at <= 165
    await bench.stop()


@virtual
async def test_a_place_that_nobody_waits_for_is_forgotten() -> None:
    refused: set[str] = set()

    async def process(job: Job) -> Outcome:
        if job.job_id in refused:
            return success(job)
        refused.add(job.job_id)
        return denied(job)

    bench = ConsumerBench(process, max_in_flight=64, visibility_timeout_s=600)
    await bench.serve("first", for_s=100)
    before = locks()
    for n in range(100):
        bench.queue.send(from_bucket(f"j{n}", f"bucket-{n}"))
    await asyncio.sleep(100)
    assert bench.consumer.stats.done == 101
    assert locks() <= before + 1
    await bench.stop()


def locks() -> int:
    """Return the number of locks: each place has one while jobs wait for it."""
    return sum(type(each) is asyncio.Lock for each in gc.get_objects())


@virtual
async def test_messages_that_wait_for_the_ledger_leave_no_permits_behind() -> None:
    async def process(job: Job) -> Outcome:
        await asyncio.sleep(1)
        return success(job)

    bench = ConsumerBench(process, max_in_flight=8, visibility_timeout_s=600)
    bench.ledger.refusal = SourceForbidden("the ledger is denied")
    for n in range(600):
        bench.queue.send(message(f"j{n}"))
    bench.start()
    free = []
    for second in range(400):
        if second == 200:
            bench.ledger.refusal = None
        await asyncio.sleep(1)
        free.append(bench.consumer.stats.permits_free)
    assert bench.consumer.stats.done == 600
    assert max(free) == 8
    await bench.stop()
