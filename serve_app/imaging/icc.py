"""ICC profiles that are built here: the one of results, and those that numbers describe.

Source: ICC.1:2022 (profile version 4.4), with the Bradford adaptation of its annex E.
"""

from __future__ import annotations

import struct
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Matrix: TypeAlias = npt.NDArray[np.float64]
Chromaticities: TypeAlias = tuple[float, ...]
"""x and y of white, red, green and blue."""

SRGB_CHROMATICITIES: Chromaticities = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
"""White and primaries of sRGB (IEC 61966-2-1) and ITU-R BT.709."""
SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
"""Curve of sRGB (IEC 61966-2-1): ((x + 0.055) / 1.055) ** 2.4 from 0.04045, x / 12.92 below."""

_D50 = np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)
_HEADER_BYTES = 128


def build_profile(
    name: str, chromaticities: Chromaticities, curve: tuple[float, ...]
) -> bytes | None:
    """Return an ICC profile of a display with three primaries, about 480 bytes.

    Args:
        name: Description of the profile.
        chromaticities: x and y of white, red, green and blue.
        curve: Parameters of ``parametricCurveType``: one of function 0, a gamma, or the five of
            function 3.

    Returns:
        The profile, or None if no light mixes to that white.
    """
    colours = _primaries(chromaticities)
    if colours is None:
        return None
    matrix, adaptation = colours
    function = {1: 0, 5: 3}[len(curve)]
    curve_tag = b"para\0\0\0\0" + struct.pack(">HH", function, 0) + b"".join(map(_fixed, curve))
    tags = [
        (b"desc", _text(name)),
        (b"cprt", _text("CC0")),
        (b"wtpt", _numbers(b"XYZ ", _D50)),
        (b"chad", _numbers(b"sf32", adaptation.ravel())),
        *((letter + b"XYZ", _numbers(b"XYZ ", matrix[:, n])) for n, letter in _channels()),
        *((letter + b"TRC", curve_tag) for _, letter in _channels()),
    ]
    table, body, places = b"", b"", dict[bytes, int]()
    start = _HEADER_BYTES + 4 + 12 * len(tags)
    for tag, content in tags:
        # The three curves are one element.
        if content not in places:
            places[content] = start + len(body)
            body += content + bytes(-len(content) % 4)
        table += tag + struct.pack(">II", places[content], len(content))
    return _header(start + len(body)) + struct.pack(">I", len(tags)) + table + body


def _channels() -> list[tuple[int, bytes]]:
    return list(enumerate((b"r", b"g", b"b")))


def _primaries(chromaticities: Chromaticities) -> tuple[Matrix, Matrix] | None:
    """Return the matrix from linear light to XYZ under D50, and the adaptation to D50."""
    pairs = np.array(chromaticities, np.float64).reshape(4, 2)
    if (pairs[:, 1] <= 0).any() or (pairs > 4).any():
        return None
    xyz = np.stack([pairs[:, 0], pairs[:, 1], 1 - pairs.sum(axis=1)]) / pairs[:, 1]
    white, corners = xyz[:, 0], xyz[:, 1:]
    if abs(np.linalg.det(corners)) < 1e-6 or (white < 0).any():
        return None
    mixed = corners * np.linalg.solve(corners, white)
    scale = np.diag((_BRADFORD @ _D50) / (_BRADFORD @ white))
    adaptation = np.linalg.inv(_BRADFORD) @ scale @ _BRADFORD
    matrix = adaptation @ mixed
    return None if np.abs(matrix).max() > 4 else (matrix, adaptation)


def _header(size: int) -> bytes:
    header = struct.pack(">I4sI4s4s4s", size, bytes(4), 0x04400000, b"mntr", b"RGB ", b"XYZ ")
    header += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    header += b"".join(map(_fixed, _D50))
    return header + bytes(_HEADER_BYTES - len(header))


def _fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def _numbers(kind: bytes, values: Matrix) -> bytes:
    return kind + bytes(4) + b"".join(_fixed(float(value)) for value in values)


def _text(text: str) -> bytes:
    content = text.encode("utf-16-be")
    return b"mluc\0\0\0\0" + struct.pack(">II4sII", 1, 12, b"enUS", len(content), 28) + content


def _srgb_to_d50() -> Matrix:
    colours = _primaries(SRGB_CHROMATICITIES)
    assert colours is not None
    return colours[0]


SRGB_TO_D50 = _srgb_to_d50()
"""Matrix from linear sRGB to XYZ under D50, [3, 3]."""
SRGB_PROFILE = build_profile("sRGB", SRGB_CHROMATICITIES, SRGB_CURVE) or b""
"""Profile of sRGB for results: 480 bytes, built here, free of rights (CC0)."""
