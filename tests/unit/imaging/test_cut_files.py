"""Files that are cut off at many places: refused if pixels are lost, else decoded as they are."""

from __future__ import annotations

import io
import itertools
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from loadtests.harness.hostile_files import run_length_bmp
from serve_app.config import ImageLimits
from serve_app.errors import CorruptImage, UnsupportedFormat
from serve_app.imaging.decode import DecodedImage, decode_image
from tests.support.image_files import Tags, pixel_tags, png_chunk, png_file, tiff_pages_first
from tests.support.images import book, saved

LIMITS = ImageLimits()
WIDTH, HEIGHT = 48, 36
IMAGE = Image.fromarray(book().image).resize((WIDTH, HEIGHT))
GREY = IMAGE.convert("L")
CLEAR = IMAGE.copy()
CLEAR.putalpha(GREY)
ROWS = [row.tobytes() for row in np.asarray(IMAGE)]
TINY_BYTES = 12
"""Length up to which a file need not be recognised as an image."""
END = b"\xff\xd9"


def tiff_first(compression: str | None, mode: str = "RGB", *, planes: bool = False) -> bytes:
    """Return a TIFF file whose directory is before its pixels, which a cut leaves whole."""
    image = IMAGE.convert(mode)
    channels, bits = len(image.getbands()), 1 if mode == "1" else 8
    photometric = {"1": 1, "L": 1, "RGB": 2}[mode]
    tags = pixel_tags(WIDTH, HEIGHT, bits, channels, photometric)
    if planes:
        strips = [image.getchannel(n).tobytes() for n in range(channels)]
        return tiff_pages_first(tags | {284: (3, [2])}, strips)
    if compression is None:
        return tiff_pages_first(tags, [image.tobytes()])
    content = saved(image, "TIFF", compression=compression)
    found = Image.open(io.BytesIO(content)).tag_v2  # type: ignore[attr-defined]
    strips = [content[at : at + size] for at, size in zip(found[273], found[279], strict=True)]
    kept: Tags = {tag: (3, [found[tag]]) for tag in (259, 262, 277, 278, 317, 530) if tag in found}
    if 347 in found:
        kept[347] = (7, list(found[347]))
    return tiff_pages_first(tags | kept, strips)


def tiled() -> bytes:
    tags = pixel_tags(WIDTH, HEIGHT, 8, 1, 1) | {322: (4, [16]), 323: (4, [16])}
    del tags[278]
    return tiff_pages_first(tags, [bytes([20 * n] * 256) for n in range(9)], tiled=True)


def run_length() -> bytes:
    lines = (bytes([32, line, 32, line + 1, 0, 0]) for line in range(64))
    return run_length_bmp(b"".join(lines) + b"\0\1", 64)


def files() -> Iterator[tuple[str, bytes]]:
    other = IMAGE.transpose(Image.Transpose.ROTATE_180)
    for progressive, mode in itertools.product((False, True), ("L", "RGB", "CMYK")):
        yield (
            f"jpeg-{mode}-{progressive}",
            saved(IMAGE.convert(mode), "JPEG", progressive=progressive),
        )
    yield "jpeg-444", saved(IMAGE, "JPEG", progressive=True, subsampling=0)
    yield "jpeg-restarts", saved(IMAGE, "JPEG", progressive=True, restart_marker_blocks=2)
    yield "mpo", saved(IMAGE, "MPO", save_all=True, append_images=[other])
    for mode in ("1", "L", "P", "RGB", "RGBA"):
        image = IMAGE.quantize(64) if mode == "P" else CLEAR.convert(mode)
        yield f"png-{mode}", saved(image, "PNG")
        yield f"bmp-{mode}", saved(image, "BMP")
    yield "png-animated", saved(IMAGE, "PNG", save_all=True, append_images=[other])
    yield "bmp-run-length", run_length()
    for interlace in (0, 1):
        yield f"gif-{interlace}", saved(IMAGE.quantize(64), "GIF", interlace=interlace)
    for lossless, image in itertools.product((False, True), (IMAGE, CLEAR)):
        yield f"webp-{image.mode}-{lossless}", saved(image, "WEBP", lossless=lossless)
    yield "webp-animated", saved(IMAGE, "WEBP", save_all=True, append_images=[other])
    for compression in (None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "lzma", "zstd"):
        yield f"tiff-{compression}", tiff_first(compression)
    for compression in (None, "group3", "group4", "tiff_ccitt"):
        yield f"tiff-1-{compression}", tiff_first(compression, "1")
    yield "tiff-planes", tiff_first(None, planes=True)
    yield "tiff-tiles", tiled()
    yield "tiff-directory-last", saved(IMAGE, "TIFF", compression="tiff_lzw")
    yield "avif", saved(CLEAR, "AVIF")
    yield "heic", (Path(__file__).parent / "files" / "gradient.heic").read_bytes()


