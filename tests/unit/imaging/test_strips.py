"""Steps that work strip by strip, compared with the same steps on whole images."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from serve_app.contracts.recipe import Recipe
from serve_app.imaging.compose import compose_cutout
from serve_app.imaging.mask import post_process_mask
from serve_app.imaging.png import encode_png
from serve_app.imaging.strips import strips
from tests.support.images import Pixels, noise

SIZES = [(1, 1), (3, 900), (900, 3), (517, 701), (301, 1300), (4, 200_000)]
"""Heights and widths. Each of the larger ones has several strips, the last of them cut off."""


@pytest.mark.parametrize(("first", "end", "width"), [(0, 1, 1), (3, 900, 700), (0, 5, 10**6)])
def test_strips_cover_every_row_once(first: int, end: int, width: int) -> None:
    rows = [row for part in strips(first, end, width) for row in range(part.start, part.stop)]
    assert rows == list(range(first, end))


def soft_mask(height: int, width: int, seed: int) -> Pixels:
    """Return values of all levels in patches, with areas of 0 and of 255."""
    field = cv2.resize(noise(1 + height // 20, 1 + width // 20, seed=seed), (width, height))
    return np.asarray(np.clip(2 * np.asarray(field, np.int32) - 128, 0, 255), np.uint8)


def whole_transparent(rgb: Pixels, alpha: Pixels) -> Pixels:
    return np.where(alpha[..., None] > 0, np.dstack([rgb, alpha]), np.uint8(0))


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("background", ["transparent", "white", "#1a2b3c", "#ff204080"])
def test_backgrounds_are_those_of_the_whole_image(height: int, width: int, background: str) -> None:
    rgb, alpha = noise(height, width, 3, seed=height), soft_mask(height, width, width)
    cutout = Image.fromarray(whole_transparent(rgb, alpha))
    if background == "transparent":
        expected = cutout
    elif len(background) == len("#rrggbbaa"):
        expected = Image.alpha_composite(Image.new("RGBA", cutout.size, background), cutout)
    else:
        below = Image.new("RGB", cutout.size, background)
        expected = Image.composite(Image.fromarray(rgb), below, Image.fromarray(alpha))
    found = compose_cutout(rgb, alpha, None, Recipe(background=background))
    assert np.array_equal(found, np.asarray(expected))


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_post_processing_is_that_of_the_whole_mask(height: int, width: int) -> None:
    mask = soft_mask(height, width, 3)
    opened = cv2.morphologyEx(
        mask, cv2.MORPH_OPEN, cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    )
    smooth = gaussian_filter(np.asarray(opened, np.float64), 2)
    # A sum at the threshold may round to either side. None of these is.
    assert np.abs(smooth - 127).min() > 1e-9 or height * width == 1
    assert np.array_equal(post_process_mask(mask), np.where(smooth < 127, 0, 255))


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_png_of_several_strips_holds_the_pixels(height: int, width: int, channels: int) -> None:
    pixels = noise(height, width, channels)
    pixels[: height // 2] = 7
    pixels = pixels[..., 0] if channels == 1 else pixels
    found = Image.open(io.BytesIO(encode_png(pixels)))
    assert np.array_equal(np.asarray(found), pixels)
