"""Bounds of image files: what is sound passes with its pixels, what is costly is left out."""

from __future__ import annotations

import contextlib
import io
import struct
import sys
import time
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from loadtests.harness.hostile_files import (
    before_last_scan,
    chunk,
    exif_directory,
    hostile_files,
    in_gif,
    in_png,
    in_webp,
    jpeg_in_tiff,
    profile_with_steps,
    run_length_bmp,
    segment,
    small,
    tiff,
    with_scans,
)
from serve_app.config import ImageLimits
from serve_app.errors import CorruptImage, ImageTooLarge
from serve_app.imaging.bounds.files import bound_file
from serve_app.imaging.bounds.gif import INTRODUCER
from serve_app.imaging.bounds.jpeg import MARKER, MARKER_AFTER_SCAN, MAX_SCANS
from serve_app.imaging.bounds.parts import BytePattern, find_pattern
from serve_app.imaging.bounds.profile import bound_profile
from serve_app.imaging.decode import decode_image, read_header
from tests.support.images import book, noise, saved, traits

LIMITS = ImageLimits()
XMP = b"http://ns.adobe.com/xap/1.0/\0"
EXTENDED_XMP = b"http://ns.adobe.com/xmp/extension/\0"
RESOURCES = b"Photoshop 3.0\0" + b"8BIM\4\4\0\0\0\0\0\0" * 300
ORIENTED = b"MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"


def variants() -> Iterator[tuple[str, bytes]]:
    """Yield sound files of every format, in the variants that Pillow writes."""
    image = Image.fromarray(book(width=120, height=90).image)
    alpha = image.copy()
    alpha.putalpha(image.convert("L"))
    other = image.transpose(Image.Transpose.ROTATE_180)
    profile = Image.open(io.BytesIO(_trait("linear-icc-jpeg"))).info["icc_profile"]
    several: dict[str, Any] = {"save_all": True, "append_images": [other] * 40}
    jpeg: list[dict[str, Any]] = [
        {"progressive": True},
        {"optimize": True},
        {"subsampling": 0},
        {"restart_marker_rows": 1},
        {"icc_profile": profile, "exif": b"Exif\0\0" + ORIENTED},
    ]
    for number, options in enumerate(jpeg):
        for mode in ("L", "RGB", "CMYK"):
            yield f"jpeg-{mode}-{number}", saved(image.convert(mode), "JPEG", **options)
    yield "mpo", saved(image, "MPO", **several)
    for mode in ("1", "L", "P", "RGB", "RGBA", "I;16", "LA"):
        yield f"png-{mode}", saved(_in_mode(alpha, mode), "PNG", icc_profile=profile)
    yield "png-animated", saved(image, "PNG", **several)
    yield "gif", saved(image, "GIF", comment=b"a" * 3_000)
    yield "gif-animated", saved(image, "GIF", **several)
    webp: list[dict[str, Any]] = [
        {"lossless": True},
        {"exif": b"Exif\0\0" + ORIENTED},
        several,
    ]
    for number, options in enumerate(webp):
        yield f"webp-{number}", saved(alpha, "WEBP", **options)
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        # A copy, because Pillow keeps options of the formats before in an image.
        yield f"tiff-{compression}", saved(image.copy(), "TIFF", compression=compression)
    yield "tiff-pages", saved(image.copy(), "TIFF", save_all=True, append_images=[other.copy()])
    yield "tiff-big", saved(image, "TIFF", big_tiff=True)
    for mode in ("1", "L", "P", "RGB", "RGBA"):
        yield f"bmp-{mode}", saved(_in_mode(alpha, mode), "BMP")


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    return image.convert("RGB").quantize(64) if mode == "P" else image.convert(mode)


def _trait(name: str) -> bytes:
    return next(trait.data for trait in traits() if trait.name == name)


