"""The states of a message, on a clock that only moves when nothing else can happen."""

from __future__ import annotations

import asyncio
import random
from itertools import pairwise

import pytest

from ingest.messages.build import INVALID_RUN
from serve_app.contracts.job import Job
from serve_app.contracts.outcome import Outcome
from serve_app.errors import (
    DeadlineExceeded,
    InternalError,
    InvalidConfig,
    NoSubject,
    ReplicaLost,
    SourceForbidden,
    StorageUnavailable,
)
from tests.support.consumer_bench import Bench, message, raising, s3_event, success
from tests.support.virtual_time import now, virtual

# done and permanent


@virtual
async def test_done_is_recorded_and_only_then_deleted() -> None:
    bench = Bench()
    [sent] = await bench.serve("j")
    assert bench.log == [("receive", sent), ("record", "j"), ("delete", sent)]
    assert bench.ledger.of("j").receive_count == 1
    await bench.stop()
    stats = bench.consumer.stats
    assert (stats.received, stats.done, stats.deleted, stats.failed) == (1, 1, 1, {})


@virtual
async def test_nothing_is_deleted_while_the_ledger_is_away() -> None:
    bench = Bench(visibility_timeout_s=30)
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
async def test_permanent_is_recorded_dead_lettered_and_deleted(returned: bool) -> None:
    error = NoSubject("nothing to keep")

    async def process(job: Job) -> Outcome:
        if returned:
            return Outcome.failed(job, error)
        raise error

    bench = Bench(process)
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
async def test_permanent_without_a_dead_letter_queue_is_deleted() -> None:
    bench = Bench(raising(NoSubject("nothing")), has_dead_letters=False)
    await bench.serve("j")
    assert bench.events("record", "delete") == ["record", "delete"]
    await bench.stop()
    assert bench.consumer.stats.dead_lettered == 0


@virtual
async def test_a_message_that_cannot_be_dead_lettered_is_released() -> None:
    bench = Bench(raising(NoSubject("nothing")), max_receives=9)
    bench.queue.fail = lambda what: what == "dead_letter" and now() < 10
    await bench.serve("j", for_s=60)
    assert bench.events("record", "release", "dead_letter", "delete")[:2] == ["record", "release"]
    assert bench.events("dead_letter", "delete") == ["dead_letter", "delete"]
    await bench.stop()


@virtual
async def test_a_poison_message_does_not_touch_its_neighbours() -> None:
    bench = Bench()
    bench.send("before")
    poison = [bench.queue.send(body) for body in ("{", message("x", recipe="nonsense"))]
    await bench.serve("after")
    await bench.stop()
    assert not bench.queue.stored
    codes = {item.job_id: (item.run_id, item.code) for item in bench.ledger.records}
    assert codes == {
        "before": ("r", None),
        poison[0]: (INVALID_RUN, "invalid_message"),
        poison[1]: (INVALID_RUN, "invalid_recipe"),
        "after": ("r", None),
    }
    assert [item.message_id for item in bench.queue.dead] == poison


@virtual
async def test_a_message_with_nothing_to_do_is_deleted() -> None:
    bench = Bench()
    bench.queue.send('{"Event": "s3:TestEvent"}')
    await bench.serve()
    assert bench.events("record", "delete") == ["delete"]
    await bench.stop()


@virtual
async def test_a_message_of_several_jobs_is_deleted_when_all_are_recorded() -> None:
    bench = Bench()
    bench.queue.send(s3_event("1.jpg", "2.jpg", "3.jpg"))
    await bench.serve()
    assert bench.events("record", "delete") == ["record", "record", "record", "delete"]
    await bench.stop()
    assert (bench.consumer.stats.done, bench.consumer.stats.deleted) == (3, 1)


@virtual
async def test_a_message_of_several_jobs_is_released_while_one_may_pass() -> None:
    tries = 0

    async def process(job: Job) -> Outcome:
        nonlocal tries
        if job.source.key == "2.jpg":
            tries += 1
            if tries == 1:
                raise InternalError("later")
        return success(job)

    bench = Bench(process)
    bench.queue.send(s3_event("1.jpg", "2.jpg"))
    await bench.serve(for_s=10)
    assert bench.events("record", "release", "delete") == ["release", "record", "record", "delete"]
    await bench.stop()


# transient


@virtual
async def test_transient_is_released_and_done_later() -> None:
    bench = Bench(raising(InternalError("no room"), times=2), max_receives=5)
    await bench.serve("j", for_s=60)
    assert bench.events("release", "record", "delete") == ["release", "release", "record", "delete"]
    assert bench.ledger.of("j").receive_count == 3
    await bench.stop()
    assert bench.consumer.stats.retried == {"internal_error": 2}


