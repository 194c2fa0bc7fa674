"""Writing the ledger: parts, their names, and failures of the store."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pytest

from ingest.runs.folder import RunFolder
from ingest.runs.ledger import Ledger, read_outcomes
from ingest.runs.manifest import RunManifest, read_manifest, write_manifest
from serve_app.config import LedgerConfig
from serve_app.contracts.job import Output, Source
from serve_app.contracts.outcome import Outcome
from serve_app.contracts.recipe import Recipe
from serve_app.errors import (
    ForeedgeError,
    InternalError,
    InvalidMessage,
    SourceForbidden,
    SourceNotFound,
    StorageUnavailable,
)
from serve_app.storage.local import LocalStore

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class FaultyStore(LocalStore):
    """A local store whose next writes fail as the test chooses."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.faults: list[Exception | Literal["lost answer", "refused"]] = []
        self.puts: list[str] = []

    def put_if_absent(
        self, bucket: str, key: str, data: bytes, media_type: str, *, model: str | None = None
    ) -> bool:
        self.puts.append(key)
        fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, Exception):
            raise fault
        if fault == "refused":
            return False
        stored = super().put_if_absent(bucket, key, data, media_type)
        if fault == "lost answer":
            raise StorageUnavailable("the answer was lost")
        return stored


@pytest.fixture
def store(tmp_path: Path) -> FaultyStore:
    return FaultyStore(tmp_path)


def config(**changes: Any) -> LedgerConfig:
    return LedgerConfig(bucket="b", **({"part_records": 3, "part_interval_s": 0.05} | changes))


def outcome(job_id: str, run_id: str = "r", **changes: Any) -> Outcome:
    return Outcome(job_id=job_id, run_id=run_id, **({"status": "done"} | changes))


def ledger(store: FaultyStore, **changes: Any) -> Ledger:
    return Ledger(store, config(**changes), consumer="c1", retry_base_s=0.01)


def ids(store: FaultyStore, run_id: str = "r") -> list[str]:
    return [item.job_id for item in read_outcomes(RunFolder(store, config(), run_id))]


async def test_a_full_part_is_stored_at_once(store: FaultyStore) -> None:
    writer = ledger(store, part_interval_s=100)
    await asyncio.gather(*(writer.record(outcome(f"j{n}")) for n in range(3)))
    assert ids(store) == ["j0", "j1", "j2"]
    assert len(store.puts) == 1


async def test_a_part_is_stored_after_its_interval(store: FaultyStore) -> None:
    await ledger(store).record(outcome("j"))
    assert ids(store) == ["j"]


async def test_each_stored_part_is_reported_with_its_records_and_its_age(
    store: FaultyStore,
) -> None:
    parts: list[tuple[int, float]] = []
    writer = Ledger(
        store,
        config(part_interval_s=0.05),
        consumer="c1",
        on_stored=lambda records, seconds: parts.append((records, seconds)),
    )
    await asyncio.gather(*(writer.record(outcome(f"j{n}")) for n in range(4)))
    # Three records fill a part. The fourth one waits for the interval.
    assert [records for records, _ in parts] == [3, 1]
    assert parts[1][1] >= 0.05


async def test_a_part_of_one_record(store: FaultyStore) -> None:
    writer = ledger(store, part_records=1, part_interval_s=100)
    await writer.record(outcome("j"))
    assert ids(store) == ["j"]


async def test_record_returns_only_when_its_part_is_stored(store: FaultyStore) -> None:
    writer = ledger(store, part_interval_s=100)
    waiting = asyncio.create_task(writer.record(outcome("j")))
    await asyncio.sleep(0.02)
    assert not waiting.done()
    assert ids(store) == []
    await writer.close()
    await waiting
    assert ids(store) == ["j"]
    await writer.close()


