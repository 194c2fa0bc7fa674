"""``foreedge catalog compare``: a run's results next to the cut-outs that books have."""

from __future__ import annotations

import asyncio
import io
import json
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow
from typer.testing import CliRunner

from ingest.cli.main import app
from ingest.runs.ledger import Ledger
from serve_app.contracts.job import CatalogJob, Source
from serve_app.contracts.outcome import Box, Cutout, Outcome
from serve_app.errors import InvalidConfig, SourceNotFound
from tests.catalog.bench import Bench
from tests.catalog.collection import Collection, Image
from tests.catalog.commands import json_answer, settings_file

RUN = "shadow"
SIZE = (96, 80)


def png(pixels: Any) -> bytes:
    file = io.BytesIO()
    Pillow.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def photograph(seed: int) -> Any:
    shape = (SIZE[1], SIZE[0], 3)
    return np.random.default_rng(seed).integers(60, 200, shape, dtype=np.uint8)


def cut_out(pixels: Any, right: int, level: int = 0) -> Any:
    """Return a cut-out of the columns from 20 to ``right``."""
    made = np.full_like(pixels, level)
    made[10:70, 20:right] = pixels[10:70, 20:right]
    return made


class Shadow:
    """Books with cut-outs of the old worker, and a run whose results lie elsewhere."""

    def __init__(self, bench: Bench, collection: Collection) -> None:
        self.bench, self.collection = bench, collection
        self.outcomes: list[Outcome] = []

    def add(self, former: Any, ours: Any, seed: int = 0) -> CatalogJob:
        """Add a book with both cut-outs. None leaves one out."""
        name = f"{{book}}_processed_{uuid.uuid4()}.png"
        images = [Image("{book}_aa.png")]
        if former is not None:
            images.insert(0, Image(name, None, primary=True, processed=True))
        book, ids = self.collection.add_book(*images)
        rows = {row["id"]: row["s3_key"] for row in self.collection.images(book)}
        job = self.collection.queue(book, ids[-1], "completed")
        source = Source(bucket=self.bench.bucket, key=f"books/{rows[ids[-1]]}")
        self.put(source.key, png(photograph(seed)))
        if former is not None:
            self.collection.execute(
                "UPDATE image_processing_jobs SET processed_image_id = %s, model_used = %s"
                " WHERE id = %s",
                ids[0],
                "u2net-alpha",
                job.job_id,
            )
            self.put(f"books/{rows[ids[0]]}", former if isinstance(former, bytes) else png(former))
        key = f"shadow/{book}.png"
        self.put(key, png(ours))
        cutout = Cutout(
            model="folio",
            width=SIZE[0],
            height=SIZE[1],
            subject=Box(left=0, top=0, right=9, bottom=9),
            mask_confidence=0.9,
        )
        self.outcomes.append(
            Outcome(
                job_id=job.job_id,
                run_id=RUN,
                status="done",
                source=source,
                output_bucket=self.bench.bucket,
                output_key=key,
                cutout=cutout,
            )
        )
        return job

    def put(self, key: str, data: bytes) -> None:
        self.bench.s3.put_object(Bucket=self.bench.bucket, Key=key, Body=data)

    async def record(self) -> None:
        assert self.bench.config.ledger is not None
        ledger = Ledger(self.bench.store, self.bench.config.ledger, retry_base_s=0.1)
        await asyncio.gather(*map(ledger.record, self.outcomes))
        await ledger.close()


@pytest.fixture
def shadow(bench: Bench, collection: Collection) -> Shadow:
    return Shadow(bench, collection)