@virtual
async def test_a_lost_replica_costs_its_images_no_receive() -> None:
    bench = Bench(raising(ReplicaLost("gone"), times=8), max_receives=2)
    await bench.serve(*(f"j{n}" for n in range(8)), for_s=60)
    assert bench.events("release") == []
    assert {(item.status, item.receive_count) for item in bench.ledger.records} == {("done", 1)}
    await bench.stop()
    assert (bench.consumer.stats.alone, bench.consumer.stats.retried) == (8, {})


@pytest.mark.parametrize("returned", [False, True])
@virtual
async def test_an_image_that_kills_replicas_goes_to_the_dead_letters_alone(returned: bool) -> None:
    """A pipeline of one replica that dies of a certain image, with all that it holds."""
    died = asyncio.Event()
    deaths: list[set[str]] = []
    held: set[str] = set()

    async def process(job: Job) -> Outcome:
        nonlocal died
        held.add(job.job_id)
        this = died
        if job.job_id == "poison":
            await asyncio.sleep(0.5)
            deaths.append(set(held))
            held.clear()
            died = asyncio.Event()
            this.set()
        try:
            async with asyncio.timeout(1):
                await this.wait()
        except TimeoutError:
            held.discard(job.job_id)
            return success(job)
        if returned:
            return Outcome.failed(job, ReplicaLost("gone"))
        raise ReplicaLost("gone")

    bench = Bench(process, max_receives=3)
    bench.send(*(f"before{n}" for n in range(8)))
    await bench.serve("poison", *(f"after{n}" for n in range(8)), for_s=120)
    await bench.stop()
    assert not bench.queue.stored
    assert [(item.job_id, item.code) for item in bench.queue.dead] == [("poison", "replica_lost")]
    records = {item.job_id: item for item in bench.ledger.records}
    assert records.pop("poison").receive_count == 3
    assert {(item.status, item.receive_count) for item in records.values()} == {("done", 1)}
    assert len(records) == 16
    assert len(deaths) == 4
    assert len(deaths[0]) > 1, "the first time it had company"


@virtual
async def test_suspects_run_one_at_a_time_beside_the_others() -> None:
    lost: set[str] = set()
    alone: set[str] = set()
    others = 0

    async def process(job: Job) -> Outcome:
        nonlocal others
        if job.job_id.startswith("s") and job.job_id not in lost:
            lost.add(job.job_id)
            raise ReplicaLost("gone")
        if job.job_id in lost:
            alone.add(job.job_id)
            assert len(alone) == 1
            await asyncio.sleep(1)
            alone.remove(job.job_id)
        else:
            await asyncio.sleep(0.1)
            others += len(lost) > 0
        return success(job)

    bench = Bench(process, max_in_flight=8)
    bench.send(*(f"s{n}" for n in range(4)))
    await bench.serve(*(f"j{n}" for n in range(20)), for_s=3)
    assert others == 20
    await asyncio.sleep(5)
    await bench.stop()
    assert {(item.status, item.receive_count) for item in bench.ledger.records} == {("done", 1)}
    assert len(bench.ledger.records) == 24


@virtual
async def test_an_outage_costs_no_receives_and_does_not_drain_the_queue() -> None:
    async def process(job: Job) -> Outcome:
        await asyncio.sleep(0.1)
        if now() < 400:
            raise StorageUnavailable("slow down")
        return success(job)

    bench = Bench(process, max_in_flight=4, max_receives=2)
    await bench.serve(*(f"j{n}" for n in range(20)), for_s=390)
    assert bench.events("receive", "release") == ["receive"] * 4
    assert bench.consumer.reason == "storage_unavailable: slow down"
    await asyncio.sleep(60)
    assert bench.consumer.healthy
    await bench.stop()
    assert {(item.status, item.receive_count) for item in bench.ledger.records} == {("done", 1)}
    assert len(bench.ledger.records) == 20


@virtual
async def test_an_object_that_alone_cannot_be_read_is_no_outage() -> None:
    async def process(job: Job) -> Outcome:
        await asyncio.sleep(0.1)
        if job.job_id == "odd":
            raise StorageUnavailable("InvalidArgument")
        return success(job)

    bench = Bench(process, max_receives=3)
    await bench.serve("odd", *(f"j{n}" for n in range(20)), for_s=5)
    for n in range(100):
        bench.send(f"k{n}")
        await asyncio.sleep(0.5)
    await bench.stop()
    assert [(item.job_id, item.code) for item in bench.queue.dead] == [
        ("odd", "storage_unavailable")
    ]


@virtual
async def test_an_outage_ends_with_the_deadline_and_with_a_stop() -> None:
    bench = Bench(raising(StorageUnavailable("away")), job_deadline_s=100, max_receives=9)
    await bench.serve("j", for_s=150)
    assert bench.events("receive", "release")[:2] == ["receive", "release"]
    assert set(bench.consumer.stats.retried) == {"storage_unavailable"}
    await bench.stop()
    assert bench.events("delete") == []
    assert bench.queue.stored["m1"].visible_at <= now() + bench.config.retry_max_s


