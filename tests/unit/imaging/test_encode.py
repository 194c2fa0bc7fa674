"""Encoding: PNG, WebP, JPEG and thumbnails."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from serve_app.contracts.recipe import Recipe, Thumbnail
from serve_app.errors import ImageTooLarge
from serve_app.imaging.encode import encode_image, encode_thumbnail
from tests.support.images import noise


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 40), st.integers(1, 40), st.sampled_from(["L", "RGB", "RGBA"]), st.integers(0, 9)
)
def test_png_is_lossless(height: int, width: int, mode: str, level: int) -> None:
    image = Image.fromarray(
        np.dstack([noise(height, width, 3), noise(height, width, 3, seed=1)[..., 0]])
    )
    pixels = np.asarray(image.convert(mode))
    data = encode_image(pixels, Recipe(png_compression=level))
    decoded = Image.open(io.BytesIO(data))
    assert decoded.mode == mode
    assert np.array_equal(np.asarray(decoded), pixels)


def test_webp_keeps_alpha_exactly() -> None:
    alpha = noise(30, 40, 3)[..., 0]
    pixels = np.dstack([noise(30, 40, 3), alpha])
    decoded = Image.open(io.BytesIO(encode_image(pixels, Recipe(format="webp", quality=50))))
    assert np.array_equal(np.asarray(decoded)[..., 3], alpha)


def test_quality_counts() -> None:
    for name in ("jpeg", "webp"):
        low, high = (
            encode_image(
                noise(200, 200, 3),
                Recipe.model_validate({"format": name, "background": "white", "quality": quality}),
            )
            for quality in (10, 95)
        )
        assert len(low) < len(high) / 2


def test_a_side_that_a_format_cannot_hold() -> None:
    strip = np.zeros((1, 16_384), np.uint8)
    with pytest.raises(ImageTooLarge, match="Choose png"):
        encode_image(strip, Recipe(format="webp", mask_only=True))
    assert Image.open(io.BytesIO(encode_image(strip, Recipe(mask_only=True)))).size == (16_384, 1)


def test_thumbnail_is_a_jpeg_on_white() -> None:
    pixels = np.full((300, 600, 4), (255, 0, 0, 0), np.uint8)
    decoded = Image.open(io.BytesIO(encode_thumbnail(pixels, Thumbnail(size_px=100, quality=85))))
    assert decoded.format == "JPEG"
    assert decoded.size == (100, 50)
    assert np.asarray(decoded)[25, 50].min() > 250


def test_thumbnail_never_enlarges() -> None:
    small = np.full((20, 10, 3), (255, 0, 0), np.uint8)
    decoded = Image.open(io.BytesIO(encode_thumbnail(small, Thumbnail(size_px=300, quality=85))))
    assert decoded.size == (10, 20)
