"""Samples of 16 bits in sRGB: the conversion comes before the reduction to 8 bits.

In linear light a step of 8 bits is up to 13 levels of sRGB. Pillow's LittleCMS converts colours of
8 bits only, so curves and matrices are applied here. Source: ICC.1:2022, clauses 8.3, 9.2 and
10.6, 10.18, 10.31, and annex F.
"""

from __future__ import annotations

import struct
from typing import NamedTuple, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt

from serve_app.imaging.icc import SRGB_CURVE, SRGB_TO_D50, Matrix
from serve_app.imaging.pixels import Pixels
from serve_app.imaging.strips import strips

WidePixels: TypeAlias = npt.NDArray[np.uint16]
"""Values of 0 to 65535, [H, W] for grey or [H, W, 3] for RGB."""
_Table: TypeAlias = npt.NDArray[np.float32]

_HIGHEST = 65_535
_TAG_COUNT_AT, _TAG_BYTES, _MAX_TAGS = 128, 12, 100
_SPACE, _CONNECTION = slice(16, 20), slice(20, 24)
_PARAMETERS = (1, 3, 4, 5, 7)
"""Number of parameters of each function of ``parametricCurveType``."""


class Shaper(NamedTuple):
    """A profile of curves and primaries."""

    curves: tuple[_Table, ...]
    """Linear light, 0 to 1, of each value of red, green and blue, or of grey."""
    to_srgb: Matrix
    """Matrix from linear light to linear sRGB, [3, channels]."""

    def convert(self, values: WidePixels) -> Pixels:
        """Return samples of 16 bits in sRGB, uint8 [H, W, 3].

        Args:
            values: Samples of grey, or of RGB if the profile is of RGB. The grey axis of an RGB
                profile counts for grey.
        """
        height, width = values.shape[:2]
        result = np.empty((height, width, 3), np.uint8)
        if values.ndim == 2:
            grey: _Table = np.stack(self.curves, axis=-1) @ self.to_srgb.T.astype(np.float32)
            table = _SRGB_OF_LIGHT[_light_index(grey)]
        # In strips, since NumPy makes an index of 8 bytes of each value.
        for rows in strips(0, height, width):
            if values.ndim == 2:
                result[rows] = table[values[rows]]
                continue
            light = np.stack([self.curves[n][values[rows, :, n]] for n in range(3)], axis=-1)
            light = np.asarray(cv2.transform(light, self.to_srgb), np.float32)
            result[rows] = _SRGB_OF_LIGHT[_light_index(light)]
        return result


def _light_index(light: _Table) -> WidePixels:
    index: WidePixels = (np.clip(light, 0, 1) * _HIGHEST + 0.5).astype(np.uint16)
    return index


def _srgb_of_light() -> Pixels:
    """Return the sRGB of each value of linear light, uint8 [65536] (IEC 61966-2-1)."""
    power, slope, offset, linear, limit = SRGB_CURVE
    light = np.arange(_HIGHEST + 1) / _HIGHEST
    curved = (light ** (1 / power) - offset) / slope
    return np.round(255 * np.where(light <= limit * linear, light / linear, curved)).astype(
        np.uint8
    )


_SRGB_OF_LIGHT = _srgb_of_light()


def read_shaper(profile: bytes) -> Shaper | None:
    """Return what a profile of curves and primaries does, or None if it is of another kind.

    Args:
        profile: ICC profile of any kind, which may be broken.
    """
    tags = _tags(profile)
    if profile[_CONNECTION] != b"XYZ " or any(tag.startswith(b"A2B") for tag in tags):
        return None
    if profile[_SPACE] == b"GRAY":
        curve = _curve(tags.get(b"kTRC", b""))
        return None if curve is None else Shaper((curve,), np.ones((3, 1)))
    if profile[_SPACE] != b"RGB ":
        return None
    curves = [_curve(tags.get(letter + b"TRC", b"")) for letter in (b"r", b"g", b"b")]
    colours = [tags.get(letter + b"XYZ", b"") for letter in (b"r", b"g", b"b")]
    if any(curve is None for curve in curves) or any(len(colour) < 20 for colour in colours):
        return None
    matrix = np.array([struct.unpack_from(">3i", colour, 8) for colour in colours]).T / 65536
    return Shaper(
        tuple(curve for curve in curves if curve is not None),
        np.linalg.inv(SRGB_TO_D50) @ matrix,
    )


def _tags(profile: bytes) -> dict[bytes, bytes]:
    count = int.from_bytes(profile[_TAG_COUNT_AT : _TAG_COUNT_AT + 4], "big")
    first = _TAG_COUNT_AT + 4
    table = profile[first : first + _TAG_BYTES * min(count, _MAX_TAGS)]
    found: dict[bytes, bytes] = {}
    for name, start, size in struct.iter_unpack(">4sII", table[: len(table) // 12 * 12]):
        found.setdefault(name, profile[start : start + size])
    return found


def _curve(content: bytes) -> _Table | None:
    """Return the linear light of each value of 16 bits, or None if the curve cannot be read."""
    values = np.arange(_HIGHEST + 1) / _HIGHEST
    if content[:4] == b"curv" and len(content) >= 12:
        count = int.from_bytes(content[8:12], "big")
        if len(content) < 12 + 2 * count:
            return None
        points = np.frombuffer(content, ">u2", count, 12)
        if count == 1:
            values = values ** (points[0] / 256)
        elif count:
            values = np.interp(values, np.linspace(0, 1, count), points / _HIGHEST)
    elif content[:4] == b"para" and len(content) >= 12:
        function = int.from_bytes(content[8:10], "big")
        if function >= len(_PARAMETERS) or len(content) < 12 + 4 * _PARAMETERS[function]:
            return None
        numbers = struct.unpack_from(f">{_PARAMETERS[function]}i", content, 12)
        values = _parametric(values, function, [number / 65536 for number in numbers])
    else:
        return None
    return np.clip(np.nan_to_num(values), 0, 1).astype(np.float32)


def _parametric(
    x: npt.NDArray[np.float64], function: int, numbers: list[float]
) -> npt.NDArray[np.float64]:
    """Return a parametric curve (ICC.1:2022, table 68)."""
    g, *others = numbers
    if function == 0:
        others = [1, 0, 0, -1, 0, 0]
    elif function in {1, 2}:
        a, b, *shift = others
        others = [a, b, 0, -b / a if a else 0, *(shift or [0]), *(shift or [0])]
    elif function == 3:
        others = [*others, 0, 0]
    a, b, c, d, e, f = others
    with np.errstate(all="ignore"):
        curved = np.maximum(a * x + b, 0) ** g + e
    return np.where(x >= d, curved, c * x + f)
