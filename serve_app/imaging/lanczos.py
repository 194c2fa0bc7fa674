"""A fast Lanczos resize: the lines of an image as banded matrix products.

Each line of the result is a weighted sum of a few neighbouring lines of the image. Together, some
lines of the result are one small dense product, which BLAS computes with the processor's vector
units. Pillow's loops do not use these, and took the largest part of an imaging thread's time
(docs/performance.md).

The result is Pillow's, bit by bit: the same filter, the same order of the two passes, the same
weights in fixed point, and the same rounding to 8 bits between the passes. Sums are float32. The
few that are closer to half a level than their rounding errors are taken again in Pillow's integers.
One level in the input of a model can change the mask of an image without a clear subject on a tenth
of its pixels (docs/rembg.md).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

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

_PRECISION_BITS = 22
"""Binary places of Pillow's weights (``PRECISION_BITS`` in its ``src/libImaging/Resample.c``)."""
_UNIT_ROUNDOFF = 2.0**-24
"""Largest relative error of a float32 operation."""


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


class _Filter(NamedTuple):
    """The weights that turn the lines of an image into those of a result."""

    bands: tuple[_Band, ...]
    """Bands of the result, or those of a part of it."""
    starts: npt.NDArray[np.int64]
    """First line of the image that has a weight, for each line of the whole result, [N]."""
    coefficients: npt.NDArray[np.float64]
    """Weights in fixed point, for each line of the whole result and each tap, [N, T]."""
    largest_error: float
    """Most by which a sum in float32 differs from the exact one, in levels."""

    @property
    def source_lines(self) -> slice:
        """Lines of the image on which the bands have weights."""
        return slice(self.bands[0].source_first, self.bands[-1].source_end)

    @property
    def line_count(self) -> int:
        """Number of lines of the result in the bands."""
        return self.bands[-1].end - self.bands[0].first


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
    across = _covering_filter(old_width, width, first_x, end_x)
    down = _covering_filter(old_height, height, first_y, end_y)
    used = pixels[down.source_lines, across.source_lines]
    # Pillow 13 makes its passes in this order, on which the rounding between them depends.
    if old_height > height and old_height - height > 2 * (old_width - width):
        resized = _resize_columns(_resize_rows(used, down), across)
    else:
        resized = _resize_rows(_resize_columns(used, across), down)
    left, top = first_x - across.bands[0].first, first_y - down.bands[0].first
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


def _resize_columns(pixels: Pixels, found: _Filter) -> Pixels:
    """Return the filter's columns of the result from the image's, [H, W] or [H, W, C]."""
    height, channels = pixels.shape[0], pixels.shape[2:]
    resized = np.empty((height, found.line_count, *channels), np.uint8)
    step = _BLOCK_VALUES // int(np.prod(channels))
    for top in range(0, height, step):
        turned = np.asarray(cv2.transpose(pixels[top : top + step]), np.uint8)
        resized[top : top + step] = cv2.transpose(_weighted_sums(turned, found))
    return resized


def _resize_rows(pixels: Pixels, found: _Filter) -> Pixels:
    """Return the filter's rows of the result from the image's, [H, W] or [H, W, C]."""
    width, channels = pixels.shape[1], pixels.shape[2:]
    resized = np.empty((found.line_count, width, *channels), np.uint8)
    step = _BLOCK_VALUES // int(np.prod(channels))
    for left in range(0, width, step):
        resized[:, left : left + step] = _weighted_sums(pixels[:, left : left + step], found)
    return resized


def _weighted_sums(lines: Pixels, found: _Filter) -> Pixels:
    """Return the bands' lines, uint8 [N, ...], as sums of the image's, uint8 [M, ...]."""
    shape, bands = lines.shape[1:], found.bands
    tallest = max(band.source_end - band.source_first for band in bands)
    values = np.empty((tallest, *shape), np.float32)
    sums = np.empty((found.line_count, *shape), np.float32)
    flat_values, flat_sums = values.reshape(tallest, -1), sums.reshape(len(sums), -1)
    offset, source_offset = bands[0].first, bands[0].source_first
    for first, end, source_first, source_end, weights in bands:
        count = source_end - source_first
        values[:count] = lines[source_first - source_offset : source_end - source_offset]
        np.dot(weights, flat_values[:count], out=flat_sums[first - offset : end - offset])
    lowest, highest = (
        np.asarray(cv2.add(flat_sums, np.array([error]), dtype=cv2.CV_8U), np.uint8)
        for error in (-found.largest_error, found.largest_error)
    )
    doubtful = np.flatnonzero(lowest != highest)
    if doubtful.size:
        lowest.reshape(-1)[doubtful] = _exact_sums(lines, found, doubtful)
    return lowest.reshape(sums.shape)


