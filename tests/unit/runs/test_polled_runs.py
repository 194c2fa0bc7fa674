"""Runs that are polled: read in steps, once for all who ask, in bounded memory."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ingest.runs.job_list import JobList
from ingest.runs.live import named_run_id
from ingest.runs.manifest import write_manifest
from ingest.runs.polled_runs import PARTS_PER_REQUEST, PolledRuns
from ingest.sources.base import Entry
from serve_app.errors import SourceNotFound
from serve_app.storage.local import LocalStore
from tests.support.run_records import (
    LEDGER,
    START,
    outcome,
    run_folder,
    run_manifest,
    write_redriven,
    write_results,
)


class CountingStore(LocalStore):
    """A store that counts the objects that are read."""

    reads = 0

    def get(self, bucket: str, key: str, **options: Any) -> bytes:
        self.reads += 1
        return super().get(bucket, key, **options)


@pytest.fixture
def store(tmp_path: Path) -> CountingStore:
    return CountingStore(tmp_path)


@pytest.fixture
def runs(store: CountingStore) -> Iterator[PolledRuns]:
    with ThreadPoolExecutor(4) as pool:
        yield PolledRuns(store, LEDGER, pool)


async def test_polls_at_once_share_their_reading(store: CountingStore, runs: PolledRuns) -> None:
    for part in range(PARTS_PER_REQUEST + 1):
        write_results(store, f"{part:04}", outcome("done", 1, f"j{part}"))

    polls = await asyncio.gather(*(runs.counts("r1") for _ in range(4)))

    assert [counts.counts["done"] for counts in polls] == [PARTS_PER_REQUEST] * 4
    # 64 parts, and the manifest that this run does not have.
    assert store.reads == PARTS_PER_REQUEST + 1


async def test_a_poll_that_is_cancelled_does_not_disturb_the_next_one(
    store: CountingStore, runs: PolledRuns
) -> None:
    for part in range(PARTS_PER_REQUEST):
        write_results(store, f"{part:04}", outcome("done", 1, f"j{part}"))

    cancelled = asyncio.create_task(runs.counts("r1"))
    await asyncio.sleep(0)
    cancelled.cancel()
    counts = await runs.counts("r1")

    assert cancelled.cancelled()
    assert (counts.counts["done"], counts.complete) == (PARTS_PER_REQUEST, True)
    assert store.reads == PARTS_PER_REQUEST + 1


async def test_a_long_ledger_is_read_in_steps(store: CountingStore, runs: PolledRuns) -> None:
    # Redrives are younger than every result, and must not hide results that are not read yet.
    for part in range(PARTS_PER_REQUEST + 5):
        at = START + timedelta(hours=part)
        write_results(store, f"{at:%Y%m%dT%H%M%S}", outcome("failed", part, f"j{part}"))
    late = START + timedelta(days=30)
    for part in range(3):
        write_redriven(store, f"{late:%Y%m%dT%H%M%S}-{part}", part, f"j{part}")

    first = await runs.counts("r1")
    second = await runs.counts("r1")

    assert (first.counts["failed"], first.complete) == (PARTS_PER_REQUEST - 3 - 3, False)
    assert (second.counts["failed"], second.complete) == (PARTS_PER_REQUEST + 5 - 3, True)


async def test_a_run_takes_bounded_memory(store: CountingStore, runs: PolledRuns) -> None:
    for part in range(8):
        jobs = range(part * 1_000, (part + 1) * 1_000)
        write_results(store, f"{part:04}", *(outcome("done", 1, f"j{job}") for job in jobs))

    tracemalloc.start()
    try:
        counts = await runs.counts("r1")
        in_use, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert counts.counts["done"] == 8_000
    # The ids alone, as strings of Python, would take 400,000 bytes.
    assert in_use < 200_000


async def test_only_a_few_runs_are_open(store: CountingStore) -> None:
    for run_id in ("r1", "r2", "r3"):
        write_manifest(run_folder(store, run_id), run_manifest(1, run_id=run_id))
    with ThreadPoolExecutor(4) as pool:
        runs = PolledRuns(store, LEDGER, pool, most_open=2)
        for run_id in ("r1", "r2", "r1", "r3"):
            await runs.counts(run_id)
        assert runs.open_runs == ["r1", "r3"]


async def test_guessed_names_close_no_run(store: CountingStore) -> None:
    write_manifest(run_folder(store), run_manifest(1))
    with ThreadPoolExecutor(4) as pool:
        runs = PolledRuns(store, LEDGER, pool, most_open=2)
        await runs.counts("r1")
        for number in range(5):
            guesses = [runs.counts(f"guess-{number}") for _ in range(3)]
            found = await asyncio.gather(*guesses, return_exceptions=True)
            assert [type(error) for error in found] == [SourceNotFound] * 3
        assert runs.open_runs == ["r1"]


async def test_outcomes_of_strangers_never_count(runs: PolledRuns, store: CountingStore) -> None:
    write_manifest(run_folder(store), run_manifest(1))
    JobList(run_folder(store)).write(0, [Entry("b", "a.jpg", None, None, "a")])
    write_results(store, "1", outcome("done", 1, "stranger"))
    assert (await runs.counts("r1")).remaining == 1


async def test_live_stands_for_todays_messages(runs: PolledRuns, store: CountingStore) -> None:
    today = named_run_id("live")
    found = await runs.counts("live")
    assert (found.run_id, found.jobs, found.counts["done"]) == (today, None, 0)
    with pytest.raises(SourceNotFound):
        await runs.counts("live-1999-01-01")
