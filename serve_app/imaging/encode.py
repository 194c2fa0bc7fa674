"""Encoding: the bytes of a PNG, WebP or JPEG file from pixels."""

from __future__ import annotations

import io
import struct

from PIL import Image, PngImagePlugin

from serve_app.contracts.recipe import Recipe, Thumbnail
from serve_app.errors import ImageTooLarge
from serve_app.imaging.icc import SRGB_PROFILE
from serve_app.imaging.metadata import NO_METADATA, ImageMetadata, exif_with_resolution
from serve_app.imaging.pixels import Pixels
from serve_app.imaging.png import encode_png

_FAST_PNG_COMPRESSION = 1
"""The ``png_compression`` that our own encoder implements. Pillow implements the others."""

_SRGB_CHUNK = (b"sRGB", b"\0")
"""Chunk of a PNG that says sRGB, with the perceptual intent, 0."""
_INCHES_IN_A_METRE = 0.0254
_EXIF_PREFIX = b"Exif\0\0"
_MAX_SIDE_PX = {"webp": 16_383, "jpeg": 65_500, "png": 2**31 - 1}
"""Longest side of each format: WebP's 14 bits, libjpeg's JPEG_MAX_DIMENSION, PNG's integers."""


def encode_image(pixels: Pixels, recipe: Recipe, metadata: ImageMetadata = NO_METADATA) -> bytes:
    """Return pixels as a file of the recipe's format, labelled as sRGB.

    Args:
        pixels: uint8, [H, W] for grey, [H, W, 3] for RGB or [H, W, 4] for RGBA.
        recipe: Recipe that gives the format, the quality and the compression.
        metadata: What the file says of the image.

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
        return encode_png(pixels, _png_chunks(metadata))
    image, file = Image.fromarray(pixels), io.BytesIO()
    # A mask is grey, and a profile of RGB would not fit it.
    profile = None if image.mode == "L" else SRGB_PROFILE
    if recipe.format == "png":
        labels = PngImagePlugin.PngInfo()
        labels.add(*_SRGB_CHUNK)
        image.save(
            file,
            "PNG",
            compress_level=recipe.png_compression,
            pnginfo=labels,
            dpi=metadata.dpi,
            exif=metadata.exif,
        )
    elif recipe.format == "webp":
        # Method 0 of 6 is the fastest search. The alpha channel stays lossless. WebP has no place
        # for a resolution but its EXIF data.
        exif = exif_with_resolution(metadata) or b""
        image.save(file, "WEBP", quality=recipe.quality, method=0, icc_profile=profile, exif=exif)
    else:
        dpi = tuple(round(value) for value in metadata.dpi or (0, 0))
        exif = _EXIF_PREFIX + metadata.exif if metadata.exif else b""
        image.save(file, "JPEG", quality=recipe.quality, icc_profile=profile, dpi=dpi, exif=exif)
    return file.getvalue()


def _png_chunks(metadata: ImageMetadata) -> list[tuple[bytes, bytes]]:
    """Return the chunks that label a PNG (third edition, 11.3.2.5, 11.3.4.3 and 11.3.4.5)."""
    chunks = [_SRGB_CHUNK]
    if metadata.dpi:
        across, down = (round(value / _INCHES_IN_A_METRE) for value in metadata.dpi)
        chunks.append((b"pHYs", struct.pack(">IIB", across, down, 1)))
    if metadata.exif:
        chunks.append((b"eXIf", metadata.exif))
    return chunks


def encode_thumbnail(pixels: Pixels, spec: Thumbnail) -> bytes:
    """Return a reduced JPEG on white, which is never larger than the original.

    It has no profile, since that would be a twentieth of it. Without one, JPEG means sRGB.

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
