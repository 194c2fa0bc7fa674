"""What the scans of all containers share: their limits, and files without some of their parts."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from serve_app.errors import ImageTooLarge
from serve_app.imaging.pixels import Pixels

MAX_PARTS = 65_536
"""Most segments, chunks or blocks of a file that are read.

A scan takes up to 30 ms for them and Pillow up to half a second. A file of 32 MiB whose PNG chunks
have 512 bytes each has as many. Encoders write 4 KB to 64 KB.
"""

SLICE_BYTES = 1 << 18
"""Bytes that are searched at a time. Other threads of Python run in between."""

_NEAR_BYTES = 256
"""Bytes in which a regular expression searches: most parts follow one another without a gap."""


class BytePattern(NamedTuple):
    """A pattern of one or two bytes, in two forms that match the same."""

    expression: re.Pattern[bytes]
    """Regular expression, which is fast for few bytes. It holds Python's lock while it searches."""
    matches: Callable[[Pixels], npt.NDArray[np.bool_]]
    """Function that returns for each byte, or for each but the last, whether the pattern matches
    there. It takes 0.1 ns for a byte, a regular expression up to 13, and the lock is free."""


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


def find_pattern(pattern: BytePattern, data: bytes, at: int) -> int | None:
    """Return the first position at which a pattern matches, or None.

    Args:
        pattern: Pattern to search for.
        data: Content of a file.
        at: Position to begin at.
    """
    near = pattern.expression.search(data, at, at + _NEAR_BYTES)
    if near:
        return near.start()
    # One byte again, for a match that crosses the end of what was searched.
    for start in range(at + _NEAR_BYTES - 1, len(data), SLICE_BYTES):
        count = min(SLICE_BYTES + 1, len(data) - start)
        matches = pattern.matches(np.frombuffer(data, np.uint8, count, start))
        if matches.any():
            return start + int(matches.argmax())
    return None
