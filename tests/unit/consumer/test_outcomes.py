"""The outcomes of a message's jobs are recorded, and only then is the message deleted."""

from __future__ import annotations

import asyncio

import pytest

from ingest.messages.build import INVALID_RUN
from serve_app.contracts.job import Job
from serve_app.contracts.outcome import Outcome
from serve_app.errors import (
    InternalError,
    NoSubject,
)
from tests.support.consumer_bench import ConsumerBench, message, raising, s3_event, success
from tests.support.virtual_time import now, virtual


@virtual
async def test_a_result_is_recorded_and_only_then_deleted() -> None:
    bench = ConsumerBench()
    [sent] = await bench.serve("j")
    assert bench.log == [("receive", sent), ("record", "j"), ("delete", sent)]
    assert bench.ledger.of("j").receive_count == 1
    await bench.stop()
    stats = bench.consumer.stats
    assert (stats.received, stats.done, stats.deleted, stats.failed) == (1, 1, 1, {})


@virtual
async def test_nothing_is_deleted_while_the_ledger_is_unavailable() -> None:
    bench = ConsumerBench(visibility_timeout_s=30)
    bench.ledger.present.clear()
    await bench.serve("j", for_s=300)
    assert bench.events("record", "delete") == []
    assert bench.events("receive") == ["receive"]
    bench.ledger.present.set()
    await asyncio.sleep(1)
    assert bench.events("record", "delete") == ["record", "delete"]
    await bench.stop()


@pytest.mark.parametrize("returned", [False, True])
@virtual
async def test_a_permanent_failure_is_recorded_dead_lettered_and_deleted(returned: bool) -> None:
    error = NoSubject("nothing to keep")

    async def process(job: Job) -> Outcome:
        if returned:
            return Outcome.failed(job, error)
        raise error

    bench = ConsumerBench(process)
    await bench.serve("j")
    assert bench.events("receive", "record", "dead_letter", "delete") == [
        "receive",
        "record",
        "dead_letter",
        "delete",
    ]
    [dead] = bench.queue.dead
    assert (dead.code, dead.reason, dead.job_id) == ("no_subject", "nothing to keep", "j")
    assert bench.ledger.of("j").code == "no_subject"
    await bench.stop()
    assert bench.consumer.stats.failed == {"no_subject": 1}
    assert bench.consumer.stats.dead_lettered == 1


@virtual
async def test_a_permanent_failure_without_a_dead_letter_queue_is_deleted() -> None:
    bench = ConsumerBench(raising(NoSubject("nothing")), has_dead_letters=False)
    await bench.serve("j")
    assert bench.events("record", "delete") == ["record", "delete"]
    await bench.stop()
    assert bench.consumer.stats.dead_lettered == 0


@virtual
async def test_a_message_that_cannot_be_dead_lettered_is_released() -> None:
    bench = ConsumerBench(raising(NoSubject("nothing")), max_receives=9)
    bench.queue.fail = lambda what: what == "dead_letter" and now() < 10
    await bench.serve("j", for_s=60)
    assert bench.events("record", "release", "dead_letter", "delete")[:2] == ["record", "release"]
    assert bench.events("dead_letter", "delete") == ["dead_letter", "delete"]
    await bench.stop()


@virtual
async def test_a_poison_message_does_not_touch_its_neighbours() -> None:
    bench = ConsumerBench()
    bench.send("before")
    poison = [bench.queue.send(body) for body in ("{", message("x", recipe="nonsense"))]
    await bench.serve("after")
    await bench.stop()
    assert not bench.queue.stored
    codes = {item.job_id: (item.run_id, item.code) for item in bench.ledger.records}
    assert codes == {
        "before": ("r", None),
        poison[0]: (INVALID_RUN, "invalid_message"),
        "x": ("r", "invalid_recipe"),
        "after": ("r", None),
    }
    assert [item.message_id for item in bench.queue.dead] == poison


@virtual
async def test_a_message_with_nothing_to_do_is_deleted() -> None:
    bench = ConsumerBench()
    bench.queue.send('{"Event": "s3:TestEvent"}')
    await bench.serve()
    assert bench.events("record", "delete") == ["delete"]
    await bench.stop()


@virtual
async def test_a_message_of_several_jobs_is_deleted_when_all_are_recorded() -> None:
    bench = ConsumerBench()
    bench.queue.send(s3_event("1.jpg", "2.jpg", "3.jpg"))
    await bench.serve()
    assert bench.events("record", "delete") == ["record", "record", "record", "delete"]
    await bench.stop()
    assert (bench.consumer.stats.done, bench.consumer.stats.deleted) == (3, 1)


@virtual
async def test_a_message_of_several_jobs_is_released_while_one_may_still_succeed() -> None:
    tries = 0

    async def process(job: Job) -> Outcome:
        nonlocal tries
        if job.source.key == "2.jpg":
            tries += 1
            if tries == 1:
                raise InternalError("later")
        return success(job)

    bench = ConsumerBench(process)
    bench.queue.send(s3_event("1.jpg", "2.jpg"))
    await bench.serve(for_s=10)
    assert bench.events("record", "release", "delete") == ["release", "record", "record", "delete"]
    await bench.stop()
