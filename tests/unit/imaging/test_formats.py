"""Containers: metadata never refuses pixels, and each file gets the verdict that it deserves."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from serve_app.config import ImageLimits
from serve_app.errors import (
    CorruptImage,
    EmptyImage,
    ForeedgeError,
    ImageTooLarge,
    PermanentError,
    UnsupportedFormat,
)
from serve_app.imaging.decode import decode_image, read_header
from serve_app.imaging.formats.kinds import read_container
from tests.support.fuzzing import examples
from tests.support.image_files import pixel_tags, png_chunk, png_file, tiff_file, with_chunk
from tests.support.images import book, jpeg, noise, saved, traits

LIMITS = ImageLimits()
PIXELS = book(width=120, height=90).image
IMAGE = Image.fromarray(PIXELS)
PNG = saved(IMAGE, "PNG")
JPEG = jpeg(PIXELS)


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def with_segment(marker: int, content: bytes) -> bytes:
    return JPEG[:2] + segment(marker, content) + JPEG[2:]


def broken_png_metadata() -> Iterator[bytes]:
    megabytes = zlib.compress(bytes(20_000_000))
    wrong_sum = bytearray(png_chunk(b"tEXt", b"Title\0A book"))
    wrong_sum[-1] ^= 1
    yield with_chunk(PNG, png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + megabytes))
    yield with_chunk(PNG, png_chunk(b"zTXt", b"Comment\0\0" + megabytes))
    yield with_chunk(PNG, png_chunk(b"zTXt", b"Comment\0\7none"))
    yield with_chunk(PNG, png_chunk(b"iCCP", b"profile\0\0" + megabytes))
    yield with_chunk(PNG, png_chunk(b"iCCP", b"profile\0\1none"))
    yield with_chunk(PNG, png_chunk(b"iCCP", b"profile"))
    yield with_chunk(PNG, bytes(wrong_sum))
    for name, content in (
        (b"gAMA", b"\0"),
        (b"cHRM", b"\0" * 7),
        (b"pHYs", b"\0" * 3),
        (b"sRGB", b""),
        (b"tRNS", b"\0"),
        (b"cICP", b"\1"),
        (b"eXIf", b"MM\0*\xff\xff\xff\xff"),
        (b"acTL", b"\0\0"),
        (b"fcTL", b"\0" * 4),
    ):
        yield with_chunk(PNG, png_chunk(name, content))
    # After the pixels, where Pillow reads texts as well.
    yield PNG[:-12] + png_chunk(b"zTXt", b"Comment\0\0" + megabytes) + PNG[-12:]
    yield PNG[:-12] + bytes(wrong_sum) + PNG[-12:]
    yield PNG[:-12] + b"\0\0\xff\xffjunk"
    yield PNG[:-12]


def broken_jpeg_metadata() -> Iterator[bytes]:
    yield with_segment(0xE0, b"JFIF\0\1")
    yield with_segment(0xEE, b"Adobe")
    yield with_segment(0xED, b"Photoshop 3.0\0" + b"8BIM\x04\x04")
    yield with_segment(0xED, b"Photoshop 3.0\0" + b"8BIM\x03\xed\0\0\0\0\0\1\0")
    yield with_segment(0xE2, b"ICC_PROFILE\0")
    yield with_segment(0xE2, b"ICC_PROFILE\0\3\2" + bytes(20))
    yield with_segment(0xE2, b"MPF\0II*\0\xff\xff\xff\xff")
    yield with_segment(0xE1, b"Exif\0\0")
    yield with_segment(0xE1, b"Exif\0\0MM\0*\0\0\0\x08\xff\xff")
    yield with_segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta\xff")
    yield with_segment(0xFE, b"\xff" * 100)
    yield JPEG[:2] + b"\xff" * 300_000 + JPEG[3:]
    yield JPEG[:20] + b"junk before a marker" + JPEG[20:]


def broken_webp_metadata() -> Iterator[bytes]:
    extended = saved(IMAGE, "WEBP", quality=95, exif=b"Exif\0\0MM", icc_profile=b"no profile")
    yield extended
    yield extended[:-3]
    riff = extended[:4] + struct.pack("<I", len(extended) + 4) + extended[8:]
    yield riff + b"XMP \xff\xff\xff\x7f<x"
    yield riff + b"JUNK\4\0\0\0abcd"


def broken_avif_metadata() -> Iterator[bytes]:
    exif = Image.Exif()
    exif[0x010E] = "a book"
    sound = saved(IMAGE, "AVIF", quality=95, exif=exif)
    place = sound.index(b"Exif\0\0MM\0*")
    for broken in (b"no EXIF", b"Exif\0\0no TIFF", b"Exif\0\0MM\0*\xff\xff\xff\xff"):
        yield sound[:place] + broken + sound[place + len(broken) :]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize(
    "data",
    [
        *broken_png_metadata(),
        *broken_jpeg_metadata(),
        *broken_webp_metadata(),
        *broken_avif_metadata(),
    ],
)
def test_metadata_never_refuses_sound_pixels(data: bytes) -> None:
    found = decode_image(data, LIMITS, keep_metadata=True)
    assert np.abs(found.rgb.astype(float) - PIXELS).mean() < 6
    assert read_header(data, LIMITS).pixels == PIXELS.shape[0] * PIXELS.shape[1]


def test_xmp_and_old_exif_texts_still_turn_an_image() -> None:
    turned = IMAGE.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    content = exif.tobytes()
    old = f"\nexif\n{len(content):8}\n{content.hex()}\n"
    xmp = "<rdf:Description tiff:Orientation='6'/>" + " " * 500_000
    for key, value in (("Raw profile type exif", old), ("XML:com.adobe.xmp", xmp)):
        texts = PngImagePlugin.PngInfo()
        add = texts.add_itxt if key.startswith("XML") else texts.add_text
        add(key, value, zip=True)
        data = saved(turned, "PNG", pnginfo=texts)
        assert np.array_equal(decode_image(data, LIMITS).rgb, PIXELS)


ROW = bytes(range(8))


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        (png_file([ROW] * 4, 8, 8, 3), CorruptImage, "palette"),
        (png_file([ROW] * 4, 8, 8, 3, png_chunk(b"PLTE", b"ab")), CorruptImage, "palette"),
        (png_file([ROW] * 4, 8, 3, 0), CorruptImage, "header"),
        (png_file([ROW] * 4, 8, 8, 0, png_chunk(b"NEWT", b"")), UnsupportedFormat, "critical"),
        (b"\x89PNG\n\x1a\n" + PNG[8:], CorruptImage, "damaged"),
        (PNG[:8] + png_chunk(b"CgBI", bytes(4)) + PNG[8:], UnsupportedFormat, "Apple"),
        (PNG[: len(PNG) // 2], CorruptImage, "cut off"),
        (PNG[:30], CorruptImage, "cut off"),
        (JPEG.replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c"), UnsupportedFormat, "12 bits"),
        (JPEG.replace(b"\xff\xc0\0\x11", b"\xff\xc3\0\x11"), UnsupportedFormat, "lossless"),
        (b"\xff\xd8" + segment(0xF7, bytes(17)), UnsupportedFormat, "lossless"),
        (JPEG[:2] + JPEG[-2:], CorruptImage, "cut off|damaged|not an image"),
        (b"RIFF\x24\0\0\0WAVEfmt ", UnsupportedFormat, "not an image"),
        (b"BM is how this text begins, and it is no picture", UnsupportedFormat, "not an image"),
        (saved(IMAGE, "BMP")[:3000], CorruptImage, "cut off"),
        (saved(IMAGE, "BMP")[:20], CorruptImage, "cut off"),
        (saved(IMAGE, "GIF")[:500], CorruptImage, "cut off"),
        (saved(IMAGE, "WEBP")[:500], CorruptImage, "cut off"),
        (saved(IMAGE, "AVIF")[:500], CorruptImage, "cut off"),
        (saved(IMAGE, "PPM"), UnsupportedFormat, "PNM file"),
        (saved(IMAGE, "ICO"), UnsupportedFormat, "ICO file"),
        (saved(IMAGE, "JPEG2000"), UnsupportedFormat, "JPEG 2000 file"),
        (saved(IMAGE, "TGA"), UnsupportedFormat, "not an image"),
        (b"8BPS\0\1" + bytes(20), UnsupportedFormat, "Photoshop"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", UnsupportedFormat, "not an image"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", UnsupportedFormat, "not an image"),
        (b"<html>Access denied", UnsupportedFormat, "not an image"),
    ],
)
def test_verdicts(data: bytes, error: type[ForeedgeError], words: str) -> None:
    for read in (read_header, decode_image) if error is UnsupportedFormat else (decode_image,):
        with pytest.raises(error, match=words) as caught:
            read(data, LIMITS)
        assert ("damaged" in caught.value.message) == (error is CorruptImage)


@settings(max_examples=examples(100), deadline=None)
@given(
    st.sampled_from(
        [b"", b"\xff\xd8\xff", PNG[:8], b"RIFF\0\0\0\0WEBP", b"II*\0\x08\0\0\0", b"BM"]
    ),
    st.binary(max_size=200),
)
def test_messages_never_show_bytes_of_the_file(start: bytes, rest: bytes) -> None:
    with pytest.raises((PermanentError, EmptyImage)) as caught:
        decode_image(start + rest, LIMITS)
    assert "b'" not in caught.value.message
    assert "\\x" not in caught.value.message
    assert "object at 0x" not in caught.value.message


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("interval", [0, 4])
def test_a_jpeg_that_lacks_its_end_marker_is_decoded(progressive: bool, interval: int) -> None:
    options = {"progressive": progressive, "restart_marker_blocks": interval, "quality": 90}
    data = saved(IMAGE, "JPEG", **options)
    whole = decode_image(data, LIMITS).rgb
    for ending in (b"", b"\0" * 1000):
        assert np.array_equal(decode_image(data[:-2] + ending, LIMITS).rgb, whole)
    for missing in (2, 8, 40, 1000, len(data) // 2):
        with pytest.raises(CorruptImage, match="cut off"):
            decode_image(data[: -2 - missing], LIMITS)
    for missing in (100, 1000, len(data) // 2):
        with pytest.raises(CorruptImage, match="cut off"):
            decode_image(data[: -2 - missing] + b"\0" * 1000, LIMITS)


def test_avif() -> None:
    found = decode_image(saved(IMAGE, "AVIF", quality=90), LIMITS)
    assert np.abs(found.rgb.astype(float) - PIXELS).mean() < 6
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = saved(IMAGE.transpose(Image.Transpose.ROTATE_90), "AVIF", quality=90, exif=exif)
    assert np.abs(decode_image(turned, LIMITS).rgb.astype(float) - PIXELS).mean() < 6


def test_heic() -> None:
    """The file is ``RGB_8__29x100.heif`` of pillow-heif's tests (BSD-3-Clause)."""
    data = (Path(__file__).parent / "files" / "gradient.heic").read_bytes()
    assert read_header(data, LIMITS).pixels == 29 * 100
    corners = decode_image(data, LIMITS).rgb[::99, ::28].astype(int)
    expected = [[[0, 0, 255], [0, 255, 255]], [[255, 0, 0], [255, 255, 0]]]
    assert np.abs(corners - expected).max() < 10
    for kept in (100, 1000, len(data) - 100):
        with pytest.raises(CorruptImage, match="cut off"):
            decode_image(data[:kept], LIMITS)


