"""Image files that are made to be costly: many parts, large directories, repeated scans.

Every file is small enough to be uploaded and correct enough to be read for long by a decoder.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from functools import cache

from PIL import Image, ImageCms

SIZE = 31 * 1024 * 1024
"""Size of the largest files, in bytes: below the default of ``limits.max_bytes``."""
_SIDE = 64
_START_OF_SCAN = b"\xff\xda"


def saved(image: Image.Image, file_format: str, **options: object) -> bytes:
    """Return an image as a file."""
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def segment(marker: int, content: bytes = b"") -> bytes:
    """Return a segment of a JPEG file."""
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def chunk(name: bytes, content: bytes = b"") -> bytes:
    """Return a chunk of a PNG file."""
    checksum = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + checksum


def small(file_format: str, **options: object) -> bytes:
    """Return a small, sound image."""
    return saved(Image.new("RGB", (_SIDE, _SIDE), "teal"), file_format, **options)


def in_jpeg(part: bytes, size: int = SIZE, **options: object) -> bytes:
    """Return a JPEG file with a part that is repeated before all others."""
    sound = small("JPEG", **options)
    return sound[:2] + part * (size // len(part)) + sound[2:]


def before_last_scan(part: bytes, size: int = SIZE) -> bytes:
    """Return a progressive JPEG file with a part that is repeated between its scans."""
    sound = small("JPEG", progressive=True)
    at = sound.rindex(_START_OF_SCAN)
    return sound[:at] + part * (size // len(part)) + sound[at:]


@cache
def with_scans(scans: int, side: int = 8_000) -> bytes:
    """Return a progressive JPEG file of one colour with a number of scans."""
    sound = saved(Image.new("L", (side, side), 90), "JPEG", progressive=True)
    at = sound.rindex(_START_OF_SCAN)
    repeats = scans - sound.count(_START_OF_SCAN)
    return sound[:at] + sound[at:-2] * repeats + sound[at:]


def in_png(part: bytes, size: int = SIZE, *, after: bool = False) -> bytes:
    """Return a PNG file with a chunk that is repeated before or after the pixels."""
    sound = small("PNG")
    at = len(sound) - 12 if after else 33
    return sound[:at] + part * (size // len(part)) + sound[at:]


def with_split_pixels(size: int = SIZE) -> bytes:
    """Return a PNG file with very many empty chunks of pixels before the only full one."""
    sound = small("PNG")
    at = sound.index(b"IDAT") - 4
    return sound[:at] + chunk(b"IDAT") * (size // 12) + sound[at:]


def in_gif(part: bytes, size: int = SIZE) -> bytes:
    """Return a GIF file with a block that is repeated before its frame."""
    sound = small("GIF")
    at = 13 + (6 << (sound[10] & 7))
    return sound[:at] + part * (size // len(part)) + sound[at:]


def in_webp(part: bytes, size: int = SIZE) -> bytes:
    """Return an extended WebP file that ends with a repeated chunk."""
    body = small("WEBP", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0")[12:]
    body += part * (size // len(part))
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def tiff(changes: dict[int, tuple[int, int, int]], data: bytes = b"") -> bytes:
    """Return an uncompressed grey TIFF file with changed entries.

    Args:
        changes: Type, number of values, and value or position of each tag.
        data: Content behind the directory.
    """
    entries = {
        256: (4, 1, _SIDE),
        257: (4, 1, _SIDE),
        258: (3, 1, 8),
        259: (3, 1, 1),
        262: (3, 1, 1),
        273: (4, 1, 8),
        277: (3, 1, 1),
        278: (4, 1, _SIDE),
        279: (4, 1, _SIDE * _SIDE),
    } | changes
    packed = [struct.pack("<HHII", tag, *entry) for tag, entry in sorted(entries.items())]
    head = b"II*\0" + struct.pack("<IH", 8, len(packed))
    return head + b"".join(packed) + struct.pack("<I", 8) + data.ljust(_SIDE * _SIDE, b"\1")


def jpeg_in_tiff(jpeg: bytes, side: int) -> bytes:
    """Return a TIFF file whose only strip is a JPEG file."""
    size = {256: (4, 1, side), 257: (4, 1, side), 278: (4, 1, side)}
    return tiff(size | {259: (3, 1, 7), 273: (4, 1, 122), 279: (4, 1, len(jpeg))}, jpeg)


def exif_directory(entries: int) -> bytes:
    """Return EXIF data whose entries all refer to the same content, and whose next directory loops.

    Args:
        entries: Number of entries.
    """
    packed = b"".join(struct.pack("<HHII", tag, 7, 1_000, 8) for tag in range(1, entries + 1))
    return b"II*\0" + struct.pack("<IH", 8, entries) + packed + struct.pack("<I", 8)


def profile_with_steps(count: int) -> bytes:
    """Return an sRGB profile whose conversion to numbers has a number of steps that do nothing.

    Args:
        count: Number of steps. All are the same few bytes of the profile.
    """
    sound = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    tags = int.from_bytes(sound[128:132], "big")
    shift = 12
    table = b"".join(
        struct.pack(">4sII", name, start + shift, size)
        for name, start, size in struct.iter_unpack(">4sII", sound[132 : 132 + 12 * tags])
    )
    content = sound[132 + 12 * tags :]
    matrix = struct.pack(">4sIHH12f", b"matf", 0, 3, 3, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0)
    places = struct.pack(">II", 16 + 8 * count, len(matrix)) * count
    steps = struct.pack(">4sIHHI", b"mpet", 0, 3, 3, count) + places + matrix
    added = struct.pack(">4sII", b"D2B0", len(sound) + shift, len(steps))
    head = struct.pack(">I", len(sound) + shift + len(steps)) + sound[4:8] + b"\4\x40\0\0"
    count_of_tags = struct.pack(">I", tags + 1)
    return head + sound[12:128] + count_of_tags + table + added + content + steps


def run_length_bmp(data: bytes, side: int = 8_000, bits: int = 8) -> bytes:
    """Return a BMP file with run-length encoding."""
    palette = bytes(4 << bits)
    start = 54 + len(palette)
    size = struct.pack("<IiiHHII", 40, side, side, 1, bits, 1 if bits == 8 else 2, len(data))
    head = b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start)
    return head + size + struct.pack("<iiII", 0, 0, 1 << bits, 0) + palette + data


Makers = dict[str, Callable[[], bytes]]
"""Functions that return a file each, by the name of the file."""


def hostile_files() -> Makers:
    """Return the makers of all files by name. Each file has up to 31 MiB."""
    return _jpeg_files() | _png_files() | _other_files()


def _jpeg_files() -> Makers:
    resources = b"Photoshop 3.0\0" + b"8BIM\4\4\0\0\0\0\0\0" * 5_400
    return {
        "jpeg-comments": lambda: in_jpeg(segment(0xFE)),
        "jpeg-application-segments": lambda: in_jpeg(segment(0xE5)),
        "jpeg-fill-bytes": lambda: in_jpeg(b"\xff"),
        "jpeg-junk": lambda: _after_first_segment(bytes(SIZE)),
        "jpeg-stuffed-junk": lambda: _after_first_segment(b"\xff\0" * (SIZE // 2)),
        "jpeg-exif-segments": lambda: in_jpeg(segment(0xE1, b"Exif\0\0" + b"\1" * 3_000)),
        "jpeg-exif-entries": lambda: in_jpeg(segment(0xE1, b"Exif\0\0" + exif_directory(5_000)), 1),
        "jpeg-photoshop": lambda: in_jpeg(segment(0xED, resources)),
        "jpeg-profile": lambda: in_jpeg(segment(0xE2, b"ICC_PROFILE\0\1\xff" + bytes(65_000))),
        "jpeg-fill-bytes-in-scan": lambda: small("JPEG")[:-2] + b"\xff" * SIZE + b"\xff\xd9",
        "jpeg-fill-bytes-between-scans": lambda: before_last_scan(b"\xff"),
        "jpeg-comments-between-scans": lambda: before_last_scan(segment(0xFE)),
        "jpeg-156-scans": lambda: with_scans(156),
        "jpeg-60-full-size-scans": lambda: with_scans(60),
    }


def _png_files() -> Makers:
    zeros = zlib.compress(bytes(1_000_000))
    return {
        "png-chunks": lambda: in_png(chunk(b"teSt")),
        "png-chunks-after-pixels": lambda: in_png(chunk(b"teSt"), after=True),
        "png-empty-pixel-chunks": with_split_pixels,
        "png-texts": lambda: in_png(chunk(b"tEXt", b"a\0b")),
        "png-compressed-texts": lambda: in_png(chunk(b"zTXt", b"a\0\0" + zeros)),
        "png-xmp": lambda: in_png(chunk(b"zTXt", b"XML:com.adobe.xmp\0\0" + zeros)),
        "png-profiles": lambda: in_png(chunk(b"iCCP", b"a\0\0" + zeros)),
        "png-profile-of-many-steps": lambda: small("PNG", icc_profile=profile_with_steps(400_000)),
        "png-exif-entries": lambda: in_png(chunk(b"eXIf", exif_directory(65_000)), 1),
        "png-frames": lambda: in_png(chunk(b"fdAT", b"\0\0\0\1"), after=True),
    }


def _other_files() -> Makers:
    strips = {273: (4, 4_000_000, 200), 278: (4, 1, 1), 279: (4, 4_000_000, 200)}
    tile = {259: (3, 1, 5), 322: (4, 1, 30_000), 323: (4, 1, 30_000), 324: (4, 1, 200)}
    many_tags = {tag: (4, 1_000_000, 5) for tag in range(1_000, 65_500)}
    return {
        "gif-comments": lambda: in_gif(b"!\xfe\0"),
        "gif-controls": lambda: in_gif(b"!\xf9\4\0\0\0\0\0"),
        "gif-small-blocks": lambda: in_gif(b"!\xfe" + b"\1a" * 1_000_000 + b"\0"),
        "gif-junk": lambda: in_gif(b"\7"),
        "webp-chunks": lambda: in_webp(b"abcd\0\0\0\0"),
        "webp-exif-entries": lambda: small("WEBP", exif=b"Exif\0\0" + exif_directory(65_000)),
        "tiff-entries": lambda: tiff(many_tags),
        "tiff-jpeg-60-scans": lambda: jpeg_in_tiff(with_scans(60), 8_000),
        "tiff-pages": _with_pages,
        "tiff-directories-within": lambda: tiff(
            {330: (4, 500_000, 200)}, struct.pack("<I", 8) * 500_100
        ),
        "tiff-strips": lambda: tiff(strips, bytes(16_000_200)),
        "tiff-strips-of-one-pixel": lambda: tiff(
            strips | {256: (4, 1, 1), 257: (4, 1, 4_000_000)}, bytes(16_000_200)
        ),
        "tiff-tile": lambda: tiff(tile | {325: (4, 1, 1_000)}),
        "avif-boxes": lambda: _with_boxes(struct.pack(">I4s", 8, b"free")),
        "avif-boxes-behind": lambda: small("AVIF") + struct.pack(">I4s", 8, b"free") * (SIZE // 8),
        "avif-nested-boxes": lambda: _with_boxes(
            b"".join(
                struct.pack(">I4sI", 12 * depth, b"meta", 0) for depth in range(100_000, 0, -1)
            )
        ),
        "bmp-line-ends": lambda: run_length_bmp(b"\0\0" * (SIZE // 2)),
        "bmp-single-pixels": lambda: run_length_bmp(b"\1\0" * (SIZE // 2)),
        "bmp-short-lines": lambda: run_length_bmp(b"\1\0\0\0" * 8_000),
        "bmp-16-colours": lambda: run_length_bmp((b"\xff\1" * 32 + b"\0\0") * 8_000, bits=4),
    }


def _after_first_segment(junk: bytes) -> bytes:
    sound = small("JPEG")
    return sound[:20] + junk + sound[20:]


def _with_boxes(part: bytes) -> bytes:
    """Return an AVIF file with a part that is repeated behind its first box."""
    sound = small("AVIF")
    at = int.from_bytes(sound[:4], "big")
    return sound[:at] + part * (SIZE // len(part)) + sound[at:]


def _with_pages() -> bytes:
    """Return a TIFF file of very many pages, each of which refers to the next."""
    count = 1_000_000
    first = tiff({})
    head, rest = first[: first.index(struct.pack("<HHII", 279, 4, 1, _SIDE * _SIDE)) + 12], first
    pages = (
        struct.pack("<HHHIII", 1, 254, 4, 1, 0, len(rest) + 18 * (n + 1)) for n in range(count)
    )
    return head + struct.pack("<I", len(rest)) + rest[len(head) + 4 :] + b"".join(pages)
