"""Strips of rows: a step on a whole image in the memory and the cache of a small part of it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image

from serve_app.imaging.pixels import Pixels

_STRIP_PIXELS = 1 << 17
"""Number of pixels of a strip: 512 KB as RGBA, which fits the second cache of a core."""


def strips(first: int, end: int, width: int) -> Iterator[slice]:
    """Yield slices that cover the rows of an image.

    Args:
        first: First row.
        end: Row after the last one.
        width: Width of the image, in pixels.
    """
    step = max(1, _STRIP_PIXELS // max(1, width))
    for top in range(first, end, step):
        yield slice(top, min(top + step, end))


def copy_pixels(image: Image.Image) -> Pixels:
    """Return the pixels of an image, as ``np.asarray`` does in three times the memory.

    Args:
        image: Image of 8 bits per channel.

    Returns:
        uint8 [H, W], or [H, W, C] if there are several channels.
    """
    width, height = image.size
    channels = len(image.getbands())
    pixels = np.empty((height, width) if channels == 1 else (height, width, channels), np.uint8)
    for rows in strips(0, height, width):
        pixels[rows] = np.asarray(image.crop((0, rows.start, width, rows.stop)))
    return pixels
