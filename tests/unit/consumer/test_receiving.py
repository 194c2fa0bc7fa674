"""The number of receives at the same time follows the queue and the free permits."""

from __future__ import annotations

import asyncio

import pytest

from ingest.sqs.limits import RECEIVES_AT_ONCE
from ingest.sqs.queue import Message
from serve_app.contracts.job import Job
from serve_app.contracts.outcome import Outcome
from tests.support.consumer_bench import ConsumerBench, success
from tests.support.in_memory_queue import InMemoryQueue
from tests.support.virtual_time import now, virtual


class CountingQueue(InMemoryQueue):
    """A queue that counts the receives at the same time, and the permits that they ask for."""

    under_way = most = asked = most_asked = 0

    async def receive(self, max_messages: int, wait_s: int, visibility_s: int) -> list[Message]:
        self.under_way += 1
        self.asked += max_messages
        self.most, self.most_asked = (
            max(self.most, self.under_way),
            max(self.most_asked, self.asked),
        )
        try:
            return await super().receive(max_messages, wait_s, visibility_s)
        finally:
            self.under_way -= 1
            self.asked -= max_messages


def counting(bench: ConsumerBench) -> CountingQueue:
    queue = CountingQueue(asyncio.get_running_loop().time)
    bench.queue, bench.log = queue, queue.log
    bench.consumer = bench.make_consumer()
    return queue


@virtual
async def test_a_thousand_permits_take_three_thousand_messages_a_second_at_30_ms_a_call() -> None:
    bench = ConsumerBench(max_in_flight=1_000)
    bench.queue.latency_s = 0.03
    await bench.serve(*(f"j{n}" for n in range(2_500)), for_s=0.6)
    assert bench.consumer.stats.deleted >= 3_000 * 0.6
    await asyncio.sleep(1)
    await bench.stop()
    assert not bench.queue.stored


@virtual
async def test_twice_the_time_of_a_call_does_not_halve_the_rate() -> None:
    bench = ConsumerBench(max_in_flight=1_000)
    bench.queue.latency_s = 0.06
    await bench.serve(*(f"j{n}" for n in range(4_500)), for_s=1.2)
    assert bench.consumer.stats.deleted >= 3_000 * 1.2
    await bench.stop()


@virtual
async def test_an_idle_queue_has_one_long_poll() -> None:
    bench = ConsumerBench(max_in_flight=200)
    queue = counting(bench)
    await bench.serve(*(f"j{n}" for n in range(1_000)), for_s=2)
    assert not queue.stored
    assert 1 < queue.most <= RECEIVES_AT_ONCE
    before = len(queue.calls)
    await asyncio.sleep(100)
    assert [what for what, _ in queue.calls[before:]] == ["receive"] * 5
    assert queue.under_way == 1
    await bench.stop()


@pytest.mark.parametrize("permits", [7, 40, 95])
@virtual
async def test_receives_ask_together_for_no_more_than_the_free_permits(permits: int) -> None:
    active = 0

    async def process(job: Job) -> Outcome:
        nonlocal active
        active += 1
        assert active + queue.asked <= permits
        await asyncio.sleep(0.2)
        active -= 1
        return success(job)

    bench = ConsumerBench(process, max_in_flight=permits)
    queue = counting(bench)
    await bench.serve(*(f"j{n}" for n in range(600)), for_s=60)
    assert len(bench.ledger.records) == 600
    assert queue.most_asked <= permits
    await bench.stop()


@virtual
async def test_an_empty_queue_without_long_polls_is_asked_once_a_second() -> None:
    bench = ConsumerBench(long_poll_s=0)
    await bench.serve(for_s=100)
    assert 95 <= len(bench.queue.calls) <= 101
    bench.send("j")
    await asyncio.sleep(1.2)
    assert [item.job_id for item in bench.ledger.records] == ["j"]
    await bench.stop()


@virtual
async def test_a_server_that_does_not_wait_is_asked_once_a_second() -> None:
    class Hasty(InMemoryQueue):
        async def receive(self, max_messages: int, wait_s: int, visibility_s: int) -> list[Message]:
            return await super().receive(max_messages, 0, visibility_s)

    bench = ConsumerBench(long_poll_s=20)
    bench.queue = Hasty(asyncio.get_running_loop().time)
    bench.consumer = bench.make_consumer()
    await bench.serve(for_s=100)
    assert len(bench.queue.calls) <= 101
    await bench.stop()


@virtual
async def test_a_full_queue_without_long_polls_is_not_paused() -> None:
    bench = ConsumerBench(long_poll_s=0, max_in_flight=200)
    await bench.serve(*(f"j{n}" for n in range(600)), for_s=2)
    assert len(bench.ledger.records) == 600
    await bench.stop()


@virtual
async def test_a_stop_during_the_pause_of_an_empty_queue_is_immediate() -> None:
    bench = ConsumerBench(long_poll_s=0)
    await bench.serve(for_s=0.5)
    began_at = now()
    await bench.stop()
    assert now() < began_at + 2
