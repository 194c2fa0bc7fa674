"""Segmenter: the deployment that owns one model and runs it on batches."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from serve_app.batching import Batcher
from serve_app.config import AppConfig
from serve_app.cutout import ModelInfo
from serve_app.models.execution import Model, load

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

        def run(images: Sequence[npt.NDArray[np.uint8]]) -> list[npt.NDArray[np.uint8]]:
            return list(model.masks(np.stack(images)))

        self._batcher: Batcher[npt.NDArray[np.uint8], npt.NDArray[np.uint8]] = Batcher(
            run,
            slots=1 if stacked else options.threads,
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


def describe(model: Model) -> ModelInfo:
    """Return what is known of a loaded model."""
    return ModelInfo(name=model.name, size_px=model.size_px, sha256=model.sha256)
