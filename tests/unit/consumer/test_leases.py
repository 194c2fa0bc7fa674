"""Leases are extended, lost and ended in agreement with SQS."""

from __future__ import annotations

import asyncio
import random

import pytest

from serve_app.contracts.job import Job
from serve_app.contracts.outcome import Outcome
from serve_app.errors import InternalError
from tests.support.consumer_bench import ConsumerBench, success
from tests.support.virtual_time import now, virtual


@virtual
async def test_heartbeats_keep_a_slow_job() -> None:
    async def process(job: Job) -> Outcome:
        await asyncio.sleep(500)
        return success(job)

    bench = ConsumerBench(process, visibility_timeout_s=30)
    await bench.serve("j", for_s=501)
    assert bench.events("receive", "record", "delete") == ["receive", "record", "delete"]
    await bench.stop()
    assert bench.consumer.stats.heartbeats == 50


@virtual
async def test_heartbeats_go_in_batches_of_ten() -> None:
    bench = ConsumerBench(visibility_timeout_s=30, part_records=100)
    bench.ledger.present.clear()
    await bench.serve(*(f"j{n}" for n in range(25)), for_s=11)
    assert sorted(n for what, n in bench.queue.calls if what == "extend") == [5, 10, 10]
    bench.ledger.present.set()
    await asyncio.sleep(1)
    await bench.stop()


@virtual
async def test_a_lost_lease_is_neither_recorded_nor_acknowledged() -> None:
    bench = ConsumerBench(visibility_timeout_s=30, max_in_flight=1)
    first = True

    async def process(job: Job) -> Outcome:
        nonlocal first
        if first:
            first = False
            # Somebody else takes the message while this job runs.
            item = next(iter(bench.queue.stored.values()))
            item.handle = "another consumer's"
            item.visible_at = now() + 100
        await asyncio.sleep(20)
        return success(job)

    bench.process = process
    await bench.serve("j", for_s=50)
    assert bench.events("record", "delete") == []
    assert bench.consumer.stats.lease_lost == 1
    await asyncio.sleep(200)
    assert bench.events("record", "delete") == ["record", "delete"]
    await bench.stop()


@virtual
async def test_only_the_lease_whose_extension_failed_is_lost() -> None:
    async def process(job: Job) -> Outcome:
        await asyncio.sleep(15)
        return success(job)

    bench = ConsumerBench(process, visibility_timeout_s=30)
    _, second = bench.send("a", "b")
    refused = iter([True])
    bench.queue.refuse = lambda what, item: (
        what == "extend" and item == second and next(refused, False)
    )
    await bench.serve(for_s=20)
    assert [item.job_id for item in bench.ledger.records] == ["a"]
    assert bench.consumer.stats.lease_lost == 1
    await asyncio.sleep(60)
    assert bench.ledger.of("b").receive_count == 2
    await bench.stop()


@virtual
async def test_leases_expire_when_no_extension_gets_through() -> None:
    async def process(job: Job) -> Outcome:
        await asyncio.sleep(45)
        return success(job)

    bench = ConsumerBench(process, visibility_timeout_s=30)
    bench.queue.fail = lambda what: what == "extend" and now() < 35
    await bench.serve("j", for_s=50)
    assert bench.events("record", "delete") == []
    assert bench.consumer.stats.lease_lost == 1
    await asyncio.sleep(100)
    assert bench.ledger.of("j").receive_count == 2
    await bench.stop()


@virtual
async def test_one_failed_heartbeat_does_not_lose_a_lease() -> None:
    async def process(job: Job) -> Outcome:
        await asyncio.sleep(45)
        return success(job)

    bench = ConsumerBench(process, visibility_timeout_s=30)
    bench.queue.fail = lambda what: what == "extend" and now() < 15
    await bench.serve("j", for_s=50)
    assert bench.events("receive", "record", "delete") == ["receive", "record", "delete"]
    await bench.stop()


@virtual
async def test_a_heartbeat_that_hangs_does_not_stop_the_next() -> None:
    async def process(job: Job) -> Outcome:
        await asyncio.sleep(45)
        return success(job)

    bench = ConsumerBench(process, visibility_timeout_s=30)
    await bench.serve("j")
    bench.queue.latency_s = 1_000
    await asyncio.sleep(18)
    bench.queue.latency_s = 0.01
    await asyncio.sleep(30)
    assert bench.events("receive", "record", "delete") == ["receive", "record", "delete"]
    await bench.stop()


@virtual
async def test_a_heartbeat_during_a_release_does_not_hide_the_message_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(random, "uniform", lambda low, high: high)

    async def process(job: Job) -> Outcome:
        await asyncio.sleep(9.3)
        raise InternalError("later")

    bench = ConsumerBench(process, visibility_timeout_s=30, retry_base_s=3)
    bench.queue.latency_s = 0.5
    await bench.serve("j", for_s=14)
    assert bench.events("receive", "extend", "release") == ["receive", "release", "receive"]
    await bench.stop()


@virtual
async def test_failed_deletions_are_tried_again() -> None:
    bench = ConsumerBench(visibility_timeout_s=30)
    bench.queue.refuse = lambda what, item: what == "delete" and item == "m2" and now() < 100
    await bench.serve("a", "b", "c", for_s=99)
    assert set(bench.queue.stored) == {"m2"}
    await asyncio.sleep(60)
    assert bench.events("receive", "delete") == ["receive"] * 3 + ["delete"] * 3
    assert len(bench.ledger.records) == 3
    await bench.stop()


@virtual
async def test_deletion_ends_with_the_lease() -> None:
    bench = ConsumerBench(visibility_timeout_s=30)
    bench.queue.fail = lambda what: what in ("delete", "extend") and now() < 40
    await bench.serve("j", for_s=200)
    assert bench.events("receive", "record", "delete") == [
        *["receive", "record"] * 2,
        "delete",
    ]
    assert bench.consumer.stats.lease_lost == 1
    await bench.stop()
