"""Messages of a cancelled run end without being processed, and without dead letters."""

from __future__ import annotations

import asyncio
from typing import Any

from ingest.consumer.cancelled_runs import CancelledRuns
from serve_app.contracts.job import Job
from serve_app.contracts.outcome import Outcome
from serve_app.errors import StorageUnavailable
from tests.support.consumer_bench import ConsumerBench
from tests.support.virtual_time import virtual


class Marks:
    """The marks of cancelled runs, in a store that may fail or hang."""

    def __init__(self) -> None:
        self.cancelled: set[str] = set()
        self.looks: list[str] = []
        self.error: Exception | None = None
        self.takes_s = 0.05

    async def __call__(self, run_id: str) -> bool:
        self.looks.append(run_id)
        await asyncio.sleep(self.takes_s)
        if self.error is not None:
            raise self.error
        return run_id in self.cancelled


def bench_with(marks: Marks, **settings: Any) -> tuple[ConsumerBench, list[str]]:
    """Return a consumer that looks at marks, and the jobs that it processes."""
    processed: list[str] = []

    async def process(job: Job) -> Outcome:
        processed.append(job.job_id)
        return Outcome(job_id=job.job_id, run_id=job.run_id, status="done")

    runs = CancelledRuns(marks, asyncio.get_running_loop().time)
    return ConsumerBench(runs.guard(process), **settings), processed


@virtual
async def test_a_cancelled_run_ends_without_dead_letters() -> None:
    marks = Marks()
    marks.cancelled.add("r")
    bench, processed = bench_with(marks)
    [sent] = await bench.serve("j")
    assert processed == []
    assert bench.queue.dead == []
    assert bench.log[-1] == ("delete", sent)
    outcome = bench.ledger.of("j")
    assert (outcome.status, outcome.code, outcome.retry) == ("failed", "run_cancelled", "permanent")
    await bench.stop()
    assert bench.consumer.stats.failed == {"run_cancelled": 1}


@virtual
async def test_a_cancellation_is_seen_within_30_s_and_so_is_its_end() -> None:
    marks = Marks()
    bench, processed = bench_with(marks)
    await bench.serve("before")
    marks.cancelled.add("r")
    await asyncio.sleep(30)
    bench.send("after")
    await asyncio.sleep(1)
    marks.cancelled.clear()
    await asyncio.sleep(30)
    bench.send("resumed")
    await asyncio.sleep(1)
    assert processed == ["before", "resumed"]
    assert bench.ledger.of("after").code == "run_cancelled"
    await bench.stop()


@virtual
async def test_a_run_is_looked_up_once_in_ten_seconds() -> None:
    marks = Marks()
    bench, processed = bench_with(marks)
    await bench.serve(*(f"j{number}" for number in range(200)), for_s=5)
    assert len(processed) == 200
    assert marks.looks == ["r"]
    await bench.stop()


@virtual
async def test_a_store_that_fails_or_hangs_cancels_nothing() -> None:
    marks = Marks()
    marks.error = StorageUnavailable("away")
    bench, processed = bench_with(marks)
    await bench.serve("away")
    assert processed == ["away"]
    marks.error, marks.takes_s = None, 10_000
    await asyncio.sleep(20)
    bench.send("hangs", "waits")
    await asyncio.sleep(10)
    assert len(processed) == 3
    assert len(marks.looks) == 2
    await bench.stop()


@virtual
async def test_what_is_known_of_a_cancelled_run_holds_while_the_store_is_away() -> None:
    marks = Marks()
    marks.cancelled.add("r")
    bench, processed = bench_with(marks)
    await bench.serve("a")
    marks.error = StorageUnavailable("away")
    await asyncio.sleep(60)
    bench.send("b")
    await asyncio.sleep(1)
    assert processed == []
    await bench.stop()