async def test_each_run_has_its_own_parts_in_order_of_time(store: FaultyStore) -> None:
    writer = ledger(store, part_records=1)
    for n in range(12):
        await writer.record(outcome(f"j{n}", "even" if n % 2 == 0 else "odd"))
    assert ids(store, "even") == [f"j{n}" for n in range(0, 12, 2)]
    assert ids(store, "odd") == [f"j{n}" for n in range(1, 12, 2)]
    assert store.puts[0].startswith("_foreedge/runs/even/results/2")
    assert store.puts[0].endswith("Z-c1-000000.jsonl.gz")


async def test_everything_of_an_outcome_is_read_again(store: FaultyStore) -> None:
    full = outcome(
        "j",
        status="failed",
        source=Source(bucket="b", key="ü\n\u2028.jpg", etag="e"),
        code="no_subject",
        message="nothing\nto keep",
        retry="permanent",
        receive_count=2,
        finished_at=NOW,
    )
    await ledger(store).record(full)
    assert list(read_outcomes(RunFolder(store, config(), "r"))) == [full]


async def test_an_unavailable_store_is_tried_until_it_answers(store: FaultyStore) -> None:
    store.faults = [StorageUnavailable("unavailable")] * 4
    await ledger(store).record(outcome("j"))
    assert ids(store) == ["j"]
    assert len(set(store.puts)) == 1


async def test_a_lost_answer_does_not_make_two_parts(store: FaultyStore) -> None:
    store.faults = ["lost answer"]
    await ledger(store).record(outcome("j"))
    assert ids(store) == ["j"]
    assert len(store.puts) == 2


async def test_a_write_that_was_refused_and_not_stored_is_tried_again(store: FaultyStore) -> None:
    store.faults = ["refused"]
    await ledger(store).record(outcome("j"))
    assert ids(store) == ["j"]


@pytest.mark.parametrize(
    ("fault", "expected"),
    [(SourceForbidden("denied"), SourceForbidden), (KeyError("a defect"), InternalError)],
)
async def test_permanent_errors_reach_every_waiter(
    store: FaultyStore, fault: Exception, expected: type[ForeedgeError]
) -> None:
    store.faults = [fault]
    writer = ledger(store)
    records = [writer.record(outcome(f"j{n}")) for n in range(3)]
    results = await asyncio.gather(*records, return_exceptions=True)
    assert [type(result) for result in results] == [expected] * 3
    await writer.record(outcome("later"))
    assert ids(store) == ["later"]


async def test_a_cancelled_waiter_does_not_cancel_its_neighbours(store: FaultyStore) -> None:
    writer = ledger(store)
    first = asyncio.create_task(writer.record(outcome("j0")))
    second = asyncio.create_task(writer.record(outcome("j1")))
    await asyncio.sleep(0)
    first.cancel()
    await second
    assert ids(store) == ["j0", "j1"]


async def test_close_with_nothing_to_store(store: FaultyStore) -> None:
    await ledger(store).close()
    assert store.puts == []


def test_reading_many_parts_and_other_files(store: FaultyStore) -> None:
    async def write() -> None:
        writer = ledger(store, part_records=1)
        await asyncio.gather(*(writer.record(outcome(f"j{n}")) for n in range(40)))

    asyncio.run(write())
    store.put("b", "_foreedge/runs/r/results/notes.txt", b"x", "text/plain")
    assert sorted(ids(store)) == sorted(f"j{n}" for n in range(40))
    assert ids(store, "other") == []


def test_manifest(store: FaultyStore) -> None:
    manifest = RunManifest(
        run_id="r",
        created_at=NOW,
        description="s3://b/in/",
        output=Output(bucket="o"),
        recipe=Recipe(format="webp"),
        jobs=7,
        queue_url="https://sqs/q",
    )
    write_manifest(RunFolder(store, config(), "r"), manifest)
    assert read_manifest(RunFolder(store, config(), "r")) == manifest
    with pytest.raises(SourceNotFound, match="no run 'x' in this ledger"):
        read_manifest(RunFolder(store, config(), "x"))
    store.put("b", "_foreedge/runs/y/run.json", b"{}", "application/json")
    with pytest.raises(InvalidMessage, match="not a manifest"):
        read_manifest(RunFolder(store, config(), "y"))
