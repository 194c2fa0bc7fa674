"""Segmenter: the deployment that owns one model and runs it on batches of images."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
from pydantic import ValidationError

from serve_app.config import AppConfig, SegmenterConfig
from serve_app.contracts.base import describe_validation_error
from serve_app.contracts.model import ModelInfo
from serve_app.contracts.priority import Priority
from serve_app.errors import InvalidConfig
from serve_app.imaging.pixels import Pixels
from serve_app.models.inference import Model, load_model
from serve_app.scheduling.threads import PriorityThreads
from serve_app.segmenter.batcher import Batcher
from serve_app.serving.metrics import (
    BATCH_IMAGES,
    BATCH_WAIT_SECONDS,
    MODEL_LOAD_SECONDS,
    Metrics,
)
from serve_app.serving.ray_metrics import process_metrics, sample_periodically
from serve_app.serving.service_time import ServiceTime

_logger = logging.getLogger(__name__)


class BatchLimits(TypedDict):
    """The arguments of the Batcher that can change at run time."""

    slots: int
    max_batch_size: int


class Segmenter:
    """Serves one model: takes model-sized images, and returns their masks."""

    def __init__(
        self,
        name: str,
        config: AppConfig,
        threads: PriorityThreads | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        """Load the model.

        Args:
            name: Name of the model.
            config: Settings of the application. ``segmenter`` says how to run the model.
            threads: Threads to share with other work, or None to use the deployment's own threads.
            metrics: What to record metrics to. None stands for those of this process.

        Raises:
            ForeedgeError: The model cannot be served. Ray Serve reports the message.
        """
        metrics = process_metrics() if metrics is None else metrics
        began_s = time.perf_counter()
        model = self._model = load_model(name, config)
        load_s = time.perf_counter() - began_s
        # Ray forgets the value of a gauge once it is exported.
        sample_periodically(lambda: metrics.set(MODEL_LOAD_SECONDS, load_s, name))
        options = self._options = config.segmenter
        if options.execution == "stack" and not model.batches:
            _logger.warning("%s has a fixed batch axis, so its images run one by one", name)
        limits = batch_limits(options, model)
        self._service_time = ServiceTime(limits["slots"])

        def run(images: Sequence[Pixels]) -> list[Pixels]:
            started_at = time.perf_counter()
            masks = list(model.masks(np.stack(images)))
            self._service_time.add(time.perf_counter() - started_at, len(images))
            return masks

        def record_batch(size: int, waited_s: float) -> None:
            metrics.observe(BATCH_IMAGES, size, name)
            metrics.observe(BATCH_WAIT_SECONDS, waited_s, name)

        self._batcher: Batcher[Pixels, Pixels] = Batcher(
            run,
            **limits,
            # Stacked runs take the memory of the whole batch, so only one may run.
            overlap=options.execution == "fan_out",
            threads=threads,
            on_batch=record_batch,
        )

    async def segment(self, image: Pixels, priority: Priority = "interactive") -> Pixels:
        """Return the mask of an image.

        Args:
            image: Image of the model's size, uint8 [S, S, 3], RGB.
            priority: Class of the image.

        Returns:
            uint8 [S, S].

        Raises:
            ModelUnavailable: The model could not be run.
        """
        return await self._batcher.submit(image, priority)

    async def describe(self) -> ModelInfo:
        """Return the facts about the model."""
        return model_info(self._model)

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Change the batch limits at run time.

        Ray Serve calls it with the deployment's ``user_config``.

        Args:
            user_config: ``threads`` if the execution is ``fan_out``, and ``max_batch_size`` if it
                is ``stack``.

        Raises:
            InvalidConfig: A setting is unknown, is invalid, or requires a restart.
        """
        changeable = "threads" if self._options.execution == "fan_out" else "max_batch_size"
        if refused := sorted(set(user_config) - {changeable}):
            raise InvalidConfig(
                f"user_config: only {changeable} can change while execution is "
                f"{self._options.execution}, not {', '.join(refused)}"
            )
        try:
            options = SegmenterConfig(**{**self._options.model_dump(), **user_config})
        except ValidationError as error:
            raise InvalidConfig(f"user_config: {describe_validation_error(error)}") from error
        engine = self._model.choice.pair.engine
        if engine == "openvino" and options.threads != self._options.threads:
            # More images than it has streams share these.
            _logger.warning(
                "%s: OpenVINO has compiled the graph for %d threads and keeps them until a restart",
                self._model.name,
                self._options.threads,
            )
        limits = batch_limits(options, self._model)
        self._batcher.resize(**limits)
        self._service_time = ServiceTime(limits["slots"])

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Return this replica's statistics for the autoscaling policy. Ray Serve calls it."""
        return self._service_time.stats()


def batch_limits(options: SegmenterConfig, model: Model) -> BatchLimits:
    """Return the arguments ``slots`` and ``max_batch_size`` of the Batcher."""
    if options.execution == "fan_out":
        return {"slots": options.threads, "max_batch_size": 1}
    return {"slots": 1, "max_batch_size": options.max_batch_size if model.batches else 1}


def model_info(model: Model) -> ModelInfo:
    """Return the facts about a loaded model."""
    return ModelInfo(
        name=model.name,
        size_px=model.size_px,
        sha256=model.sha256,
        engine=model.choice.pair.engine,
        precision=model.choice.pair.precision,
        derived_sha256=model.choice.derived_sha256,
        chosen_because=model.choice.because,
        refused=model.choice.refused,
    )
