"""Samples of 16 bits become sRGB before they lose half of their bits."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from serve_app.config import ImageLimits
from serve_app.imaging.decode import decode_image
from serve_app.imaging.icc import SRGB_CHROMATICITIES, SRGB_CURVE, Chromaticities, build_profile
from serve_app.imaging.wide import read_shaper
from tests.support.image_files import Tags, pixel_tags, png_chunk, png_file, samples, tiff_file

LIMITS = ImageLimits()
WIDTH, HEIGHT = 256, 64
RAMP = np.arange(0, 65536, 4, dtype=np.uint16).reshape(HEIGHT, WIDTH)
COLOURS = np.stack([RAMP, RAMP[::-1], RAMP.T.reshape(HEIGHT, WIDTH)], axis=-1)
P3: Chromaticities = (0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)

MAX_DIFFERENCE = 0.7
"""Half a level of rounding, and what the numbers of 32 bits in a profile are off."""


def to_srgb(light: np.ndarray) -> np.ndarray:
    """Return linear light, 0 to 1, as sRGB of 0 to 255 (IEC 61966-2-1)."""
    light = np.clip(light, 0, 1)
    curved = 1.055 * light ** (1 / 2.4) - 0.055
    return 255 * np.where(light <= 0.0031308, 12.92 * light, curved)


def profile(*curve: float, where: Chromaticities = SRGB_CHROMATICITIES) -> bytes:
    built = build_profile("a display", where, curve)
    assert built is not None
    return built


LINEAR = profile(1.0)


def png(values: np.ndarray, icc: bytes = LINEAR, more: bytes = b"") -> bytes:
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[values.size // (WIDTH * HEIGHT)]
    chunk = png_chunk(b"iCCP", b"p\0\0" + zlib.compress(icc)) if icc else b""
    return png_file([row.astype(">u2").tobytes() for row in values], WIDTH, 16, kind, chunk + more)


def tiff(values: np.ndarray, photometric: int, order: str = "<", **more: int) -> bytes:
    channels = values.size // (WIDTH * HEIGHT)
    tags: Tags = pixel_tags(WIDTH, HEIGHT, 16, channels, photometric, **more)
    tags |= {34675: (7, list(LINEAR))}
    return tiff_file(tags, [samples(values, "u2", order)], order)


def worst(data: bytes, expected: np.ndarray) -> float:
    expected = expected if expected.ndim == 3 else np.dstack([expected] * 3)
    return float(np.abs(decode_image(data, LIMITS).rgb - expected).max())


def test_linear_light_keeps_its_shadows() -> None:
    grey, colours = to_srgb(RAMP / 65535), to_srgb(COLOURS / 65535)
    opaque = np.full((HEIGHT, WIDTH, 1), 65535, np.uint16)
    files = [
        (png(RAMP), grey),
        (png(np.dstack([RAMP, opaque])), grey),
        (png(COLOURS), colours),
        (png(np.dstack([COLOURS, opaque])), colours),
        (tiff(COLOURS, 2), colours),
        (tiff(COLOURS, 2, ">"), colours),
        (tiff(np.dstack([COLOURS, opaque]), 2, t338=2), colours),
        (tiff(RAMP, 1), grey),
        (tiff(65535 - RAMP, 0), grey),
        (tiff(RAMP >> 4, 1, t281=4095), to_srgb((RAMP >> 4) / 4095)),
    ]
    for number, (data, expected) in enumerate(files):
        assert worst(data, expected) <= MAX_DIFFERENCE, number


def test_numbers_and_gamma_of_a_png_count_with_16_bits() -> None:
    expected = to_srgb(COLOURS / 65535)
    for chunk in (
        png_chunk(b"cICP", bytes([1, 8, 0, 1])),
        png_chunk(b"gAMA", struct.pack(">I", 100_000)),
    ):
        assert worst(png(COLOURS, b"", chunk), expected) <= MAX_DIFFERENCE


def test_without_a_profile_the_high_byte_counts() -> None:
    assert np.array_equal(decode_image(png(COLOURS, b""), LIMITS).rgb, COLOURS >> 8)
    srgb = profile(*SRGB_CURVE)
    assert np.array_equal(decode_image(png(COLOURS, srgb), LIMITS).rgb, COLOURS >> 8)


def table(gamma: float, count: int) -> bytes:
    """Return a curve of points (ICC.1:2022, 10.6)."""
    points = np.round(65535 * np.linspace(0, 1, count) ** gamma).astype(">u2")
    return b"curv\0\0\0\0" + struct.pack(">I", count) + points.tobytes()


def parametric(function: int, *numbers: float) -> bytes:
    fixed = (round(number * 65536) for number in numbers)
    return b"para\0\0\0\0" + struct.pack(f">HH{len(numbers)}i", function, 0, *fixed)


CURVES = {
    "identity": b"curv\0\0\0\0\0\0\0\0",
    "gamma": b"curv\0\0\0\0\0\0\0\1" + struct.pack(">H", round(1.8 * 256)),
    "table": table(1.8, 1024),
    "para-0": parametric(0, 1.8),
    "para-1": parametric(1, 2.0, 1.1, -0.1),
    "para-2": parametric(2, 2.0, 1.1, -0.1, 0.0),
    "para-3": parametric(3, *SRGB_CURVE),
    "para-4": parametric(4, 2.2, 0.9, 0.1, 0.5, 0.05, 0.0, 0.0),
}


def with_curve(curve: bytes, where: Chromaticities = P3) -> bytes:
    """Return a profile of a display whose three curves are replaced."""
    icc = profile(1.0, where=where)
    tags = int.from_bytes(icc[128:132], "big")
    place = len(icc) + -len(icc) % 4
    changed = bytearray(icc) + bytes(-len(icc) % 4) + curve
    for at in range(132, 132 + 12 * tags, 12):
        if icc[at + 1 : at + 4] == b"TRC":
            changed[at + 4 : at + 12] = struct.pack(">II", place, len(curve))
    changed[:4] = struct.pack(">I", len(changed))
    return bytes(changed)


@pytest.mark.parametrize("name", CURVES)
def test_every_curve_does_what_littlecms_does(name: str) -> None:
    icc = with_curve(CURVES[name])
    opened = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    narrow = (COLOURS >> 8).astype(np.uint8)
    transform = ImageCms.buildTransform(
        opened, ImageCms.createProfile("sRGB"), "RGB", "RGB", flags=ImageCms.Flags.NOOPTIMIZE
    )
    expected = np.asarray(ImageCms.applyTransform(Image.fromarray(narrow), transform))
    shaper = read_shaper(icc)
    assert shaper is not None
    found = shaper.convert(narrow.astype(np.uint16) * 257)
    assert np.abs(found.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("cut", range(0, 480, 37))
def test_a_broken_profile_is_no_error(cut: int) -> None:
    for curve in CURVES.values():
        shaper = read_shaper(with_curve(curve)[:cut])
        assert shaper is None or shaper.convert(COLOURS[:1]).shape == (1, WIDTH, 3)


def test_profiles_of_another_kind_are_left_to_littlecms() -> None:
    lab = bytearray(LINEAR)
    lab[20:24] = b"Lab "
    assert read_shaper(bytes(lab)) is None
    cmyk = bytearray(LINEAR)
    cmyk[16:20] = b"CMYK"
    assert read_shaper(bytes(cmyk)) is None
    lookup = LINEAR.replace(b"cprt", b"A2B0")
    assert read_shaper(lookup) is None
