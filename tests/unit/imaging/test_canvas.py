"""The canvas: images without pixels, and pixels that cover a part of it."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import Image

from serve_app.config import ImageLimits
from serve_app.errors import EmptyImage, UnsupportedFormat
from serve_app.imaging.decode import decode_image, read_header
from tests.support.image_files import pixel_tags, png_chunk, tiff_pages_first
from tests.support.images import saved

LIMITS = ImageLimits()
TINY = Image.new("RGB", (8, 8), "teal")


def with_sides(file_format: str, width: int, height: int) -> bytes:
    """Return a file that declares a width and a height."""
    if file_format == "TIFF":
        return tiff_pages_first(pixel_tags(width, height, 8, 1, 1), [bytes(64)])
    data = saved(TINY.convert("L") if file_format == "GIF" else TINY, file_format)
    if file_format == "PNG":
        header = struct.pack(">II", width, height) + data[24:29]
        return data[:8] + png_chunk(b"IHDR", header) + data[33:]
    mark, after, sides = {
        "JPEG": (b"\xff\xc0", 5, struct.pack(">HH", height, width)),
        "WEBP": (b"\x9d\x01\x2a", 3, struct.pack("<HH", width, height)),
        "BMP": (b"BM", 18, struct.pack("<ii", width, height)),
        "GIF": (b",\0\0\0\0", 5, struct.pack("<HH", width, height)),
    }[file_format]
    at = data.index(mark) + after
    return data[:at] + sides + data[at + len(sides) :]


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_an_image_without_pixels_is_empty(file_format: str) -> None:
    for read in (read_header, decode_image):
        with pytest.raises(EmptyImage, match="0 x 8 pixels"):
            read(with_sides(file_format, 0, 8), LIMITS)
        # A JPEG may declare its height behind its pixels.
        error = UnsupportedFormat if file_format == "JPEG" else EmptyImage
        with pytest.raises(error):
            read(with_sides(file_format, 8, 0), LIMITS)


def gif(left: int, top: int, canvas: tuple[int, int], transparent: int | None = None) -> bytes:
    """Return a GIF whose only frame has 8 x 8 pixels at a place of its canvas."""
    options = {} if transparent is None else {"transparency": transparent}
    frame = Image.fromarray((np.arange(64, dtype=np.uint8) // 32 + 1).reshape(8, 8), "P")
    frame.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    data = saved(frame, "GIF", optimize=False, interlace=0, **options)
    at = data.index(b",\0\0\0\0\x08\0\x08\0") + 1
    place = struct.pack("<HH", left, top)
    return data[:6] + struct.pack("<HH", *canvas) + data[10:at] + place + data[at + 4 :]


@pytest.mark.parametrize(("left", "top"), [(0, 0), (3, 2), (12, 4)])
@pytest.mark.parametrize("transparent", [None, 2])
def test_around_the_frame_of_a_gif_nothing_is_visible(
    left: int, top: int, transparent: int | None
) -> None:
    data = gif(left, top, (20, 12), transparent)
    found = decode_image(data, LIMITS)
    assert read_header(data, LIMITS).has_alpha
    expected = np.zeros((12, 20), np.uint8)
    expected[top : top + 8, left : left + 8] = 255
    if transparent:
        expected[top + 4 :] = 0
    assert found.alpha is not None
    assert np.array_equal(found.alpha, expected)
    assert found.rgb[top, left].tolist() == [0, 255, 0]


def test_a_frame_that_covers_its_canvas_is_opaque() -> None:
    for canvas in ((8, 8), (4, 4), (0, 0)):
        found = decode_image(gif(0, 0, canvas), LIMITS)
        assert found.rgb.shape == (8, 8, 3)
        assert found.alpha is None


def bmp(bits: int, masks: tuple[int, ...]) -> bytes:
    """Return a BMP with masks and a header of 108 bytes."""
    row = bytes([1, 130, 200, 255])[: bits // 8] * 8
    header = struct.pack("<IiiHHIIiiII", 108, 8, 8, 1, bits, 3, 8 * len(row), 0, 0, 0, 0)
    header += struct.pack("<4I", *masks).ljust(68, b"\0")
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, 122) + header + row * 8


def test_the_transparency_of_a_bmp_is_read_or_refused() -> None:
    argb = (0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    found = decode_image(bmp(32, argb), LIMITS)
    assert found.alpha is not None
    assert found.rgb[0, 0].tolist() == [200, 130, 1]
    opaque = (0x7C00, 0x3E0, 0x1F, 0)
    assert decode_image(bmp(16, opaque), LIMITS).alpha is None
    for masks in ((0x7C00, 0x3E0, 0x1F, 0x8000), (0xF00, 0xF0, 0xF, 0xF000)):
        with pytest.raises(UnsupportedFormat, match="16 bits per pixel with transparency"):
            decode_image(bmp(16, masks), LIMITS)
