"""Scan of GIF files: the blocks before the first frame (GIF89a specification)."""

from __future__ import annotations

import re

from serve_app.imaging.bounds.parts import (
    MAX_PARTS,
    BytePattern,
    KeptParts,
    find_pattern,
    refuse_parts,
)

_SCREEN_BYTES = 13
_MAX_READ_BLOCKS = 1_024
"""Most blocks without effect on the pixels that Pillow gets to read, at 1 to 2 µs each."""
_EXTENSION, _GRAPHIC_CONTROL = ord("!"), 0xF9
INTRODUCER = BytePattern(
    re.compile(rb"[!,;]"),
    lambda values: (values == ord("!")) | (values == ord(",")) | (values == ord(";")),
)
"""First byte of an extension, an image or the end of the file."""


def bound_gif(data: bytes) -> bytes:
    """Return a GIF file without the metadata that Pillow would read for long.

    Args:
        data: Content of the file.

    Raises:
        ImageTooLarge: The file has too many blocks before its first frame.
    """
    if len(data) < _SCREEN_BYTES:
        return data
    flags = data[10]
    at = _SCREEN_BYTES + ((6 << (flags & 7)) if flags & 0x80 else 0)
    left_out = KeptParts(data)
    blocks = skipped = 0
    while (start := find_pattern(INTRODUCER, data, at)) is not None and data[start] == _EXTENSION:
        until, at = at, start + 2
        while (size := data[at : at + 1]) not in {b"\0", b""}:
            at += 1 + size[0]
            blocks += 1
        at, blocks, skipped = at + 1, blocks + 1, skipped + start - until
        if blocks > MAX_PARTS:
            raise refuse_parts("GIF", "blocks before the first frame")
        # Of the graphic controls, the last before a frame is the frame's.
        control = data[start + 1 : start + 2] == bytes([_GRAPHIC_CONTROL])
        left_out.leave_out(until, start if control else at)
    end = len(data) if start is None else start
    left_out.leave_out(at, end)
    return left_out.file() if blocks + skipped + end - at > _MAX_READ_BLOCKS else data
