"""Hostile files in the pipeline: each ends soon, and none keeps the event loop from running."""

from __future__ import annotations

import contextlib
import time

import pytest

from loadtests.harness.hostile_files import hostile_files
from serve_app.config import ImageLimits
from serve_app.contracts.recipe import parse_recipe
from serve_app.errors import CorruptImage, ImageTooLarge, UnsupportedFormat
from serve_app.serving.garbage import freeze_loaded_objects
from tests.support.whole_image import pipeline_of_whole_images

LOOP_CPU_S = 0.05
"""Most CPU time that a file may take of the event loop's thread."""
TOTAL_CPU_S = 5.0
"""Most CPU time that a file may take of all threads."""


@pytest.mark.parametrize("name", hostile_files())
async def test_a_hostile_file_ends_soon_and_off_the_loop(name: str) -> None:
    pipeline = pipeline_of_whole_images()
    # The objects of other tests are not those of a replica.
    freeze_loaded_objects()
    recipe = parse_recipe({"checks": {"min_subject_px": 0}})
    data = hostile_files()[name]()
    assert len(data) <= ImageLimits().max_bytes
    loop_s, all_s = time.thread_time(), time.process_time()
    # The errors of images, among them those that a decoder makes of damage.
    with contextlib.suppress(ImageTooLarge, CorruptImage, UnsupportedFormat):
        await pipeline.cut_out(data, recipe)
    assert time.thread_time() - loop_s < LOOP_CPU_S
    assert time.process_time() - all_s < TOTAL_CPU_S
