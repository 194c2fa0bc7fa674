"""SqsIngest as Serve makes it, with the real pipeline and model in this process, and no Ray."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from PIL import Image as Pillow

from ingest.consumer.deployment import SqsIngest
from serve_app.config import AppConfig
from serve_app.errors import InvalidConfig
from serve_app.models.folio.synthetic.photograph import draw_photograph
from serve_app.pipeline.image_pipeline import ImagePipeline, imaging_threads
from tests.catalog.bench import Bench
from tests.catalog.catalog_bench import PATIENCE_S
from tests.catalog.collection import Collection, photographs
from tests.support.fault_rig import Models


class Method:
    """One method of a deployment's handle, whose answer can be awaited and cancelled."""

    def __init__(self, method: Callable[..., Awaitable[Any]]) -> None:
        self._method = method

    def remote(self, *args: Any) -> asyncio.Future[Any]:
        return asyncio.ensure_future(self._method(*args))


class Handle:
    """The handle of a pipeline in this process."""

    def __init__(self, pipeline: ImagePipeline) -> None:
        self.process = Method(pipeline.process)
        self.models = Method(pipeline.models)


class InProcessIngest(SqsIngest):
    """SqsIngest whose end is awaited here. Python itself cannot await it."""

    def __del__(self) -> None:  # type: ignore[override]
        return


@asynccontextmanager
async def ingesting(config: AppConfig, bench: Bench) -> AsyncIterator[SqsIngest]:
    pipeline = ImagePipeline(config, bench.store, Models(), imaging_threads(config.pipeline))
    ingest = InProcessIngest.__new__(InProcessIngest)
    await ingest.__init__(config, Handle(pipeline))  # type: ignore[misc]
    try:
        yield ingest
    finally:
        await SqsIngest.__del__(ingest)


def upload_book(bench: Bench, book: int) -> None:
    """Store an image of a book for the first image of a book."""
    file = io.BytesIO()
    drawn = draw_photograph(7, width=480, height=400, kind="book").image
    Pillow.fromarray(drawn).save(file, "JPEG", quality=92)
    key = f"books/{bench.collection.images(book)[0]['s3_key']}"
    bench.s3.put_object(Bucket=bench.bucket, Key=key, Body=file.getvalue())


async def test_a_message_ends_as_the_picture_that_the_application_shows(
    bench: Bench, collection: Collection
) -> None:
    book, [source, other] = collection.add_book(*photographs(2))
    upload_book(bench, book)
    lost, [gone] = collection.add_book(*photographs(1))
    job, failing = collection.queue(book, other), collection.queue(lost, gone)
    async with ingesting(bench.config, bench) as ingest:
        bench.send(job, failing)
        await bench.drained()
        await ingest.check_health()
        status = await ingest.status()
        until = time.monotonic() + PATIENCE_S
        # Jobs are counted every few seconds.
        while "processing" in status["catalog"]["jobs"] and time.monotonic() < until:
            await asyncio.sleep(0.5)
            status = await ingest.status()
    assert status["healthy"], status
    assert status["catalog"]["reason"] is None
    assert status["catalog"]["jobs"] == {"completed": 1, "failed": 1}
    assert collection.job(failing)["failure_reason"].startswith("source_not_found: ")
    assert collection.job(job)["model_used"] == "folio"
    [made, *others] = collection.order(book)
    assert others == [other, source]
    [row] = collection.rows("SELECT * FROM book_images WHERE id = %s", made)
    for prefix, kind, size in (("", "PNG", (480, 400)), ("thumb_", "JPEG", (300, 250))):
        body = bench.s3.get_object(Bucket=bench.bucket, Key=f"books/{prefix}{row['s3_key']}")
        image = Pillow.open(io.BytesIO(body["Body"].read()))
        assert (image.format, image.mode, image.size) == (kind, "RGB", size)
    # What was made is found, with its model, by a delivery to a worker that knows nothing of it.
    collection.execute("DELETE FROM book_images WHERE id = %s", made)
    collection.execute("UPDATE book_images SET is_primary = (id = %s)", source)
    collection.execute("UPDATE image_processing_jobs SET status = 'processing', model_used = NULL")
    async with ingesting(bench.config, bench):
        bench.send(job)
        await bench.drained()
    assert collection.job(job)["status"] == "completed"
    assert collection.job(job)["model_used"] == "folio"


async def test_tables_that_do_not_fit_keep_the_replica_from_serving(
    bench: Bench, collection: Collection
) -> None:
    collection.execute("ALTER TABLE book_images RENAME is_primary TO first")
    job = collection.queue(collection.add_book()[0], None)
    bench.send(job)
    async with ingesting(bench.config, bench) as ingest:
        await asyncio.sleep(3)
        status = await ingest.status()
        assert not status["healthy"]
        assert "book_images.is_primary is missing" in status["reason"]
        with pytest.raises(RuntimeError) as raised:
            await ingest.check_health()
        assert isinstance(raised.value.__cause__, InvalidConfig)
    assert bench.backlog() == 1
    assert collection.job(job)["status"] == "pending"


async def test_without_a_catalog_a_message_is_refused_and_no_row_is_touched(
    bench: Bench, collection: Collection
) -> None:
    book, [source] = collection.add_book(*photographs(1))
    job = collection.queue(book, source)
    config = bench.config.model_copy(update={"catalog": None})
    async with ingesting(config, bench) as ingest:
        bench.send(job)
        await bench.drained()
        assert "catalog" not in await ingest.status()
    assert [code for code, _ in bench.dead_letters()] == ["invalid_message"]
    assert collection.job(job)["status"] == "pending"
