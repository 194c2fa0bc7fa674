"""The way of one image: fetch, decode, segment, compose, encode and publish.

This module does not know Ray: the models are behind the ``Segmenters`` protocol. Pixels of full
size stay in this process. Only model-sized images and masks leave it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, nullcontext, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from serve_app.config import AppConfig, PipelineConfig
from serve_app.contracts.job import Job, Source
from serve_app.contracts.model import ModelInfo, Segmenters, requested_models
from serve_app.contracts.outcome import Outcome
from serve_app.contracts.place import Contacts, Place
from serve_app.contracts.priority import Priority
from serve_app.contracts.recipe import Recipe
from serve_app.contracts.rendered import Rendered
from serve_app.contracts.result_keys import fingerprint, output_key, thumbnail_key
from serve_app.error_text import visible
from serve_app.errors import (
    CheckFailed,
    ForeedgeError,
    InternalError,
    StorageUnavailable,
)
from serve_app.imaging.decode import DecodedImage, decode_image, read_header
from serve_app.imaging.footprint import bytes_needed
from serve_app.imaging.mask import is_sure_enough, resize_for_model
from serve_app.imaging.pixels import Pixels
from serve_app.imaging.threads import disable_library_threads
from serve_app.pipeline.job_plan import JobPlan
from serve_app.pipeline.measurements import record_input, record_result, replica_seconds
from serve_app.pipeline.steps import StageTimer, apply_matting, find_subject, render_cutout
from serve_app.scheduling.memory_budget import MemoryBudget, Share
from serve_app.scheduling.permits import Permits
from serve_app.scheduling.threads import PriorityThreads
from serve_app.serving.metrics import DECODED_BYTES, DECODED_LIMIT_BYTES, UNRECORDED, Metrics
from serve_app.serving.service_time import ServiceTime
from serve_app.storage import check_allowed
from serve_app.storage.protocol import ObjectInfo, ObjectStore

T = TypeVar("T")

_JPEG = "image/jpeg"
_HEADER_THREADS = 2
_STORAGE_THREADS = 32

_logger = logging.getLogger(__name__)


def imaging_threads(config: PipelineConfig) -> PriorityThreads:
    """Return the threads that process pixels, one image at a time each."""
    return PriorityThreads(config.threads, "imaging", overlap=True)


@dataclass(frozen=True, slots=True)
class _Request:
    """What is asked for one image, whatever its pixels are."""

    recipe: Recipe
    models: tuple[str, ...]
    """Models to try, in order of preference."""
    priority: Priority
    stages: StageTimer
    contacts: Contacts
    """Note of how the models behave."""


class ImagePipeline:
    """Processes images from start to end. Belongs to one event loop."""

    def __init__(
        self,
        config: AppConfig,
        store: ObjectStore,
        segmenters: Segmenters,
        imaging: PriorityThreads,
        metrics: Metrics = UNRECORDED,
    ) -> None:
        """Set up a pipeline.

        Args:
            config: Settings of the application, among them limits and numbers of threads.
            store: Object store of the sources and the results.
            segmenters: Models to segment the images with.
            imaging: Threads that process pixels.
            metrics: What the pipeline records its metrics to.
        """
        disable_library_threads()
        self._config = config
        self._store = store
        self._segmenters = segmenters
        self._metrics = metrics
        self._memory = MemoryBudget(config.pipeline.max_decoded_bytes)
        self._imaging_threads = imaging
        # Matting takes seconds, so it must not occupy the threads of stages that take
        # milliseconds. Nor may images that wait for it occupy memory: only one image more than can
        # be matted at the same time is decoded. It takes 2 GB, so no request overlaps.
        matting_threads = config.pipeline.matting_threads
        self._matting_threads = PriorityThreads(matting_threads, "matting", overlap=False)
        self._matting_permits = Permits(matting_threads + 1)
        # Headers have threads of their own: an image that is refused does not wait for those that
        # are decoded.
        self._header_threads = PriorityThreads(_HEADER_THREADS, "header", overlap=False)
        self._storage_threads = ThreadPoolExecutor(_STORAGE_THREADS, "storage")
        # A pipeline accepts more jobs than it works on. This limits those whose file is in memory.
        self._fetch_slots = asyncio.Semaphore(_STORAGE_THREADS)
        self._model_infos: dict[str, ModelInfo] = {}
        # It gets the time that an image takes of the whole replica, and so counts as one thread.
        self.service_time = ServiceTime(threads=1)
        """Seconds of this replica per image."""

    async def process(self, job: Job) -> Outcome:
        """Return the outcome of a job, whose result is published if the outcome is ``done``."""
        contacts = Contacts()
        try:
            outcome = await self._carry_out(job, contacts)
        except ForeedgeError as error:
            outcome = Outcome.failed(job, error)
        except Exception as error:
            labels = {"job_id": job.job_id, "run_id": job.run_id}
            text = "job %s failed unexpectedly"
            _logger.exception(text, visible(job.job_id), extra=labels)
            outcome = Outcome.failed(job, InternalError(f"{type(error).__name__}: {error}"))
        answered = tuple(dict.fromkeys(contacts.answered))
        return outcome.model_copy(update={"refused_by": contacts.refused, "answered_by": answered})

    async def cut_out(self, data: bytes, recipe: Recipe) -> Rendered:
        """Return the cut-out of an image.

        Args:
            data: Content of an image file.
            recipe: Recipe of the cut-out.

        Raises:
            ForeedgeError: The image cannot be cut out.
        """
        models = self._requested_models(recipe)
        request = _Request(
            recipe, models, "interactive", StageTimer(metrics=self._metrics), Contacts()
        )
        async with AsyncExitStack() as no_fetch_slot:
            return await self._decode_and_cut_out(data, request, no_fetch_slot)

    async def models(self) -> list[ModelInfo]:
        """Return the served models in order of preference."""
        return [await self._model_info(name) for name in self._config.served_models]

    def sample(self) -> None:
        """Record the memory that images hold. Every thread may call it."""
        self._metrics.set(DECODED_BYTES, self._memory.held)
        self._metrics.set(DECODED_LIMIT_BYTES, self._config.pipeline.max_decoded_bytes)

    async def _carry_out(self, job: Job, contacts: Contacts) -> Outcome:
        plan = await self._plan(job, contacts)
        bucket = job.output.bucket
        with contacts.asking(Place.of_bucket("output", bucket), conclusive=False):
            existing = await self._find_result(plan)
        if existing is not None:
            facts = {"output_bytes": existing.size, "made_with": existing.model}
            return plan.outcome("skipped_existing", **facts)
        stages = StageTimer(metrics=self._metrics)
        rendered = await self._fetch_and_cut_out(plan, stages, contacts)
        with stages.measure("publish"), contacts.asking(Place.of_bucket("output", bucket)):
            await self._publish(plan, rendered)
        cutout = rendered.cutout.model_copy(update={"stages_ms": stages.ms})
        return plan.outcome("done", output_bytes=len(rendered.data), cutout=cutout)

    async def _plan(self, job: Job, contacts: Contacts) -> JobPlan:
        """Return where the result of a job belongs: its key depends on all that goes into it."""
        allowed = self._config.storage.allowed_buckets
        check_allowed(job.source.bucket, allowed)
        check_allowed(job.output.bucket, allowed)
        models = self._requested_models(job.recipe)
        with contacts.asking(Place.of_bucket("source", job.source.bucket), conclusive=False):
            source = await self._identify(job.source)
        recipe = job.recipe.model_copy(update={"models": models})
        digests = [(await self._describe(name, contacts)).result_digest for name in models]
        name = fingerprint(source, recipe, digests)
        small_key = thumbnail_key(job, name) if recipe.thumbnail else None
        return JobPlan(job, source, models, output_key(job, name), small_key)

    async def _find_result(self, plan: JobPlan) -> ObjectInfo | None:
        """Return facts about the result of a job, or None unless all its objects exist."""
        bucket = plan.job.output.bucket
        existing = await self._call_store(self._store.head, bucket, plan.output_key)
        if existing is not None and plan.thumbnail_key is not None:
            thumbnail = await self._call_store(self._store.head, bucket, plan.thumbnail_key)
            return None if thumbnail is None else existing
        return existing

    async def _identify(self, source: Source) -> Source:
        """Return a source with the ETag or version of its content."""
        if source.content_id:
            return source
        bucket, key, version = source.bucket, source.key, source.version_id
        info = await self._call_store(self._store.head, bucket, key, version)
        if info is None:
            # Only a GET is answered with a reason: a bucket that is missing is no job's fault.
            max_bytes = self._config.limits.max_bytes
            get = self._store.get
            await self._call_store(get, bucket, key, version_id=version, max_bytes=max_bytes)
            raise StorageUnavailable(
                f"s3://{source.bucket}/{source.key} did not exist a moment ago; try again"
            )
        return source.model_copy(update={"etag": info.etag})

    async def _describe(self, name: str, contacts: Contacts) -> ModelInfo:
        with contacts.asking(Place("model", name), conclusive=False):
            return await self._model_info(name)

    async def _fetch_and_cut_out(
        self, plan: JobPlan, stages: StageTimer, contacts: Contacts
    ) -> Rendered:
        source = plan.source
        async with AsyncExitStack() as fetch_slot:
            await fetch_slot.enter_async_context(self._fetch_slots)
            place = Place.of_bucket("source", source.bucket)
            with stages.measure("fetch"), contacts.asking(place):
                data = await self._call_store(
                    self._store.get,
                    source.bucket,
                    source.key,
                    etag=source.etag,
                    version_id=source.version_id,
                    max_bytes=self._config.limits.max_bytes,
                )
            request = _Request(plan.job.recipe, plan.models, "bulk", stages, contacts)
            return await self._decode_and_cut_out(data, request, fetch_slot)

    async def _decode_and_cut_out(
        self, data: bytes, request: _Request, fetch_slot: AsyncExitStack
    ) -> Rendered:
        """Return the cut-out by the first model whose mask passes the recipe's checks.

        The last model's mask is taken whatever its confidence is, since no model is left to ask.

        Args:
            data: Content of an image file.
            request: What is asked for.
            fetch_slot: Slot that is released once the image may be decoded.
        """
        limits, priority = self._config.limits, request.priority
        record_input(self._metrics, data, priority)
        header = await self._header_threads.run(priority, read_header, data, limits)
        needed = bytes_needed(header, request.recipe, len(data))
        no_matting = request.recipe.matting.method == "off"
        permit = nullcontext() if no_matting else self._matting_permits.hold(priority)
        async with permit, self._memory.hold(needed, priority) as memory:
            # From here on, the budget limits the memory.
            await fetch_slot.aclose()
            keep = request.recipe.keep_metadata
            image = await self._run_stage(request, "decode", decode_image, data, limits, keep)
            try:
                checks = request.recipe.checks
                for name in request.models[:-1]:
                    mask = await self._segment(name, image, request)
                    if await self._run_stage(request, "mask", is_sure_enough, mask, checks):
                        with suppress(CheckFailed):
                            return await self._cut_out_mask(name, mask, image, request, memory)
                name = request.models[-1]
                mask = await self._segment(name, image, request)
                return await self._cut_out_mask(name, mask, image, request, memory)
            finally:
                self.service_time.add(replica_seconds(request.stages.ms, self._config.pipeline))

    async def _segment(self, name: str, image: DecodedImage, request: _Request) -> Pixels:
        """Return the mask of a model, uint8 [S, S]."""
        size_px = (await self._model_info(name)).size_px
        model_input = await self._run_stage(request, "resize", resize_for_model, image.rgb, size_px)
        place = Place("model", name)
        with request.stages.measure("segment"), request.contacts.asking(place):
            return await self._segmenters.segment(name, model_input, request.priority)

    async def _cut_out_mask(
        self, name: str, mask: Pixels, image: DecodedImage, request: _Request, memory: Share
    ) -> Rendered:
        """Return the cut-out by the mask of a model, or raise ``CheckFailed``."""
        recipe, priority, stages = request.recipe, request.priority, request.stages
        subject = await self._imaging_threads.run(
            priority, find_subject, image, mask, recipe, name, stages
        )
        if recipe.matting.method != "off":
            max_pixels = self._config.pipeline.matting_max_pixels
            # Matting takes seconds, and its memory has a limit of its own: its permits.
            async with memory.returned():
                subject = await self._matting_threads.run(
                    priority, apply_matting, subject, image, recipe, max_pixels, stages
                )
        rendered = await self._imaging_threads.run(priority, render_cutout, subject, recipe, stages)
        record_result(self._metrics, rendered, priority)
        return rendered

    async def _publish(self, plan: JobPlan, rendered: Rendered) -> None:
        # The thumbnail comes first, so that it exists whenever the result does.
        if plan.thumbnail_key is not None and rendered.thumbnail is not None:
            await self._put(plan, plan.thumbnail_key, rendered.thumbnail, _JPEG, rendered)
        await self._put(plan, plan.output_key, rendered.data, rendered.media_type, rendered)

    async def _put(
        self, plan: JobPlan, key: str, data: bytes, media_type: str, rendered: Rendered
    ) -> None:
        # If another worker has written the object meanwhile, its key says that it is the same.
        put, bucket = self._store.put_if_absent, plan.job.output.bucket
        await self._call_store(put, bucket, key, data, media_type, model=rendered.cutout.model)

    def _requested_models(self, recipe: Recipe) -> tuple[str, ...]:
        return requested_models(recipe, self._config.models, self._config.served_models)

    async def _model_info(self, name: str) -> ModelInfo:
        if name not in self._model_infos:
            self._model_infos[name] = await self._segmenters.describe(name)
        return self._model_infos[name]

    async def _run_stage(
        self, request: _Request, stage: str, function: Callable[..., T], *args: object
    ) -> T:
        """Run a function in an imaging thread and measure it as a stage."""

        def run_measured() -> T:
            # Measured in the thread, so that the wait for a free thread does not count.
            with request.stages.measure(stage):
                return function(*args)

        return await self._imaging_threads.run(request.priority, run_measured)

    async def _call_store(self, method: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._storage_threads, lambda: method(*args, **kwargs))
