"""Bound of EXIF data, which is a directory in the form of TIFF (CIPA DC-008, 4.6.2)."""

from __future__ import annotations

_MAX_ENTRIES = 1_024
"""Most entries of a directory. Cameras write some dozens, Pillow reads each in 5 to 10 µs."""
_PREFIX = b"Exif\0\0"


def is_costly_exif(exif: bytes) -> bool:
    """Return whether EXIF data has more entries than a camera would write.

    Args:
        exif: EXIF data, with or without its prefix in JPEG files. Broken data is not costly: a
            decoder stops at once.
    """
    exif = exif.removeprefix(_PREFIX)
    order = {b"II": "little", b"MM": "big"}.get(exif[:2])
    if order is None:
        return False
    little = exif[:2] == b"II"
    start = int.from_bytes(exif[4:8], "little" if little else "big")
    count = int.from_bytes(exif[start : start + 2], "little" if little else "big")
    return count > _MAX_ENTRIES
