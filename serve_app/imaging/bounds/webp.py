"""Scan of WebP files: the number of chunks, and EXIF data (RFC 9649, section 2)."""

from __future__ import annotations

import struct

from serve_app.imaging.bounds.exif import is_costly_exif
from serve_app.imaging.bounds.parts import MAX_PARTS, refuse_parts

_HEAD_BYTES = 12
_EXIF, _UNKNOWN = b"EXIF", b"????"


def bound_webp(data: bytes) -> bytes:
    """Return a WebP file without EXIF data that Pillow would read for long.

    Args:
        data: Content of the file.

    Raises:
        ImageTooLarge: The file has too many chunks.
    """
    at = _HEAD_BYTES
    for _ in range(MAX_PARTS):
        if at + 8 > len(data):
            return data
        name, length = struct.unpack_from("<4sI", data, at)
        if name == _EXIF and is_costly_exif(data[at + 8 : at + 8 + length]):
            # Readers skip unknown chunks, and the sizes stay right.
            return data[:at] + _UNKNOWN + data[at + 4 :]
        # Chunks are padded to an even size.
        at += 8 + length + (length & 1)
    raise refuse_parts("WebP", "chunks")
