"""BMP files, and the profile that their header may name.

Source: Bitmap Header Types (Microsoft), BITMAPINFOHEADER to BITMAPV5HEADER.
"""

from __future__ import annotations

import struct

from serve_app.errors import UnsupportedFormat
from serve_app.imaging.formats.container import (
    MAX_ANCILLARY_BYTES,
    Container,
    check_sides,
    cut_off,
    resolution,
)

_FILE_HEADER_BYTES = 14
_HEADER_BYTES = frozenset({12, 16, 40, 52, 56, 64, 108, 124})
"""Lengths of the headers of OS/2 and Windows."""
_V3_BYTES, _V5_BYTES = 56, 124
_OLD_HEADER_END = 16
"""Length below which a header has sides of 16 bits."""
_SIDES_AT, _ALPHA_MASK_AT = 18, 66
_RLE8, _RLE4, _BITFIELDS, _ALPHA_BITFIELDS = 1, 2, 3, 6
_INCHES_IN_A_METRE = 1 / 0.0254


def is_bmp(data: bytes) -> bool:
    """Return whether data begins like a BMP file.

    Args:
        data: Content of any file.
    """
    size = int.from_bytes(data[14:18], "little")
    return data.startswith(b"BM") and (len(data) < 18 or size in _HEADER_BYTES)


def read_bmp(data: bytes) -> Container:
    """Return a BMP file with its profile and resolution.

    Args:
        data: Content of a BMP file.

    Raises:
        CorruptImage: The file ends before its pixels.
        EmptyImage: A side has no pixels.
        UnsupportedFormat: The pixels are compressed in a way that Pillow does not decode.
    """
    size = int.from_bytes(data[14:18], "little")
    if len(data) < _FILE_HEADER_BYTES + max(size, 12):
        raise cut_off("BMP", "its header")
    sides = struct.unpack_from("<HH" if size < _OLD_HEADER_END else "<ii", data, _SIDES_AT)
    check_sides(*map(abs, sides))
    if size < 40:
        return Container("BMP", data)
    compression = int.from_bytes(data[30:34], "little")
    if compression not in {0, _RLE8, _RLE4, _BITFIELDS, _ALPHA_BITFIELDS}:
        raise UnsupportedFormat(
            f"the BMP image has compression {compression}, which is not supported. Store it "
            "without compression"
        )
    bits = int.from_bytes(data[28:30], "little")
    has_alpha_mask = size >= _V3_BYTES and any(data[_ALPHA_MASK_AT : _ALPHA_MASK_AT + 4])
    if bits == 16 and compression in {_BITFIELDS, _ALPHA_BITFIELDS} and has_alpha_mask:
        # Pillow drops the transparency.
        raise UnsupportedFormat(
            "the BMP image has 16 bits per pixel with transparency, which is not supported. Store "
            "it with 32 bits, or as PNG"
        )
    across, down = struct.unpack_from("<ii", data, 38)
    profile = None
    if size == _V5_BYTES and data[70:74] == b"DEBM":
        start, length = struct.unpack_from("<II", data, _FILE_HEADER_BYTES + 112)
        start += _FILE_HEADER_BYTES
        if 0 < length <= MAX_ANCILLARY_BYTES and start + length <= len(data):
            profile = data[start : start + length]
    dpi = resolution(across, down, _INCHES_IN_A_METRE)
    kind = f"{bits} bits per pixel, compression {compression}"
    return Container("BMP", data, icc_profile=profile, dpi=dpi, kind=kind)