def pixels(data: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return decode_image(data, LIMITS).rgb


SOUND = dict(variants()) | {trait.name: trait.data for trait in traits()}


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_file_stays_as_it_is(name: str) -> None:
    assert bound_file(SOUND[name], LIMITS) is SOUND[name]


METADATA = {
    "extended-xmp": [segment(0xE1, XMP), *[segment(0xE1, EXTENDED_XMP + bytes(65_000))] * 60],
    "photoshop": [segment(0xED, RESOURCES)] * 100,
    "comments": [segment(0xFE, b"a comment")] * 10_000,
    "fill-bytes": [b"\xff" * 1_000_000],
    "padding": [b"\0" * 1_000_000],
}


@pytest.mark.parametrize("name", METADATA)
def test_metadata_of_a_jpeg_costs_no_pixels(name: str) -> None:
    image = Image.fromarray(book(width=120, height=90).image)
    profile = Image.open(io.BytesIO(_trait("linear-icc-jpeg"))).info["icc_profile"]
    parts = [profile[at : at + 100] for at in range(0, len(profile), 100)]
    several = b"".join(
        segment(0xE2, b"ICC_PROFILE\0" + bytes([number, len(parts)]) + part)
        for number, part in enumerate(parts, 1)
    )
    sound = saved(image, "JPEG", exif=b"Exif\0\0" + ORIENTED)
    sound = sound[:2] + several + sound[2:]
    expected = pixels(saved(image, "JPEG", exif=b"Exif\0\0" + ORIENTED, icc_profile=profile))
    assert expected.shape[0] > expected.shape[1], "the orientation counts"
    # Only a marker may follow the first one.
    first = () if name == "padding" else (2,)
    for at in (*first, 2 + len(several)):
        found = pixels(sound[:at] + b"".join(METADATA[name]) + sound[at:])
        assert np.array_equal(found, expected)


@pytest.mark.parametrize("pattern", [MARKER, MARKER_AFTER_SCAN, INTRODUCER])
@given(
    st.lists(st.sampled_from(b"\xff\x00\x01\xd0\xd7\xd8\xda!,;a"), max_size=40), st.integers(0, 600)
)
def test_a_pattern_is_found_near_and_far(pattern: BytePattern, tail: list[int], gap: int) -> None:
    data = b"\x00" * gap + bytes(tail)
    expected = pattern.expression.search(data)
    assert find_pattern(pattern, data, 0) == (expected.start() if expected else None)


@pytest.mark.parametrize("name", ["jpeg-fill-bytes", "jpeg-stuffed-junk", "gif-junk", "avif-boxes"])
def test_junk_costs_little_time(name: str) -> None:
    # It took 0.2 to 0.45 s, in which event loops and other threads waited for Python's lock.
    data = hostile_files()[name]()
    times_s = []
    # Coverage looks at each line that runs, which takes several times as long as the line.
    trace = sys.gettrace()
    sys.settrace(None)
    try:
        for _ in range(5):
            began_s = time.thread_time()
            with contextlib.suppress(CorruptImage):
                read_header(data, LIMITS)
            times_s.append(time.thread_time() - began_s)
    finally:
        sys.settrace(trace)
    # The least: a core that is shared with another thread takes up to twice the time for the same.
    assert min(times_s) < 0.15


def test_boxes_behind_those_that_are_read_do_not_count() -> None:
    image = saved(Image.fromarray(book(width=120, height=90).image), "AVIF")
    free = struct.pack(">I4s", 8, b"free") * 70_000
    assert decode_image(image + free, LIMITS).width == 120
    with pytest.raises(CorruptImage, match="more than 65,536 parts"):
        decode_image(image[:32] + free + image[32:], LIMITS)


def test_padding_and_films_behind_a_jpeg_do_not_count() -> None:
    sound = small("JPEG", progressive=True)
    film = noise(1_000, 1_000).tobytes() + b"\xff\xda" * 1_000
    for rest in (b"\xff" * 100_000, b"\0" * 100_000, film, sound * 50):
        assert bound_file(sound + rest, LIMITS) == sound + rest


def test_scans_are_counted_by_the_size_of_the_image() -> None:
    assert pixels(with_scans(MAX_SCANS, 640)).shape == (640, 640, 3)
    with pytest.raises(ImageTooLarge, match="more than 100 scans"):
        decode_image(with_scans(MAX_SCANS + 1, 640), LIMITS)
    large = ImageLimits(max_pixels=640 * 640)
    assert decode_image(with_scans(24, 640), large).width == 640
    with pytest.raises(ImageTooLarge, match="more than 24 scans"):
        decode_image(with_scans(25, 640), large)
    # Markers in the content of a segment are none.
    assert pixels(before_last_scan(segment(0xFE, b"\xff\xda" * 500), 1_004)).shape == (64, 64, 3)


def test_scans_of_a_jpeg_in_a_tiff_are_counted() -> None:
    assert pixels(jpeg_in_tiff(with_scans(24, 640), 640)).shape == (640, 640, 3)
    with pytest.raises(CorruptImage):
        decode_image(jpeg_in_tiff(with_scans(40, 640), 640), LIMITS)


@pytest.mark.parametrize("size", [512, 4_096, 8_192])
def test_pixels_of_a_png_may_be_split(size: int) -> None:
    image = Image.fromarray(noise(1_000, 1_000, 3))
    packed = zlib.compress(b"".join(b"\0" + row.tobytes() for row in np.asarray(image)), 0)
    parts = (chunk(b"IDAT", packed[at : at + size]) for at in range(0, len(packed), size))
    head = struct.pack(">IIBBBBB", 1_000, 1_000, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + b"".join(parts) + chunk(b"IEND")
    assert bound_file(data, LIMITS) is data
    assert np.array_equal(pixels(data), np.asarray(image))


def texts() -> Iterator[tuple[str, bytes]]:
    large = zlib.compress(bytes(3_000_000))
    yield "compressed", chunk(b"zTXt", b"Comment\0\0" + large)
    yield "international", chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + large)
    yield "uncompressed", chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + bytes(3_000_000))
    yield "damaged", chunk(b"zTXt", b"Raw profile type exif\0\0nothing")
    yield "many", chunk(b"tEXt", b"a\0b") * 1_000
    yield "directory", chunk(b"eXIf", exif_directory(30_000))


