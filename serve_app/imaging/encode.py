"""Encoding: the bytes of a PNG, WebP or JPEG file from pixels."""

from __future__ import annotations

import io

from PIL import Image

from serve_app.contracts.recipe import Recipe, Thumbnail
from serve_app.errors import ImageTooLarge
from serve_app.imaging.pixels import Pixels
from serve_app.imaging.png import encode_png

_FAST_PNG_COMPRESSION = 1
"""The ``png_compression`` that our own encoder implements. Pillow implements the others."""

_MAX_SIDE_PX = {"webp": 16_383, "jpeg": 65_500, "png": 2**31 - 1}
"""Longest side of each format: WebP's 14 bits, libjpeg's JPEG_MAX_DIMENSION, PNG's integers."""


def encode_image(pixels: Pixels, recipe: Recipe) -> bytes:
    """Return pixels as a file of the recipe's format.

    Args:
        pixels: uint8, [H, W] for grey, [H, W, 3] for RGB or [H, W, 4] for RGBA.
        recipe: Recipe that gives the format, the quality and the compression.

    Raises:
        ImageTooLarge: The format cannot store an image of this size.
    """
    height, width = pixels.shape[:2]
    limit_px = _MAX_SIDE_PX[recipe.format]
    if max(height, width) > limit_px:
        raise ImageTooLarge(
            f"the result is {width} x {height} pixels, and {recipe.format} supports sides of up "
            f"to {limit_px:,} pixels. Choose png"
        )
    if recipe.format == "png" and recipe.png_compression == _FAST_PNG_COMPRESSION:
        return encode_png(pixels)
    image, file = Image.fromarray(pixels), io.BytesIO()
    if recipe.format == "png":
        image.save(file, "PNG", compress_level=recipe.png_compression)
    elif recipe.format == "webp":
        # Method 0 of 6 is the fastest search. The alpha channel stays lossless.
        image.save(file, "WEBP", quality=recipe.quality, method=0)
    else:
        image.save(file, "JPEG", quality=recipe.quality)
    return file.getvalue()


def encode_thumbnail(pixels: Pixels, spec: Thumbnail) -> bytes:
    """Return a reduced JPEG on white, which is never larger than the original.

    Args:
        pixels: uint8 [H, W], [H, W, 3] or [H, W, 4].
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