def test_too_many_parts_are_refused() -> None:
    comments = segment(0xFE, b"") * 70_000
    texts = png_chunk(b"tEXt", b"a\0b") * 70_000
    for data in (JPEG[:2] + comments + JPEG[2:], PNG[:33] + texts + PNG[33:]):
        with pytest.raises(CorruptImage, match="65,536 parts"):
            read_container(data)


@cache
def all_formats() -> list[bytes]:
    small = Image.fromarray(noise(24, 32, 3))
    files = [trait.data for trait in traits()]
    files += [saved(small, name) for name in ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF")]
    files.append(saved(small, "TIFF", compression="tiff_lzw"))
    files.append(tiff_file(pixel_tags(8, 4, 8, 3, 2, t254=1) | {330: (4, [-1])}, [bytes(96)]))
    files.append(png_file([ROW] * 4, 8, 8, 3, png_chunk(b"PLTE", bytes(24))))
    return files


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@settings(max_examples=examples(100), deadline=None)
@given(st.data())
def test_nothing_but_our_errors_leaves(data: st.DataObject) -> None:
    """Bytes near the start are changed most often, since headers and directories are there."""
    content = bytearray(data.draw(st.sampled_from(all_formats())))
    for _ in range(data.draw(st.integers(0, 6))):
        end = data.draw(st.sampled_from([64, 600, len(content)]))
        place = data.draw(st.integers(0, min(end, len(content)) - 1))
        content[place] = data.draw(st.sampled_from([0, 1, 2, 127, 128, 255]))
    place = data.draw(st.integers(0, len(content)))
    content[place:place] = data.draw(st.binary(max_size=12))
    kept = data.draw(st.sampled_from([len(content), len(content) // 2, 40]))
    try:
        decode_image(bytes(content[:kept]), LIMITS, keep_metadata=True)
    except (CorruptImage, UnsupportedFormat, ImageTooLarge, EmptyImage):
        return


def test_a_file_that_breaks_a_directory_in_every_way() -> None:
    whole = io.BytesIO()
    exif = Image.Exif()
    exif[0x010E] = "a book"
    IMAGE.resize((4, 4)).save(whole, "TIFF", exif=exif)
    content = whole.getvalue()
    for place in range(len(content)):
        for value in (0, 255):
            changed = content[:place] + bytes([value]) + content[place + 1 :]
            try:
                decode_image(changed, LIMITS, keep_metadata=True)
            except (CorruptImage, UnsupportedFormat, ImageTooLarge, EmptyImage):
                continue
