"""A consumer that stops finishes what it can and releases the rest."""

from __future__ import annotations

import asyncio

import pytest

from ingest.consumer.stop_times import longest_stop_s
from serve_app.contracts.job import Job
from serve_app.contracts.outcome import Outcome
from serve_app.errors import ReplicaLost
from tests.support.consumer_bench import ConsumerBench, success
from tests.support.virtual_time import now, virtual


@virtual
async def test_stop_lets_jobs_end_within_the_grace_time() -> None:
    async def process(job: Job) -> Outcome:
        await asyncio.sleep(10)
        return success(job)

    bench = ConsumerBench(process, stop_grace_s=15)
    await bench.serve("j", "k", for_s=2)
    await bench.stop()
    assert len(bench.ledger.records) == 2
    assert not bench.queue.stored
    assert bench.ledger.closed == 1


@virtual
async def test_stop_gives_the_rest_back_at_once() -> None:
    cancelled: list[str] = []

    async def process(job: Job) -> Outcome:
        try:
            await asyncio.sleep(5 if job.job_id == "quick" else 1_000)
        except asyncio.CancelledError:
            cancelled.append(job.job_id)
            raise
        return success(job)

    bench = ConsumerBench(process, stop_grace_s=15, long_poll_s=1)
    await bench.serve("quick", *(f"slow{n}" for n in range(12)), for_s=2)
    await bench.stop()
    assert now() < 20
    assert len(cancelled) == 12
    assert [item.job_id for item in bench.ledger.records] == ["quick"]
    assert len(bench.queue.stored) == 12
    assert all(item.visible_at <= now() for item in bench.queue.stored.values())
    assert bench.consumer.stats.released == 12


@virtual
async def test_stop_releases_what_an_outstanding_poll_still_brings() -> None:
    bench = ConsumerBench(long_poll_s=20)
    await bench.serve(for_s=5)
    stopping = asyncio.create_task(bench.stop())
    await asyncio.sleep(1)
    bench.send("late")
    await stopping
    assert bench.events("receive", "record", "release") == ["receive", "release"]
    [item] = bench.queue.stored.values()
    assert item.visible_at <= now()


@pytest.mark.parametrize("consumers", [1, 2, 3])
@virtual
async def test_a_stop_of_all_consumers_costs_no_further_receive(consumers: int) -> None:
    """This holds for jobs that fail because the pipeline stops, and for jobs that are cancelled."""
    here = asyncio.Event()

    async def process(job: Job) -> Outcome:
        try:
            await asyncio.wait_for(here.wait(), None if job.job_id == "slow" else 3)
        except TimeoutError:
            raise ReplicaLost("gone") from None
        return success(job)

    bench = ConsumerBench(
        process, stop_grace_s=5, long_poll_s=20, retry_base_s=1, retry_max_s=1, max_receives=9
    )
    each = [bench.make_consumer() for _ in range(consumers)]
    running = [asyncio.create_task(consumer.run()) for consumer in each]
    bench.send("slow", "j", "k", "l")
    await asyncio.sleep(2)
    await asyncio.gather(*(consumer.stop() for consumer in each), *running)
    assert now() < 45
    receives = [item.receive_count for item in bench.queue.stored.values()]
    assert receives == [1, 1, 1, 1]
    assert all(item.visible_at <= now() + 1 for item in bench.queue.stored.values())


@virtual
async def test_stop_while_the_ledger_is_unavailable_gives_back_what_is_not_recorded() -> None:
    bench = ConsumerBench(stop_grace_s=5, long_poll_s=1)
    bench.ledger.present.clear()
    await bench.serve("j", "k", for_s=2)
    await bench.stop()
    assert now() < 15
    assert bench.events("record", "delete") == []
    assert all(item.visible_at <= now() for item in bench.queue.stored.values())


@virtual
async def test_stop_while_the_queue_is_unavailable() -> None:
    bench = ConsumerBench(stop_grace_s=5)
    await bench.serve("j", for_s=0.02)
    bench.queue.fail = lambda what: True
    await asyncio.sleep(10)
    await bench.stop()
    assert now() < 40
    assert bench.events("record", "delete") == ["record"]