def _exact_sums(lines: Pixels, found: _Filter, places: npt.NDArray[np.int64]) -> Pixels:
    """Return some of the weighted sums in Pillow's fixed point.

    Args:
        lines: Lines of the image on which the filter's bands have weights, uint8 [M, ...].
        found: Filter.
        places: Positions among the flattened sums, [K].

    Returns:
        uint8 [K].
    """
    flat = lines.reshape(len(lines), -1)
    numbers, across = np.divmod(places, flat.shape[1])
    numbers += found.bands[0].first
    first = found.starts[numbers] - found.bands[0].source_first
    # The last taps of a line at the end of the image have no line, and weights of 0.
    rows = np.minimum(first[:, None] + np.arange(found.coefficients.shape[1]), len(lines) - 1)
    values = flat.ravel().take(rows * flat.shape[1] + across[:, None])
    # Products of 31 bits have exact sums in float64.
    sums = np.einsum("kt,kt->k", values.astype(np.float64), found.coefficients[numbers])
    rounded = np.floor(sums / (1 << _PRECISION_BITS) + 0.5)
    return np.asarray(np.clip(rounded, 0, 255), np.uint8)


def _covering_filter(count: int, size: int, first: int, end: int) -> _Filter:
    """Return the filter with the bands that contain the result's lines ``first`` to ``end``."""
    whole = _make_filter(count, size)
    return whole._replace(bands=whole.bands[first // _BAND_LINES : -(-end // _BAND_LINES)])


@lru_cache(maxsize=256)
def _make_filter(count: int, size: int) -> _Filter:
    """Return the filter that turns ``count`` lines of an image into ``size`` lines.

    The filter is Lanczos with three lobes, sinc(x) sinc(x / 3). Its window is Pillow's: wider by
    the factor of a reduction, cut at the edges of the image, and scaled to a sum of 1. Every
    operation is in Pillow's order, so that the fixed-point weights are the same
    (``precompute_coeffs`` and ``normalize_coeffs_8bpc`` in its ``src/libImaging/Resample.c``).
    """
    scale = count / size
    reduction = max(scale, 1.0)
    centres = (np.arange(size) + 0.5) * scale
    starts = np.maximum(centres - _LOBES * reduction + 0.5, 0).astype(np.int64)
    ends = np.minimum(centres + _LOBES * reduction + 0.5, count).astype(np.int64)
    lines = starts[:, None] + np.arange(int((ends - starts).max()))
    distances = (lines - centres[:, None] + 0.5) * (1 / reduction)
    weights = np.sinc(distances) * np.sinc(distances / _LOBES)
    weights[(lines >= ends[:, None]) | (distances < -_LOBES) | (distances >= _LOBES)] = 0
    weights *= 1 / np.add.accumulate(weights, axis=1)[:, -1:]
    fixed = np.trunc(weights * (1 << _PRECISION_BITS) + np.copysign(0.5, weights))
    # A product with a weight of 0 adds no error to a sum of float32 (Higham, "Accuracy and
    # Stability of Numerical Algorithms", section 3.1). Two more roundings are those of the halves.
    largest_sum = 255 * np.abs(fixed).sum(axis=1).max() / (1 << _PRECISION_BITS)
    error = (fixed.shape[1] + 2) * _UNIT_ROUNDOFF * float(largest_sum)
    bands = tuple(_make_band(fixed, starts, ends, first) for first in range(0, size, _BAND_LINES))
    return _Filter(bands, starts, fixed, error)


def _make_band(
    coefficients: npt.NDArray[np.float64],
    starts: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
    first: int,
) -> _Band:
    """Return the band of the result's lines from ``first`` on, with weights as a dense matrix."""
    end = min(first + _BAND_LINES, len(starts))
    source_first, source_end = int(starts[first]), int(ends[end - 1])
    weights = np.zeros((end - first, source_end - source_first), np.float32)
    for number in range(first, end):
        taps = int(ends[number] - starts[number])
        at = int(starts[number]) - source_first
        # 22 binary places and a sign fit into a float32 without an error.
        weights[number - first, at : at + taps] = coefficients[number, :taps] / (
            1 << _PRECISION_BITS
        )
    return _Band(first, end, source_first, source_end, weights)
