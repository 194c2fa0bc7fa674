"""No more messages are received than there are permits, and receives and deletes are batched."""

from __future__ import annotations

import asyncio

import pytest

from serve_app.contracts.job import Job
from serve_app.contracts.outcome import Outcome
from tests.support.consumer_bench import ConsumerBench, s3_event, success
from tests.support.virtual_time import virtual


@pytest.mark.parametrize("permits", [1, 3, 25])
@virtual
async def test_no_more_jobs_than_permits_at_any_time(permits: int) -> None:
    active = most = 0

    async def process(job: Job) -> Outcome:
        nonlocal active, most
        active += 1
        most = max(most, active)
        await asyncio.sleep(1)
        active -= 1
        return success(job)

    bench = ConsumerBench(process, max_in_flight=permits)
    bench.queue.send(s3_event(*(f"{n}.jpg" for n in range(5))))
    await bench.serve(*(f"j{n}" for n in range(40)), for_s=100)
    # The last free quarter waits until it is worth a receive.
    assert permits - permits // 4 <= most <= permits
    assert len(bench.ledger.records) == 45
    asked = [entries for what, entries in bench.queue.calls if what == "receive"]
    assert max(asked) == min(10, permits)
    await bench.stop()


@pytest.mark.parametrize(("permits", "most_receives"), [(3, 120), (16, 28), (64, 12)])
@virtual
async def test_permits_that_come_free_one_by_one_share_a_receive(
    permits: int, most_receives: int
) -> None:
    turn = asyncio.Semaphore(1)

    async def process(job: Job) -> Outcome:
        async with turn:
            await asyncio.sleep(1)
        return success(job)

    bench = ConsumerBench(process, max_in_flight=permits, long_poll_s=20)
    await bench.serve(*(f"j{n}" for n in range(120)), for_s=121)
    assert len(bench.ledger.records) == 120
    receives = [entries for what, entries in bench.queue.calls if what == "receive"]
    # The others are long polls that find nothing, while the last jobs are done.
    assert len(receives) <= most_receives + permits // 20 + 1
    await bench.stop()


@virtual
async def test_a_permit_is_free_while_its_result_waits_for_the_ledger() -> None:
    bench = ConsumerBench(max_in_flight=1)
    bench.ledger.present.clear()
    await bench.serve("j", "k", "l", for_s=10)
    stats = bench.consumer.stats
    assert (stats.received, stats.in_flight, stats.unsettled) == (3, 0, 3)
    bench.ledger.present.set()
    await asyncio.sleep(1)
    await bench.stop()
    assert not bench.queue.stored


@virtual
async def test_a_ledger_outage_cannot_fill_the_memory() -> None:
    bench = ConsumerBench(max_in_flight=4, part_records=3)
    bench.ledger.present.clear()
    await bench.serve(*(f"j{n}" for n in range(50)), for_s=500)
    assert bench.consumer.stats.received == 2 * 3 + 4
    bench.ledger.present.set()
    await asyncio.sleep(10)
    assert not bench.queue.stored
    await bench.stop()


@virtual
async def test_deletes_are_batched() -> None:
    bench = ConsumerBench()
    await bench.serve(*(f"j{n}" for n in range(30)))
    sizes = [entries for what, entries in bench.queue.calls if what == "delete"]
    assert sum(sizes) == 30
    assert len(sizes) <= 6
    await bench.stop()
