"""Scan of TIFF files: the first directory (TIFF 6.0, section 2, and BigTIFF)."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

from serve_app.errors import ImageTooLarge
from serve_app.imaging.bounds.jpeg import MAX_FULL_SIZE_SCANS
from serve_app.imaging.bounds.parts import refuse_parts

MAX_ENTRIES = 4_096
"""Most entries of a directory. Raw files of cameras have a few hundred."""
MAX_STRIPS = 262_144
"""Most strips or tiles of an image: one of 64 megapixels in tiles of 16 x 16 has 250,000."""
_MAX_TILE_PIXELS = 1 << 22
"""Largest tile that is allowed for any image. It is decoded whole."""
_MAX_TILE_SHARE = 4
"""Largest ratio of a tile to its image, for larger tiles."""

# libtiff decodes JPEG files in TIFF files, by default with fewer than 100 scans at any size.
os.environ.setdefault("LIBTIFF_JPEG_MAX_ALLOWED_SCAN_NUMBER", str(MAX_FULL_SIZE_SCANS + 1))

_WIDTH, _HEIGHT = 256, 257
_STRIP_OFFSETS, _STRIP_BYTES, _TILE_OFFSETS, _TILE_BYTES = 273, 279, 324, 325
_TILE_WIDTH, _TILE_HEIGHT = 322, 323
_SHORT, _LONG, _LONG8 = 3, 4, 16


class _Entry(NamedTuple):
    length: int
    """Number of values."""
    value: int
    """The value, if it is a single integer."""


def check_tiff(data: bytes) -> None:
    """Refuse a TIFF file whose directory would be read for long.

    Args:
        data: Content of the file.

    Raises:
        ImageTooLarge: The first directory has too many entries, or the image too many strips or too
            large tiles.
    """
    entries: dict[int, _Entry] = {}
    for tag, entry in _entries(data):
        entries.setdefault(tag, entry)
    for tag in (_STRIP_OFFSETS, _STRIP_BYTES, _TILE_OFFSETS, _TILE_BYTES):
        if tag in entries and entries[tag].length > MAX_STRIPS:
            raise refuse_parts("TIFF", "strips or tiles", MAX_STRIPS)
    pixels, tile = _area(entries, _WIDTH, _HEIGHT), _area(entries, _TILE_WIDTH, _TILE_HEIGHT)
    if tile > max(_MAX_TILE_PIXELS, _MAX_TILE_SHARE * pixels):
        raise ImageTooLarge(
            f"the TIFF image has {pixels:,} pixels in tiles of {tile:,} pixels, which are decoded "
            "whole. Store it in smaller tiles or in strips"
        )


def _area(entries: dict[int, _Entry], width: int, height: int) -> int:
    return entries[width].value * entries[height].value if {width, height} <= {*entries} else 0


def _entries(data: bytes) -> Iterator[tuple[int, _Entry]]:
    """Yield the tags and entries of the first directory, as far as the file has them."""
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in {b"\x2b\0", b"\0\x2b"}
    number, head, size = ("Q", "HHQ8s", 20) if big else ("H", "HHI4s", 12)
    try:
        (start,) = struct.unpack_from(f"{order}{'Q' if big else 'I'}", data, 8 if big else 4)
        (count,) = struct.unpack_from(f"{order}{number}", data, start)
    except struct.error:
        return
    if count > MAX_ENTRIES:
        raise refuse_parts("TIFF", "entries in its directory", MAX_ENTRIES)
    at = start + struct.calcsize(number)
    directory = data[at : at + count * size]
    for tag, kind, many, value in struct.iter_unpack(
        f"{order}{head}", directory[: len(directory) // size * size]
    ):
        code = {_SHORT: "H", _LONG: "I", _LONG8: "Q"}.get(kind)
        fits = code is not None and many == 1 and struct.calcsize(code) <= len(value)
        yield tag, _Entry(many, struct.unpack_from(f"{order}{code}", value)[0] if fits else 0)
