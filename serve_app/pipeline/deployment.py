"""CutoutPipeline: the deployment that takes one image from start to end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
from ray.serve.handle import DeploymentHandle, DeploymentResponse

from serve_app.config import AppConfig
from serve_app.contracts import Job, Outcome, Recipe, parse_recipe
from serve_app.errors import DeadlineExceeded, ForeedgeError, ReplicaLost
from serve_app.imaging import matting
from serve_app.pipeline.image_pipeline import ImagePipeline, ModelInfo, Segmenters, imaging_threads
from serve_app.pipeline.steps import Rendered
from serve_app.segmenter.deployment import Segmenter
from serve_app.serving.handle_calls import call
from serve_app.serving.malloc import keep_freed_memory
from serve_app.storage import open_store

Mask = npt.NDArray[np.uint8]


class RemoteSegmenters:
    """The Segmenter deployments, by the names of their models."""

    def __init__(self, handles: dict[str, DeploymentHandle], timeout_s: float) -> None:
        self._handles = handles
        self._timeout_s = timeout_s

    async def describe(self, name: str) -> ModelInfo:
        """See Segmenters."""
        handle = self._handles[name]
        info: ModelInfo = await self._call(lambda: handle.describe.remote())
        return info

    async def segment(self, name: str, image: Mask) -> Mask:
        """See Segmenters."""
        handle = self._handles[name]
        mask: Mask = await self._call(lambda: handle.segment.remote(image))
        return mask

    async def _call(self, request: Callable[[], DeploymentResponse]) -> Any:
        try:
            return await call(request(), self._timeout_s)
        except ReplicaLost:
            # The image is still here: another replica costs less than another receive.
            return await call(request(), self._timeout_s)


class LocalSegmenters:
    """The models in this process, in the threads that work on the pixels.

    With threads of their own more would run than there are cores, and take each other's cache.
    """

    def __init__(self, config: AppConfig, threads: ThreadPoolExecutor) -> None:
        self._models = {name: Segmenter(name, config, threads) for name in config.models}
        self._timeout_s = config.segmenter.timeout_s

    async def describe(self, name: str) -> ModelInfo:
        """See Segmenters."""
        return await self._models[name].describe()

    async def segment(self, name: str, image: Mask) -> Mask:
        """See Segmenters."""
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._models[name].segment(image)
        except TimeoutError as error:
            raise DeadlineExceeded(f"no mask within {self._timeout_s:g} s") from error


class CutoutPipeline:
    """Takes images from start to end; for the ingest by reference, for HTTP by value."""

    def __init__(self, config: AppConfig, segmenters: dict[str, DeploymentHandle]) -> None:
        """Make a pipeline.

        Args:
            config: Limits, storage and threads.
            segmenters: Handles of the Segmenter deployments, by model; none where the models are
                to be in this process.

        Raises:
            ForeedgeError: A model cannot be served; Serve shows why.
        """
        keep_freed_memory()
        wanted = config.queue and parse_recipe(config.queue.recipe).matting.method != "off"
        if wanted or config.pipeline.preload_matting:
            matting.warm()
        imaging = imaging_threads(config.pipeline)
        models: Segmenters
        if config.segmenter.placement == "pipeline":
            models = LocalSegmenters(config, imaging)
        else:
            models = RemoteSegmenters(segmenters, config.segmenter.timeout_s)
        self._pipeline = ImagePipeline(config, open_store(config), models, imaging)

    async def process(self, job: Job) -> Outcome:
        """Return how a job ended; its result is published where it is ``done``."""
        return await self._pipeline.process(job)

    async def cut_out(self, data: bytes, recipe: Recipe) -> Rendered | ForeedgeError:
        """Return the cut-out of an image file, or why there is none.

        An error as a value: Serve logs a traceback for whatever is raised, and a client's broken
        image is nobody's defect.
        """
        try:
            return await self._pipeline.cut_out(data, recipe)
        except ForeedgeError as error:
            return error

    async def models(self) -> list[ModelInfo]:
        """Return the models that are served; answers once every one of them is loaded."""
        return await self._pipeline.models()

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Return what the autoscaling policy is told; Serve asks."""
        return self._pipeline.pace.stats()
