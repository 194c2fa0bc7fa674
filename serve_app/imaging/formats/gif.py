"""GIF files, and the part of the canvas that their first frame covers.

Source: Graphics Interchange Format, version 89a (CompuServe, 1990), sections 18, 20 and 23.
"""

from __future__ import annotations

import struct

from serve_app.imaging.formats.container import (
    MAX_PARTS,
    Container,
    check_sides,
    cut_off,
    too_many_parts,
)

_SCREEN_BYTES = 13
_FRAME_BYTES = 9
_EXTENSION, _FRAME, _TRAILER = b"!", b",", b";"


def read_gif(data: bytes) -> Container:
    """Return a GIF file with the place of its first frame, around which nothing is visible.

    Pillow fills up the rest of the canvas with a background colour, and browsers do not.

    Args:
        data: Content of a GIF file.

    Raises:
        CorruptImage: The file ends before its first frame.
        EmptyImage: The first frame has no pixels.
    """
    if len(data) < _SCREEN_BYTES:
        raise cut_off("GIF", "its header")
    screen_width, screen_height, flags = struct.unpack_from("<HHB", data, 6)
    start = _find_frame(data, _SCREEN_BYTES + ((6 << (flags & 7)) if flags & 0x80 else 0))
    if start + _FRAME_BYTES > len(data):
        raise cut_off("GIF", "its header")
    left, top, width, height = struct.unpack_from("<HHHH", data, start)
    check_sides(width, height)
    right, bottom = left + width, top + height
    whole = not left and not top and right >= screen_width and bottom >= screen_height
    return Container("GIF", data, covered=None if whole else (left, top, right, bottom))


def _find_frame(data: bytes, at: int) -> int:
    """Return the position of the first frame's place, or the end of the file."""
    for _ in range(MAX_PARTS):
        kind, at = data[at : at + 1], at + 1
        if kind == _FRAME:
            return at
        if kind in {_TRAILER, b""}:
            break
        if kind == _EXTENSION:
            at += 1
            while data[at : at + 1] not in {b"\0", b""}:
                at += 1 + data[at]
            at += 1
    else:
        raise too_many_parts("GIF")
    raise cut_off("GIF", "its header")