async def test_the_doubtful_results_come_first(
    shadow: Shadow, bench: Bench, collection: Collection, tmp_path: Path
) -> None:
    image = photograph(0)
    former = cut_out(image, 80)
    same = shadow.add(former, cut_out(image, 80))
    slightly = shadow.add(former, cut_out(image, 81))
    other_mask = shadow.add(former, cut_out(image, 60))
    worse = shadow.add(former, cut_out(image, 40))
    other_background = shadow.add(former, cut_out(image, 80, 255))
    other_size = shadow.add(cut_out(image, 80)[:-4], cut_out(image, 80))
    broken = shadow.add(b"<html>", cut_out(image, 80))
    shadow.add(None, cut_out(image, 80))
    await shadow.record()
    before = collection.rows("SELECT * FROM book_images ORDER BY id"), bench.objects()
    settings = settings_file(bench, tmp_path)
    out = tmp_path / "compared"
    answer = json_answer("catalog", "compare", RUN, "--out", str(out), settings=settings)
    assert answer == {
        "run_id": RUN,
        "compared": 7,
        "doubtful": 5,
        "doubts": {"mask": 2, "background": 1, "size": 1, "unreadable": 1},
        "without_former": 1,
        "histogram": [3, *[0] * 5, 1, *[0] * 6, 1, *[0] * 6],
        "compare_html": str(out / "compare.html"),
    }
    assert sum(answer["histogram"]) == 5
    lines = [json.loads(line) for line in (out / "compare.jsonl").read_text().splitlines()]
    by_job = {line["job_id"]: line for line in lines}
    assert by_job[same.job_id]["difference"] < 0.005
    assert by_job[same.job_id]["former"]["model"] == "u2net-alpha"
    assert by_job[same.job_id]["ours"]["model"] == "folio"
    assert by_job[slightly.job_id]["doubts"] == []
    assert by_job[other_mask.job_id]["difference"] == pytest.approx(1 / 3, abs=0.01)
    assert by_job[other_size.job_id]["doubts"] == ["size: 96x76 before, 96x80 now"]
    assert by_job[other_background.job_id]["doubts"] == ["background: black before, white now"]
    assert by_job[broken.job_id]["doubts"][0].startswith("unreadable: the former cut-out: ")
    page = (out / "compare.html").read_text("utf-8")
    books = [f"Book {by_job[job.job_id]['book_id']}<" for job in (broken, worse, other_mask, same)]
    places = [page.index(book) for book in books]
    assert places == sorted(places)
    assert (collection.rows("SELECT * FROM book_images ORDER BY id"), bench.objects()) == before


async def test_our_own_result_in_the_tables_is_compared_with_the_older_one(
    shadow: Shadow, bench: Bench, collection: Collection, tmp_path: Path
) -> None:
    """After the cut-over, a job's row names our cut-out, and the old one is still in the book."""
    image = photograph(0)
    job = shadow.add(cut_out(image, 80), cut_out(image, 60))
    [outcome] = shadow.outcomes
    made = f"{job.book_id}_processed_{job.image_id}_f.png"
    [row] = collection.rows(
        "INSERT INTO book_images (book_id, s3_key, display_order, is_primary,"
        " is_background_processed) VALUES (%s, %s, 0, true, true) RETURNING id",
        job.book_id,
        made,
    )
    collection.execute("UPDATE image_processing_jobs SET processed_image_id = %s", row["id"])
    shadow.put(f"books/{made}", png(cut_out(image, 60)))
    shadow.outcomes = [outcome.model_copy(update={"output_key": f"books/{made}"})]
    await shadow.record()
    settings, out = settings_file(bench, tmp_path), str(tmp_path / "out")
    answer = json_answer("catalog", "compare", RUN, "--out", out, settings=settings)
    assert (answer["compared"], answer["doubts"]) == (1, {"mask": 1})


async def test_a_run_without_anything_to_compare_says_so(
    shadow: Shadow, bench: Bench, tmp_path: Path
) -> None:
    shadow.add(None, cut_out(photograph(0), 80))
    await shadow.record()
    settings = ["--config", settings_file(bench, tmp_path), "--out", str(tmp_path / "out")]
    answer = CliRunner().invoke(app, ["catalog", "compare", RUN, *settings])
    assert isinstance(answer.exception, SourceNotFound)
    assert "foreedge catalog manifest --completed" in str(answer.exception)


def test_a_setting_of_the_command_line_counts(bench: Bench, tmp_path: Path) -> None:
    words = ["--config", settings_file(bench, tmp_path), "--set", "catalog=null"]
    answer = CliRunner().invoke(app, ["catalog", "compare", RUN, *words])
    assert isinstance(answer.exception, InvalidConfig)
    assert "no catalog is configured" in answer.exception.message
