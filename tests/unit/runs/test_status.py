"""The progress of a run: what a monitor reads, and when following it ends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.runs.manifest import write_manifest
from ingest.runs.report import read_report
from ingest.runs.status import RunMonitor, RunStatus, follow
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
