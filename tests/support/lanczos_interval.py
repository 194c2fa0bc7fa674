"""The values that an 8-bit Lanczos resize may have, whatever its arithmetic rounds.

Pillow resizes in two passes and rounds each to 8 bits (``src/libImaging/Resample.c``). The value
of a pass is a weighted sum of up to N pixels. Two correct implementations can only disagree about
it if the exact sum is so close to half a level that their own errors decide how it is rounded.
Those errors have a bound, and so the value has an interval:

- Pillow rounds each weight to ``PRECISION_BITS`` = 22 binary places. The error of a weight is at
  most 2**-23, and that of a sum at most 255 * N * 2**-23.
- A sum of N products in float32 differs from the exact one by at most N * 2**-24 times the sum of
  the products' absolute values, in any order of the additions (Higham, "Accuracy and Stability of
  Numerical Algorithms", section 3.1). Three more roundings cover those of the weights, that of the
  added half, and the terms of second order.

The second pass adds up values that have intervals themselves. Nothing here depends on chance: a
value outside its interval is wrong. On noise, about 1 value in 1,000 has an interval of two levels
and all others of one.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

_LOBES = 3
_PILLOW_PRECISION_BITS = 22
_FLOAT32_UNIT_ROUNDOFF = 2.0**-24
_MORE_FLOAT32_ROUNDINGS = 3


def lanczos_interval(pixels: Pixels, width: int, height: int) -> tuple[Pixels, Pixels]:
    """Return the lowest and the highest value that each pixel of a resized image may have.

    Args:
        pixels: Image, uint8 [H, W] or [H, W, C].
        width: Width of the result, in pixels.
        height: Height of the result, in pixels.

    Returns:
        Two arrays, uint8 [height, width] or [height, width, C].
    """
    interval = pixels, pixels
    if rows_come_first(pixels, width, height):
        return _resize_columns(_resize_rows(interval, height), width)
    return _resize_rows(_resize_columns(interval, width), height)


def rows_come_first(pixels: Pixels, width: int, height: int) -> bool:
    """Return whether Pillow 13 resizes along the rows before it does along the columns."""
    fewer_rows, fewer_columns = pixels.shape[0] - height, pixels.shape[1] - width
    return bool(fewer_rows > max(0, 2 * fewer_columns))


def lanczos_weights(count: int, size: int) -> Floats:
    """Return the weights, float64 [size, count], by which ``count`` pixels become ``size``."""
    scale = count / size
    reduction = max(scale, 1.0)
    centres = (np.arange(size)[:, None] + 0.5) * scale
    positions = np.arange(count)[None]
    starts = np.maximum(centres - _LOBES * reduction + 0.5, 0).astype(int)
    ends = np.minimum(centres + _LOBES * reduction + 0.5, count).astype(int)
    distances = (positions - centres + 0.5) / reduction
    values = np.sinc(distances) * np.sinc(distances / _LOBES)
    values[(positions < starts) | (positions >= ends) | (np.abs(distances) >= _LOBES)] = 0
    return np.asarray(values / values.sum(axis=1, keepdims=True))


def _resize_columns(interval: tuple[Pixels, Pixels], width: int) -> tuple[Pixels, Pixels]:
    lowest, highest = (np.moveaxis(bound, 1, 0) for bound in interval)
    lowest, highest = _resize_rows((lowest, highest), width)
    return np.moveaxis(lowest, 0, 1), np.moveaxis(highest, 0, 1)


def _resize_rows(interval: tuple[Pixels, Pixels], height: int) -> tuple[Pixels, Pixels]:
    lowest, highest = (bound.astype(np.float64) for bound in interval)
    weights = lanczos_weights(len(lowest), height)
    errors = _largest_errors(weights).reshape(-1, *[1] * (lowest.ndim - 1))
    sums = np.tensordot(weights, (highest + lowest) / 2, 1)
    spread = np.tensordot(np.abs(weights), (highest - lowest) / 2, 1) + errors
    return _round_half_up(sums - spread), _round_half_up(sums + spread)


def _largest_errors(weights: Floats) -> Floats:
    """Return the most by which a computed sum differs from the exact one, in levels, [size]."""
    taps = np.count_nonzero(weights, axis=1)
    fixed_point = taps * 2.0 ** -(_PILLOW_PRECISION_BITS + 1)
    roundings = taps + _MORE_FLOAT32_ROUNDINGS
    float32 = roundings * _FLOAT32_UNIT_ROUNDOFF * np.abs(weights).sum(axis=1)
    return np.asarray(255 * np.maximum(fixed_point, float32))


def _round_half_up(sums: Floats) -> Pixels:
    return np.clip(np.floor(sums + 0.5), 0, 255).astype(np.uint8)
