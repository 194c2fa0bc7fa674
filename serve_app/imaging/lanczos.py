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

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import numpy.typing as npt

from serve_app.imaging.lanczos_filter import PRECISION_BITS, Band, LanczosFilter, covering_filter
from serve_app.imaging.pixels import Pixels

_CONVERTED_VALUES = 120_000
"""Values of an image that are float32 together, so that they stay in the processor's cache."""
_SUMMED_VALUES = 196_000
"""Sums that are rounded together, so that they stay in the processor's cache."""

_EXACT_VALUES = 250_000
"""Values of sums that are taken again together, each of which needs 25 bytes."""


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
    across = covering_filter(old_width, width, first_x, end_x)
    down = covering_filter(old_height, height, first_y, end_y)
    used = pixels[down.source_lines, across.source_lines]
    # Pillow 13 makes its passes in this order, on which the rounding between them depends.
    if old_height > height and old_height - height > 2 * (old_width - width):
        resized = _resize_columns(_resize_rows(used, down), across)
    else:
        resized = _resize_rows(_resize_columns(used, across), down)
    left, top = first_x - across.bands[0].first, first_y - down.bands[0].first
    return resized[top : top + end_y - first_y, left : left + end_x - first_x]


def _resize_columns(pixels: Pixels, found: LanczosFilter) -> Pixels:
    """Return the filter's columns of the result from the image's, [H, W] or [H, W, C]."""
    pixels = np.ascontiguousarray(pixels)
    height, width, *_ = pixels.shape
    depth = pixels.size // (height * width)
    resized = np.empty((height, found.line_count, *pixels.shape[2:]), np.uint8)
    corrected, places = resized.reshape(-1), []
    for part in _parts(height, max(1, found.part_values // depth)):
        turned = np.asarray(cv2.transpose(pixels[part]), np.uint8)
        columns, numbers, values = _rounded_sums(turned, found)
        resized[part] = cv2.transpose(columns)
        places.append((numbers, values + part.start * depth))
    numbers, values = (np.concatenate(found) for found in zip(*places, strict=True))
    rows, channels = np.divmod(values, depth)
    firsts = (rows * width + found.first_lines(numbers)) * depth + channels
    exact = _exact_sums(pixels, firsts, depth, found, numbers)
    corrected[(rows * found.line_count + numbers) * depth + channels] = exact
    return resized


def _resize_rows(pixels: Pixels, found: LanczosFilter) -> Pixels:
    """Return the filter's rows of the result from the image's, [H, W] or [H, W, C]."""
    pixels = np.ascontiguousarray(pixels)
    width = pixels.size // len(pixels)
    resized, numbers, values = _rounded_sums(pixels, found)
    firsts = found.first_lines(numbers) * width + values
    exact = _exact_sums(pixels, firsts, width, found, numbers)
    resized.reshape(-1)[numbers * width + values] = exact
    return resized


def _rounded_sums(
    lines: Pixels, found: LanczosFilter
) -> tuple[Pixels, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the weighted sums of lines, and those that may be rounded the wrong way.

    Args:
        lines: Lines of the image on which the filter has weights, uint8 [M, ...].
        found: Filter.

    Returns:
        uint8 [N, ...]. Of each doubtful sum, its line [K] and its place in that [K].
    """
    rounded = np.empty((found.line_count, *lines.shape[1:]), np.uint8)
    flat, result = lines.reshape(len(lines), -1), rounded.reshape(len(rounded), -1)
    parts = _parts(flat.shape[1], found.part_values)
    blocks = _blocks(found.bands, parts[0].stop)
    doubtful = []
    for part in parts:
        for first, runs in blocks:
            sums = _float_sums(flat[:, part], found.bands[0].source_first, runs)
            # Sums below 0 become 0 here, since the rounding takes the amount of a value.
            cv2.threshold(sums, 0, 0, cv2.THRESH_TOZERO, sums)
            lowest, highest = (
                np.asarray(cv2.convertScaleAbs(sums, beta=error), np.uint8)
                for error in (-found.largest_error, found.largest_error)
            )
            result[first : first + len(sums), part] = lowest
            numbers, values = np.divmod(_differing(lowest, highest), sums.shape[1])
            doubtful.append((numbers + first, values + part.start))
    numbers, values = (np.concatenate(found) for found in zip(*doubtful, strict=True))
    return rounded, numbers, values


def _float_sums(
    lines: Pixels, source_first: int, runs: Sequence[Sequence[Band]]
) -> npt.NDArray[np.float32]:
    """Return the weighted sums of lines, uint8 [M, V], as float32 [N, V].

    ``source_first`` is the number of the first line in the image. The lines of the bands of each
    run are converted together.
    """
    first = runs[0][0].first
    tallest = max(run[-1].source_end - run[0].source_first for run in runs)
    memory = np.empty((tallest, lines.shape[1]), np.float32)
    sums = np.empty((runs[-1][-1].end - first, lines.shape[1]), np.float32)
    for run in runs:
        start, end = run[0].source_first, run[-1].source_end
        values = memory[: end - start]
        values[:] = lines[start - source_first : end - source_first]
        for band in run:
            used = values[band.source_first - start : band.source_end - start]
            np.dot(band.weights, used, out=sums[band.first - first : band.end - first])
    return sums


def _blocks(bands: Sequence[Band], values: int) -> list[tuple[int, list[Sequence[Band]]]]:
    """Return the bands in blocks whose sums are rounded together, for lines of some values.

    Returns:
        Of each block, its first line among those of all bands, and its bands in runs whose lines
        of the image are converted together.
    """
    blocks = _runs(bands, lambda run: values * (run[-1].end - run[0].first) <= _SUMMED_VALUES)
    return [
        (
            block[0].first - bands[0].first,
            _runs(
                block,
                lambda run: (
                    values * (run[-1].source_end - run[0].source_first) <= _CONVERTED_VALUES
                ),
            ),
        )
        for block in blocks
    ]


def _runs(bands: Sequence[Band], fits: Callable[[Sequence[Band]], bool]) -> list[Sequence[Band]]:
    """Return the bands in runs of as many neighbours as fit, and of at least one."""
    runs, first = [], 0
    for end in range(1, len(bands) + 1):
        if end == len(bands) or not fits(bands[first : end + 1]):
            runs.append(bands[first:end])
            first = end
    return runs


def _parts(count: int, step: int) -> list[slice]:
    """Return parts of ``step`` values, and of less at the end, that cover ``count`` values."""
    return [slice(first, min(first + step, count)) for first in range(0, count, step)]


def _differing(left: Pixels, right: Pixels) -> npt.NDArray[np.int64]:
    """Return the places at which two arrays, uint8 of one shape, differ, which few values do."""
    differences = (left ^ right).reshape(-1)
    whole = len(differences) // 8 * 8
    # Eight equal values at a time are passed over faster than each of them.
    eights = np.flatnonzero(differences[:whole].view(np.uint64) != 0)
    places = np.flatnonzero(differences[:whole].reshape(-1, 8)[eights])
    found = eights[places // 8] * 8 + places % 8
    if whole < len(differences):
        found = np.append(found, np.flatnonzero(differences[whole:]) + whole)
    return found


def _exact_sums(
    pixels: Pixels,
    firsts: npt.NDArray[np.int64],
    step: int,
    found: LanczosFilter,
    numbers: npt.NDArray[np.int64],
) -> Pixels:
    """Return weighted sums in Pillow's fixed point.

    Args:
        pixels: Values of the image, uint8.
        firsts: Place of each sum's first value among all values, [K].
        step: Number of places from one value of a sum to the next.
        found: Filter.
        numbers: Line of the result of each sum, counted from the filter's first, [K].

    Returns:
        uint8 [K].
    """
    exact = np.empty(len(firsts), np.uint8)
    weights = found.coefficients
    offsets = np.arange(weights.shape[1]) * step
    for part in _parts(len(firsts), max(1, _EXACT_VALUES // len(offsets))):
        # The last places of a sum at the end of the image are outside, and have weights of 0.
        values = pixels.reshape(-1).take(firsts[part, None] + offsets, mode="clip")
        # Products of 31 bits have exact sums in float64.
        used = weights[numbers[part] + found.bands[0].first]
        sums = np.einsum("kt,kt->k", values.astype(np.float64), used)
        exact[part] = np.clip(np.floor(sums / (1 << PRECISION_BITS) + 0.5), 0, 255)
    return exact
