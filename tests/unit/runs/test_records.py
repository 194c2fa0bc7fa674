"""Folding the records of a run: any order, late parts, damaged parts, a full disk."""

from __future__ import annotations

import gzip
import itertools
import resource
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ingest.runs.record_table import DONE, FAILED, REDRIVEN, SKIPPED, STATUSES
from ingest.runs.records import Records
from serve_app.contracts.outcome import Outcome
from serve_app.errors import InvalidMessage, StorageUnavailable
from serve_app.storage.local import LocalStore
from tests.support.run_records import START, outcome, run_folder, write_redriven, write_results


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


def read(store: LocalStore, **options: Any) -> Records:
    records = Records(run_folder(store), **options)
    records.update()
    return records


def rank_of(store: LocalStore) -> int | None:
    with read(store) as records:
        return records.rank("j")


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        ([outcome("done", 1), outcome("failed", 2)], 0),
        ([outcome("done", 1), outcome("skipped_existing", 2)], 0),
        ([outcome("failed", 1), outcome("skipped_existing", 2)], 1),
        ([outcome("failed", 1), outcome("failed", 2, code="corrupt_image")], 1),
        ([outcome("done", 2), outcome("done", 1), outcome("failed", 3)], 0),
    ],
)
def test_the_best_and_then_the_latest_record_counts_in_every_order(
    tmp_path: Path, outcomes: list[Outcome], expected: int
) -> None:
    for number, order in enumerate(itertools.permutations(outcomes)):
        store = LocalStore(tmp_path / str(number))
        write_results(store, "1", *order)
        with read(store, keep=STATUSES) as found:
            [kept] = found.kept()
            assert Outcome.model_validate(kept) == outcomes[expected]
            counts = found.counts()
            assert counts.ended == 1
            code = outcomes[expected].code
            assert counts.codes == ({code: 1} if code else {})
            assert counts.last_ended_at is not None


def test_a_redriven_failure_counts_as_no_result_until_it_ends(store: LocalStore) -> None:
    write_results(store, "1", outcome("failed", 5))
    write_redriven(store, "1", 5)
    assert rank_of(store) == REDRIVEN
    # A late record of the same failure: a message that was delivered twice.
    write_results(store, "2", outcome("failed", 5))
    assert rank_of(store) == REDRIVEN
    write_results(store, "3", outcome("failed", 6))
    assert rank_of(store) == FAILED
    write_redriven(store, "2", 6)
    write_results(store, "4", outcome("skipped_existing", 7))
    assert rank_of(store) == SKIPPED


def test_a_job_that_was_done_is_not_redriven(store: LocalStore) -> None:
    write_results(store, "1", outcome("done", 1))
    write_redriven(store, "1", 5)
    assert rank_of(store) == DONE


def part_name(at: datetime) -> str:
    return f"{at:%Y%m%dT%H%M%S.%fZ}-c-000000"


def test_late_parts_are_read(store: LocalStore) -> None:
    now = 0.0
    write_results(store, part_name(START), outcome("done", 1, "a"))
    with read(store, clock=lambda: now) as records:
        assert not records.update()
        write_results(store, part_name(START - timedelta(minutes=10)), outcome("done", 1, "b"))
        assert records.update()
        assert records.rank("b") == DONE

        # Earlier than the listing begins, so found when the whole folder is listed again.
        write_results(store, part_name(START - timedelta(hours=3)), outcome("done", 1, "c"))
        assert not records.update()
        now = 300.0
        assert records.update()
        assert records.rank("c") == DONE


def test_old_parts_are_not_listed_again(tmp_path: Path) -> None:
    class ListingStore(LocalStore):
        listed = 0

        def keys(self, bucket: str, prefix: str, after: str | None = None) -> Any:
            for key in super().keys(bucket, prefix, after):
                self.listed += 1
                yield key

    store = ListingStore(tmp_path)
    for minute in range(200):
        at = START + timedelta(minutes=minute)
        write_results(store, part_name(at), outcome("done", 1, str(minute)))
    with read(store) as records:
        store.listed = 0
        records.update()
    assert 10 <= store.listed <= 20


def part(text: bytes) -> bytes:
    # Without the time, which is part of the test's name and differs between processes.
    return gzip.compress(text, mtime=0)


@pytest.mark.parametrize("kind", ["results", "redriven"])
@pytest.mark.parametrize(
    "data",
    [
        b"not gzip",
        part(b"{}"),
        part(b"{"),
        part(b"[1]"),
        part(b'{"job_id": "j"}'),
        part(b'{"job_id": "j", "status": "odd", "finished_at": "2026-01-01T00:00:00Z"}'),
        part(b'{"job_id": "j", "status": "done", "finished_at": "noon"}'),
        part(b"x" * 1000)[:-8],
    ],
)
def test_a_damaged_part_is_named(store: LocalStore, data: bytes, kind: str) -> None:
    store.put("b", f"_foreedge/runs/r1/{kind}/1.jsonl.gz", data, "x")
    with pytest.raises(InvalidMessage, match=rf"s3://b/_foreedge/runs/r1/{kind}/1\.jsonl\.gz"):
        read(store)


def test_other_files_are_not_parts(store: LocalStore) -> None:
    store.put("b", "_foreedge/runs/r1/results/notes.txt", b"x", "x")
    with read(store) as records:
        assert records.counts().ended == 0


def test_only_the_chosen_statuses_are_kept(store: LocalStore) -> None:
    outcomes = [outcome("failed", 1, "a"), outcome("done", 1, "b"), outcome("failed", 2, "c")]
    write_results(store, "1", *outcomes)
    with read(store, keep=["failed"]) as records:
        kept = list(records.failures())
    assert [record["job_id"] for record in kept] == ["a", "c"]


@pytest.fixture
def full_disk() -> Iterator[None]:
    """Refuse to write files of more than 256 KiB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (256 * 1024, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_is_reported(store: LocalStore) -> None:
    write_results(store, "1", *(outcome("done", 1, f"{n:032}") for n in range(10_000)))

    with Records(run_folder(store), cache_kib=16) as records:
        with pytest.raises(StorageUnavailable, match="Free some space"):
            records.update()
        assert records.unusable
