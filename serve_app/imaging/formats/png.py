"""PNG files, split into their pixels and what they say of them.

Source: Portable Network Graphics (PNG) Specification, third edition (W3C, 2025), sections 5, 11
and 12. An animated PNG is its default image.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator

from isal import isal_zlib

from serve_app.errors import CorruptImage, UnsupportedFormat
from serve_app.imaging.formats.container import (
    MAX_ANCILLARY_BYTES,
    MAX_PARTS,
    CodePoints,
    Container,
    PngGamma,
    Samples,
    check_sides,
    cut_off,
    inflate,
    resolution,
    too_many_parts,
)

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_END = b"\0\0\0\0IEND\xaeB`\x82"
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
"""Bits of a sample that each colour type may have."""
_GREY, _RGB, _PALETTE = 0, 2, 3
_XMP_KEYWORD = b"XML:com.adobe.xmp\0"
_RAW_EXIF_KEYWORD = b"Raw profile type exif\0"
_HEX = re.compile(rb"\s*exif\s+\d+\s+([0-9a-fA-F\s]*)")
_INCHES_IN_A_METRE = 1 / 0.0254
_MAX_GAMMA = 2**31 - 1
_WRONG_CHECKSUM = "the PNG image is cut off or damaged: a checksum of its pixels is wrong"


def read_png(data: bytes) -> Container:
    """Return a PNG file without its texts, profile, EXIF data and further frames.

    Args:
        data: Content of a PNG file.

    Raises:
        CorruptImage: The file ends before its pixels, or lacks what they need, or they are damaged.
        EmptyImage: A side has no pixels.
        UnsupportedFormat: The file has a critical chunk that the specification does not know.
    """
    if not data.startswith(_SIGNATURE):
        raise CorruptImage("the PNG image is damaged: its line ends were changed in a transfer")
    # Views, so that the pixels are copied once, when the parts are joined.
    view = memoryview(data)
    kept: list[bytes | memoryview] = [_SIGNATURE]
    ancillary: dict[bytes, bytes] = {}
    header: bytes | None = None
    has_pixels = is_cut = False
    for name, start, end in _chunks(data):
        if header is None:
            header = data[start + 8 : end - 4]
            _check_header(name, header)
            kept.append(view[start:end])
        elif name == b"IDAT":
            has_pixels, is_cut = True, end > len(data)
            if not is_cut and not _is_sound(view[start:end]):
                # Pillow does not look, and stops before the checksum of all pixels.
                raise CorruptImage(_WRONG_CHECKSUM)
            kept.append(view[start:end])
        elif name == b"PLTE":
            if header[9] == _PALETTE and not has_pixels:
                kept.append(view[start:end])
                ancillary[name] = data[start + 8 : end - 4]
        elif end <= len(data):
            _take_other(ancillary, name, data[start:end])
    if header is None or not has_pixels:
        raise cut_off("PNG", "its header")
    # The decoder must meet the end of a file whose pixels are cut off.
    kept.append(b"" if is_cut else _END)
    return _container(header, kept, ancillary)


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the name of each chunk, its offset, and the offset behind it."""
    position = len(_SIGNATURE)
    for _ in range(MAX_PARTS):
        if position + 8 > len(data):
            return
        length, name = struct.unpack_from(">I4s", data, position)
        if name == b"IEND" or not name.isalpha():
            return
        end = position + 12 + length
        yield name, position, end
        position = end
    raise too_many_parts("PNG")


def _check_header(name: bytes, header: bytes) -> None:
    if name == b"CgBI":
        raise UnsupportedFormat(
            "the PNG image has Apple's CgBI chunk, so its pixels are stored in another way than "
            "PNG's. Convert it to an ordinary PNG"
        )
    if name != b"IHDR" or len(header) != 13:
        raise cut_off("PNG", "its header")
    check_sides(*struct.unpack_from(">II", header))
    depth, colour_type, compression, filtering, interlace = header[8:]
    known = depth in _DEPTHS.get(colour_type, ())
    if not known or compression or filtering or interlace > 1:
        raise CorruptImage("the PNG image is damaged: its header has values that PNG does not know")


def _is_sound(chunk: bytes | memoryview) -> bool:
    return isal_zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")