@pytest.mark.parametrize(("name", "part"), tuple(texts()))
@pytest.mark.parametrize("after", [False, True])
def test_metadata_of_a_png_costs_no_pixels(name: str, part: bytes, after: bool) -> None:
    assert np.array_equal(pixels(in_png(part, len(part), after=after)), pixels(small("PNG")))


def test_the_orientation_in_a_text_of_a_png_is_kept() -> None:
    profile = b"\nexif\n%8d\n%s\n" % (len(ORIENTED) + 6, (b"Exif\0\0" + ORIENTED).hex().encode())
    text = chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(profile))
    wide = saved(Image.new("RGB", (40, 20)), "PNG")
    data = wide[:33] + text + chunk(b"zTXt", b"a\0\0" + zlib.compress(b"b")) + wide[33:]
    assert decode_image(data, LIMITS).height == 40


def test_steps_of_a_profile_are_not_taken() -> None:
    profile = profile_with_steps(3)
    assert b"D2B0" in profile
    bounded = bound_profile(profile)
    assert b"D2B0" not in bounded
    assert len(bounded) == len(profile)
    sound = saved(Image.fromarray(book(width=120, height=90).image), "PNG")
    found = saved(Image.fromarray(book(width=120, height=90).image), "PNG", icc_profile=profile)
    assert np.array_equal(pixels(found), pixels(sound))
    for cut in range(0, len(profile), 7):
        assert len(bound_profile(profile[:cut])) == cut


def test_metadata_of_a_gif_costs_no_pixels() -> None:
    sound = small("GIF")
    for part in (
        b"!\xfe" + b"\1a" * 3_000 + b"\0",
        b"!\xff\x0bXMP DataXMP" + b"\x40" * 65 + b"\0",
        b"\7",
    ):
        assert np.array_equal(pixels(in_gif(part, 60_000)), pixels(sound))


def test_a_control_of_a_gif_is_kept() -> None:
    dotted = Image.new("P", (40, 40))
    dotted.putpalette([0, 0, 0, 255, 0, 0])
    sound = saved(dotted, "GIF", transparency=0)
    at = sound.index(b"!\xf9")
    data = sound[:at] + b"!\xfe\1a\0" * 2_000 + sound[at:]
    found = decode_image(data, LIMITS).alpha
    assert found is not None
    assert not found.any()


def test_parts_up_to_the_limits_are_read() -> None:
    webp = in_webp(b"abcd\0\0\0\0", 8 * 60_000)
    assert bound_file(webp, LIMITS) is webp
    strips = {273: (4, 64, 200), 278: (4, 1, 1), 279: (4, 64, 456)}
    values = struct.pack("<64I", *[1_000] * 64) + struct.pack("<64I", *[64] * 64)
    assert pixels(tiff(strips, bytes(78) + values + bytes(9_000))).shape == (64, 64, 3)
    lines = run_length_bmp(b"".join(b"\x40\1\0\0" for _ in range(64)), 64)
    assert pixels(lines).shape == (64, 64, 3)


@given(
    seed=st.sampled_from(sorted(SOUND)),
    at=st.floats(0, 1),
    new=st.binary(max_size=40),
    cut=st.integers(0, 40),
)
def test_any_change_of_a_file_gives_a_file_or_its_own_error(
    seed: str, at: float, new: bytes, cut: int
) -> None:
    data = SOUND[seed]
    start = int(at * len(data))
    for changed in (data[:start] + new + data[start + cut :], data[:start]):
        with contextlib.suppress(ImageTooLarge):
            assert len(bound_file(changed, LIMITS)) <= len(changed)