FILES = dict(files())


def is_same(found: DecodedImage, whole: DecodedImage) -> bool:
    if found.alpha is None or whole.alpha is None:
        return found.alpha is whole.alpha and np.array_equal(found.rgb, whole.rgb)
    return np.array_equal(found.rgb, whole.rgb) and np.array_equal(found.alpha, whole.alpha)


def outcome(data: bytes) -> tuple[DecodedImage | None, str]:
    """Return the pixels of a file, or None, and the message of its error."""
    try:
        return decode_image(data, LIMITS), ""
    except (CorruptImage, UnsupportedFormat) as error:
        return None, error.message


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("name", FILES)
def test_no_pixel_is_lost_in_silence(name: str) -> None:
    data = FILES[name]
    whole = decode_image(data, LIMITS)
    for kept in {*range(1, len(data), max(1, len(data) // 120)), *range(len(data) - 30, len(data))}:
        found, message = outcome(data[:kept])
        if found is None:
            assert "cut off or damaged" in message or kept <= TINY_BYTES
        else:
            assert is_same(found, whole), f"{len(data) - kept} bytes are missing"


def with_trailing_data() -> Iterator[tuple[str, bytes, int]]:
    """Yield files, and how many bytes at their end are not needed for the pixels."""
    comment = b"\xff\xfe\x00\x20" + b"c" * 30
    sound = saved(IMAGE, "JPEG", progressive=True)
    yield "jpeg-end", sound, 2
    yield "jpeg-comment", sound[:-2] + comment + END, len(comment) + 2
    yield "png", saved(IMAGE, "PNG")[:-12] + png_chunk(b"tEXt", b"a\0" + bytes(30)) + bytes(12), 53
    yield "webp", saved(IMAGE, "WEBP", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"), 20
    yield "gif", saved(IMAGE.quantize(16), "GIF"), 2
    yield "gif-frames", saved(GREY, "GIF", save_all=True, append_images=[GREY.rotate(90)]), 400
    yield "bmp-padding", saved(IMAGE, "BMP") + bytes(40), 40
    yield "tiff-thumbnail", tiff_first("tiff_lzw") + bytes(40), 40


@pytest.mark.parametrize(
    ("data", "spare"),
    [pytest.param(data, spare, id=name) for name, data, spare in with_trailing_data()],
)
def test_what_is_no_pixel_may_be_missing(data: bytes, spare: int) -> None:
    whole = decode_image(data, LIMITS)
    for missing in range(1, spare + 1):
        assert is_same(decode_image(data[:-missing], LIMITS), whole), missing


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("columns", range(1, 11))
def test_a_lost_restart_interval_is_seen(columns: int, progressive: bool) -> None:
    """The number of the last interval decides what libjpeg does with what follows."""
    image = GREY.crop((0, 0, 8 * columns, 8))
    options = {"restart_marker_blocks": 1, "progressive": progressive, "quality": 90}
    data = saved(image, "JPEG", **options)
    for marker in range(0xD0, 0xD8):
        for kept in (data.rfind(bytes([0xFF, marker])) + step for step in range(3)):
            if kept > 3:
                with pytest.raises(CorruptImage, match="cut off"):
                    decode_image(data[:kept], LIMITS)


def scans_of(data: bytes) -> list[int]:
    """Return the start of each scan, with its tables, and the end of the last one."""
    places = [at for at in range(len(data)) if data[at : at + 2] == b"\xff\xda"]
    tables = [data.rfind(b"\xff\xc4", 0, at) for at in places]
    return [*tables[1:], len(data) - 2]


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_a_progressive_jpeg_needs_all_of_its_scans(mode: str) -> None:
    data = saved(IMAGE.convert(mode), "JPEG", progressive=True)
    places = scans_of(data)
    assert len(places) > 4
    for place in places[:-1]:
        for rest in (b"", b"\xff", b"\0" * 1000):
            with pytest.raises(CorruptImage, match="cut off"):
                decode_image(data[:place] + rest, LIMITS)
    # An encoder may leave out details, and says so by the end marker.
    decode_image(data[: places[-2]] + END, LIMITS)
    whole = decode_image(data, LIMITS)
    for rest in (b"", b"\xff", b"\0" * 1000):
        assert is_same(decode_image(data[: places[-1]] + rest, LIMITS), whole)


def in_three_scans(count: int = 3) -> bytes:
    """Return a sequential JPEG with a scan for each of its colours."""
    parts = [saved(band, "JPEG", quality=90) for band in IMAGE.convert("YCbCr").split()]
    frame = parts[0].index(b"\xff\xc0")
    scans = [part[part.index(b"\xff\xda") + 10 : -2] for part in parts]
    size = parts[0][frame + 5 : frame + 9]
    components = b"".join(bytes([number, 0x11, 0]) for number in (1, 2, 3))
    head = parts[0][:frame] + b"\xff\xc0\0\x11\x08" + size + b"\x03" + components
    tables = parts[0][parts[0].index(b"\xff\xc4") : parts[0].index(b"\xff\xda")]
    body = b"".join(
        b"\xff\xda\0\x08\x01" + bytes([number, 0, 0, 63, 0]) + scan
        for number, scan in enumerate(scans[:count], 1)
    )
    return head + tables + body


def test_a_scan_for_each_colour() -> None:
    whole = decode_image(in_three_scans() + END, LIMITS)
    assert np.abs(whole.rgb.astype(float) - np.asarray(IMAGE)).mean() < 6
    assert is_same(decode_image(in_three_scans(), LIMITS), whole)
    for count in (1, 2):
        for end in (b"", END):
            with pytest.raises(CorruptImage, match="cut off"):
                decode_image(in_three_scans(count) + end, LIMITS)


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_an_end_marker_does_not_make_up_for_pixels(mode: str) -> None:
    data = saved(IMAGE.convert(mode), "JPEG", quality=90)
    start = data.index(b"\xff\xda") + 20
    # In the last 16 x 16 pixels it is not seen.
    for kept in range(start, len(data) - 100, 20):
        with pytest.raises(CorruptImage, match="cut off"):
            decode_image(data[:kept] + END, LIMITS)


@pytest.mark.parametrize("value", [0, 127, 128, 255])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_a_grey_corner_is_no_damage(mode: str, value: int) -> None:
    image = Image.new(mode, (40, 40), (value,) * len(Image.new(mode, (1, 1)).getbands()))
    for progressive in (False, True):
        data = saved(image, "JPEG", progressive=progressive)
        assert is_same(decode_image(data, LIMITS), decode_image(data[:-2], LIMITS))


def test_pixels_of_a_png_have_a_checksum() -> None:
    content = zlib.compress(b"".join(b"\0" + row for row in ROWS))
    sound = png_file(ROWS, WIDTH, 8, 2)
    assert content in sound
    at = sound.index(content)
    for place in range(0, len(content), 40):
        changed = bytearray(sound)
        changed[at + place] ^= 64
        with pytest.raises(CorruptImage, match="checksum of its pixels"):
            decode_image(bytes(changed), LIMITS)
    for kept in range(at, at + len(content), 40):
        with pytest.raises(CorruptImage, match="cut off or damaged"):
            decode_image(sound[:kept].ljust(len(sound), b"\0"), LIMITS)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({278: (4, [HEIGHT // 2])}, "1 of 2 strips"),
        ({273: (4, [0]), 279: (4, [0])}, "no place"),
        ({284: (3, [2])}, "1 of 3 strips"),
        ({257: (4, [2**31]), 278: (4, [1])}, "strips"),
        ({257: (4, [HEIGHT + 1]), 278: (4, [HEIGHT + 1])}, "cut off"),
        ({273: (4, [2**32 - 1])}, "cut off"),
    ],
    ids=["strip", "place", "planes", "height", "row", "offset"],
)
def test_a_tiff_that_lacks_a_strip(more: Tags, words: str) -> None:
    tags = pixel_tags(WIDTH, HEIGHT, 8, 3, 2) | more
    with pytest.raises(CorruptImage, match=words):
        decode_image(tiff_pages_first(tags, [IMAGE.tobytes()]), LIMITS)


def test_a_tiff_may_have_very_many_strips() -> None:
    height = 5_000
    tags = pixel_tags(4, height, 8, 1, 1) | {278: (4, [1])}
    strips = [bytes([n % 251] * 4) for n in range(height)]
    found = decode_image(tiff_pages_first(tags, strips), LIMITS).rgb
    assert found[:, 0, 0].tolist() == [n % 251 for n in range(height)]
    short = tiff_pages_first(tags, strips)[: -struct.calcsize("4B")]
    with pytest.raises(CorruptImage, match="cut off"):
        decode_image(short, LIMITS)