@virtual
async def test_stop_gives_a_slow_queue_the_time_that_the_jobs_did_not_need() -> None:
    bench = ConsumerBench(stop_grace_s=30, long_poll_s=1)
    bench.queue.fail = lambda what: what == "delete" and now() < 12
    await bench.serve("j", "k", for_s=2)
    await bench.stop()
    assert now() < 32
    assert not bench.queue.stored, "messages that are recorded come again"


@virtual
async def test_a_stop_says_what_the_queue_did_not_take_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def process(job: Job) -> Outcome:
        await asyncio.sleep(1_000)
        return success(job)

    bench = ConsumerBench(process, stop_grace_s=1, long_poll_s=1, visibility_timeout_s=600)
    await bench.serve("j", for_s=2)
    bench.queue.latency_s = 5
    await bench.stop()
    assert "did not take back messages" in caplog.text


@virtual
async def test_stop_can_be_called_again_and_before_the_start() -> None:
    bench = ConsumerBench(long_poll_s=1)
    await bench.consumer.stop()
    bench.start()
    await bench.stop()
    await bench.stop()
    assert bench.events("receive") == []

    bench = ConsumerBench(long_poll_s=1)
    await bench.serve("j")
    await asyncio.gather(bench.stop(), bench.stop())
    assert bench.events("delete") == ["delete"]


@virtual
async def test_cancelling_run_cancels_and_leaves_the_messages() -> None:
    async def process(job: Job) -> Outcome:
        await asyncio.sleep(1_000)
        return success(job)

    bench = ConsumerBench(process)
    await bench.serve("j")
    assert bench.running is not None
    bench.running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await bench.running
    await asyncio.sleep(0.1)
    assert bench.events("delete") == []
    assert asyncio.all_tasks() == {asyncio.current_task()}
    await bench.consumer.stop()


@virtual
async def test_a_defect_in_the_queue_ends_run() -> None:
    bench = ConsumerBench()

    def broken(what: str) -> bool:
        raise KeyError(what)

    bench.queue.fail = broken
    with pytest.raises(ExceptionGroup):
        await bench.consumer.run()
    await bench.consumer.stop()


@virtual
async def test_a_stop_with_two_thousand_unsettled_messages_ends_in_time() -> None:
    """Serve kills a consumer that takes longer than its grace."""
    bench = ConsumerBench(stop_grace_s=20, long_poll_s=20, max_in_flight=64)
    bench.ledger.present.clear()
    await bench.serve(*(f"j{n}" for n in range(2_060)), for_s=5)
    assert bench.consumer.stats.unsettled == 2_060
    bench.queue.latency_s = 0.5
    began_at = now()
    await bench.stop()
    assert now() - began_at < 30
    assert all(item.visible_at <= now() for item in bench.queue.stored.values())
    assert bench.consumer.stats.released == 2_060


@virtual
async def test_a_stop_while_the_queue_hangs_ends_in_time() -> None:
    bench = ConsumerBench(stop_grace_s=20, long_poll_s=20, max_in_flight=64, part_records=50)
    bench.ledger.present.clear()
    await bench.serve(*(f"j{n}" for n in range(160)), for_s=5)
    bench.queue.latency_s = 1_000
    began_at = now()
    await bench.stop()
    assert now() - began_at < 30


@pytest.mark.parametrize("latency_s", [0.1, 2.5, 1_000], ids=["quick", "slow", "hanging"])
@virtual
async def test_a_stop_ends_before_serve_kills_the_replica(latency_s: float) -> None:
    """Neither the jobs, nor the ledger, nor the queue lets it go in time."""

    async def process(job: Job) -> Outcome:
        if job.job_id.startswith("slow"):
            try:
                await asyncio.sleep(1_000)
            finally:
                # What ends slowly, as the rows of a catalog do whose database hangs.
                await asyncio.sleep(30)
        return success(job)

    bench = ConsumerBench(process, stop_grace_s=20, long_poll_s=20, max_in_flight=64)
    bench.ledger.present.clear()
    job_ids = [f"quick{n}" for n in range(60)] + [f"slow{n}" for n in range(40)]
    await bench.serve(*job_ids, for_s=5)
    assert bench.consumer.stats.unsettled == 100
    bench.queue.latency_s = latency_s
    began_at = now()
    await bench.consumer.stop()
    assert now() - began_at < longest_stop_s(bench.config)
    if latency_s < 1:
        assert all(item.visible_at <= now() for item in bench.queue.stored.values())
