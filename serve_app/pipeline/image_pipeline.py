"""The way of one image: fetch, decode, ask the models, compose, encode, publish.

Knows nothing of Ray: the models are behind a protocol. Pixels of full size stay in this process;
what the models get and give has their own size.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, nullcontext
from typing import Any, TypeVar

from serve_app.config import AppConfig, PipelineConfig
from serve_app.contracts.job import Job, Source
from serve_app.contracts.model import ModelInfo, Segmenters, requested_models
from serve_app.contracts.outcome import Outcome
from serve_app.contracts.recipe import Recipe
from serve_app.contracts.rendered import Rendered
from serve_app.contracts.result_keys import fingerprint, output_key, thumbnail_key
from serve_app.errors import (
    CheckFailed,
    ForeedgeError,
    InternalError,
    SourceNotFound,
)
from serve_app.imaging.decode import DecodedImage, decode_image, read_header
from serve_app.imaging.mask import resize_for_model
from serve_app.imaging.threads import disable_library_threads
from serve_app.pipeline.pixel_budget import PixelBudget
from serve_app.pipeline.steps import StageTimer, apply_matting, find_subject, render_cutout
from serve_app.serving.service_time import ServiceTime
from serve_app.storage import check_allowed
from serve_app.storage.protocol import ObjectStore

T = TypeVar("T")

_JPEG = "image/jpeg"
_STORAGE_THREADS = 32
_NOT_PIXELS = {"fetch", "segment", "publish", "matting"}
"""Stages in which no imaging thread is busy."""

_logger = logging.getLogger(__name__)


def imaging_threads(config: PipelineConfig) -> ThreadPoolExecutor:
    """Return threads for the work on pixels: each takes one image at a time."""
    return ThreadPoolExecutor(config.threads, "imaging")


class ImagePipeline:
    """Takes images from start to end. Belongs to one event loop."""

    def __init__(
        self,
        config: AppConfig,
        store: ObjectStore,
        segmenters: Segmenters,
        imaging: ThreadPoolExecutor,
    ) -> None:
        """Make a pipeline.

        Args:
            config: Limits and sizes.
            store: Where photographs are, and results go.
            segmenters: The models.
            imaging: Threads for the work on pixels.
        """
        disable_library_threads()
        self._config = config
        self._store = store
        self._segmenters = segmenters
        self._pixels = PixelBudget(config.pipeline.max_decoded_pixels)
        self._imaging = imaging
        # Of its own: what takes seconds must not take the threads of what takes milliseconds. Nor
        # may it take their memory: one image more than can be matted is decoded, and no further.
        self._matting = ThreadPoolExecutor(config.pipeline.matting_threads, "matting")
        self._matting_turn = asyncio.Semaphore(config.pipeline.matting_threads + 1)
        self._storage = ThreadPoolExecutor(_STORAGE_THREADS, "storage")
        # More jobs are here than are worked on. Most of those that wait have no bytes yet.
        self._fetched = asyncio.Semaphore(_STORAGE_THREADS)
        self._models: dict[str, ModelInfo] = {}
        # One: it is told what an image takes of the replica, over all of its threads.
        self.service_time = ServiceTime(threads=1)
        """Of this replica."""

    async def process(self, job: Job) -> Outcome:
        """Return how a job ended; its result is published where it is ``done``."""
        try:
            return await self._process(job)
        except ForeedgeError as error:
            return Outcome.failed(job, error)
        except Exception as error:
            labels = {"job_id": job.job_id, "run_id": job.run_id}
            _logger.exception("job %s failed unexpectedly", job.job_id, extra=labels)
            return Outcome.failed(job, InternalError(f"{type(error).__name__}: {error}"))

    async def cut_out(self, data: bytes, recipe: Recipe) -> Rendered:
        """Return the cut-out of an image.

        Args:
            data: An image file.
            recipe: What is made of it.

        Raises:
            ForeedgeError: Why there is none.
        """
        async with AsyncExitStack() as nothing:
            return await self._cut_out(data, recipe, self._models_of(recipe), StageTimer(), nothing)

    async def models(self) -> list[ModelInfo]:
        """Return the models that are served, in the order of preference."""
        return [await self._describe(name) for name in self._config.models]

    async def _process(self, job: Job) -> Outcome:
        stages = StageTimer()
        allowed = self._config.storage.allowed_buckets
        check_allowed(job.source.bucket, allowed)
        check_allowed(job.output.bucket, allowed)
        names = self._models_of(job.recipe)
        source = await self._identify(job.source)
        recipe = job.recipe.model_copy(update={"models": names})
        digests = [(await self._describe(name)).sha256 for name in names]
        name = fingerprint(source, recipe, digests)
        key = output_key(job, name)
        small_key = thumbnail_key(job, name) if recipe.thumbnail else None
        known: dict[str, Any] = {
            "job_id": job.job_id,
            "run_id": job.run_id,
            "source": source,
            "output_bucket": job.output.bucket,
            "output_key": key,
            "thumbnail_key": small_key,
        }
        existing = await self._store_call(self._store.head, job.output.bucket, key)
        if existing is not None:
            return Outcome(status="skipped_existing", output_bytes=existing.size, **known)

        async with AsyncExitStack() as until_decoded:
            await until_decoded.enter_async_context(self._fetched)
            with stages.measure("fetch"):
                data = await self._store_call(
                    self._store.get,
                    source.bucket,
                    source.key,
                    etag=source.etag,
                    version_id=source.version_id,
                    max_bytes=self._config.limits.max_bytes,
                )
            rendered = await self._cut_out(data, recipe, names, stages, until_decoded)
        with stages.measure("publish"):
            if small_key is not None and rendered.thumbnail is not None:
                # First: where the result is, its thumbnail is too.
                await self._publish(job.output.bucket, small_key, rendered.thumbnail, _JPEG)
            await self._publish(job.output.bucket, key, rendered.data, rendered.media_type)
        cutout = rendered.cutout.model_copy(update={"stages_ms": stages.ms})
        return Outcome(status="done", output_bytes=len(rendered.data), cutout=cutout, **known)

    async def _publish(self, bucket: str, key: str, data: bytes, media_type: str) -> None:
        # False means that somebody else has written it: the key says that it is the same.
        await self._store_call(self._store.put_if_absent, bucket, key, data, media_type)

    async def _identify(self, source: Source) -> Source:
        """Return a source with what its content is known by."""
        if source.etag or source.version_id:
            return source
        info = await self._store_call(self._store.head, source.bucket, source.key)
        if info is None:
            raise SourceNotFound(f"s3://{source.bucket}/{source.key} does not exist")
        return source.model_copy(update={"etag": info.etag})

    def _models_of(self, recipe: Recipe) -> tuple[str, ...]:
        return requested_models(recipe, self._config.models)

    async def _describe(self, name: str) -> ModelInfo:
        if name not in self._models:
            self._models[name] = await self._segmenters.describe(name)
        return self._models[name]

    async def _cut_out(
        self,
        data: bytes,
        recipe: Recipe,
        names: tuple[str, ...],
        stages: StageTimer,
        until_decoded: AsyncExitStack,
    ) -> Rendered:
        limits = self._config.limits
        header = read_header(data, limits)
        matted = recipe.matting.method != "off"
        turn = self._matting_turn if matted else nullcontext()
        async with turn, self._pixels.hold(header.pixels):
            # From here on the budget of pixels bounds what is held.
            await until_decoded.aclose()
            photograph = await self._measured(stages, "decode", decode_image, data, limits)
            try:
                for name in names:
                    try:
                        return await self._with_model(name, photograph, recipe, stages)
                    except CheckFailed as error:
                        refused = error
                raise refused
            finally:
                self.service_time.add(replica_seconds(stages.ms, self._config.pipeline))

    async def _with_model(
        self, name: str, photograph: DecodedImage, recipe: Recipe, stages: StageTimer
    ) -> Rendered:
        size_px = (await self._describe(name)).size_px
        image = await self._measured(stages, "resize", resize_for_model, photograph.rgb, size_px)
        with stages.measure("segment"):
            mask = await self._segmenters.segment(name, image)
        subject = await self._run(
            self._imaging, find_subject, photograph, mask, recipe, name, stages
        )
        if recipe.matting.method != "off":
            max_pixels = self._config.pipeline.matting_max_pixels
            subject = await self._run(
                self._matting, apply_matting, subject, photograph, recipe, max_pixels, stages
            )
        return await self._run(self._imaging, render_cutout, subject, recipe, stages)

    async def _measured(
        self, stages: StageTimer, stage: str, function: Callable[..., T], *args: object
    ) -> T:
        def measured() -> T:
            # In the thread, so that the wait for a free one does not count.
            with stages.measure(stage):
                return function(*args)

        return await self._run(self._imaging, measured)

    async def _store_call(self, method: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        return await self._run(self._storage, lambda: method(*args, **kwargs))

    async def _run(
        self, threads: ThreadPoolExecutor, function: Callable[..., T], *args: object
    ) -> T:
        return await asyncio.get_running_loop().run_in_executor(threads, function, *args)


def replica_seconds(stages_ms: dict[str, float], config: PipelineConfig) -> float:
    """Return the seconds of a replica that an image takes: of the threads that it keeps longest."""
    pixels_ms = sum(ms for name, ms in stages_ms.items() if name not in _NOT_PIXELS)
    matting_ms = stages_ms.get("matting", 0.0)
    return max(pixels_ms / config.threads, matting_ms / config.matting_threads) / 1000
