"""Folding the records of a run, whatever their order; parts that come late; parts that are none."""

from __future__ import annotations

import gzip
import itertools
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from ingest.runs.folder import RunFolder
from ingest.runs.ledger import fold
from ingest.runs.records import DONE, FAILED, REDRIVEN, SKIPPED, Records
from serve_app.config import LedgerConfig
from serve_app.contracts.outcome import Outcome
from serve_app.errors import InvalidMessage
from serve_app.storage.local import LocalStore

START = datetime(2026, 1, 1, tzinfo=UTC)
LEDGER = LedgerConfig(bucket="b")
FOLDER = "_foreedge/runs/r/"


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


def outcome(status: str, minute: int, job_id: str = "j", **fields: Any) -> Outcome:
    code = "no_subject" if status == "failed" else None
    at = START + timedelta(minutes=minute)
    known: dict[str, Any] = {"status": status, "code": code, "finished_at": at} | fields
    return Outcome(job_id=job_id, run_id="r", **known)


def write(store: LocalStore, name: str, *outcomes: Outcome) -> None:
    lines = [orjson.dumps(o.model_dump(mode="json", exclude_none=True)) for o in outcomes]
    store.put("b", f"{FOLDER}results/{name}.jsonl.gz", gzip.compress(b"\n".join(lines)), "x")


def redriven(store: LocalStore, name: str, minute: int, job_id: str = "j") -> None:
    at = (START + timedelta(minutes=minute)).timestamp()
    line = orjson.dumps({"job_id": job_id, "failed_at": at})
    store.put("b", f"{FOLDER}redriven/{name}.jsonl.gz", gzip.compress(line), "x")


def read(store: LocalStore, **options: Any) -> Records:
    records = Records(RunFolder(store, LEDGER, "r"), **options)
    records.update()
    return records


def rank_of(store: LocalStore) -> int | None:
    with read(store) as records:
        return records.rank("j")


@pytest.mark.parametrize(
    "records",
    [
        [outcome("done", 1), outcome("failed", 2)],
        [outcome("done", 1), outcome("skipped_existing", 2)],
        [outcome("failed", 1), outcome("skipped_existing", 2)],
        [outcome("failed", 1), outcome("failed", 2, code="corrupt_image")],
        [outcome("done", 2), outcome("done", 1), outcome("failed", 3)],
    ],
)
def test_the_fold_is_that_of_the_ledger_in_every_order(
    tmp_path: Path, records: list[Outcome]
) -> None:
    expected = fold(records)["j"]
    for number, order in enumerate(itertools.permutations(records)):
        store = LocalStore(tmp_path / str(number))
        write(store, "1", *order)
        with read(store, keep=["done", "skipped_existing", "failed"]) as found:
            [kept] = found.kept("")
            assert Outcome.model_validate(kept) == expected
            ranks, codes, last = found.counts()
            assert ranks.total() == 1
            assert codes == ({expected.code: 1} if expected.code else {})
            assert last is not None


def test_a_redriven_failure_counts_as_no_result_until_it_ends(store: LocalStore) -> None:
    write(store, "1", outcome("failed", 5))
    redriven(store, "1", 5)
    assert rank_of(store) == REDRIVEN
    # Late news of the same failure: a delivery that came twice.
    write(store, "2", outcome("failed", 5))
    assert rank_of(store) == REDRIVEN
    write(store, "3", outcome("failed", 6))
    assert rank_of(store) == FAILED
    redriven(store, "2", 6)
    write(store, "4", outcome("skipped_existing", 7))
    assert rank_of(store) == SKIPPED


def test_a_job_that_was_done_is_not_redriven(store: LocalStore) -> None:
    write(store, "1", outcome("done", 1))
    redriven(store, "1", 5)
    assert rank_of(store) == DONE


def part(at: datetime) -> str:
    return f"{at:%Y%m%dT%H%M%S.%fZ}-c-000000"


def test_parts_that_come_late_are_read_all_the_same(store: LocalStore) -> None:
    write(store, part(START), outcome("done", 1, "a"))
    with read(store) as records:
        assert not records.update()
        write(store, part(START - timedelta(minutes=10)), outcome("done", 1, "b"))
        assert records.update()
        assert records.rank("b") == DONE

        # Later than the window: found by the listing that is made from the beginning at times.
        write(store, part(START - timedelta(hours=3)), outcome("done", 1, "c"))
        assert not records.update()
        assert any(records.update() for _ in range(300))
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
        write(store, part(START + timedelta(minutes=minute)), outcome("done", 1, str(minute)))
    with read(store) as records:
        store.listed = 0
        records.update()
    assert 10 <= store.listed <= 20


@pytest.mark.parametrize(
    "data",
    [
        b"not gzip",
        gzip.compress(b"{}"),
        gzip.compress(b"{"),
        gzip.compress(b"[1]"),
        gzip.compress(b'{"job_id": "j"}'),
        gzip.compress(b'{"job_id": "j", "status": "odd", "finished_at": "2026-01-01T00:00:00Z"}'),
        gzip.compress(b'{"job_id": "j", "status": "done", "finished_at": "noon"}'),
        gzip.compress(b"x" * 1000)[:-8],
    ],
)
def test_what_is_no_part_is_named(store: LocalStore, data: bytes) -> None:
    store.put("b", f"{FOLDER}results/1.jsonl.gz", data, "x")
    with pytest.raises(InvalidMessage, match=r"s3://b/_foreedge/runs/r/results/1\.jsonl\.gz"):
        read(store)


def test_other_files_are_no_parts(store: LocalStore) -> None:
    store.put("b", f"{FOLDER}results/notes.txt", b"x", "x")
    with read(store) as records:
        assert records.counts()[0].total() == 0


def test_only_what_is_asked_for_is_kept(store: LocalStore) -> None:
    write(store, "1", outcome("failed", 1, "a"), outcome("done", 1, "b"), outcome("failed", 2, "c"))
    with read(store, keep=["failed"]) as records:
        kept = list(records.kept("WHERE rank = ? ORDER BY position", [FAILED]))
    assert [record["job_id"] for record in kept] == ["a", "c"]
