"""Segmenter: the deployment that owns one model and runs it on batches."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from serve_app.batching import Batcher
from serve_app.config import AppConfig
from serve_app.cutout import ModelInfo
from serve_app.models.execution import Model, load
from serve_app.pace import Pace

_logger = logging.getLogger(__name__)


class Segmenter:
    """Serves one model; model-sized uint8 images in, uint8 masks out."""

    def __init__(self, name: str, config: AppConfig) -> None:
        """Load the model.

        Args:
            name: Of the model.
            config: Its ``segmenter`` says how the model is run.

        Raises:
            ForeedgeError: The model cannot be served; Serve shows why.
        """
        model = self._model = load(name, config)
        options = config.segmenter
        stacked = options.execution == "stack"
        if stacked and not model.batches:
            _logger.warning("%s has a fixed batch axis: its images run one by one", name)

        slots = 1 if stacked else options.threads
        pace = self._pace = Pace(slots)

        def run(images: Sequence[npt.NDArray[np.uint8]]) -> list[npt.NDArray[np.uint8]]:
            started_at = time.perf_counter()
            masks = list(model.masks(np.stack(images)))
            pace.add(time.perf_counter() - started_at, len(images))
            return masks

        self._batcher: Batcher[npt.NDArray[np.uint8], npt.NDArray[np.uint8]] = Batcher(
            run,
            slots=slots,
            max_batch_size=options.max_batch_size if stacked and model.batches else 1,
        )

    async def segment(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Return the mask of an image.

        Args:
            image: uint8 [S, S, 3], RGB.

        Returns:
            uint8 [S, S].

        Raises:
            ModelUnavailable: The graph could not be run.
        """
        return await self._batcher.submit(image)

    async def describe(self) -> ModelInfo:
        """Return what is known of the model."""
        return describe(self._model)

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Return what the autoscaling policy is told; Serve asks."""
        return self._pace.stats()


def describe(model: Model) -> ModelInfo:
    """Return what is known of a loaded model."""
    return ModelInfo(name=model.name, size_px=model.size_px, sha256=model.sha256)
