"""Compaction: few objects, and at each moment every record exactly once."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ingest.runs import compaction
from ingest.runs.compaction import compact_results
from ingest.runs.ledger import read_outcomes
from ingest.runs.records import Record, Records
from ingest.runs.status import RunMonitor
from serve_app.errors import InvalidMessage, StorageUnavailable
from serve_app.storage.local import LocalStore
from tests.support.run_records import outcome, run_folder, run_manifest, write_results

PARTS = 12
IDS = [f"j{number}" for number in range(2 * PARTS)]


class StoppingStore(LocalStore):
    """A store that refuses every change after a number of them, as if the process had ended.

    It calls back before each change, so that a test can look at the ledger at each moment.
    """

    def __init__(self, root: Path, changes: int | None = None) -> None:
        super().__init__(root)
        self.changes = changes
        self.before: Any = lambda: None

    def _change(self) -> None:
        self.before()
        if self.changes is not None:
            if self.changes == 0:
                raise StorageUnavailable("the process has ended")
            self.changes -= 1

    def put_if_absent(
        self, bucket: str, key: str, data: bytes, media_type: str, *, model: str | None = None
    ) -> bool:
        self._change()
        return super().put_if_absent(bucket, key, data, media_type)

    def delete(self, bucket: str, keys: Sequence[str]) -> None:
        for key in keys:
            self._change()
            super().delete(bucket, [key])


@pytest.fixture
def store(tmp_path: Path) -> StoppingStore:
    store = StoppingStore(tmp_path)
    fill(store)
    return store


def fill(store: LocalStore) -> None:
    for number in range(PARTS):
        outcomes = (outcome("done", number, job_id) for job_id in IDS[2 * number : 2 * number + 2])
        write_results(store, f"20260101T0000{number:02d}.000000Z-c-{number:06d}", *outcomes)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "_RECORDS", 10)


def ids(store: LocalStore) -> list[str]:
    return sorted(item.job_id for item in read_outcomes(run_folder(store)))


def objects(store: LocalStore) -> int:
    return len(list(run_folder(store).part_keys("results")))


def test_many_parts_become_few_and_a_second_time_nothing_is_done(store: StoppingStore) -> None:
    done = compact_results(run_folder(store))
    assert (done.before, done.after, objects(store)) == (12, 3, 3)
    assert ids(store) == sorted(IDS)
    store.changes = 0
    again = compact_results(run_folder(store))
    assert (again.before, again.after) == (3, 3)


def test_wherever_it_stops_each_record_is_there_once_and_it_can_be_repeated(tmp_path: Path) -> None:
    for changes in range(100):
        store = StoppingStore(tmp_path / str(changes))
        fill(store)
        store.changes = changes
        try:
            compact_results(run_folder(store))
        except StorageUnavailable:
            stopped = True
        else:
            stopped = False
        assert ids(store) == sorted(IDS)
        store.changes = None
        compact_results(run_folder(store))
        assert ids(store) == sorted(IDS)
        assert objects(store) <= 4
        if not stopped:
            break
    assert changes > PARTS


def test_readers_see_each_record_once_at_each_moment(store: StoppingStore) -> None:
    seen: list[str] = []

    def note(record: Record) -> None:
        seen.append(record["job_id"])

    watcher = Records(run_folder(store), on_record=note)
    watcher.update(max_parts=5)

    def look() -> None:
        assert ids(store) == sorted(IDS)
        with Records(run_folder(store)) as fresh:
            fresh.update()
            assert fresh.counts().ended == len(IDS)
        watcher.update(max_parts=1)

    store.before = look
    compact_results(run_folder(store))
    watcher.update()
    assert sorted(seen) == sorted(IDS)
    assert watcher.counts().ended == len(IDS)


def test_a_limited_reader_gets_past_joined_objects(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    # Four jobs a second: each joined object of 12 records is within 15 minutes of all others.
    for number in range(60):
        outcomes = (outcome("done", 0, f"{number}-{job}") for job in range(4))
        write_results(store, f"20260101T0000{number:02d}.000000Z-c-{number:06d}", *outcomes)
    assert compact_results(run_folder(store)).after == 20

    with Records(run_folder(store)) as records:
        for ended in (84, 168, 240):
            assert records.update(max_parts=7)
            assert records.counts().ended == ended
        assert records.up_to_date
        assert not records.update(max_parts=7)
        assert not records.update()


def test_a_reader_whose_parts_are_joined_between_listing_and_reading(
    store: StoppingStore, tmp_path: Path
) -> None:
    class LateReader(LocalStore):
        """A store whose listing is old when its parts are read."""

        compacted = False

        def keys(self, bucket: str, prefix: str, after: str | None = None) -> Iterator[str]:
            found = list(super().keys(bucket, prefix, after))
            if not self.compacted and "/results/" in prefix:
                self.compacted = True
                compact_results(run_folder(store))
            yield from found

    late = LateReader(tmp_path)
    assert RunMonitor(run_folder(late), run_manifest(len(IDS))).update().ended
    assert late.compacted


def test_a_part_that_comes_back_is_not_read_twice(store: StoppingStore) -> None:
    folder = run_folder(store)
    first = next(folder.part_keys("results"))
    data = store.get("b", first)
    compact_results(folder)
    # The answer to its writer was lost, which writes it again.
    store.put("b", first, data, "application/gzip")
    assert ids(store) == sorted(IDS)
    compact_results(folder)
    assert store.head("b", first) is None
    assert ids(store) == sorted(IDS)


def test_two_compactions_at_a_time(store: StoppingStore) -> None:
    folder = run_folder(store)
    moments = itertools.count()

    def other() -> None:
        if next(moments) == 3:
            store.before = lambda: None
            compact_results(folder)

    store.before = other
    compact_results(folder)
    assert ids(store) == sorted(IDS)
    compact_results(folder)
    assert ids(store) == sorted(IDS)


def test_a_damaged_part_stops_it_before_anything_is_lost(store: StoppingStore) -> None:
    folder = run_folder(store)
    key = list(folder.part_keys("results"))[7]
    sound = store.get("b", key)
    store.put("b", key, sound[:-9], "x")
    with pytest.raises(InvalidMessage, match="damaged"):
        compact_results(folder)
    store.put("b", key, sound, "x")
    assert ids(store) == sorted(IDS)