def _take_other(ancillary: dict[bytes, bytes], name: bytes, chunk: bytes) -> None:
    """Keep the first sound chunk of each name that is read, and refuse unknown critical chunks."""
    sound = _is_sound(chunk)
    if not name[0] & 0x20:
        if name == b"IHDR" or not sound:
            raise CorruptImage("the PNG image is damaged: a chunk next to its pixels is broken")
        raise UnsupportedFormat(
            "the PNG image has a critical chunk that the PNG specification does not know. Convert "
            "it to an ordinary PNG"
        )
    if not sound or len(chunk) > MAX_ANCILLARY_BYTES:
        return
    content = chunk[8:-4]
    if name in _TEXTS:
        keyword = next((word for word in _KEYWORDS if content.startswith(word)), None)
        # The first alone is decompressed: a file can have thousands.
        if keyword and keyword not in ancillary:
            ancillary[keyword] = _TEXTS[name](content[len(keyword) :]) or b""
    elif name in _READ:
        ancillary.setdefault(name, content)


def _international_text(content: bytes) -> bytes | None:
    parts = content[2:].split(b"\0", 2)
    if len(parts) != 3:
        return None
    return parts[2] if content[0] == 0 else inflate(parts[2])


_TEXTS = {
    b"tEXt": lambda content: content,
    b"zTXt": lambda content: inflate(content[1:]),
    b"iTXt": _international_text,
}
_KEYWORDS = (_XMP_KEYWORD, _RAW_EXIF_KEYWORD)
_READ = frozenset({b"tRNS", b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"cICP", b"pHYs", b"eXIf"})


def _container(
    header: bytes, kept: list[bytes | memoryview], ancillary: dict[bytes, bytes]
) -> Container:
    depth, colour_type = header[8], header[9]
    transparent = ancillary.get(b"tRNS")
    samples = Samples(depth=depth)
    if colour_type == _PALETTE:
        palette = ancillary.get(b"PLTE", b"")
        if not palette or len(palette) % 3:
            raise CorruptImage(
                "the PNG image is damaged: its pixels need a palette, and it has none"
            )
        if transparent:
            # Pillow reads the transparency of a palette as it is meant.
            kept.insert(-_count_idat(kept) - 1, _chunk(b"tRNS", transparent[: len(palette) // 3]))
    elif transparent and len(transparent) == {_GREY: 2, _RGB: 6}.get(colour_type):
        values = struct.unpack(f">{len(transparent) // 2}H", transparent)
        samples = Samples(transparent=tuple(v & 2**depth - 1 for v in values), depth=depth)
    return Container(
        "PNG",
        b"".join(kept),
        samples,
        icc_profile=_profile(ancillary.get(b"iCCP")),
        exif=_exif(ancillary),
        xmp=ancillary.get(_XMP_KEYWORD),
        dpi=_physical_dpi(ancillary.get(b"pHYs")),
        code_points=_code_points(ancillary.get(b"cICP")),
        gamma=None if b"sRGB" in ancillary else _gamma(ancillary),
    )


def _count_idat(kept: list[bytes | memoryview]) -> int:
    return sum(chunk[4:8] == b"IDAT" for chunk in kept[1:])


def _chunk(name: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + checksum


def _profile(content: bytes | None) -> bytes | None:
    name, _, rest = (content or b"").partition(b"\0")
    return inflate(rest[1:]) if name and rest[:1] == b"\0" else None


def _exif(ancillary: dict[bytes, bytes]) -> bytes | None:
    if b"eXIf" in ancillary:
        return ancillary[b"eXIf"]
    # What ImageMagick wrote before the specification had a chunk for it.
    match = _HEX.match(ancillary.get(_RAW_EXIF_KEYWORD, b""))
    if match is None:
        return None
    digits = b"".join(match[1].split())
    exif = bytes.fromhex(digits[: len(digits) // 2 * 2].decode("ascii"))
    return exif.removeprefix(b"Exif\0\0")


def _physical_dpi(content: bytes | None) -> tuple[float, float] | None:
    if content is None or len(content) != 9 or content[8] != 1:
        return None
    across, down = struct.unpack_from(">II", content)
    return resolution(across, down, _INCHES_IN_A_METRE)


def _code_points(content: bytes | None) -> CodePoints | None:
    return CodePoints(content[0], content[1]) if content and len(content) == 4 else None


def _gamma(ancillary: dict[bytes, bytes]) -> PngGamma | None:
    content = ancillary.get(b"gAMA", b"")
    value = int.from_bytes(content, "big")
    if len(content) != 4 or not 0 < value <= _MAX_GAMMA:
        return None
    points = ancillary.get(b"cHRM", b"")
    places = tuple(v / 100_000 for v in struct.unpack(">8I", points)) if len(points) == 32 else None
    return PngGamma(value / 100_000, places)
