"""Samples: grey or colours of 8 bits, and the transparency, from every mode of Pillow's."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from PIL import Image

from serve_app.errors import UnsupportedFormat
from serve_app.imaging.formats.container import Container, Samples
from serve_app.imaging.pixels import Pixels
from serve_app.imaging.strips import strips
from serve_app.imaging.wide import WidePixels

_HIGHEST = 65_535


def separate_transparency(
    image: Image.Image, container: Container
) -> tuple[Image.Image, Image.Image | None]:
    """Return the colours of an image with 8 bits per channel, and its transparency.

    Samples of 16 bits lose their low byte.

    Args:
        image: Decoded image, of any mode.
        container: What its file says of its samples.

    Returns:
        The colours, of mode L, RGB, CMYK, YCbCr or LAB, and the transparency of mode L, or None if
        the image has none.

    Raises:
        UnsupportedFormat: The mode is one that no accepted file has.
    """
    samples = container.samples
    if image.mode.startswith("I;16"):
        return _reduce_grey(np.asarray(image), samples)
    if image.mode == "La":
        image = image.convert("LA")
    if image.mode == "LA":
        # It stays grey, for a profile of grey.
        return image.getchannel("L"), image.getchannel("A")
    if image.has_transparency_data:
        if image.mode != "RGBA":
            image = image.convert("RGBA")
        return image.convert("RGB"), image.getchannel("A")
    if image.mode == "1":
        image = image.convert("L")
    elif image.mode in {"P", "RGBX"}:
        image = image.convert("RGB")
    elif image.mode not in {"L", "RGB", "CMYK", "YCbCr", "LAB"}:
        raise UnsupportedFormat(f"the colour mode {image.mode} is not supported")
    if samples.transparent is None:
        return image, None
    return image, Image.fromarray(_transparency(image, container, samples.transparent))


def wide_samples(image: Image.Image, container: Container) -> WidePixels | None:
    """Return the grey or the colours of an image with 16 bits per channel, or None.

    Args:
        image: Image of 16 bits, or the 8 bits of its grey or colours.
        container: What its file says of its samples.
    """
    samples = container.samples
    if image.mode.startswith("I;16"):
        grey = np.asarray(image).astype(np.uint16, copy=False)
        highest = 2**samples.significant_bits - 1
        if highest < _HIGHEST:
            scaled = np.minimum(grey, highest).astype(np.uint32) * _HIGHEST // highest
            grey = scaled.astype(np.uint16)
        return np.invert(grey) if samples.inverted else grey
    if samples.depth != 16 or image.mode not in {"L", "RGB"}:
        return None
    values = _decode_wide(container)
    if values is None or values.ndim != 3 or values.dtype != np.uint16:
        return None
    values = values[..., 0] if image.mode == "L" else values[..., 2::-1]
    return values if _agrees(values, image) else None


def _agrees(wide: WidePixels, image: Image.Image) -> bool:
    """Return whether OpenCV and Pillow have the same samples, but for their low bytes."""
    height, width = wide.shape[:2]
    channels = wide.shape[2] if wide.ndim == 3 else 1
    if (width, height) != image.size or channels != len(image.getbands()):
        return False
    return all(
        np.array_equal(wide[rows] >> 8, np.asarray(image.crop((0, rows.start, width, rows.stop))))
        for rows in strips(0, height, width)
    )


def _decode_wide(container: Container) -> np.ndarray[tuple[int, ...], np.dtype[Any]] | None:
    """Return the samples of a file as OpenCV decodes them, with blue first, or None."""
    content = np.frombuffer(container.pixels, np.uint8)
    return cv2.imdecode(content, cv2.IMREAD_UNCHANGED)


def _reduce_grey(
    values: np.ndarray[tuple[int, ...], np.dtype[np.uint16]], samples: Samples
) -> tuple[Image.Image, Image.Image | None]:
    alpha = None
    if samples.transparent is not None:
        alpha = Image.fromarray(_opaque(values != samples.transparent[0]))
    shift = samples.significant_bits - 8
    # A value above the declared depth is white.
    reduced = np.minimum(values >> shift, 255).astype(np.uint8)
    return Image.fromarray(np.invert(reduced) if samples.inverted else reduced), alpha


def _transparency(image: Image.Image, container: Container, transparent: tuple[int, ...]) -> Pixels:
    """Return 0 for pixels of a PNG's transparent colour, and 255 for all others."""
    depth = container.samples.depth
    if depth == 16:
        # The low bytes count too, and Pillow has dropped them.
        values = np.asarray(_decode_wide(container))[..., ::-1]
    else:
        values = np.asarray(image)
        transparent = tuple(value * 255 // (2**depth - 1) for value in transparent)
    different = values != np.array(transparent, np.uint16).squeeze()
    return _opaque(different.any(axis=2) if different.ndim == 3 else different)


def _opaque(where: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> Pixels:
    return where.astype(np.uint8) * np.uint8(255)
