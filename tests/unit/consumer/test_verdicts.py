"""A verdict is carried out step by step, and no step is taken for a lease that is lost."""

from __future__ import annotations

import asyncio

import pytest

from ingest.consumer.lease import Acknowledge, DeadLetter, Lease, Release, Verdict
from ingest.consumer.leases import Leases
from tests.support.in_memory_queue import InMemoryQueue
from tests.support.virtual_time import now, virtual

VISIBILITY_S = 30
DEAD_LETTER = DeadLetter("no_subject", "nothing to keep", "j", retry_delay_s=7)


async def received(
    *, has_dead_letters: bool = True, latency_s: float = 0.01
) -> tuple[InMemoryQueue, Leases, Lease]:
    clock = asyncio.get_running_loop().time
    queue = InMemoryQueue(clock, has_dead_letters=has_dead_letters)
    leases = Leases(queue, VISIBILITY_S, clock)
    queue.send("a message")
    [message] = await leases.receive(1, 0)
    lease = leases.start(message)
    queue.latency_s = latency_s
    queue.calls.clear()
    return queue, leases, lease


@pytest.mark.parametrize(
    ("verdict", "steps"),
    [
        (Acknowledge(), ["delete"]),
        (Release(5), ["release"]),
        (DEAD_LETTER, ["dead_letter", "delete"]),
    ],
)
@virtual
async def test_a_verdict_is_carried_out(verdict: Verdict, steps: list[str]) -> None:
    queue, leases, lease = await received()
    await leases.settle(lease, verdict)
    assert [name for name, _ in queue.log] == ["receive", *steps]
    assert not leases.holds(lease)
    if verdict == Release(5):
        assert queue.stored["m1"].visible_at == pytest.approx(now() + 5)


@pytest.mark.parametrize("verdict", [Acknowledge(), Release(0), DEAD_LETTER])
@virtual
async def test_a_lost_lease_asks_nothing_of_the_queue(verdict: Verdict) -> None:
    queue, leases, lease = await received()
    await asyncio.sleep(VISIBILITY_S)
    await leases.settle(lease, verdict)
    assert queue.calls == []
    assert lease.lost


@virtual
async def test_a_lease_that_is_lost_during_a_step_takes_no_further_step() -> None:
    queue, leases, lease = await received(latency_s=2)
    await asyncio.sleep(VISIBILITY_S - 1)
    await leases.settle(lease, DEAD_LETTER)
    assert [name for name, _ in queue.calls] == ["dead_letter"]
    assert "m1" in queue.stored


@virtual
async def test_a_lease_that_is_lost_while_releases_are_held_is_not_released() -> None:
    queue, leases, lease = await received()
    leases.hold_releases_until(now() + VISIBILITY_S + 1)
    await leases.settle(lease, Release(0))
    assert queue.calls == []


@virtual
async def test_a_held_release_is_made_as_soon_as_it_may() -> None:
    queue, leases, lease = await received()
    until = now() + 10
    leases.hold_releases_until(until)
    await leases.settle(lease, Release(0))
    assert queue.stored["m1"].visible_at == pytest.approx(until, abs=0.1)


@virtual
async def test_a_message_that_cannot_be_copied_is_released_with_its_delay() -> None:
    queue, leases, lease = await received()
    queue.fail = lambda what: what == "dead_letter"
    await leases.settle(lease, DEAD_LETTER)
    assert queue.stored["m1"].visible_at == pytest.approx(now() + DEAD_LETTER.retry_delay_s)
    assert (leases.counts["released"], leases.counts["dead_lettered"]) == (1, 0)


@virtual
async def test_a_message_is_deleted_if_there_is_no_dead_letter_queue() -> None:
    queue, leases, lease = await received(has_dead_letters=False)
    await leases.settle(lease, DEAD_LETTER)
    assert queue.stored == {}
    assert (leases.counts["deleted"], leases.counts["dead_lettered"]) == (1, 0)


@virtual
async def test_messages_that_are_copied_at_the_same_time_are_all_counted() -> None:
    queue, leases, lease = await received()
    queue.send("a second message")
    [message] = await leases.receive(1, 0)
    both = (lease, leases.start(message))
    await asyncio.gather(*(leases.settle(each, DEAD_LETTER) for each in both))
    assert (leases.counts["dead_lettered"], leases.counts["deleted"]) == (2, 2)
