"""Colours: a profile counts by what it does, in every mode that can carry one."""

from __future__ import annotations

import io
import itertools
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from serve_app.config import ImageLimits
from serve_app.errors import UnsupportedFormat
from serve_app.imaging.decode import decode_image
from serve_app.imaging.icc import (
    SRGB_CHROMATICITIES,
    SRGB_CURVE,
    SRGB_PROFILE,
    Chromaticities,
    build_profile,
)
from tests.support.image_files import (
    pixel_tags,
    png_chunk,
    png_file,
    samples,
    tiff_file,
    with_chunk,
)
from tests.support.images import book, jpeg, saved

LIMITS = ImageLimits()
PIXELS = book(width=120, height=90).image
P3: Chromaticities = (0.3127, 0.329, 0.68, 0.32, 0.265, 0.69, 0.15, 0.06)
LINEAR_BYTES = np.arange(256) / 255
TO_SRGB = np.round(
    255
    * np.where(
        LINEAR_BYTES <= 0.0031308,
        12.92 * LINEAR_BYTES,
        1.055 * LINEAR_BYTES ** (1 / 2.4) - 0.055,
    )
).astype(np.uint8)
"""sRGB of each value in linear light (IEC 61966-2-1)."""


def profile(
    name: str = "a display", where: Chromaticities = SRGB_CHROMATICITIES, gamma: float | None = None
) -> bytes:
    built = build_profile(name, where, SRGB_CURVE if gamma is None else (gamma,))
    assert built is not None
    return built


