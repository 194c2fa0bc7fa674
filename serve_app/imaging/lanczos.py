"""A fast Lanczos resize: the lines of an image as banded matrix products.

Each line of the result is a weighted sum of a few neighbouring lines of the image. Together, some
lines of the result are one small dense product, which BLAS computes with the processor's vector
units. Pillow's loops do not use these, and took the largest part of an imaging thread's time
(docs/performance.md).

The result is Pillow's: the same filter, the same order of the two passes, and the same rounding to
8 bits between them. Sums are float32 instead of Pillow's fixed point. A value therefore differs, by
one level, if its exact sum is closer to half a level than the two kinds of rounding errors, which
is the case for less than one value in 10,000 (tests/support/lanczos_interval.py has the bound).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from serve_app.imaging.pixels import Pixels

_LOBES = 3
"""Lobes of the filter on each side of a pixel, in pixels of the result.

In pixels of the image if that is enlarged.
"""

_BAND_LINES = 16
"""Lines of the result that are computed together.

With more lines, the bands hold more zeros. With fewer, the products are too small for BLAS.
"""
_BLOCK_VALUES = 576
"""Values of each line that are computed at a time, so that they stay in the processor's cache."""


class _Band(NamedTuple):
    """Neighbouring lines of the result, and their weights on the lines of the image."""

    first: int
    """First line of the result."""
    end: int
    """Line of the result after the last one."""
    source_first: int
    """First line of the image that has a weight."""
    source_end: int
    """Line of the image after the last one that has a weight."""
    weights: npt.NDArray[np.float32]
    """Weights, [end - first, source_end - source_first]. Each row has a sum of 1."""


def resize(
    pixels: Pixels,
    width: int,
    height: int,
    *,
    columns: tuple[int, int] | None = None,
    rows: tuple[int, int] | None = None,
) -> Pixels:
    """Return an image, or a part of it, at another size.

    Args:
        pixels: Image, uint8 [H, W] or [H, W, C], with sides of at least 1 pixel.
        width: Width of the whole result, in pixels.
        height: Height of the whole result, in pixels.
        columns: First column of the result to compute, and the one after the last. None computes
            all.
        rows: First row of the result to compute, and the one after the last. None computes all.

    Returns:
        uint8, the selected rows and columns of the result.
    """
    old_height, old_width = pixels.shape[:2]
    first_x, end_x = columns or (0, width)
    first_y, end_y = rows or (0, height)
    across = _covering_bands(old_width, width, first_x, end_x)
    down = _covering_bands(old_height, height, first_y, end_y)
    used = pixels[_source_lines(down), _source_lines(across)]
    # Pillow 13 makes its passes in this order, on which the rounding between them depends.
    if old_height > height and old_height - height > 2 * (old_width - width):
        resized = _resize_columns(_resize_rows(used, down), across)
    else:
        resized = _resize_rows(_resize_columns(used, across), down)
    left, top = first_x - across[0].first, first_y - down[0].first
    return resized[top : top + end_y - first_y, left : left + end_x - first_x]


def affected_lines(first: int, end: int, count: int, size: int) -> tuple[int, int]:
    """Return the lines of a result that depend on a range of lines of the image.

    Args:
        first: First line of the range.
        end: Line after the last one of the range.
        count: Number of all lines of the image.
        size: Number of all lines of the result.

    Returns:
        First line of the result, and the one after the last.
    """
    scale = count / size
    support = _LOBES * max(scale, 1)
    return (
        max(0, math.floor((first - support) / scale)),
        min(size, math.ceil((end + support) / scale)),
    )


def _resize_columns(pixels: Pixels, bands: tuple[_Band, ...]) -> Pixels:
    """Return the bands' columns of the result from the image's, [H, W] or [H, W, C]."""
    height, channels = pixels.shape[0], pixels.shape[2:]
    resized = np.empty((height, _line_count(bands), *channels), np.uint8)
    step = _BLOCK_VALUES // int(np.prod(channels))
    for top in range(0, height, step):
        turned = cv2.transpose(pixels[top : top + step])
        resized[top : top + step] = cv2.transpose(_weighted_sums(turned, bands))
    return resized


