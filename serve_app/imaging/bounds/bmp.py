"""Scan of BMP files: the cost of run-length encoding, which Pillow decodes in Python."""

from __future__ import annotations

import struct

from serve_app.errors import ImageTooLarge

MAX_RUN_LENGTH_COST = 8_000_000
"""Largest sum of an image's pixels and twice its encoded bytes, at 0.3 µs each."""

_HEADER_BYTES = 34
_RUN_LENGTH = {1, 2}
"""BI_RLE8 and BI_RLE4."""


def check_bmp(data: bytes) -> None:
    """Refuse a BMP file whose run-length encoding would be decoded for long.

    Args:
        data: Content of the file.

    Raises:
        ImageTooLarge: The file is run-length encoded and too large for that.
    """
    if len(data) < _HEADER_BYTES or struct.unpack_from("<I", data, 14)[0] < 40:
        return
    width, height, _, _, compression = struct.unpack_from("<iiHHI", data, 18)
    cost = abs(width * height) + 2 * len(data)
    if compression in _RUN_LENGTH and cost > MAX_RUN_LENGTH_COST:
        raise ImageTooLarge(
            f"the BMP image has {abs(width)} x {abs(height)} pixels in {len(data):,} bytes of "
            "run-length encoding, which takes too long to decode. Store it without compression, or "
            "as PNG"
        )
