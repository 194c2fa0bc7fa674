"""PNG: the transparent value of every mode and depth."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from serve_app.config import ImageLimits
from serve_app.imaging.decode import decode_image
from tests.support.image_files import png_chunk, png_file


def grey_rows(depth: int) -> tuple[list[bytes], np.ndarray]:
    """Return rows with every level of a depth, and the levels, [rows, 8]."""
    levels = np.arange(max(2**depth, 8)) % 2**depth if depth < 16 else np.arange(0, 65536, 257)
    levels = levels.reshape(-1, 8)
    if depth == 16:
        return [row.astype(">u2").tobytes() for row in levels], levels
    bits = (levels[..., None] >> np.arange(depth - 1, -1, -1)) & 1
    return [np.packbits(row.ravel()).tobytes() for row in bits], levels


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_the_transparent_grey(depth: int) -> None:
    rows, levels = grey_rows(depth)
    wanted = 1 if depth < 16 else 257
    # Bits above the depth do not count (PNG, third edition, 11.3.2.1).
    stored = wanted | (0xF000 if depth < 16 else 0)
    data = png_file(rows, 8, depth, 0, png_chunk(b"tRNS", struct.pack(">H", stored)))
    image = decode_image(data, ImageLimits())
    assert image.alpha is not None
    assert np.array_equal(image.alpha == 0, levels == wanted)
    highest = 2**depth - 1
    assert np.abs(image.rgb[..., 0].astype(float) - levels * 255 / highest).max() <= 1


@pytest.mark.parametrize(("depth", "dtype"), [(8, "u1"), (16, ">u2")])
def test_the_transparent_colour(depth: int, dtype: str) -> None:
    values = np.full((4, 4, 3), 0x34, dtype)
    # Of 16 bits both bytes count: this one differs in the low byte only.
    values[0, 0] = 0x35
    values[1, 1, 2] = 0x36
    transparent = png_chunk(b"tRNS", struct.pack(">HHH", 0x34, 0x34, 0x34))
    rows = [row.tobytes() for row in values]
    image = decode_image(png_file(rows, 4, depth, 2, transparent), ImageLimits())
    assert image.alpha is not None
    assert np.array_equal(image.alpha == 255, (values != 0x34).any(axis=2))


def test_the_transparency_of_a_palette() -> None:
    palette = png_chunk(b"PLTE", bytes([255, 0, 0, 0, 255, 0, 0, 0, 255]))
    rows = [bytes([0, 1, 2, 0])]
    for alphas in (b"\0\x80", b"\xff\0", b"\0\x80\xff\x10\x20"):
        image = decode_image(
            png_file(rows, 4, 8, 3, palette + png_chunk(b"tRNS", alphas)), ImageLimits()
        )
        assert image.alpha is not None
        padded = (alphas + b"\xff" * 3)[:3]
        assert image.alpha[0].tolist() == [padded[index] for index in rows[0]]
    assert decode_image(png_file(rows, 4, 8, 3, palette), ImageLimits()).alpha is None
