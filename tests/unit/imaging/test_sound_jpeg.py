"""JPEG files that are decoded without Pillow: the same pixels, and only files without a doubt."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms, ImageOps

from serve_app.config import ImageLimits
from serve_app.imaging.decode import decode_image
from serve_app.imaging.jpeg_pixels import read_sound_jpeg
from serve_app.imaging.pixels import Pixels
from tests.support.fuzzing import examples
from tests.support.images import book, saved

LIMITS = ImageLimits()
PICTURE = Image.fromarray(book(3, 203, 149).image)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def encoded(picture: Image.Image, **options: Any) -> bytes:
    return saved(picture, "JPEG", **options)


def by_pillow(data: bytes) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def sound(data: bytes) -> Pixels | None:
    with Image.open(io.BytesIO(data)) as image:
        return read_sound_jpeg(image, data)


@given(
    size=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    seed=st.integers(0, 2**32 - 1),
    quality=st.integers(1, 100),
    subsampling=st.sampled_from([0, 1, 2]),
    progressive=st.booleans(),
    restarts=st.integers(0, 3),
)
@settings(max_examples=examples(60), deadline=None)
def test_the_pixels_are_those_of_pillow(
    size: tuple[int, int],
    seed: int,
    quality: int,
    subsampling: int,
    progressive: bool,
    restarts: int,
) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    picture = Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)
    data = encoded(
        picture,
        quality=quality,
        subsampling=subsampling,
        progressive=progressive,
        restart_marker_blocks=restarts,
    )
    pixels = sound(data)
    if pixels is not None:
        assert np.array_equal(pixels, by_pillow(data))
    assert np.array_equal(decode_image(data, LIMITS).rgb, by_pillow(data))


@pytest.mark.parametrize(
    "options",
    [{}, {"progressive": True}, {"subsampling": 0}, {"optimize": True}, {"icc_profile": SRGB}],
    ids=["usual", "progressive", "4:4:4", "optimized", "profile"],
)
def test_usual_files_are_sound(options: dict[str, Any]) -> None:
    data = encoded(PICTURE, **options)
    pixels = sound(data)
    assert pixels is not None
    assert np.array_equal(pixels, by_pillow(data))
    found = decode_image(data, LIMITS)
    assert found.alpha is None
    # Memory of its own, and not a view of what Pillow has.
    assert found.rgb.flags.owndata
    assert np.array_equal(found.rgb, pixels)


DATA = encoded(PICTURE)


@pytest.mark.parametrize(
    "data",
    [
        DATA[: len(DATA) // 2],
        DATA[: len(DATA) // 2] + b"\xff\xd9",
        DATA[:-2],
        DATA[: len(DATA) // 2] + bytes(len(DATA) - len(DATA) // 2),
        DATA[: len(DATA) // 2] + b"\0\xff\0\x13" + DATA[len(DATA) // 2 + 4 :],
        encoded(PICTURE.convert("L")),
        encoded(PICTURE.convert("CMYK")),
        encoded(Image.new("RGB", (64, 64), (127, 127, 127))),
    ],
    ids=["half", "half, ended", "no end", "filled up", "damaged", "grey", "CMYK", "flat grey"],
)
def test_files_with_a_doubt_are_left_to_pillow(data: bytes) -> None:
    assert sound(data) is None


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_image_is_what_pillow_makes_of_it(orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    data = encoded(PICTURE, exif=exif)
    found = decode_image(data, LIMITS).rgb
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert np.array_equal(found, np.asarray(upright))
    assert found.flags.c_contiguous
    # It has not gone through Pillow's memory, whose arrays cannot be written.
    assert found.flags.writeable
