"""What a consumer records, from its counters and from the parts of its ledger."""

from __future__ import annotations

import asyncio
import time

from ingest.consumer.consumer_metrics import ConsumerMetrics, record_backlog
from ingest.consumer.leases import Leases
from ingest.sqs.backlog import Backlog
from serve_app.contracts.job import Job
from serve_app.contracts.outcome import Outcome
from serve_app.errors import CorruptImage, StorageUnavailable
from serve_app.serving.metrics import (
    CONSUMER_HEALTHY,
    DEAD_LETTERS,
    EMPTY_RECEIVES,
    IMAGES,
    LEDGER_LAG_SECONDS,
    LEDGER_PART_SECONDS,
    LEDGER_RECORDS,
    MESSAGES_DELETED,
    MESSAGES_IN_FLIGHT,
    MESSAGES_RECEIVED,
    MESSAGES_RETRIED,
    MESSAGES_UNSETTLED,
    OLDEST_RECEIVED_SECONDS,
    PERMITS_FREE,
    QUEUE_MESSAGES,
    RECEIVES,
)
from tests.support.consumer_bench import ConsumerBench, success
from tests.support.in_memory_queue import InMemoryQueue
from tests.support.recorded_metrics import RecordedMetrics
from tests.support.virtual_time import virtual


def record(bench: ConsumerBench, recorder: ConsumerMetrics) -> None:
    consumer = bench.consumer
    recorder.record(consumer.stats, consumer.stored, healthy=consumer.healthy)


@virtual
async def test_the_outcomes_of_a_run_are_recorded_by_code_and_model() -> None:
    attempts = 0

    async def process(job: Job) -> Outcome:
        nonlocal attempts
        await asyncio.sleep(1)
        if job.job_id == "broken":
            return Outcome.failed(job, CorruptImage("half a file"))
        if job.job_id == "late":
            attempts += 1
            if attempts == 1:
                return Outcome.failed(job, StorageUnavailable("later"))
        return success(job)

    metrics = RecordedMetrics()
    recorder = ConsumerMetrics(metrics)
    bench = ConsumerBench(process, max_in_flight=4)
    await bench.serve("a", "b", "broken", "late", for_s=30)
    record(bench, recorder)
    # What has not changed is not counted again.
    record(bench, recorder)
    images = metrics.counts(IMAGES)
    assert images == {
        ("queue", "done", "", ""): 3,
        ("queue", "failed", "corrupt_image", ""): 1,
    }
    assert metrics.counts(MESSAGES_DELETED) == {(): 4}
    assert metrics.counts(DEAD_LETTERS) == {(): 1}
    received = metrics.counts(MESSAGES_RECEIVED)[()]
    assert received == 4 + sum(metrics.counts(MESSAGES_RETRIED).values())
    assert metrics.counts(RECEIVES)[()] > metrics.counts(EMPTY_RECEIVES)[()] > 0
    # The last receive was empty.
    assert metrics.values(OLDEST_RECEIVED_SECONDS) == {(): 0}
    assert metrics.values(CONSUMER_HEALTHY) == {(): 1}
    await bench.stop()


@virtual
async def test_what_a_consumer_holds_now_is_recorded() -> None:
    metrics = RecordedMetrics()
    recorder = ConsumerMetrics(metrics)
    bench = ConsumerBench(max_in_flight=8)
    bench.ledger.present.clear()
    await bench.serve("a", "b", "c", for_s=40)
    record(bench, recorder)
    assert metrics.values(MESSAGES_IN_FLIGHT) == {(): 0}
    assert metrics.values(MESSAGES_UNSETTLED) == {(): 3}
    assert metrics.values(PERMITS_FREE) == {(): 8}
    # The ledger does not answer.
    assert 39 < metrics.values(LEDGER_LAG_SECONDS)[()] < 40
    assert metrics.values(CONSUMER_HEALTHY) == {(): 0}
    bench.ledger.present.set()
    await asyncio.sleep(1)
    record(bench, recorder)
    assert metrics.values(LEDGER_LAG_SECONDS) == {(): 0}
    assert metrics.values(CONSUMER_HEALTHY) == {(): 1}
    await bench.stop()


async def test_the_age_of_the_oldest_message_is_that_of_the_last_receive() -> None:
    now = time.time() - 1_000
    queue = InMemoryQueue(lambda: now)
    queue.send("old")
    now += 900
    queue.send("new")
    leases = Leases(queue, 30, time.monotonic)
    assert len(await leases.receive(10, 0)) == 2
    assert 1_000 <= leases.oldest_received_s < 1_060
    assert await leases.receive(10, 0) == []
    assert leases.oldest_received_s == 0


def test_parts_of_the_ledger_and_the_backlog_are_recorded() -> None:
    metrics = RecordedMetrics()
    recorder = ConsumerMetrics(metrics)
    recorder.record_part(1_000, 0.7)
    recorder.record_part(5, 2.1)
    recorder.record_health(healthy=False)
    record_backlog(metrics, Backlog(waiting=12, in_flight=3))
    assert metrics.counts(LEDGER_RECORDS) == {(): 1_005}
    assert metrics.observed(LEDGER_PART_SECONDS) == {(): [0.7, 2.1]}
    assert metrics.values(CONSUMER_HEALTHY) == {(): 0}
    assert metrics.values(QUEUE_MESSAGES) == {("visible",): 12, ("not_visible",): 3}