@virtual
async def test_back_off_doubles_up_to_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random, "uniform", lambda low, high: high)
    times: list[float] = []

    async def process(job: Job) -> Outcome:
        times.append(now())
        raise InternalError("later")

    bench = Bench(process, max_receives=6, retry_base_s=2, retry_max_s=10)
    await bench.serve("j", for_s=100)
    waits = [round(b - a) for a, b in pairwise(times)]
    assert waits == [2, 4, 8, 10, 10]
    await bench.stop()


@virtual
async def test_back_off_has_full_jitter() -> None:
    bench = Bench(raising(InternalError("later")), retry_base_s=1_000, retry_max_s=10_000)
    await bench.serve(*(f"j{n}" for n in range(40)))
    delays = [item.visible_at - now() for item in bench.queue.stored.values()]
    assert min(delays) < 200
    assert max(delays) > 800
    await bench.stop()


@virtual
async def test_the_last_transient_failure_is_final() -> None:
    bench = Bench(raising(InternalError("no room")), max_receives=3)
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
    bench = Bench(raising(error, times=1))
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

    bench = Bench(process, job_deadline_s=100, visibility_timeout_s=30)
    await bench.serve("j", for_s=300)
    assert [round(at) for at in cancelled] == [100]
    assert bench.ledger.of("j").receive_count == 2
    await bench.stop()
    assert bench.consumer.stats.retried == {DeadlineExceeded.code: 1}
    assert bench.consumer.stats.lease_lost == 0


@virtual
async def test_a_fatal_error_ends_pulling_and_releases_at_once() -> None:
    bench = Bench(raising(InvalidConfig("no such model")), max_in_flight=1)
    await bench.serve("j", "k", for_s=60)
    assert bench.events("receive", "release") == ["receive", "release"]
    assert min(item.visible_at for item in bench.queue.stored.values()) < 1
    assert not bench.consumer.healthy
    assert bench.consumer.reason == "invalid_config: no such model"
    assert isinstance(bench.consumer.fatal, InvalidConfig)
    await bench.stop()


@virtual
async def test_a_ledger_that_refuses_ends_pulling_and_loses_nothing() -> None:
    bench = Bench(max_in_flight=2, max_receives=50)
    bench.ledger.refusal = SourceForbidden("denied")
    await bench.serve(*(f"j{n}" for n in range(6)), for_s=600)
    assert bench.events("record", "delete", "dead_letter") == []
    assert len(bench.queue.stored) == 6
    assert bench.consumer.reason == "source_forbidden: denied"
    await bench.stop()


# permits


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

    bench = Bench(process, max_in_flight=permits)
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

    bench = Bench(process, max_in_flight=permits, long_poll_s=20)
    await bench.serve(*(f"j{n}" for n in range(120)), for_s=121)
    assert len(bench.ledger.records) == 120
    receives = [entries for what, entries in bench.queue.calls if what == "receive"]
    # The others are long polls that find nothing, while the last jobs are done.
    assert len(receives) <= most_receives + permits // 20 + 1
    await bench.stop()


@virtual
async def test_a_permit_is_free_while_its_result_waits_for_the_ledger() -> None:
    bench = Bench(max_in_flight=1)
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
    bench = Bench(max_in_flight=4, part_records=3)
    bench.ledger.present.clear()
    await bench.serve(*(f"j{n}" for n in range(50)), for_s=500)
    assert bench.consumer.stats.received == 2 * 3 + 4
    bench.ledger.present.set()
    await asyncio.sleep(10)
    assert not bench.queue.stored
    await bench.stop()


@virtual
async def test_deletes_are_batched() -> None:
    bench = Bench()
    await bench.serve(*(f"j{n}" for n in range(30)))
    sizes = [entries for what, entries in bench.queue.calls if what == "delete"]
    assert sum(sizes) == 30
    assert len(sizes) <= 6
    await bench.stop()


# the queue is away


@virtual
async def test_a_queue_that_is_away_makes_unhealthy_and_comes_back() -> None:
    bench = Bench()
    bench.queue.fail = lambda what: now() < 1_000
    await bench.serve("j", for_s=0.1)
    assert bench.consumer.healthy
    await asyncio.sleep(500)
    assert bench.consumer.reason == "queue_unavailable: receive: the queue is away"
    attempts = len(bench.queue.calls)
    await asyncio.sleep(300)
    assert 5 < len(bench.queue.calls) - attempts < 60
    await asyncio.sleep(250)
    assert bench.consumer.healthy
    assert len(bench.ledger.records) == 1
    await bench.stop()