def _resize_rows(pixels: Pixels, bands: tuple[_Band, ...]) -> Pixels:
    """Return the bands' rows of the result from the image's, [H, W] or [H, W, C]."""
    width, channels = pixels.shape[1], pixels.shape[2:]
    resized = np.empty((_line_count(bands), width, *channels), np.uint8)
    step = _BLOCK_VALUES // int(np.prod(channels))
    for left in range(0, width, step):
        resized[:, left : left + step] = _weighted_sums(pixels[:, left : left + step], bands)
    return resized


def _weighted_sums(lines: Any, bands: tuple[_Band, ...]) -> Pixels:
    """Return the bands' lines, uint8 [N, ...], as sums of the image's, uint8 [M, ...]."""
    shape = lines.shape[1:]
    tallest = max(band.source_end - band.source_first for band in bands)
    values = np.empty((tallest, *shape), np.float32)
    sums = np.empty((_line_count(bands), *shape), np.float32)
    flat_values, flat_sums = values.reshape(tallest, -1), sums.reshape(len(sums), -1)
    offset, source_offset = bands[0].first, bands[0].source_first
    for first, end, source_first, source_end, weights in bands:
        count = source_end - source_first
        values[:count] = lines[source_first - source_offset : source_end - source_offset]
        np.dot(weights, flat_values[:count], out=flat_sums[first - offset : end - offset])
    # Pillow rounds halves up. The conversion to uint8 drops the fraction.
    np.add(sums, 0.5, out=sums)
    np.clip(sums, 0, 255, out=sums)
    return sums.astype(np.uint8)


def _source_lines(bands: tuple[_Band, ...]) -> slice:
    """Return the lines of the image on which the bands have weights."""
    return slice(bands[0].source_first, bands[-1].source_end)


def _line_count(bands: tuple[_Band, ...]) -> int:
    """Return the number of lines of the result in the bands."""
    return bands[-1].end - bands[0].first


def _covering_bands(count: int, size: int, first: int, end: int) -> tuple[_Band, ...]:
    """Return the bands that contain the lines of the result from ``first`` to ``end``."""
    return _make_bands(count, size)[first // _BAND_LINES : -(-end // _BAND_LINES)]


@lru_cache(maxsize=256)
def _make_bands(count: int, size: int) -> tuple[_Band, ...]:
    """Return the weights that turn ``count`` lines of an image into ``size`` lines.

    The filter is Lanczos with three lobes, sinc(x) sinc(x / 3). Its window is Pillow's: wider by
    the factor of a reduction, cut at the edges of the image, and scaled to a sum of 1
    (``precompute_coeffs`` in Pillow's ``src/libImaging/Resample.c``).
    """
    scale = count / size
    reduction = max(scale, 1.0)
    centres = (np.arange(size) + 0.5) * scale
    starts = np.maximum(centres - _LOBES * reduction + 0.5, 0).astype(int)
    ends = np.minimum(centres + _LOBES * reduction + 0.5, count).astype(int)
    bands = []
    for first in range(0, size, _BAND_LINES):
        end = min(first + _BAND_LINES, size)
        source_first, source_end = int(starts[first]), int(ends[end - 1])
        lines = np.arange(source_first, source_end)
        distances = (lines - centres[first:end, None] + 0.5) / reduction
        weights = np.sinc(distances) * np.sinc(distances / _LOBES)
        inside = (lines >= starts[first:end, None]) & (lines < ends[first:end, None])
        weights[~(inside & (np.abs(distances) < _LOBES))] = 0
        weights /= weights.sum(axis=1, keepdims=True)
        bands.append(_Band(first, end, source_first, source_end, weights.astype(np.float32)))
    return tuple(bands)
