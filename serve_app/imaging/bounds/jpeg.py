"""Bound of JPEG files: their scans (ITU-T T.81, annex B)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from serve_app.errors import ImageTooLarge
from serve_app.imaging.bounds.parts import (
    MAX_PARTS,
    SLICE_BYTES,
    BytePattern,
    find_pattern,
    refuse_parts,
)
from serve_app.imaging.pixels import Pixels

MAX_SCANS = 100
"""Most scans of a file. libjpeg writes up to 18, and MozJPEG a few more."""
MAX_FULL_SIZE_SCANS = 24
"""Most scans of an image of ``limits.max_pixels``. A smaller image may have more in proportion.

A few bytes of a scan can stand for every pixel, which takes 1.5 ns per pixel on a 2.5 GHz Xeon:
2.3 s for 24 scans of 64 megapixels.
"""

_MAX_FILL_BYTES = 4_096
"""Longest run of fill bytes after the first scan. libjpeg starts it again with each 64 KB."""
START_OF_SCAN, END_OF_IMAGE = 0xDA, 0xD9
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers of frame headers, which declare the size and the components."""
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}


def _markers(values: Pixels) -> npt.NDArray[np.bool_]:
    second = values[1:]
    return np.asarray((values[:-1] == 0xFF) & (second != 0) & (second != 0xFF))


def _ends_of_scan(values: Pixels) -> npt.NDArray[np.bool_]:
    second = values[1:]
    return np.asarray(_markers(values) & (second != 1) & (second & 0xF8 != 0xD0))


MARKER = BytePattern(re.compile(rb"\xff[^\x00\xff]"), _markers)
"""Marker before the first scan."""
MARKER_AFTER_SCAN = BytePattern(re.compile(rb"\xff[^\x00\xff\x01\xd0-\xd7]"), _ends_of_scan)
"""End of a scan's data, in which 0 is a stuffed byte, and 0xd0 to 0xd7 restart the decoder."""


class JpegSegment(NamedTuple):
    """A marker of a JPEG file, with what belongs to it."""

    marker: int
    """Second byte of the marker."""
    start: int
    """Position of the marker."""
    end: int
    """Position after the segment, without the data of a scan."""


def check_jpeg(data: bytes, max_pixels: int) -> None:
    """Refuse a JPEG file that would be decoded for long.

    Args:
        data: Content of the file.
        max_pixels: Largest accepted number of pixels of an image.

    Raises:
        ImageTooLarge: The file has too many segments, scans or fill bytes.
    """
    pixels = 0
    for segment in read_segments(data, 2):
        if segment.marker in FRAMES:
            frame = data[segment.start + 5 : segment.start + 9]
            pixels = int.from_bytes(frame[:2], "big") * int.from_bytes(frame[2:], "big")
        elif segment.marker == START_OF_SCAN:
            _check_scans(data, segment.start, pixels, max_pixels)
            return
        elif segment.marker == END_OF_IMAGE:
            return


def read_segments(data: bytes, at: int, *, in_scan: bool = False) -> Iterator[JpegSegment]:
    """Yield the segments of a file, and skip what is between them.

    Args:
        data: Content of the file.
        at: Position to begin at.
        in_scan: Whether pixels may be at the position. Then markers within them do not count.

    Raises:
        ImageTooLarge: There are too many segments.
    """
    next_marker = MARKER_AFTER_SCAN if in_scan else MARKER
    for _ in range(MAX_PARTS):
        start = find_pattern(next_marker, data, at)
        if start is None:
            return
        marker, at = data[start + 1], start + 2
        if marker not in _WITHOUT_LENGTH:
            at += max(2, int.from_bytes(data[at : at + 2], "big"))
        yield JpegSegment(marker, start, at)
    raise refuse_parts("JPEG", "segments")


def _check_scans(data: bytes, start: int, pixels: int, max_pixels: int) -> None:
    """Refuse a file that would be decoded for long.

    Args:
        data: Content of the file.
        start: Position of the first scan.
        pixels: Number of pixels of the image.
        max_pixels: Largest accepted number of pixels.

    Raises:
        ImageTooLarge: The file has too many scans or fill bytes.
    """
    if pixels > max_pixels:
        # It is refused for its size.
        return
    most = min(MAX_SCANS, MAX_FULL_SIZE_SCANS * max_pixels // max(1, pixels))
    fill = b"\xff" * _MAX_FILL_BYTES
    # Nearly all files end here. What looks like a scan may also be content of a segment.
    if _count_at_most(data, start, most) and data.find(fill, start) < 0:
        return
    scans, until = 0, start
    for segment in read_segments(data, start, in_scan=True):
        if data.find(fill, until, segment.start) >= 0:
            raise ImageTooLarge(
                f"the JPEG image has a run of more than {_MAX_FILL_BYTES:,} fill bytes after its "
                "first scan. Store the image again with another program"
            )
        until = segment.end
        if segment.marker == END_OF_IMAGE:
            return
        scans += segment.marker == START_OF_SCAN
        if scans > most:
            raise refuse_parts("JPEG", "scans", most)


def _count_at_most(data: bytes, start: int, most: int) -> bool:
    """Return whether at most a number of scans can follow a position."""
    marker, count = bytes([0xFF, START_OF_SCAN]), 0
    for at in range(start, len(data), SLICE_BYTES):
        count += data.count(marker, at, at + SLICE_BYTES + 1)
        if count > most:
            return False
    return True
