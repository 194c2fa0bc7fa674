"""A queue that does not answer is noticed within half a minute, and so is its recovery."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from botocore.exceptions import ClientError

from ingest.consumer.queue_health import QueueHealth
from ingest.sqs.call_times import (
    beat_s,
    for_receives,
    for_short_calls,
    receive_limit_s,
    short_call_s,
)
from ingest.sqs.errors import map_sqs_errors
from serve_app.config import AwsConfig
from serve_app.contracts.job import Job
from serve_app.contracts.outcome import Outcome
from serve_app.errors import QueueUnavailable
from tests.support.consumer_bench import ConsumerBench, success
from tests.support.virtual_time import now, virtual

HANG_S = 10_000.0


async def slow(job: Job) -> Outcome:
    await asyncio.sleep(400)
    return success(job)


async def within(seconds: float, condition: Callable[[], bool]) -> None:
    until = now() + seconds
    while not condition():
        assert now() < until, "waited in vain"
        await asyncio.sleep(0.5)


@pytest.mark.parametrize("jobs", [0, 1, 60])
@virtual
async def test_a_queue_that_hangs_for_a_minute_is_named_and_costs_no_lease(jobs: int) -> None:
    bench = ConsumerBench(slow, max_in_flight=60)
    await bench.serve(*(f"j{n}" for n in range(jobs)), for_s=30)
    bench.queue.latency_s = HANG_S
    began_at = now()
    await within(50 if jobs == 0 else 30, lambda: not bench.consumer.healthy)
    await asyncio.sleep(began_at + 60 - now())
    bench.queue.latency_s = 0.01
    await within(30, lambda: bench.consumer.healthy)
    await asyncio.sleep(400)
    await bench.stop()
    assert bench.consumer.stats.lease_lost == 0
    assert {item.receive_count for item in bench.ledger.records} <= {1}
    assert len(bench.ledger.records) == jobs


@virtual
async def test_a_long_poll_that_is_never_answered_is_noticed_within_half_a_minute() -> None:
    bench = ConsumerBench()
    await bench.serve(for_s=1)
    bench.queue.latency_s = HANG_S
    await asyncio.sleep(19)  # The poll under way ends.
    await within(30, lambda: not bench.consumer.healthy)
    assert "did not answer within" in (bench.consumer.reason or "")
    bench.queue.latency_s = 0.01
    await within(30, lambda: bench.consumer.healthy)
    bench.send("j")
    await asyncio.sleep(1)
    await bench.stop()
    assert [item.job_id for item in bench.ledger.records] == ["j"]


@virtual
async def test_deletions_that_hang_are_tried_again_while_the_lease_is_held() -> None:
    bench = ConsumerBench(visibility_timeout_s=120)
    await bench.serve("j", for_s=0.1)
    bench.queue.latency_s = HANG_S
    await asyncio.sleep(30)
    assert "did not answer" in (bench.consumer.reason or "")
    bench.queue.latency_s = 0.01
    await asyncio.sleep(40)
    assert not bench.queue.stored
    assert bench.consumer.healthy
    await bench.stop()


# the health of a queue


async def _fail(error: Exception) -> None:
    raise error


async def _hang() -> None:
    await asyncio.sleep(HANG_S)


@virtual
async def test_three_refusals_in_a_row_are_trouble_until_one_call_of_the_kind_succeeds() -> None:
    health = QueueHealth(asyncio.get_running_loop().time)
    for number in range(3):
        assert health.trouble(holding=True) is None
        with pytest.raises(QueueUnavailable):
            await health.call("delete", _fail(QueueUnavailable(f"no {number}")), 5)
    await health.call("receive", asyncio.sleep(0), 5)
    assert health.trouble(holding=True) == "queue_unavailable: no 2"
    assert health.trouble(holding=False) is None, "nothing is left to delete"
    await health.call("delete", asyncio.sleep(0), 5)
    assert health.trouble(holding=True) is None


@virtual
async def test_calls_that_fail_side_by_side_are_one_failure() -> None:
    async def fail_later() -> None:
        await asyncio.sleep(1)
        raise QueueUnavailable("no")

    health = QueueHealth(asyncio.get_running_loop().time)
    calls = [health.call("receive", fail_later(), 5) for _ in range(16)]
    await asyncio.gather(*calls, return_exceptions=True)
    assert health.failures("receive") == 1
    assert health.trouble(holding=True) is None


@virtual
async def test_one_call_without_an_answer_is_trouble_until_any_later_call_succeeds() -> None:
    health = QueueHealth(asyncio.get_running_loop().time)
    early = asyncio.create_task(health.call("receive", asyncio.sleep(6), 20))
    with pytest.raises(QueueUnavailable, match="did not answer within 5 s"):
        await health.call("extend", _hang(), 5)
    await early
    assert health.trouble(holding=True) is not None, "that call began before"
    await health.call("receive", asyncio.sleep(1), 20)
    assert health.trouble(holding=True) is None


@virtual
async def test_a_time_limit_inside_of_a_call_is_the_calls_own() -> None:
    health = QueueHealth(asyncio.get_running_loop().time)
    with pytest.raises(TimeoutError):
        await health.call("delete", _fail(TimeoutError()), 5)
    assert health.failures("delete") == 0


# the times of calls


@pytest.mark.parametrize("visibility_s", [3, 12, 30, 120, 43_200])
def test_two_short_calls_that_hang_fit_between_a_heartbeat_and_the_end_of_a_lease(
    visibility_s: int,
) -> None:
    client = for_short_calls(AwsConfig(), visibility_s, 1)
    whole_s = client.connect_timeout_s + client.read_timeout_s
    assert whole_s < short_call_s(visibility_s)
    assert client.max_attempts == 1
    if visibility_s >= 12:
        assert client.read_timeout_s < beat_s(visibility_s) / 2
        assert 2 * (short_call_s(visibility_s) + beat_s(visibility_s) / 4) < 2 * beat_s(
            visibility_s
        )


@pytest.mark.parametrize("wait_s", [1, 20])
def test_a_receive_outlasts_its_own_wait_and_ends_within_half_a_minute(wait_s: int) -> None:
    client = for_receives(AwsConfig(read_timeout_s=3), wait_s)
    assert wait_s < client.read_timeout_s
    assert client.connect_timeout_s + client.read_timeout_s < receive_limit_s(wait_s) < 30


@pytest.mark.parametrize(("code", "stays"), [("AccessDenied", True), ("OverLimit", False)])
async def test_only_what_somebody_must_correct_is_trouble_while_nothing_is_held(
    code: str, stays: bool
) -> None:
    now_s = 1.0
    health = QueueHealth(lambda: now_s)

    async def refused() -> None:
        with map_sqs_errors("q: ChangeMessageVisibility"):
            raise ClientError({"Error": {"Code": code, "Message": "no"}}, "ChangeMessageVisibility")

    for _ in range(3):
        with pytest.raises(QueueUnavailable):
            await health.call("extend", refused(), 1)
    assert health.trouble(holding=True) is not None
    assert (health.trouble(holding=False) is not None) is stays
    # Calls of this kind may be rare, so that none shows that it was corrected.
    now_s += 20 * 60
    assert health.trouble(holding=False) is None
