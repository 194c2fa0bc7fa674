"""CutoutPipeline: the deployment that takes one image from start to end."""

from __future__ import annotations

from ray.serve.handle import DeploymentHandle

from serve_app.config import AppConfig
from serve_app.contracts.job import Job
from serve_app.contracts.model import ModelInfo, Segmenters
from serve_app.contracts.outcome import Outcome
from serve_app.contracts.recipe import Recipe, parse_recipe
from serve_app.contracts.rendered import Rendered
from serve_app.errors import ForeedgeError
from serve_app.imaging.matting import preload_matting
from serve_app.pipeline.image_pipeline import ImagePipeline, imaging_threads
from serve_app.pipeline.segmenters import LocalSegmenters, RemoteSegmenters
from serve_app.serving.malloc import keep_freed_memory
from serve_app.storage import open_store


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
            preload_matting()
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
        return self._pipeline.service_time.stats()