def grey_profile() -> bytes:
    """Return a profile of grey in linear light (ICC.1:2022, monochrome input profile)."""
    curve = b"para\0\0\0\0" + struct.pack(">HHi", 0, 0, 65536)
    white = b"XYZ \0\0\0\0" + struct.pack(">iii", 63190, 65536, 54061)
    text = b"mluc\0\0\0\0" + struct.pack(">II4sII", 1, 12, b"enUS", 2, 28) + b"\0g\0\0"
    tags = [(b"desc", text), (b"cprt", text), (b"wtpt", white), (b"kTRC", curve)]
    table, body, start = b"", b"", 132 + 12 * len(tags)
    for tag, content in tags:
        table += tag + struct.pack(">II", start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    head = bytearray(profile()[:128])
    head[:4] = struct.pack(">I", start + len(body))
    head[16:20] = b"GRAY"
    return bytes(head) + struct.pack(">I", len(tags)) + table + body


def with_profile(image: Image.Image, file_format: str, icc: bytes) -> bytes:
    if file_format == "AVIF":
        return saved(image, "AVIF", icc_profile=icc, quality=100, subsampling="4:4:4")
    return saved(image, file_format, icc_profile=icc, lossless=True)


def difference(data: bytes, expected: np.ndarray) -> float:
    return float(np.abs(decode_image(data, LIMITS).rgb.astype(float) - expected).mean())


@pytest.mark.parametrize("name", ["sRGB", "GIMP built-in Linear sRGB", "sRGB but linear", "Camera"])
def test_a_name_does_not_decide(name: str) -> None:
    data = jpeg(PIXELS, icc_profile=profile(name, gamma=1.0))
    assert difference(data, TO_SRGB[np.asarray(Image.open(io.BytesIO(data)))]) < 0.7
    untouched = np.asarray(Image.open(io.BytesIO(jpeg(PIXELS))))
    assert difference(jpeg(PIXELS, icc_profile=profile(name)), untouched) == 0


def test_the_profiles_of_srgb_do_nothing() -> None:
    littlecms = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for icc in (SRGB_PROFILE, littlecms):
        assert difference(saved(Image.fromarray(PIXELS), "PNG", icc_profile=icc), PIXELS) == 0
    opened = ImageCms.ImageCmsProfile(io.BytesIO(SRGB_PROFILE))
    assert len(SRGB_PROFILE) == 480
    red = opened.profile.red_colorant
    assert red is not None
    assert np.allclose(red[0], (0.4361, 0.2225, 0.0139), atol=2e-4)


@pytest.mark.parametrize(
    ("file_format", "mode"),
    [
        *itertools.product(["PNG", "TIFF", "AVIF"], ["RGB", "RGBA", "P", "L", "LA"]),
        *itertools.product(["WEBP"], ["RGB", "RGBA"]),
    ],
)
def test_an_rgb_profile_counts_in_every_mode(file_format: str, mode: str) -> None:
    image = Image.fromarray(PIXELS)
    if mode.endswith("A"):
        image.putalpha(200)
    image = image.convert(mode)
    stored = np.asarray(image.convert("RGB"))
    data = with_profile(image, file_format, profile(gamma=1.0))
    assert difference(data, TO_SRGB[stored]) < (3 if file_format == "AVIF" else 0.01)


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_a_grey_profile_counts(mode: str) -> None:
    grey = Image.fromarray(PIXELS).convert("L")
    stored = np.asarray(grey)
    if mode == "LA":
        grey.putalpha(200)
    elif mode == "I;16":
        grey = Image.fromarray(stored.astype(np.uint16) << 8)
    data = saved(grey, "PNG", icc_profile=grey_profile())
    assert difference(data, np.dstack([TO_SRGB[stored]] * 3)) < 0.6


def test_a_profile_counts_with_16_bits() -> None:
    levels = np.arange(256)
    wide = [np.repeat(levels << 8, 3).astype(">u2").tobytes()]
    chunk = png_chunk(b"iCCP", b"p\0\0" + zlib.compress(profile(gamma=1.0)))
    png = png_file(wide, 256, 16, 2, chunk)
    strip = samples(np.repeat(levels << 8, 3), "u2")
    tags = pixel_tags(256, 1, 16, 3, 2) | {34675: (7, list(profile(gamma=1.0)))}
    for data in (png, tiff_file(tags, [strip])):
        assert difference(data, np.repeat(TO_SRGB, 3).reshape(1, 256, 3)) < 0.6


def test_a_profile_of_another_mode_is_ignored() -> None:
    rgb = saved(Image.fromarray(PIXELS), "PNG", icc_profile=grey_profile())
    assert difference(rgb, PIXELS) == 0
    cmyk = Image.fromarray(PIXELS).convert("CMYK")
    plain, labelled = saved(cmyk, "TIFF"), saved(cmyk, "TIFF", icc_profile=profile(gamma=1.0))
    assert difference(labelled, decode_image(plain, LIMITS).rgb.astype(float)) == 0


def linear_png(*chunks: bytes) -> bytes:
    data = saved(Image.fromarray(PIXELS), "PNG")
    for chunk in reversed(chunks):
        data = with_chunk(data, chunk)
    return data


GAMMA_1 = png_chunk(b"gAMA", struct.pack(">I", 100_000))
GAMMA_USUAL = png_chunk(b"gAMA", struct.pack(">I", 45_455))
PRIMARIES = png_chunk(
    b"cHRM", struct.pack(">8I", *(round(v * 100_000) for v in SRGB_CHROMATICITIES))
)
SRGB = png_chunk(b"sRGB", b"\0")
LINEAR = png_chunk(b"iCCP", b"p\0\0" + zlib.compress(profile(gamma=1.0)))
CICP_SRGB = png_chunk(b"cICP", bytes([1, 13, 0, 1]))
CICP_LINEAR = png_chunk(b"cICP", bytes([1, 8, 0, 1]))
CICP_P3 = png_chunk(b"cICP", bytes([12, 13, 0, 1]))


def test_colours_of_a_png_without_a_profile() -> None:
    assert difference(linear_png(GAMMA_1), TO_SRGB[PIXELS]) < 0.6
    for usual in (44_000, 47_000):
        assert difference(linear_png(png_chunk(b"gAMA", struct.pack(">I", usual))), PIXELS) == 0
    assert difference(linear_png(GAMMA_USUAL), PIXELS) == 0
    assert difference(linear_png(PRIMARIES), PIXELS) == 0
    assert difference(linear_png(GAMMA_1, PRIMARIES), TO_SRGB[PIXELS]) < 0.6
    assert difference(linear_png(CICP_LINEAR), TO_SRGB[PIXELS]) < 0.6
    wide = saved(Image.fromarray(PIXELS), "PNG", icc_profile=profile(where=P3))
    expected = decode_image(wide, LIMITS).rgb.astype(float)
    assert difference(linear_png(CICP_P3), expected) < 0.01
    assert np.abs(expected - PIXELS).mean() > 1


def test_which_chunk_comes_first() -> None:
    assert difference(linear_png(SRGB, GAMMA_1, PRIMARIES), PIXELS) == 0
    assert difference(linear_png(LINEAR, GAMMA_USUAL), TO_SRGB[PIXELS]) < 0.6
    assert difference(linear_png(CICP_SRGB, LINEAR, GAMMA_1), PIXELS) == 0
    # A number that is reserved says nothing.
    reserved = png_chunk(b"cICP", bytes([3, 13, 0, 1]))
    assert difference(linear_png(reserved, LINEAR), TO_SRGB[PIXELS]) < 0.6


@pytest.mark.parametrize("transfer", [16, 18])
def test_a_high_dynamic_range_is_refused_in_words(transfer: int) -> None:
    data = linear_png(png_chunk(b"cICP", bytes([9, transfer, 0, 1])))
    with pytest.raises(UnsupportedFormat, match="dynamic range"):
        decode_image(data, LIMITS)


def test_the_colours_by_number_of_an_avif() -> None:
    data = saved(Image.fromarray(PIXELS), "AVIF", quality=100, subsampling="4:4:4")
    place = data.index(b"colrnclx") + 8
    for numbers, expected in (((1, 13), PIXELS), ((1, 8), TO_SRGB[PIXELS])):
        changed = data[:place] + struct.pack(">HH", *numbers) + data[place + 4 :]
        assert difference(changed, expected) < 3
    # A profile says what the colours are.
    changed = with_profile(Image.fromarray(PIXELS), "AVIF", profile(gamma=1.0))
    assert difference(changed, TO_SRGB[PIXELS]) < 3
    with pytest.raises(UnsupportedFormat, match="dynamic range"):
        decode_image(data[:place] + struct.pack(">HH", 9, 16) + data[place + 4 :], LIMITS)


def test_the_profile_of_a_bmp() -> None:
    icc = profile(gamma=1.0)
    plain = saved(Image.fromarray(PIXELS), "BMP")
    header = bytearray(124)
    header[:40] = plain[14:54]
    header[:4] = struct.pack("<I", len(header))
    header[56:60] = b"DEBM"
    header[112:120] = struct.pack("<II", 124 + len(plain) - 54, len(icc))
    head = plain[:10] + struct.pack("<I", 14 + 124)
    assert difference(head + bytes(header) + plain[54:] + icc, TO_SRGB[PIXELS]) < 0.01


@pytest.mark.parametrize(
    "places",
    [
        (0.3127, 0.329) * 4,
        (0.0,) * 8,
        (0.3127, 0.329, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3),
        (40_000.0,) * 8,
    ],
)
def test_primaries_that_mix_no_light_are_ignored(places: tuple[float, ...]) -> None:
    chunk = png_chunk(b"cHRM", struct.pack(">8I", *(round(v * 100_000) for v in places)))
    assert difference(linear_png(GAMMA_1, chunk), PIXELS) == 0
