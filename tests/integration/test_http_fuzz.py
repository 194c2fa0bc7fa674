"""Mutated images give a result or an error with a code in a bounded time, and no memory is lost.

The images are processed in a separate process, so that a crash is detected and the measured memory
is theirs. `make fuzz` runs many more of them.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import io
import os
import random
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from typing import NamedTuple

import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from serve_app.contracts.recipe import Recipe
from serve_app.errors import BY_CODE, ForeedgeError
from serve_app.pipeline.image_pipeline import ImagePipeline
from serve_app.serving.garbage import freeze_loaded_objects
from tests.support.images import book, saved, traits
from tests.support.whole_image import pipeline_of_whole_images

MAX_PIXELS = 4_000_000
"""Limit that keeps memory small even if a mutated header announces very many pixels."""
LOOP_CPU_S = 0.05
"""Most CPU time that a file may take of the event loop's thread."""
ALL_CPU_S = 5.0
"""Most CPU time that a file may take of all threads."""
RECIPES = tuple(
    Recipe.model_validate({"checks": {"min_subject_px": 0}, **fields})
    for fields in (
        {},
        {"post_process_mask": True, "format": "webp", "png_compression": 6},
        {"background": "auto", "format": "jpeg", "thumbnail": {"size_px": 50}},
        {"background": "#11223344", "crop_to_subject": True, "keep_metadata": True},
        {"mask_only": True, "format": "jpeg"},
        {"keep_metadata": True, "format": "webp", "background": "white"},
        {"matting": "decontaminate", "png_compression": 9},
        {"matting": "closed_form", "keep_metadata": True},
    )
)
"""Recipes with every field of a recipe."""

EXAMPLES = 25 if settings.get_current_profile_name() != "fuzz" else settings().max_examples
WIDTH, HEIGHT = 96, 72
GROWTH = 0.1
MUTATIONS_WARM, MUTATIONS = (300, 600) if EXAMPLES < 100 else (2_000, 20_000)


@cache
def seeds() -> dict[str, list[bytes]]:
    """Return small, valid images of every format, in every variant of the format."""
    pixels = np.asarray(Image.fromarray(book().image).resize((WIDTH, HEIGHT)))
    image = Image.fromarray(pixels)
    alpha = image.copy()
    alpha.putalpha(Image.fromarray(pixels[..., 0]))
    other = Image.fromarray(255 - pixels)
    grey, palette = image.convert("L"), image.quantize(64)
    exif = Image.Exif()
    exif[0x0112] = 6
    profile = next(item for item in traits() if item.name == "linear-icc-jpeg")
    icc = Image.open(io.BytesIO(profile.data)).info["icc_profile"]
    return {
        "JPEG": [
            saved(image, "JPEG", exif=exif),
            saved(image, "JPEG", progressive=True, icc_profile=icc),
            saved(grey, "JPEG"),
            saved(image.convert("CMYK"), "JPEG"),
        ],
        "PNG": [
            saved(image, "PNG", icc_profile=icc, exif=exif),
            saved(alpha, "PNG"),
            saved(palette, "PNG", transparency=3),
            saved(image.convert("1"), "PNG"),
            saved(Image.fromarray(pixels[..., 0].astype(np.uint16) * 257), "PNG"),
        ],
        "WEBP": [
            saved(image, "WEBP", exif=exif, icc_profile=icc),
            saved(alpha, "WEBP", lossless=True),
            saved(image, "WEBP", save_all=True, append_images=[other]),
        ],
        "TIFF": [
            saved(image, "TIFF"),
            saved(image, "TIFF", compression="tiff_lzw"),
            saved(alpha, "TIFF", compression="tiff_adobe_deflate"),
            saved(image, "TIFF", compression="jpeg"),
            saved(image.convert("1"), "TIFF", compression="group4"),
            saved(image, "TIFF", save_all=True, append_images=[other]),
        ],
        "BMP": [saved(image, "BMP"), saved(palette, "BMP"), saved(grey, "BMP")],
        "GIF": [
            saved(palette, "GIF", transparency=3),
            saved(palette, "GIF", save_all=True, append_images=[other.quantize(64)]),
        ],
        "AVIF": [
            saved(image, "AVIF", exif=exif, icc_profile=icc),
            saved(alpha, "AVIF"),
            saved(image, "AVIF", save_all=True, append_images=[other]),
        ],
        "MPO": [saved(image, "MPO", save_all=True, append_images=[other])],
    }


