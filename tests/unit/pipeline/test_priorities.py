"""Two classes of images in one pipeline, with the real model and real images."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

from serve_app.config import AppConfig
from serve_app.contracts.job import Job, Output, Source
from serve_app.contracts.outcome import Outcome
from serve_app.contracts.recipe import Checks, Matting, Recipe
from serve_app.pipeline.image_pipeline import ImagePipeline, imaging_threads
from serve_app.pipeline.segmenters import LocalSegmenters
from serve_app.storage import open_store
from tests.support.images import book, jpeg

ANY_SIZE = Checks(min_subject_px=1)
QUEUED = 24


class Application:
    """A pipeline and the jobs that it was given."""

    def __init__(self, root: Path, **pipeline: Any) -> None:
        # One thread for images and models: whatever runs, runs alone.
        args = {"pipeline": {"threads": 1, **pipeline}, "segmenter": {"threads": 1}}
        config = AppConfig.load({**args, "storage": {"local_root": str(root)}})
        self.store = open_store(config)
        imaging = imaging_threads(config.pipeline)
        self.images = ImagePipeline(config, self.store, LocalSegmenters(config, imaging), imaging)
        self.jobs: list[asyncio.Task[Outcome]] = []

    def queue(self, count: int, data: bytes, recipe: Recipe) -> None:
        """Start jobs as SqsIngest does."""
        for number in range(count):
            key = f"in/{number}.jpg"
            self.store.put("b", key, data, "image/jpeg")
            job = Job(source=Source(bucket="b", key=key), output=Output(bucket="b"), recipe=recipe)
            self.jobs.append(asyncio.create_task(self.images.process(job)))

    @property
    def done(self) -> int:
        """Number of jobs that have ended."""
        return sum(task.done() for task in self.jobs)

    async def until_done(self, count: int) -> None:
        async with asyncio.timeout(60):
            while self.done < count:  # noqa: ASYNC110 - jobs end on their own
                await asyncio.sleep(0.002)


async def test_a_request_passes_the_images_of_the_queue(tmp_path: Path) -> None:
    application = Application(tmp_path)
    application.queue(QUEUED, jpeg(book(7, 480, 360).image), Recipe(checks=ANY_SIZE))
    small = jpeg(book(8, 120, 90).image)
    await application.until_done(1)
    for _ in range(3):
        before = application.done
        assert before < QUEUED - 3
        await application.images.cut_out(small, Recipe(checks=ANY_SIZE))
        # It overlaps what runs, and each of its steps may meet one step of an image.
        assert application.done - before <= 3
    outcomes = await asyncio.gather(*application.jobs)
    assert {outcome.status for outcome in outcomes} == {"done"}


async def test_a_matted_image_gives_its_memory_back_while_it_is_matted(tmp_path: Path) -> None:
    # Room for one decoded image.
    application = Application(tmp_path, max_decoded_bytes=100_000)
    matted = Recipe(matting=Matting(method="closed_form"), checks=ANY_SIZE)
    before = set(threading.enumerate())
    application.queue(1, jpeg(book(7, 400, 300).image), matted)
    async with asyncio.timeout(60):
        while not any(  # noqa: ASYNC110 - a thread starts on its own
            thread.name.startswith("matting") for thread in set(threading.enumerate()) - before
        ):
            await asyncio.sleep(0.002)
    await application.images.cut_out(jpeg(book(8, 80, 60).image), Recipe(checks=ANY_SIZE))
    assert application.done == 0
    [outcome] = await asyncio.gather(*application.jobs)
    assert outcome.cutout is not None
    assert "matting" in outcome.cutout.stages_ms
