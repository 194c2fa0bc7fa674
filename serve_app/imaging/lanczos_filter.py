"""Weights of Pillow's Lanczos filter, in fixed point and as small dense matrices of float32."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

_LOBES = 3
"""Lobes of the filter on each side of a pixel, in pixels of the result.

In pixels of the image if that is enlarged.
"""

_REDUCED_BAND_LINES, _ENLARGED_BAND_LINES = 8, 32
"""Lines of the result that are one product, if an image is reduced and if it is enlarged.

With more lines, the products hold more zeros. With fewer, they are too small for BLAS.
"""
_REDUCED_PART_VALUES, _ENLARGED_PART_VALUES = 576, 2048
"""Values of each line that are computed together, if an image is reduced and if it is enlarged.

BLAS takes up to 1.5 times as long for 600 as for 576 values, a multiple of 64.
"""

_CACHED_FILTERS = 128
"""Filters that are kept, two for each side of an image (``docs/operations/memory.md``)."""

PRECISION_BITS = 22
"""Binary places of Pillow's weights (``PRECISION_BITS`` in its ``src/libImaging/Resample.c``)."""
_UNIT_ROUNDOFF = 2.0**-24
"""Largest relative error of a float32 operation."""


class Band(NamedTuple):
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


class LanczosFilter(NamedTuple):
    """The weights that turn the lines of an image into those of a result."""

    bands: tuple[Band, ...]
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

    @property
    def part_values(self) -> int:
        """Number of values of each line that are computed together."""
        reduces = self.bands[0].source_end > self.bands[0].end
        return _REDUCED_PART_VALUES if reduces else _ENLARGED_PART_VALUES

    def first_lines(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the first line of the image that has a weight, counted from the bands' first.

        Args:
            numbers: Lines of the result, counted from the bands' first, [K].

        Returns:
            [K].
        """
        return self.starts[numbers + self.bands[0].first] - self.bands[0].source_first


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


def covering_filter(count: int, size: int, first: int, end: int) -> LanczosFilter:
    """Return the filter with the bands that contain the result's lines ``first`` to ``end``."""
    whole = _make_filter(count, size)
    step = whole.bands[0].end
    return whole._replace(bands=whole.bands[first // step : -(-end // step)])


@lru_cache(maxsize=_CACHED_FILTERS)
def _make_filter(count: int, size: int) -> LanczosFilter:
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
    fixed = np.trunc(weights * (1 << PRECISION_BITS) + np.copysign(0.5, weights))
    # A product with a weight of 0 adds no error to a sum of float32 (Higham, "Accuracy and
    # Stability of Numerical Algorithms", section 3.1). Two more roundings are those of the halves.
    largest_sum = 255 * np.abs(fixed).sum(axis=1).max() / (1 << PRECISION_BITS)
    error = (fixed.shape[1] + 2) * _UNIT_ROUNDOFF * float(largest_sum)
    step = _REDUCED_BAND_LINES if size < count else _ENLARGED_BAND_LINES
    bands = tuple(
        _make_band(fixed, starts, ends, slice(first, min(first + step, size)))
        for first in range(0, size, step)
    )
    return LanczosFilter(bands, starts, fixed, error)


def _make_band(
    coefficients: npt.NDArray[np.float64],
    starts: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
    lines: slice,
) -> Band:
    """Return the band of some lines of the result, with weights as a dense matrix."""
    first, end = lines.start, lines.stop
    source_first, source_end = int(starts[first]), int(ends[end - 1])
    weights = np.zeros((end - first, source_end - source_first), np.float32)
    for number in range(first, end):
        taps = int(ends[number] - starts[number])
        at = int(starts[number]) - source_first
        # 22 binary places and a sign fit into a float32 without an error.
        weights[number - first, at : at + taps] = coefficients[number, :taps] / (
            1 << PRECISION_BITS
        )
    return Band(first, end, source_first, source_end, weights)
