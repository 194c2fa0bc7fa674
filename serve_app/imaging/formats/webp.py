"""WebP files, split into their pixels and what they say of them.

Source: WebP Container Specification (RFC 9649, section 2). An animation is its first frame.
"""

from __future__ import annotations

import struct

from serve_app.imaging.formats.container import (
    MAX_ANCILLARY_BYTES,
    MAX_PARTS,
    Container,
    cut_off,
    too_many_parts,
)

_PIXELS = frozenset({b"VP8 ", b"VP8L", b"ALPH"})
_ANIMATION, _FRAME, _EXTENDED = b"ANIM", b"ANMF", b"VP8X"
_ANCILLARY = frozenset({b"ICCP", b"EXIF", b"XMP "})
_ANCILLARY_FLAGS = 0x20 | 0x08 | 0x04
"""Flags of VP8X for a profile, EXIF data and XMP data."""


def read_webp(data: bytes) -> Container:
    """Return a WebP file without its profile, EXIF data and further frames.

    Args:
        data: Content of a WebP file.

    Raises:
        CorruptImage: The file ends before its pixels.
    """
    kept: list[bytes] = []
    ancillary: dict[bytes, bytes] = {}
    position, has_frame = 12, False
    for _ in range(MAX_PARTS):
        if position + 8 > len(data):
            break
        name, length = struct.unpack_from("<4sI", data, position)
        end = position + 8 + length + length % 2
        chunk = data[position:end]
        if name == _EXTENDED and len(chunk) >= 18:
            kept.append(chunk[:8] + bytes([chunk[8] & ~_ANCILLARY_FLAGS]) + chunk[9:])
        elif name in _PIXELS or name == _ANIMATION or (name == _FRAME and not has_frame):
            kept.append(chunk)
            has_frame = has_frame or name == _FRAME
        elif name in _ANCILLARY and length <= MAX_ANCILLARY_BYTES and end <= len(data) + 1:
            ancillary.setdefault(name, chunk[8 : 8 + length])
        position = end
    else:
        raise too_many_parts("WebP")
    if not any(chunk[:4] in _PIXELS or chunk[:4] == _FRAME for chunk in kept):
        raise cut_off("WebP", "its header")
    body = b"".join(kept)
    # Chunks have an even length. A last one without its padding is as good.
    body += bytes(len(body) % 2)
    return Container(
        "WEBP",
        b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body,
        icc_profile=ancillary.get(b"ICCP"),
        exif=(ancillary.get(b"EXIF") or b"").removeprefix(b"Exif\0\0") or None,
        xmp=ancillary.get(b"XMP "),
    )
