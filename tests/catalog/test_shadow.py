"""The shadow run of docs/cut-over.md: it makes every cut-out, and changes nothing of a collection.

The commands are the real ones. SqsIngest, the pipeline and the model run in this process.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import time
import uuid
from pathlib import Path

import pytest
from PIL import Image as Pillow

from serve_app.models.folio.synthetic.photograph import draw_photograph
from tests.catalog.bench import Bench
from tests.catalog.collection import Collection, Image
from tests.catalog.commands import command, json_answer, settings_file
from tests.catalog.test_deployment import ingesting

BOOKS = 50
SIZE = (240, 200)
"""Width and height of each photograph, in pixels. A subject has 100 at least."""
RUN = "shadow"
TABLES = ("books", "book_images", "image_processing_jobs")


def fill(bench: Bench, collection: Collection) -> None:
    """Add books that the old worker has cut out: here, one rectangle on black."""
    drawn = draw_photograph(7, width=SIZE[0], height=SIZE[1], kind="book").image
    for number in range(BOOKS):
        cutout = drawn.copy()
        cutout[:20], cutout[-20:] = 0, 0
        book, [former, source] = collection.add_book(
            Image(f"{{book}}_processed_{uuid.uuid4()}.png", None, primary=True, processed=True),
            Image(f"{{book}}/image_{number:02d}.jpg"),
        )
        job = collection.queue(book, source, "completed")
        collection.execute(
            "UPDATE image_processing_jobs SET processed_image_id = %s WHERE id = %s",
            former,
            job.job_id,
        )
        keys = {row["id"]: row["s3_key"] for row in collection.images(book)}
        for image_id, pixels, kind in ((former, cutout, "PNG"), (source, drawn, "JPEG")):
            file = io.BytesIO()
            Pillow.fromarray(pixels).save(file, kind)
            bench.s3.put_object(
                Bucket=bench.bucket, Key=f"books/{keys[image_id]}", Body=file.getvalue()
            )


def digest(bench: Bench, collection: Collection) -> str:
    """Return a digest of every row, and of the name and content of every object of the books."""
    seen = hashlib.sha256()
    for table in TABLES:
        for row in collection.rows(f"SELECT * FROM {table} ORDER BY id"):
            seen.update(repr(sorted(row.items())).encode())
    for item in bench.store.list(bench.bucket, "books/"):
        seen.update(f"{item.key} {item.size} {item.etag}".encode())
    return seen.hexdigest()


@pytest.mark.slow
def test_a_shadow_run_changes_nothing_below_books(
    bench: Bench, collection: Collection, tmp_path: Path
) -> None:
    fill(bench, collection)
    before = digest(bench, collection)
    settings = settings_file(bench, tmp_path)
    listed, out = str(tmp_path / "completed.csv"), tmp_path / "compared"
    shadow = ("--run-id", RUN, "--recipe", "catalog", "--output", f"s3://{bench.bucket}/shadow/")
    queue = ("--queue", bench.url)

    def wait_until_drained() -> None:
        while bench.backlog():
            time.sleep(0.2)

    async def consume() -> None:
        # As the page says: a consumer with a catalog would sweep the jobs of the application.
        without_catalog = bench.config.model_copy(update={"catalog": None})
        async with ingesting(without_catalog, bench):
            await asyncio.to_thread(wait_until_drained)

    command("catalog", "manifest", "--completed", "--csv", listed, settings=settings)
    command("bulk", listed, *shadow, *queue, settings=settings)
    asyncio.run(consume())
    status = json_answer("status", RUN, settings=settings)
    assert status["counts"]["done"] == BOOKS, status
    compared = json_answer("catalog", "compare", RUN, "--out", str(out), settings=settings)
    assert (compared["compared"], compared["without_former"]) == (BOOKS, 0)
    lines = [json.loads(line) for line in (out / "compare.jsonl").read_text().splitlines()]
    assert all(line["ours"]["size"] == line["former"]["size"] == list(SIZE) for line in lines)
    assert all(line["difference"] is not None for line in lines)
    made = list(bench.store.keys(bench.bucket, "shadow/"))
    assert len([key for key in made if key.endswith(".png")]) == BOOKS
    assert digest(bench, collection) == before
