"""A model for which the whole image is the subject, and the pipeline that asks it."""

from __future__ import annotations

import numpy as np

from serve_app.config import AppConfig
from serve_app.contracts.model import ModelInfo
from serve_app.contracts.priority import Priority
from serve_app.imaging.pixels import Pixels
from serve_app.pipeline.image_pipeline import ImagePipeline, imaging_threads
from serve_app.storage import open_store

SIDE_PX = 64
"""Side of the model's input."""


class WholeImage:
    """Segmenters for which the whole image is the subject."""

    async def describe(self, name: str) -> ModelInfo:
        """Return the facts about a model."""
        return ModelInfo(name=name, size_px=SIDE_PX, sha256="0" * 64)

    async def segment(self, name: str, image: Pixels, priority: Priority) -> Pixels:
        """Return a mask that has the whole image."""
        return np.full(image.shape[:2], 255, np.uint8)


def pipeline_of_whole_images(**settings: object) -> ImagePipeline:
    """Return a pipeline whose model takes the whole image, with some settings."""
    config = AppConfig.load(settings)
    imaging = imaging_threads(config.pipeline)
    return ImagePipeline(config, open_store(config), WholeImage(), imaging)
