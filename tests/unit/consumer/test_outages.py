"""Lost replicas and outages cost the messages that are not to blame no receive."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from serve_app.contracts.job import Job
from serve_app.contracts.outcome import Outcome
from serve_app.errors import (
    ReplicaLost,
    StorageUnavailable,
)
from tests.support.consumer_bench import ConsumerBench, raising, s3_event, success
from tests.support.virtual_time import now, virtual


@virtual
async def test_a_lost_replica_costs_its_images_no_receive() -> None:
    bench = ConsumerBench(raising(ReplicaLost("gone"), times=8), max_receives=2)
    await bench.serve(*(f"j{n}" for n in range(8)), for_s=60)
    assert bench.events("release") == []
    assert {(item.status, item.receive_count) for item in bench.ledger.records} == {("done", 1)}
    await bench.stop()
    assert (bench.consumer.stats.alone, bench.consumer.stats.retried) == (8, {})


@pytest.mark.parametrize("returned", [False, True])
@virtual
async def test_an_image_that_kills_replicas_goes_to_the_dead_letters_alone(returned: bool) -> None:
    """A pipeline of one replica that dies of a certain image, with all that it holds."""
    died = asyncio.Event()
    deaths: list[set[str]] = []
    held: set[str] = set()

    async def process(job: Job) -> Outcome:
        nonlocal died
        held.add(job.job_id)
        this = died
        if job.job_id == "poison":
            await asyncio.sleep(0.5)
            deaths.append(set(held))
            held.clear()
            died = asyncio.Event()
            this.set()
        try:
            async with asyncio.timeout(1):
                await this.wait()
        except TimeoutError:
            held.discard(job.job_id)
            return success(job)
        if returned:
            return Outcome.failed(job, ReplicaLost("gone"))
        raise ReplicaLost("gone")

    bench = ConsumerBench(process, max_receives=3)
    bench.send(*(f"before{n}" for n in range(8)))
    await bench.serve("poison", *(f"after{n}" for n in range(8)), for_s=120)
    await bench.stop()
    assert not bench.queue.stored
    assert [(item.job_id, item.code) for item in bench.queue.dead] == [("poison", "replica_lost")]
    records = {item.job_id: item for item in bench.ledger.records}
    assert records.pop("poison").receive_count == 3
    assert {(item.status, item.receive_count) for item in records.values()} == {("done", 1)}
    assert len(records) == 16
    assert len(deaths) == 4
    assert len(deaths[0]) > 1, "the first time it had company"


@virtual
async def test_suspects_run_one_at_a_time_next_to_the_others() -> None:
    lost: set[str] = set()
    alone: set[str] = set()
    others = 0

    async def process(job: Job) -> Outcome:
        nonlocal others
        if job.job_id.startswith("s") and job.job_id not in lost:
            lost.add(job.job_id)
            raise ReplicaLost("gone")
        if job.job_id in lost:
            alone.add(job.job_id)
            assert len(alone) == 1
            await asyncio.sleep(1)
            alone.remove(job.job_id)
        else:
            await asyncio.sleep(0.1)
            others += len(lost) > 0
        return success(job)

    bench = ConsumerBench(process, max_in_flight=8)
    bench.send(*(f"s{n}" for n in range(4)))
    await bench.serve(*(f"j{n}" for n in range(20)), for_s=3)
    assert others == 20
    await asyncio.sleep(5)
    await bench.stop()
    assert {(item.status, item.receive_count) for item in bench.ledger.records} == {("done", 1)}
    assert len(bench.ledger.records) == 24


@virtual
async def test_an_outage_costs_no_receives_and_does_not_drain_the_queue() -> None:
    async def process(job: Job) -> Outcome:
        await asyncio.sleep(0.1)
        if now() < 400:
            raise StorageUnavailable("slow down")
        return success(job)

    bench = ConsumerBench(process, max_in_flight=4, max_receives=2)
    await bench.serve(*(f"j{n}" for n in range(20)), for_s=390)
    assert bench.events("receive", "release") == ["receive"] * 4
    assert bench.consumer.reason == "source s3://b: storage_unavailable: slow down"
    await asyncio.sleep(60)
    assert bench.consumer.healthy
    await bench.stop()
    assert {(item.status, item.receive_count) for item in bench.ledger.records} == {("done", 1)}
    assert len(bench.ledger.records) == 20


@virtual
async def test_an_object_that_alone_cannot_be_read_is_no_outage() -> None:
    async def process(job: Job) -> Outcome:
        await asyncio.sleep(0.1)
        if job.job_id == "odd":
            raise StorageUnavailable("InvalidArgument")
        return success(job)

    bench = ConsumerBench(process, max_receives=3)
    await bench.serve("odd", *(f"j{n}" for n in range(20)), for_s=5)
    for n in range(100):
        bench.send(f"k{n}")
        await asyncio.sleep(0.5)
    await bench.stop()
    assert [(item.job_id, item.code) for item in bench.queue.dead] == [
        ("odd", "storage_unavailable")
    ]


@virtual
async def test_an_outage_outlasts_the_deadline_and_ends_with_a_stop() -> None:
    async def fail_at_once(job: Job) -> Outcome:
        # An attempt that took time could be cut off by the deadline, which has a code of its own.
        raise StorageUnavailable("the store is unavailable")

    bench = ConsumerBench(fail_at_once, job_deadline_s=100, max_receives=9)
    await bench.serve("j", for_s=5_000)
    assert bench.events("receive", "release") == ["receive"]
    await bench.stop()
    assert set(bench.consumer.stats.retried) == {"storage_unavailable"}
    assert bench.events("delete") == []
    assert bench.queue.stored["m1"].visible_at <= now() + bench.config.retry_max_s


@virtual
async def test_an_unavailable_queue_makes_the_consumer_unhealthy_until_it_answers() -> None:
    bench = ConsumerBench()
    failed_at: list[float] = []
    healthy: list[bool] = []

    def is_unavailable(call: str) -> bool:
        if now() >= 1_000:
            return False
        failed_at.append(now())
        healthy.append(bench.consumer.healthy)
        return True

    bench.queue.fail = is_unavailable
    await bench.serve("j", for_s=1_000)
    assert healthy[:3] == [True] * 3, "before the third failure"
    assert not any(healthy[3:])
    assert bench.consumer.reason == "queue_unavailable: receive: the queue is unavailable"
    pauses_s = [after - before for before, after in pairwise(failed_at)]
    assert max(pauses_s) < 15.1
    # Each pause is random. Were they not to grow, there would be thousands of calls.
    assert len(failed_at) < 300
    await asyncio.sleep(16)
    assert bench.consumer.healthy
    assert len(bench.ledger.records) == 1
    await bench.stop()


@virtual
async def test_suspects_are_not_charged_for_the_one_that_hangs_before_them() -> None:
    lost: set[str] = set()

    async def process(job: Job) -> Outcome:
        if job.job_id not in lost:
            lost.add(job.job_id)
            await asyncio.sleep(5)
            raise ReplicaLost("gone")
        await asyncio.sleep(10_000 if job.job_id == "hangs" else 1)
        return success(job)

    bench = ConsumerBench(process, job_deadline_s=100, max_receives=2)
    bench.send("hangs")
    await bench.serve(*(f"j{n}" for n in range(57)), for_s=400)
    await bench.stop()
    assert [item.job_id for item in bench.queue.dead] == ["hangs"]
    done = [item for item in bench.ledger.records if item.job_id != "hangs"]
    assert {(item.status, item.receive_count) for item in done} == {("done", 1)}
    assert len(done) == 57


@virtual
async def test_jobs_are_not_charged_for_a_message_whose_jobs_take_every_slot_and_hang() -> None:
    async def process(job: Job) -> Outcome:
        await asyncio.sleep(10_000 if job.source.key.startswith("hangs") else 1)
        return success(job)

    bench = ConsumerBench(process, job_deadline_s=100, max_in_flight=4, max_receives=1)
    hanging = bench.queue.send(s3_event(*(f"hangs{n}.jpg" for n in range(20))))
    await bench.serve("j", "k", "l", for_s=520)
    await bench.stop()
    # Twenty jobs take four slots for a hundred seconds each, and none of them for longer.
    assert [item.message_id for item in bench.queue.dead] == [hanging]
    done = {item.job_id for item in bench.ledger.records if item.status == "done"}
    assert done == {"j", "k", "l"}


@virtual
async def test_a_job_whose_lease_is_lost_ends_and_frees_its_permit() -> None:
    cancelled: list[float] = []

    async def process(job: Job) -> Outcome:
        if job.job_id == "next":
            return success(job)
        try:
            await asyncio.sleep(500)
        except asyncio.CancelledError:
            cancelled.append(now())
            await asyncio.sleep(2)  # The pipeline still holds the image.
            raise
        return success(job)

    bench = ConsumerBench(process, visibility_timeout_s=30, max_in_flight=1)
    [sent] = await bench.serve("j", for_s=1)
    bench.queue.stored[sent].handle = "another consumer's"
    bench.queue.stored[sent].visible_at = now() + 1_000
    bench.send("next")
    await asyncio.sleep(9.5)
    assert [round(at) for at in cancelled] == [10], "at the first heartbeat after the loss"
    assert bench.consumer.stats.permits_free == 0, "its job has not ended"
    await asyncio.sleep(3)
    assert [item.job_id for item in bench.ledger.records] == ["next"]
    assert bench.consumer.stats.lease_lost == 1
    await bench.stop()
