"""What the scans of all containers share: their limits, and files without some of their parts."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from serve_app.errors import ImageTooLarge

MAX_PARTS = 65_536
"""Most segments, chunks or blocks of a file that are read.

A scan takes up to 30 ms for them and Pillow up to half a second. A file of 32 MiB whose PNG chunks
have 512 bytes each has as many. Encoders write 4 KB to 64 KB.
"""

SLICE_BYTES = 1 << 18
"""Bytes that are searched at a time. Other threads of Python run in between."""


@dataclass(slots=True)
class KeptParts:
    """The parts of a file that a decoder gets to read."""

    data: bytes
    """Content of the whole file."""
    _pieces: list[memoryview] = field(default_factory=list)
    _until: int = 0

    def leave_out(self, start: int, end: int) -> None:
        """Leave out a range of bytes, which must not begin before the end of the previous one."""
        if end <= start:
            return
        if start > self._until:
            self._pieces.append(memoryview(self.data)[self._until : start])
        self._until = end

    def file(self) -> bytes:
        """Return the file without the ranges that were left out. It is only copied if there are."""
        if not self._until:
            return self.data
        return b"".join([*self._pieces, memoryview(self.data)[self._until :]])


def refuse_parts(container: str, parts: str, limit: int = MAX_PARTS) -> ImageTooLarge:
    """Return the error of a file that has more parts than are read.

    Args:
        container: Name of the container, such as ``JPEG``.
        parts: Name of the parts, in the plural.
        limit: Most parts that are read.
    """
    return ImageTooLarge(
        f"the {container} image has more than {limit:,} {parts}, the most that are read. "
        "Store the image again with another program"
    )


def find_pattern(pattern: re.Pattern[bytes], data: bytes, at: int) -> int | None:
    """Return the first position at which a pattern of one or two bytes matches, or None.

    Args:
        pattern: Pattern to search for.
        data: Content of a file.
        at: Position to begin at.
    """
    for start in range(at, len(data), SLICE_BYTES):
        # One byte more, for a match that crosses the end of the slice.
        found = pattern.search(data, start, start + SLICE_BYTES + 1)
        if found:
            return found.start()
    return None
