"""Lanczos, fast: lines of a picture as banded matrix products.

Each line of the result is a weighted sum of few neighbouring lines of the picture. Some lines of
the result together are one small dense product, which BLAS computes with the processor's vector
units; Pillow's loops do not use them, and took the largest part of an imaging thread's time
(docs/performance.md has the numbers). The result is Pillow's: the same filter, the same order of
the two passes, the same rounding in between. Sums are of float32 where Pillow has fixed point, so
that about one value in 10,000 differs, by one level.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

_SUPPORT = 3
"""Lobes of the filter on each side: pixels of the result, or of a picture that is enlarged."""

_LINES = 16
"""Of the result that are computed together: with more, the bands hold more zeros; with fewer, the
products are too small for BLAS."""
_VALUES = 576
"""Of each line that are worked on at a time, so that they stay in the processor's cache."""

Pixels = npt.NDArray[np.uint8]


class _Band(NamedTuple):
    """What some lines of the result are made of."""

    first: int
    """Line of the result."""
    end: int
    source_first: int
    """Line of the picture."""
    source_end: int
    weights: npt.NDArray[np.float32]
    """[end - first, source_end - source_first]."""


def resize(
    pixels: Pixels,
    width: int,
    height: int,
    *,
    columns: tuple[int, int] | None = None,
    rows: tuple[int, int] | None = None,
) -> Pixels:
    """Return a picture, or a part of it, at another size.

    Args:
        pixels: uint8 [H, W] or [H, W, C], each side at least 1.
        width: Of the whole result, in pixels.
        height: Of the whole result, in pixels.
        columns: First and end of those that are wanted; None for all.
        rows: First and end of those that are wanted; None for all.

    Returns:
        uint8, of the wanted rows and columns.
    """
    old_height, old_width = pixels.shape[:2]
    first_x, end_x = columns or (0, width)
    first_y, end_y = rows or (0, height)
    across = _covering(old_width, width, first_x, end_x)
    down = _covering(old_height, height, first_y, end_y)
    used = pixels[_sources(down), _sources(across)]
    # Pillow 13's rule. Where it rounds in between depends on it.
    if old_height > height and old_height - height > 2 * (old_width - width):
        resized = _columns(_rows(used, down), across)
    else:
        resized = _rows(_columns(used, across), down)
    left, top = first_x - across[0].first, first_y - down[0].first
    return resized[top : top + end_y - first_y, left : left + end_x - first_x]


def affected_lines(first: int, end: int, count: int, size: int) -> tuple[int, int]:
    """Return the first and the end of the lines that some of a picture's lines have a part in.

    Args:
        first: Of these lines of the picture.
        end: Of these lines of the picture.
        count: Of all lines of the picture.
        size: Lines of the result.
    """
    scale = count / size
    support = _SUPPORT * max(scale, 1)
    return (
        max(0, math.floor((first - support) / scale)),
        min(size, math.ceil((end + support) / scale)),
    )


def _columns(pixels: Pixels, bands: tuple[_Band, ...]) -> Pixels:
    """Return other columns of those that the bands are made of, [H, W] or [H, W, C]."""
    height, channels = pixels.shape[0], pixels.shape[2:]
    resized = np.empty((height, _count(bands), *channels), np.uint8)
    step = _VALUES // int(np.prod(channels))
    for top in range(0, height, step):
        turned = cv2.transpose(pixels[top : top + step])
        resized[top : top + step] = cv2.transpose(_summed(turned, bands))
    return resized


def _rows(pixels: Pixels, bands: tuple[_Band, ...]) -> Pixels:
    """Return other rows of those that the bands are made of, [H, W] or [H, W, C]."""
    width, channels = pixels.shape[1], pixels.shape[2:]
    resized = np.empty((_count(bands), width, *channels), np.uint8)
    step = _VALUES // int(np.prod(channels))
    for left in range(0, width, step):
        resized[:, left : left + step] = _summed(pixels[:, left : left + step], bands)
    return resized


def _summed(lines: Any, bands: tuple[_Band, ...]) -> Pixels:
    """Return uint8 [N, ...] of the lines that the bands are made of, uint8 [M, ...]."""
    shape = lines.shape[1:]
    tallest = max(band.source_end - band.source_first for band in bands)
    values = np.empty((tallest, *shape), np.float32)
    sums = np.empty((_count(bands), *shape), np.float32)
    flat_values, flat_sums = values.reshape(tallest, -1), sums.reshape(len(sums), -1)
    offset, source_offset = bands[0].first, bands[0].source_first
    for first, end, source_first, source_end, weights in bands:
        count = source_end - source_first
        values[:count] = lines[source_first - source_offset : source_end - source_offset]
        np.dot(weights, flat_values[:count], out=flat_sums[first - offset : end - offset])
    # Rounded as Pillow does, halves up: the conversion cuts off.
    np.add(sums, 0.5, out=sums)
    np.clip(sums, 0, 255, out=sums)
    return sums.astype(np.uint8)


def _sources(bands: tuple[_Band, ...]) -> slice:
    """Return the lines of the picture that bands are made of."""
    return slice(bands[0].source_first, bands[-1].source_end)


def _count(bands: tuple[_Band, ...]) -> int:
    return bands[-1].end - bands[0].first


def _covering(count: int, size: int, first: int, end: int) -> tuple[_Band, ...]:
    """Return the bands that hold the lines from ``first`` to ``end``, and a few beside them."""
    return _bands(count, size)[first // _LINES : -(-end // _LINES)]


@lru_cache(maxsize=256)
def _bands(count: int, size: int) -> tuple[_Band, ...]:
    """Return the weights by which ``count`` lines become ``size`` lines.

    Lanczos with three lobes, sinc(x) sinc(x / 3), over the reach that Pillow gives it: wider by
    the factor of a reduction, cut at the edges, and scaled to a sum of 1.
    """
    scale = count / size
    reduction = max(scale, 1.0)
    centres = (np.arange(size) + 0.5) * scale
    starts = np.maximum(centres - _SUPPORT * reduction + 0.5, 0).astype(int)
    ends = np.minimum(centres + _SUPPORT * reduction + 0.5, count).astype(int)
    bands = []
    for first in range(0, size, _LINES):
        end = min(first + _LINES, size)
        source_first, source_end = int(starts[first]), int(ends[end - 1])
        lines = np.arange(source_first, source_end)
        distances = (lines - centres[first:end, None] + 0.5) / reduction
        weights = np.sinc(distances) * np.sinc(distances / _SUPPORT)
        inside = (lines >= starts[first:end, None]) & (lines < ends[first:end, None])
        weights[~(inside & (np.abs(distances) < _SUPPORT))] = 0
        weights /= weights.sum(axis=1, keepdims=True)
        bands.append(_Band(first, end, source_first, source_end, weights.astype(np.float32)))
    return tuple(bands)
