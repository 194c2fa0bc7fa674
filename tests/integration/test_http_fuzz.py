"""Mutated images give a result or an error with a code, and no memory is lost.

The images are processed in a separate process, so that a crash is detected and the measured memory
is theirs. `make fuzz` runs many more of them.
"""

from __future__ import annotations

import ctypes
import gc
import io
import os
import random
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context

import numpy as np
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from serve_app.config import ImageLimits
from serve_app.contracts.recipe import Recipe, parse_recipe
from serve_app.errors import BY_CODE, ForeedgeError
from serve_app.imaging.decode import decode_image
from serve_app.imaging.mask import resize_for_model
from serve_app.pipeline.steps import StageTimer, find_subject, render_cutout
from tests.support.images import book, saved, traits

LIMITS = ImageLimits(max_pixels=4_000_000)
"""Limits that keep memory small even if a mutated header announces very many pixels."""

EXAMPLES = 25 if settings.get_current_profile_name() != "fuzz" else settings().max_examples
WIDTH, HEIGHT = 96, 72
MODEL_SIDE = 64
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


def attempt(data: bytes) -> str:
    """Process an image file, and return ``result`` or the code of the error."""
    try:
        photograph = decode_image(data, LIMITS)
        resize_for_model(photograph.rgb, MODEL_SIDE)
        mask = np.full((MODEL_SIDE, MODEL_SIDE), 255, np.uint8)
        subject = find_subject(photograph, mask, _recipe(), "folio", StageTimer())
        rendered = render_cutout(subject, _recipe(), StageTimer())
        Image.open(io.BytesIO(rendered.data)).load()
    except ForeedgeError as error:
        return error.code
    return "result"


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
        found.add(attempt(bytes(data)))
    gc.collect()
    # Memory that the allocator keeps is not in use. Its size depends on the largest image so far.
    ctypes.CDLL(None).malloc_trim(0)
    return found, psutil.Process().memory_info().rss


@cache
def _recipe() -> Recipe:
    return parse_recipe({"checks": {"min_subject_px": 0}})


def _silence_stderr() -> None:
    # libtiff and Pillow print a message for every broken image.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


@pytest.fixture(scope="module")
def worker() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(1, get_context("spawn"), _silence_stderr) as pool:
        yield pool


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "MPO"])
def test_a_mutated_image_gives_a_result_or_an_error(name: str, worker: ProcessPoolExecutor) -> None:
    for seed in seeds()[name]:
        assert worker.submit(attempt, seed).result() == "result"

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(data=mutated(name))
    def check(data: bytes) -> None:
        code = worker.submit(attempt, data).result(timeout=60)
        assert code == "result" or code in BY_CODE

    check()


@pytest.mark.timeout(1800)
@pytest.mark.skipif(sys.platform != "linux", reason="malloc_trim is a function of glibc")
def test_mutated_images_leak_no_memory(worker: ProcessPoolExecutor) -> None:
    _, before = worker.submit(attempt_many, 0, MUTATIONS_WARM).result()
    found, after = worker.submit(attempt_many, MUTATIONS_WARM, MUTATIONS).result()
    assert {"result", "corrupt_image"} <= found
    assert found - {"result"} <= set(BY_CODE)
    assert after < before * (1 + GROWTH), f"{before:,} bytes became {after:,}"
