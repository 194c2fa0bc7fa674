"""WebP files, split into their pixels and what they say of them.

Source: WebP Container Specification (RFC 9649, section 2). An animation is its first frame.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from serve_app.imaging.formats.container import (
    MAX_ANCILLARY_BYTES,
    MAX_PARTS,
    Container,
    cut_off,
    too_many_parts,
)

_LOSSY, _LOSSLESS = b"VP8 ", b"VP8L"
_PIXELS = frozenset({_LOSSY, _LOSSLESS, b"ALPH"})
_ANIMATION, _FRAME, _EXTENDED = b"ANIM", b"ANMF", b"VP8X"
_ANCILLARY = frozenset({b"ICCP", b"EXIF", b"XMP "})
_ANCILLARY_FLAGS = 0x20 | 0x08 | 0x04
"""Flags of VP8X for a profile, EXIF data and XMP data."""
_SIDE_BITS = 0x3FFF
"""The bits of a side in the header of lossy and of lossless pixels."""


def read_webp(data: bytes) -> Container:
    """Return a WebP file without its profile, EXIF data and further frames.

    Args:
        data: Content of a WebP file.

    Raises:
        CorruptImage: The file ends before its pixels.
    """
    kept: list[bytes | memoryview] = []
    ancillary: dict[bytes, bytes] = {}
    view = memoryview(data)
    position, has_frame = 12, False
    for _ in range(MAX_PARTS):
        if position + 8 > len(data):
            break
        name, length = struct.unpack_from("<4sI", data, position)
        end = position + 8 + length + length % 2
        chunk = view[position:end]
        if name == _EXTENDED and len(chunk) >= 18:
            kept.append(bytes(chunk[:8]) + bytes([chunk[8] & ~_ANCILLARY_FLAGS]) + bytes(chunk[9:]))
        elif name in _PIXELS or name == _ANIMATION or (name == _FRAME and not has_frame):
            if position + 8 + length > len(data):
                raise cut_off("WebP", "its pixels")
            kept.append(chunk)
            has_frame = has_frame or name == _FRAME
        elif name in _ANCILLARY and length <= MAX_ANCILLARY_BYTES and end <= len(data) + 1:
            ancillary.setdefault(name, bytes(chunk[8 : 8 + length]))
        position = end
    else:
        raise too_many_parts("WebP")
    if not any(chunk[:4] in _PIXELS or chunk[:4] == _FRAME for chunk in kept):
        raise cut_off("WebP", "its header")
    length = sum(map(len, kept))
    # Chunks have an even length. A last one without its padding is as good.
    padding = bytes(length % 2)
    head = b"RIFF" + struct.pack("<I", 4 + length + len(padding)) + b"WEBP"
    return Container(
        "WEBP",
        b"".join([head, *kept, padding]),
        still_size=None if has_frame else _still_size(kept),
        icc_profile=ancillary.get(b"ICCP"),
        exif=(ancillary.get(b"EXIF") or b"").removeprefix(b"Exif\0\0") or None,
        xmp=ancillary.get(b"XMP "),
    )


def _still_size(chunks: Sequence[bytes | memoryview]) -> tuple[int, int]:
    """Return the width and height of an image that is no animation.

    Sources: RFC 9649, sections 2.7 and 3.4, and RFC 6386, section 9.1.

    Raises:
        CorruptImage: The file ends before them.
    """
    try:
        for chunk in chunks:
            name = bytes(chunk[:4])
            if name == _EXTENDED:
                low, high, low_2, high_2 = struct.unpack_from("<HBHB", chunk, 12)
                return 1 + low + (high << 16), 1 + low_2 + (high_2 << 16)
            if name == _LOSSLESS:
                (bits,) = struct.unpack_from("<I", chunk, 9)
                return 1 + (bits & _SIDE_BITS), 1 + (bits >> 14 & _SIDE_BITS)
            if name == _LOSSY:
                width, height = struct.unpack_from("<HH", chunk, 14)
                return width & _SIDE_BITS, height & _SIDE_BITS
    except struct.error as error:
        raise cut_off("WebP", "its header") from error
    raise cut_off("WebP", "its header")
