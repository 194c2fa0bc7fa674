"""Leases are extended, lost and ended in agreement with SQS."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence

import pytest

from ingest.consumer.lease import Acknowledge, Lease, Release
from ingest.consumer.leases import Leases
from serve_app.contracts.job import Job
from serve_app.contracts.outcome import Outcome
from serve_app.errors import InternalError, QueueUnavailable
from tests.support.consumer_bench import ConsumerBench, raising, success
from tests.support.in_memory_queue import InMemoryQueue
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


@virtual
async def test_an_extension_under_way_does_not_win_over_a_release() -> None:
    """The extension reaches the queue late, but the release waits until it has ended."""

    async def process(job: Job) -> Outcome:
        await asyncio.sleep(10.5)
        raise InternalError("later")

    bench = ConsumerBench(process, visibility_timeout_s=30, retry_base_s=1, retry_max_s=1)
    await bench.serve("j", for_s=9.9)
    bench.queue.latency_s = 3
    await asyncio.sleep(0.5)
    assert bench.queue.calls[-1][0] == "extend"
    bench.queue.latency_s = 0.01
    await asyncio.sleep(4)
    assert bench.events("extend", "release") == ["extend", "release"]
    assert bench.queue.stored["m1"].receive_count == 2, "it was visible after two seconds"
    await bench.stop()


@virtual
async def test_messages_are_released_in_batches() -> None:
    bench = ConsumerBench(raising(InternalError("later")), retry_base_s=40_000, retry_max_s=40_000)
    await bench.serve(*(f"j{n}" for n in range(40)))
    assert sum(entries for what, entries in bench.queue.calls if what == "release") == 40
    assert len([what for what, _ in bench.queue.calls if what == "release"]) <= 8
    delays = {round(item.visible_at) for item in bench.queue.stored.values()}
    assert len(delays) > 10, "each message has its own delay"
    await bench.stop()


# SQS hides a message for twelve hours in all


class TwelveHours(InMemoryQueue):
    """A queue that refuses, as SQS does, to hide a message for over twelve hours in all."""

    async def extend(self, handles: Sequence[str], visibility_s: float) -> set[str]:
        self._check(visibility_s)
        return await super().extend(handles, visibility_s)

    async def release(self, delays_s: Mapping[str, float]) -> set[str]:
        self._check(max(delays_s.values()))
        return await super().release(delays_s)

    def _check(self, seconds: float) -> None:
        # Every message was received at the beginning.
        if now() + round(seconds) > 43_200:
            raise QueueUnavailable("the message would be hidden for over twelve hours")


async def held(visibility_s: int) -> tuple[TwelveHours, Leases, list[Lease]]:
    clock = asyncio.get_running_loop().time
    queue = TwelveHours(clock)
    leases = Leases(queue, visibility_s, clock)
    queue.send("a")
    queue.send("b")
    return queue, leases, [leases.start(message) for message in await leases.receive(10, 0)]


@pytest.mark.parametrize("visibility_s", [43_200, 30_000])
@virtual
async def test_a_lease_lasts_up_to_the_twelve_hours_of_sqs(visibility_s: int) -> None:
    queue, leases, both = await held(visibility_s)
    extending = asyncio.create_task(leases.keep_extending())
    await asyncio.sleep(43_100)
    assert all(leases.holds(lease) for lease in both)
    await asyncio.gather(*(leases.settle(lease, Acknowledge()) for lease in both))
    assert not queue.stored
    extending.cancel()


@virtual
async def test_a_job_that_outlasts_the_twelve_hours_is_released_before_their_end() -> None:
    async def process(job: Job) -> Outcome:
        await asyncio.sleep(80_000)
        return success(job)

    bench = ConsumerBench(
        process, visibility_timeout_s=43_200, job_deadline_s=80_000, max_in_flight=1
    )
    await bench.serve("j", for_s=43_180)
    stats = bench.consumer.stats
    assert (stats.released, stats.lease_lost) == (1, 0)
    assert stats.retried == {"deadline_exceeded": 1}


@virtual
async def test_a_release_is_delayed_no_longer_than_sqs_can_hide_the_message() -> None:
    queue, leases, [lease, _] = await held(4_000)
    await asyncio.sleep(600)
    await leases.settle(lease, Release(43_200))
    assert leases.counts["released"] == 1
    assert queue.stored["m1"].visible_at == pytest.approx(43_200, abs=60)
