"""Hostile files in the pipeline: each ends soon, and none keeps the event loop from running."""

from __future__ import annotations

import contextlib
import time

import numpy as np
import pytest

from loadtests.harness.hostile_files import hostile_files
from serve_app.config import AppConfig
from serve_app.contracts.model import ModelInfo
from serve_app.contracts.priority import Priority
from serve_app.contracts.recipe import parse_recipe
from serve_app.errors import CorruptImage, ImageTooLarge, UnsupportedFormat
from serve_app.imaging.pixels import Pixels
from serve_app.pipeline.image_pipeline import ImagePipeline, imaging_threads
from serve_app.storage import open_store

LOOP_CPU_S = 0.05
"""Most CPU time that a file may take of the event loop's thread."""
TOTAL_CPU_S = 5.0
"""Most CPU time that a file may take of all threads."""


class WholeImage:
    """Segmenters for which the whole image is the subject."""

    async def describe(self, name: str) -> ModelInfo:
        return ModelInfo(name=name, size_px=64, sha256="0" * 64)

    async def segment(self, name: str, image: Pixels, priority: Priority) -> Pixels:
        return np.full(image.shape[:2], 255, np.uint8)


@pytest.mark.parametrize("name", hostile_files())
async def test_a_hostile_file_ends_soon_and_off_the_loop(name: str) -> None:
    config = AppConfig.load({})
    pipeline = ImagePipeline(
        config, open_store(config), WholeImage(), imaging_threads(config.pipeline)
    )
    recipe = parse_recipe({"checks": {"min_subject_px": 0}})
    data = hostile_files()[name]()
    assert len(data) <= config.limits.max_bytes
    loop_s, all_s = time.thread_time(), time.process_time()
    # The errors of images, among them those that a decoder makes of damage.
    with contextlib.suppress(ImageTooLarge, CorruptImage, UnsupportedFormat):
        await pipeline.cut_out(data, recipe)
    assert time.thread_time() - loop_s < LOOP_CPU_S
    assert time.process_time() - all_s < TOTAL_CPU_S
