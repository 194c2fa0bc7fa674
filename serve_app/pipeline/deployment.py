"""CutoutPipeline: the deployment that processes an image from start to end."""

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
from serve_app.serving.garbage import freeze_loaded_objects
from serve_app.serving.kept_reports import keep_replica_reports, own_report
from serve_app.serving.malloc import IdleMemory, keep_freed_memory
from serve_app.serving.ray_metrics import (
    process_metrics,
    record_build,
    sample_periodically,
)
from serve_app.serving.recent_metrics import RecentReport
from serve_app.storage import open_store


class CutoutPipeline:
    """Processes images: for SqsIngest by reference to a store, for HttpApi by their bytes."""

    def __init__(self, config: AppConfig, segmenters: dict[str, DeploymentHandle]) -> None:
        """Set up a pipeline.

        Args:
            config: Settings of the application.
            segmenters: Handles of the Segmenter deployments, by the names of their models. Empty
                if the models run in this process.

        Raises:
            ForeedgeError: A model cannot be served. Ray Serve reports the message.
        """
        keep_freed_memory()
        self._memory = IdleMemory()
        queue_uses_matting = (
            config.queue and parse_recipe(config.queue.recipe).matting.method != "off"
        )
        if queue_uses_matting or config.pipeline.preload_matting:
            preload_matting()
        imaging = imaging_threads(config.pipeline)
        models: Segmenters
        if config.segmenter.placement == "pipeline":
            models = LocalSegmenters(config, imaging)
        else:
            models = RemoteSegmenters(segmenters, config.segmenter.timeout_s)
        metrics = process_metrics()
        pipeline = ImagePipeline(config, open_store(config), models, imaging, metrics)
        self._pipeline = pipeline

        def sample() -> None:
            record_build(metrics)
            pipeline.sample()

        sample_periodically(sample)
        keep_replica_reports(own_report)
        freeze_loaded_objects()

    async def process(self, job: Job) -> Outcome:
        """Return the outcome of a job, whose result is published if the outcome is ``done``."""
        with self._memory.in_use():
            return await self._pipeline.process(job)

    async def cut_out(self, data: bytes, recipe: Recipe) -> Rendered | ForeedgeError:
        """Return the cut-out of an image, or the error because of which there is none.

        An error is returned and not raised, because Ray Serve logs a traceback for everything that
        is raised, and a client's broken image is not a defect of ours.

        Args:
            data: Content of an image file.
            recipe: Recipe of the cut-out.
        """
        try:
            with self._memory.in_use():
                return await self._pipeline.cut_out(data, recipe)
        except ForeedgeError as error:
            return error

    async def models(self) -> list[ModelInfo]:
        """Return the served models, as soon as all of them are loaded."""
        return await self._pipeline.models()

    async def recent(self) -> RecentReport:
        """Return what this replica has done lately, for the operations page."""
        return own_report()

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Return this replica's statistics for the autoscaling policy. Ray Serve calls it."""
        return self._pipeline.service_time.stats()
