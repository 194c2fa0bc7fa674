"""The progress of a run: what a monitor reads, and when following it ends."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ingest.runs.job_list import JobList
from ingest.runs.manifest import write_manifest
from ingest.runs.report import read_report
from ingest.runs.status import RunMonitor, RunStatus, end_if_stalled, follow
from ingest.sources.base import Entry
from ingest.sqs.backlog import Backlog
from serve_app.errors import QueueUnavailable
from serve_app.storage.local import LocalStore
from tests.support.run_records import outcome, record_outcomes, run_folder, run_manifest


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


class CountingStore(LocalStore):
    """A store that remembers which objects were read."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.read: list[str] = []

    def get(self, bucket: str, key: str, **options: object) -> bytes:
        self.read.append(key)
        return super().get(bucket, key)


def test_a_monitor_reads_each_part_once_and_agrees_with_the_report(tmp_path: Path) -> None:
    store = CountingStore(tmp_path)
    monitor = RunMonitor(run_folder(store), run_manifest(4))
    record_outcomes(
        store, outcome("done", 1, "a"), outcome("failed", 1, "b"), outcome("failed", 1, "c")
    )
    assert monitor.update().codes == {"no_subject": 2}
    record_outcomes(
        store,
        outcome("done", 2, "b"),
        outcome("failed", 3, "a"),
        outcome("failed", 4, "c", code="overloaded"),
    )

    now = monitor.update()

    parts = [key for key in store.read if "/results/" in key]
    assert len(parts) == len(set(parts)) == 2
    assert now.counts == {"done": 2, "skipped_existing": 0, "failed": 1, "missing": 1}
    write_manifest(run_folder(store), run_manifest(4))
    with read_report(run_folder(store)) as report:
        expected = report.status
    assert (now.counts, now.codes) == (expected.counts, expected.codes)


def stepping_clock() -> Iterator[float]:
    now = 0.0
    while True:
        yield now
        now += 1.0


def test_following_ends_when_every_job_has_a_result(store: LocalStore) -> None:
    monitor = RunMonitor(run_folder(store), run_manifest(2))
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        record_outcomes(store, outcome("done", 1, f"j{len(waits)}"))

    steps = [now.finished for now in follow(monitor, sleep=sleep)]

    assert steps == [0, 1, 2]
    assert len(waits) == 2


def test_a_stalled_run_is_reported(store: LocalStore) -> None:
    clock = stepping_clock()

    def stop(now: RunStatus) -> None:
        raise TimeoutError(f"{now.missing} remain")

    with pytest.raises(TimeoutError, match="2 remain"):
        list(
            follow(
                RunMonitor(run_folder(store), run_manifest(2)),
                stalled_after_s=5,
                on_stalled=stop,
                sleep=lambda _: None,
                clock=lambda: next(clock),
            )
        )


EMPTY, BUSY, AWAY = Backlog(0, 0), Backlog(0, 1), QueueUnavailable("away")


def seen(store: LocalStore, *looks: Backlog | QueueUnavailable, step_s: float = 10) -> list[str]:
    """Return the states that a watch of 30 s yields for what the queue says at each look."""
    queue = iter(looks)
    monitor = RunMonitor(run_folder(store), run_manifest(2), lambda: next(queue))
    steps = (monitor.update() for _ in looks)
    clock = iter(step_s * number for number in range(1_000))
    return [now.state for now in end_if_stalled(steps, 30, lambda: next(clock))]


def test_a_run_whose_queue_is_empty_ends_as_stalled(store: LocalStore) -> None:
    record_outcomes(store, outcome("done", 1, "a"))
    states = seen(store, *[EMPTY] * 20)
    assert states[-1] == "stalled"
    assert set(states[:-1]) == {"running"}
    assert len(states) < 6


def test_a_run_whose_messages_are_held_is_not_stalled(store: LocalStore) -> None:
    assert seen(store, *[BUSY] * 20) == ["running"] * 20
    # The counts of SQS may be late: a queue that is empty now and then is not.
    assert seen(store, *[EMPTY, BUSY] * 10) == ["running"] * 20


def test_a_queue_that_stays_away_ends_the_watch(store: LocalStore) -> None:
    with pytest.raises(QueueUnavailable, match="away"):
        seen(store, *[AWAY] * 20)
    looks: list[Backlog | QueueUnavailable] = [AWAY, BUSY]
    assert seen(store, *looks * 10) == ["running"] * 20


def test_new_results_keep_a_watch_alive(store: LocalStore) -> None:
    now = RunMonitor(run_folder(store), run_manifest(100)).update()
    steps = (
        replace(now, counts=now.counts | {"done": number}, backlog=EMPTY) for number in range(20)
    )
    clock = iter(range(0, 10_000, 10))
    assert len(list(end_if_stalled(steps, 30, lambda: next(clock)))) == 20


def list_jobs(store: LocalStore, number: int, *job_ids: str) -> None:
    entries = [Entry("b", f"{job}.jpg", None, None, job) for job in job_ids]
    JobList(run_folder(store)).write(number, entries)


def test_outcomes_of_strangers_never_count(store: LocalStore) -> None:
    list_jobs(store, 0, "a", "b")
    record_outcomes(store, outcome("done", 1, "a"), outcome("failed", 1, "stranger"))
    record_outcomes(store, *(outcome("done", 2, f"x{number}") for number in range(9)))
    write_manifest(run_folder(store), run_manifest(2))

    now = RunMonitor(run_folder(store), run_manifest(2)).update()

    assert now.counts == {"done": 1, "skipped_existing": 0, "failed": 0, "missing": 1}
    assert (now.codes, now.unlisted, now.ended) == ({}, 10, False)
    with read_report(run_folder(store)) as report:
        assert [record["job_id"] for record in report.jobs()] == ["a"]


def test_a_job_that_is_listed_after_its_result_counts(store: LocalStore) -> None:
    monitor = RunMonitor(run_folder(store), run_manifest(2))
    record_outcomes(store, outcome("done", 1, "a"), outcome("done", 1, "b"))
    assert monitor.update().counts["done"] == 2
    list_jobs(store, 0, "a")
    assert monitor.update().counts["done"] == 1
    list_jobs(store, 1, "b")
    assert monitor.update().counts["done"] == 2
