"""A message whose job may pass later is released with a back-off."""

from __future__ import annotations

import asyncio
import random
from itertools import pairwise

import pytest

from serve_app.contracts.job import Job
from serve_app.contracts.outcome import Outcome
from serve_app.errors import (
    DeadlineExceeded,
    InternalError,
    InvalidConfig,
)
from tests.support.consumer_bench import ConsumerBench, raising, success
from tests.support.virtual_time import now, virtual


@virtual
async def test_a_transient_failure_is_released_and_done_later() -> None:
    bench = ConsumerBench(raising(InternalError("no room"), times=2), max_receives=5)
    await bench.serve("j", for_s=60)
    assert bench.events("release", "record", "delete") == ["release", "release", "record", "delete"]
    assert bench.ledger.of("j").receive_count == 3
    await bench.stop()
    assert bench.consumer.stats.retried == {"internal_error": 2}


@virtual
async def test_back_off_doubles_up_to_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda low, high: high)
    times: list[float] = []

    async def process(job: Job) -> Outcome:
        times.append(now())
        raise InternalError("later")

    bench = ConsumerBench(process, max_receives=6, retry_base_s=2, retry_max_s=10)
    await bench.serve("j", for_s=100)
    waits = [round(b - a) for a, b in pairwise(times)]
    assert waits == [2, 4, 8, 10, 10]
    await bench.stop()


@virtual
async def test_back_off_has_full_jitter() -> None:
    bench = ConsumerBench(raising(InternalError("later")), retry_base_s=1_000, retry_max_s=10_000)
    await bench.serve(*(f"j{n}" for n in range(40)))
    delays = [item.visible_at - now() for item in bench.queue.stored.values()]
    assert min(delays) < 200
    assert max(delays) > 800
    await bench.stop()


@virtual
async def test_the_last_transient_failure_is_final() -> None:
    bench = ConsumerBench(raising(InternalError("no room")), max_receives=3)
    await bench.serve("j", for_s=120)
    assert bench.events("receive", "release", "record", "dead_letter", "delete", "redrive") == [
        *["receive", "release"] * 2,
        *["receive", "record", "dead_letter", "delete"],
    ]
    record = bench.ledger.of("j")
    assert (record.status, record.code, record.receive_count) == ("failed", "internal_error", 3)
    assert bench.queue.dead[0].reason == "no room"
    await bench.stop()


@pytest.mark.parametrize("error", [ValueError("odd"), TimeoutError(), asyncio.CancelledError()])
@virtual
async def test_unexpected_errors_are_internal_and_transient(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    bench = ConsumerBench(raising(error, times=1))
    await bench.serve("j", "k", for_s=60)
    await bench.stop()
    assert {item.status for item in bench.ledger.records} == {"done"}
    assert bench.consumer.stats.retried == {"internal_error": 1}
    assert isinstance(error, asyncio.CancelledError) or "failed unexpectedly" in caplog.text


@virtual
async def test_a_job_past_its_deadline_is_cancelled_and_tried_again() -> None:
    cancelled: list[float] = []

    async def process(job: Job) -> Outcome:
        try:
            await asyncio.sleep(1_000 if not cancelled else 1)
        except asyncio.CancelledError:
            cancelled.append(now())
            raise
        return success(job)

    bench = ConsumerBench(process, job_deadline_s=100, visibility_timeout_s=30)
    await bench.serve("j", for_s=300)
    assert [round(at) for at in cancelled] == [100]
    assert bench.ledger.of("j").receive_count == 2
    await bench.stop()
    assert bench.consumer.stats.retried == {DeadlineExceeded.code: 1}
    assert bench.consumer.stats.lease_lost == 0


@virtual
async def test_a_fatal_error_ends_receiving_and_releases_at_once() -> None:
    bench = ConsumerBench(raising(InvalidConfig("no such model")), max_in_flight=1)
    await bench.serve("j", "k", for_s=60)
    assert bench.events("receive", "release") == ["receive", "release"]
    assert min(item.visible_at for item in bench.queue.stored.values()) < 1
    assert not bench.consumer.healthy
    assert bench.consumer.reason == "invalid_config: no such model"
    assert isinstance(bench.consumer.fatal, InvalidConfig)
    await bench.stop()


@pytest.mark.parametrize("has_dead_letters", [True, False])
@virtual
async def test_a_message_on_which_the_consumer_fails_ends_with_its_last_receive(
    has_dead_letters: bool,
) -> None:
    """Without a redrive policy, SQS would deliver it indefinitely."""
    bench = ConsumerBench(max_receives=3, has_dead_letters=has_dead_letters)
    record = bench.ledger.record

    async def refuse_results(outcome: Outcome) -> None:
        if outcome.job_id == "odd" and outcome.status == "done":
            raise TypeError("this outcome cannot be written")
        await record(outcome)

    bench.ledger.record = refuse_results  # type: ignore[method-assign]
    await bench.serve("odd", "j", for_s=120)
    await bench.stop()
    assert not bench.queue.stored
    outcome = bench.ledger.of("odd")
    assert (outcome.code, outcome.receive_count) == ("internal_error", 3)
    assert outcome.message == "TypeError: this outcome cannot be written"
    # A failure that names no image cannot be redriven.
    assert outcome.source is not None
    assert outcome.source.key == "odd.jpg"
    assert bench.ledger.of("j").status == "done"
    assert [item.job_id for item in bench.queue.dead] == ["odd"] * has_dead_letters


@virtual
async def test_a_body_that_breaks_the_parser_ends_with_its_last_receive() -> None:
    bench = ConsumerBench(max_receives=2, has_dead_letters=False)
    deep = '{"Records": ' + "[" * 5_000 + "]" * 5_000 + "}"
    sent = bench.queue.send(deep)
    await bench.serve("j", for_s=60)
    await bench.stop()
    assert not bench.queue.stored
    assert bench.ledger.of(sent).status == "failed"


@virtual
async def test_a_message_of_which_nothing_can_be_recorded_is_never_deleted() -> None:
    bench = ConsumerBench(max_receives=2, has_dead_letters=False)

    async def refuse(outcome: Outcome) -> None:
        raise TypeError("nothing can be written")

    bench.ledger.record = refuse  # type: ignore[method-assign]
    await bench.serve("j", for_s=60)
    await bench.stop()
    assert bench.events("delete") == []
    assert bench.queue.stored