@st.composite
def mutated(draw: st.DrawFn, name: str) -> bytes:
    """Return a seed in which a few bytes or ranges of bytes are changed."""
    data = bytearray(draw(st.sampled_from(seeds()[name])))
    for _ in range(draw(st.integers(1, 6))):
        # The head of a file decides most, so half of the changes are made there.
        end = draw(st.sampled_from([min(64, len(data)), len(data)]))
        at = draw(st.integers(0, end))
        how = draw(st.sampled_from(["set", "insert", "delete", "repeat", "cut"]))
        if how == "set":
            new = draw(st.binary(min_size=1, max_size=8))
            data[at : at + len(new)] = new
        elif how == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=64))
        elif how == "delete":
            del data[at : at + draw(st.integers(1, 64))]
        elif how == "repeat":
            data[at:at] = data[at : at + draw(st.integers(1, 256))]
        else:
            del data[at:]
    return bytes(data)


class Attempt(NamedTuple):
    """What became of an image file, and the CPU time that it took."""

    code: str
    """``result``, or the code of the error."""
    loop_s: float
    """Seconds of the event loop's thread."""
    all_s: float
    """Seconds of all threads."""


def attempt(data: bytes, recipe: Recipe = RECIPES[0]) -> Attempt:
    """Process an image file in the pipeline."""
    runner, pipeline = _pipeline()
    loop_s, all_s = time.thread_time(), time.process_time()
    try:
        rendered = runner.run(pipeline.cut_out(data, recipe))
        code = "result"
    except ForeedgeError as error:
        code = error.code
    found = Attempt(code, time.thread_time() - loop_s, time.process_time() - all_s)
    if code == "result":
        Image.open(io.BytesIO(rendered.data)).load()
    return found


@cache
def _pipeline() -> tuple[asyncio.Runner, ImagePipeline]:
    runner = asyncio.Runner()

    async def make() -> ImagePipeline:
        pipeline = pipeline_of_whole_images(limits={"max_pixels": MAX_PIXELS})
        # Matting loads its libraries when it is first asked for.
        await pipeline.cut_out(seeds()["BMP"][0], RECIPES[-1])
        freeze_loaded_objects()
        return pipeline

    return runner, runner.run(make())


def attempt_many(first: int, count: int) -> tuple[set[str], int]:
    """Process randomly changed images, and return their outcomes and the memory in use."""
    found = set()
    every = [seed for of_format in seeds().values() for seed in of_format]
    for number in range(first, first + count):
        chance = random.Random(number)
        data = bytearray(chance.choice(every))
        for _ in range(chance.randint(1, 8)):
            data[chance.randrange(chance.choice([min(64, len(data)), len(data)]))] = (
                chance.randrange(256)
            )
        found.add(attempt(bytes(data), chance.choice(RECIPES)).code)
    gc.collect()
    # Memory that the allocator keeps is not in use. Its size depends on the largest image so far.
    ctypes.CDLL(None).malloc_trim(0)
    return found, psutil.Process().memory_info().rss


def _silence_stderr() -> None:
    # libtiff and Pillow print a message for every broken image.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


@pytest.fixture(scope="module")
def worker() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(1, get_context("spawn"), _silence_stderr) as pool:
        yield pool


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "MPO"])
def test_a_mutated_image_gives_a_result_or_an_error(name: str, worker: ProcessPoolExecutor) -> None:
    for seed in seeds()[name]:
        for recipe in RECIPES:
            assert worker.submit(attempt, seed, recipe).result().code == "result"

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(data=mutated(name), recipe=st.sampled_from(RECIPES))
    def check(data: bytes, recipe: Recipe) -> None:
        found = worker.submit(attempt, data, recipe).result(timeout=60)
        assert found.code == "result" or found.code in BY_CODE
        assert found.loop_s < LOOP_CPU_S
        assert found.all_s < ALL_CPU_S

    check()


@pytest.mark.timeout(1800)
@pytest.mark.skipif(sys.platform != "linux", reason="malloc_trim is a function of glibc")
def test_mutated_images_leak_no_memory(worker: ProcessPoolExecutor) -> None:
    _, before = worker.submit(attempt_many, 0, MUTATIONS_WARM).result()
    found, after = worker.submit(attempt_many, MUTATIONS_WARM, MUTATIONS).result()
    assert {"result", "corrupt_image"} <= found
    assert found - {"result"} <= set(BY_CODE)
    assert after < before * (1 + GROWTH), f"{before:,} bytes became {after:,}"
