"""From a picture to the bytes of a file."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image

from serve_app.contracts.recipe import Recipe, Thumbnail
from serve_app.errors import ImageTooLarge
from serve_app.imaging.png import encode_png

FAST = 1
"""The ``png_compression`` that our own encoder makes; the others are Pillow's."""

_MAX_SIDE_PX = {"webp": 16_383, "jpeg": 65_500, "png": 2**31 - 1}
"""What each format can hold: WebP's 14-bit sides, libjpeg's JPEG_MAX_DIMENSION, PNG's integers."""


def encode_image(pixels: npt.NDArray[np.uint8], recipe: Recipe) -> bytes:
    """Return a picture as a file of the recipe's format.

    Args:
        pixels: uint8, [H, W] for grey, [H, W, 3] for RGB or [H, W, 4] for RGBA.
        recipe: Its format, quality and compression count.

    Raises:
        ImageTooLarge: The format cannot hold a picture of this size.
    """
    height, width = pixels.shape[:2]
    limit_px = _MAX_SIDE_PX[recipe.format]
    if max(height, width) > limit_px:
        raise ImageTooLarge(
            f"{recipe.format} holds sides up to {limit_px:,} pixels and the result is "
            f"{width} x {height}: choose png"
        )
    if recipe.format == "png" and recipe.png_compression == FAST:
        return encode_png(pixels)
    picture, file = Image.fromarray(pixels), io.BytesIO()
    if recipe.format == "png":
        picture.save(file, "PNG", compress_level=recipe.png_compression)
    elif recipe.format == "webp":
        # Method 0 of 6: the fastest search; the alpha channel stays lossless.
        picture.save(file, "WEBP", quality=recipe.quality, method=0)
    else:
        picture.save(file, "JPEG", quality=recipe.quality)
    return file.getvalue()


def encode_thumbnail(pixels: npt.NDArray[np.uint8], spec: Thumbnail) -> bytes:
    """Return a small JPEG of a picture; what is transparent becomes white.

    Args:
        pixels: uint8, [H, W], [H, W, 3] or [H, W, 4].
        spec: Longest side and quality.
    """
    small = Image.fromarray(pixels)
    small.thumbnail((spec.size_px, spec.size_px), Image.Resampling.LANCZOS)
    if small.mode == "RGBA":
        white = Image.new("RGB", small.size, "white")
        white.paste(small, mask=small.getchannel("A"))
        small = white
    file = io.BytesIO()
    small.save(file, "JPEG", quality=spec.quality)
    return file.getvalue()
