"""Whatever fails, and in whatever order, no message is lost."""

from __future__ import annotations

import asyncio
import random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serve_app.contracts.job import Job
from serve_app.contracts.outcome import Outcome
from serve_app.errors import NoSubject, Overloaded, ReplicaLost
from tests.support.consumer_bench import ConsumerBench, message, success
from tests.support.fuzzing import examples
from tests.support.virtual_time import run


@settings(max_examples=examples(8), suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32), count=st.integers(1, 30), permits=st.sampled_from([1, 4, 16]))
def test_whatever_fails_no_message_is_lost(seed: int, count: int, permits: int) -> None:
    run(_storm(random.Random(seed), count, permits))


async def _storm(dice: random.Random, count: int, permits: int) -> None:
    bench = ConsumerBench(
        max_in_flight=permits,
        max_receives=dice.randint(2, 5),
        visibility_timeout_s=dice.choice([6, 30]),
        long_poll_s=dice.choice([5, 20]),
        stop_grace_s=dice.choice([1, 20]),
        job_deadline_s=dice.choice([20, 100]),
        part_records=dice.choice([1, 5]),
        has_dead_letters=dice.random() < 0.8,
    )
    trouble = dice.random() * 0.5
    stormy = True

    async def process(job: Job) -> Outcome:
        await asyncio.sleep(dice.choice([0, 0.1, 1, 10, 60]))
        error = dice.choice([NoSubject("n"), Overloaded("o"), ValueError("v"), ReplicaLost("r")])
        if dice.random() < trouble:
            raise error
        return success(job)

    async def ledger_outages() -> None:
        while True:
            await asyncio.sleep(dice.expovariate(1 / 60))
            bench.ledger.present.clear()
            await asyncio.sleep(dice.expovariate(1 / 30))
            bench.ledger.present.set()

    bench.process = process
    bench.queue.fail = lambda what: stormy and dice.random() < trouble / 2
    bench.queue.refuse = lambda what, item: stormy and dice.random() < trouble / 2
    sent = {}
    for n in range(count):
        body = "{" if dice.random() < 0.1 else message(f"j{n}")
        message_id = bench.queue.send(body)
        sent[message_id] = message_id if body == "{" else f"j{n}"

    outages = asyncio.create_task(ledger_outages())
    for _ in range(dice.randint(1, 3)):
        bench.consumer = bench.make_consumer()
        other = bench.make_consumer()
        also = asyncio.create_task(other.run())
        bench.start()
        await asyncio.sleep(dice.expovariate(1 / 100))
        if dice.random() < 0.3:
            also.cancel()  # a consumer that dies
        await bench.stop()
        await other.stop()
        await asyncio.wait({also})
    outages.cancel()
    bench.ledger.present.set()
    _check(bench, sent)

    stormy, trouble = False, 0.0
    await _serve_the_rest(bench)
    _check(bench, sent)


async def _serve_the_rest(bench: ConsumerBench) -> None:
    bench.consumer = bench.make_consumer()
    bench.start()
    async with asyncio.timeout(1_800):
        while bench.queue.stored:  # noqa: ASYNC110 - in virtual time
            await asyncio.sleep(10)
    await bench.stop()


def _check(bench: ConsumerBench, sent: dict[str, str]) -> None:
    seen: set[tuple[str, str]] = set()
    for event, name in bench.log:
        if event == "delete":
            assert ("record", sent[name]) in seen, "deleted before its record was stored"
        seen.add((event, name))
    for message_id, job_id in sent.items():
        if message_id in bench.queue.stored:
            continue
        if ("delete", message_id) in seen:
            statuses = {item.status for item in bench.ledger.records if item.job_id == job_id}
            dead = ("dead_letter", message_id) in seen
            assert "done" in statuses or dead or not bench.queue.has_dead_letters
        else:
            assert ("redrive", message_id) in seen, "lost"
