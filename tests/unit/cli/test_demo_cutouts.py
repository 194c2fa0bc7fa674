"""The cut-outs of a demonstration are files as soon as their results are recorded."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ingest.cli.demo_cutouts import CutoutFiles
from ingest.runs.folder import RunFolder
from ingest.runs.ledger import Ledger
from ingest.runs.manifest import RunManifest, write_manifest
from ingest.runs.status import RunMonitor, follow
from serve_app.config import LedgerConfig
from serve_app.contracts.job import Output, Source
from serve_app.contracts.outcome import Outcome
from serve_app.contracts.recipe import Recipe
from serve_app.errors import SourceNotFound
from serve_app.storage.local import LocalStore

LEDGER = LedgerConfig(bucket="b", part_interval_s=0.01)
IMAGES = ["a.jpg", "sub/b.jpg", "sub/b.webp", "bad.jpg"]
FILES = ["a.png", "sub/b.jpg.png", "sub/b.webp.png"]


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def end_job(store: LocalStore, image: str, *, publish: bool = True) -> None:
    """Publish the cut-out of an image and record it. There is none if its name contains 'bad'."""
    failed = "bad" in image
    key = None if failed else f"cutouts/{image}"
    if key and publish:
        store.put("b", key, image.encode(), "image/png")
    outcome = Outcome(
        job_id=image,
        run_id="r1",
        status="failed" if failed else "done",
        source=Source(bucket="b", key=f"in/{image}"),
        code="no_subject" if failed else None,
        output_bucket=None if failed else "b",
        output_key=key,
        finished_at=datetime.now(UTC),
    )

    async def write() -> None:
        await Ledger(store, LEDGER).record(outcome)

    asyncio.run(write())


def watched(store: LocalStore, cutouts: CutoutFiles) -> RunMonitor:
    folder = RunFolder(store, LEDGER, "r1")
    manifest = RunManifest(
        run_id="r1",
        created_at=datetime.now(UTC),
        description="d",
        output=Output(bucket="b"),
        recipe=Recipe(),
        jobs=len(IMAGES),
        queue_url="q",
    )
    write_manifest(folder, manifest)
    return RunMonitor(folder, manifest, on_record=cutouts.note)


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_each_cutout_is_a_file_before_the_run_has_ended(store: LocalStore, tmp_path: Path) -> None:
    out = tmp_path / "cutouts"
    cutouts = CutoutFiles(store, out, {f"in/{image}": image for image in IMAGES})
    waiting = list(IMAGES)
    seen = []
    steps = follow(
        watched(store, cutouts), interval_s=0, sleep=lambda _: end_job(store, waiting.pop(0))
    )

    for now in cutouts.written(steps):
        seen.append((now.finished, files_in(out)))

    # The last job fails, and leaves no file.
    assert seen == [*((number, FILES[:number]) for number in range(4)), (4, FILES)]
    assert len(cutouts) == 3
    assert [(out / name).read_text() for name in FILES] == IMAGES[:3]


def test_a_job_that_was_delivered_twice_has_one_file(store: LocalStore, tmp_path: Path) -> None:
    out = tmp_path / "cutouts"
    cutouts = CutoutFiles(store, out, {f"in/{image}": image for image in IMAGES})
    records = [
        {
            "source": {"bucket": "b", "key": "in/a.jpg"},
            "output_bucket": "b",
            "output_key": f"cutouts/{number}",
        }
        for number in range(2)
    ]
    # A second thread that asked for this one would fail.
    store.put("b", "cutouts/1", b"the last", "image/png")

    for record in records:
        cutouts.note(record)
    cutouts.write()

    assert files_in(out) == ["a.png"]
    assert (out / "a.png").read_bytes() == b"the last"


def test_an_interrupted_write_leaves_no_file_with_the_name_of_a_cutout(
    store: LocalStore, tmp_path: Path
) -> None:
    out = tmp_path / "cutouts"
    cutouts = CutoutFiles(store, out, {f"in/{image}": image for image in IMAGES})
    monitor = watched(store, cutouts)
    end_job(store, "a.jpg")
    end_job(store, "sub/b.jpg", publish=False)
    monitor.update()

    with pytest.raises(SourceNotFound):
        cutouts.write()

    assert files_in(out) == ["a.png"]
