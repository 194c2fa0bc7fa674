"""Directories of TIFF structures: those of TIFF files and of EXIF data.

Source: TIFF 6.0 (Adobe, 1992), section 2, and BigTIFF (AWare Systems, 2007).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

ORIENTATION = 274
X_RESOLUTION = 282
Y_RESOLUTION = 283
RESOLUTION_UNIT = 296

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_SIZES |= {16: 8, 17: 8, 18: 8}
"""Bytes of one value of each type."""
_LETTERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 11: "f", 12: "d", 13: "I"}
_LETTERS |= {5: "II", 10: "ii", 16: "Q", 17: "q", 18: "Q"}
"""How ``struct`` names each type of numbers."""
_OFFSETS = {3: "u2", 4: "u4", 13: "u4", 16: "u8", 18: "u8"}
"""How NumPy names each type of offsets."""
_RATIONAL = (5, 10)
_MAX_ENTRIES = 4096
_MAX_NUMBERS = 4096
_MAX_DIRECTORIES = 64
_CENTIMETRES = 3


@dataclass(frozen=True, slots=True)
class Layout:
    """Byte order and widths of a TIFF structure."""

    order: str
    """``<`` or ``>``, as ``struct`` names it."""
    big: bool
    """Whether the structure is a BigTIFF, with offsets of 8 bytes."""

    @property
    def header_bytes(self) -> int:
        """Length of the header."""
        return 16 if self.big else 8

    @property
    def offset(self) -> str:
        """Format of an offset, as ``struct`` names it."""
        return self.order + ("Q" if self.big else "I")

    @property
    def count(self) -> str:
        """Format of the number of entries, as ``struct`` names it."""
        return self.order + ("Q" if self.big else "H")

    @property
    def entry_bytes(self) -> int:
        """Length of an entry."""
        return 20 if self.big else 12

    @property
    def inline_bytes(self) -> int:
        """Length of a value that fits into its entry."""
        return 8 if self.big else 4


@dataclass(frozen=True, slots=True)
class TagEntry:
    """An entry of a directory."""

    kind: int
    """TIFF's number of the type."""
    count: int
    """Number of values."""
    start: int
    """Offset of the values."""

    @property
    def end(self) -> int:
        """Offset behind the values."""
        return self.start + self.count * _SIZES.get(self.kind, 1)


@dataclass(frozen=True, slots=True)
class Directory:
    """One image of a TIFF structure, or one group of EXIF data."""

    data: bytes
    layout: Layout
    entries: dict[int, TagEntry]
    next_offset: int

    def numbers(self, tag: int, default: tuple[float, ...] = ()) -> tuple[float, ...]:
        """Return the numbers of a tag, or the default if it is missing or broken.

        Args:
            tag: Number of the tag.
            default: What a missing tag means.
        """
        entry = self.entries.get(tag)
        if entry is None or entry.kind not in _LETTERS or not 0 < entry.count <= _MAX_NUMBERS:
            return default
        if entry.end > len(self.data):
            return default
        letters = self.layout.order + _LETTERS[entry.kind] * entry.count
        found = struct.unpack_from(letters, self.data, entry.start)
        if entry.kind in _RATIONAL:
            pairs = zip(found[::2], found[1::2], strict=True)
            return tuple(top / bottom if bottom else 0.0 for top, bottom in pairs)
        return found

    def number(self, tag: int, default: int) -> int:
        """Return the first number of a tag, or the default if it is missing or broken.

        Args:
            tag: Number of the tag.
            default: What a missing tag means.
        """
        found = self.numbers(tag, (default,))[0]
        # Floats may be NaN or infinite.
        return int(found) if abs(found) < 2**63 else default

    def offsets(self, tag: int) -> npt.NDArray[np.uint64]:
        """Return the offsets or numbers of bytes of a tag, any number of them.

        Args:
            tag: Number of the tag.

        Returns:
            uint64 [count], empty if the tag is missing, broken or of another type.
        """
        entry = self.entries.get(tag)
        if entry is None or entry.kind not in _OFFSETS or entry.end > len(self.data):
            return np.empty(0, np.uint64)
        kind = np.dtype(self.layout.order + _OFFSETS[entry.kind])
        return np.frombuffer(self.data, kind, entry.count, entry.start).astype(np.uint64)

    def content(self, tag: int, max_bytes: int) -> bytes | None:
        """Return the bytes of a tag, or None if it is missing, cut off or too long.

        Args:
            tag: Number of the tag.
            max_bytes: Most bytes to read.
        """
        entry = self.entries.get(tag)
        if entry is None or entry.end > len(self.data) or entry.end - entry.start > max_bytes:
            return None
        return self.data[entry.start : entry.end]

    @property
    def dpi(self) -> tuple[float, float] | None:
        """Pixels per inch across and down as declared, unchecked. None without a resolution."""
        across, down = self.numbers(X_RESOLUTION), self.numbers(Y_RESOLUTION)
        unit = self.number(RESOLUTION_UNIT, 2)
        if not across or not down or unit not in {2, _CENTIMETRES}:
            return None
        factor = 2.54 if unit == _CENTIMETRES else 1.0
        return across[0] * factor, down[0] * factor


def read_layout(data: bytes) -> Layout | None:
    """Return the layout of a TIFF structure, or None if the data is none.

    Args:
        data: Data that may be a TIFF structure.
    """
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or len(data) < 8:
        return None
    version = struct.unpack_from(order + "H", data, 2)[0]
    if version == 42:
        return Layout(order, big=False)
    return Layout(order, big=True) if version == 43 and len(data) >= 16 else None


def read_directory(data: bytes, layout: Layout, offset: int) -> Directory | None:
    """Return the directory at an offset, or None if it is not within the data.

    Args:
        data: A TIFF structure.
        layout: Layout of the structure.
        offset: Offset of the directory.
    """
    first = offset + struct.calcsize(layout.count)
    if offset < layout.header_bytes or first > len(data):
        return None
    count = struct.unpack_from(layout.count, data, offset)[0]
    end = first + count * layout.entry_bytes
    if not 0 < count <= _MAX_ENTRIES or end + layout.inline_bytes > len(data):
        return None
    entries: dict[int, TagEntry] = {}
    for position in range(first, end, layout.entry_bytes):
        raw = data[position : position + layout.entry_bytes]
        tag, kind = struct.unpack_from(layout.order + "HH", raw)
        values = struct.unpack_from(layout.offset, raw, 4)[0]
        start = position + layout.entry_bytes - layout.inline_bytes
        if values * _SIZES.get(kind, 1) > layout.inline_bytes:
            start = struct.unpack_from(layout.offset, data, start)[0]
        entries.setdefault(tag, TagEntry(kind, values, start))
    next_offset = struct.unpack_from(layout.offset, data, end)[0]
    return Directory(data, layout, entries, next_offset)


def read_directories(data: bytes, layout: Layout) -> Iterator[Directory]:
    """Yield the directories of a TIFF structure in their order, the first 64 at most.

    Args:
        data: A TIFF structure.
        layout: Layout of the structure.
    """
    offset = struct.unpack_from(layout.offset, data, layout.header_bytes - layout.inline_bytes)[0]
    seen: set[int] = set()
    while offset and offset not in seen and len(seen) < _MAX_DIRECTORIES:
        seen.add(offset)
        directory = read_directory(data, layout, offset)
        if directory is None:
            return
        yield directory
        offset = directory.next_offset


def first_directory(data: bytes) -> Directory | None:
    """Return the first directory of a TIFF structure, or None if it cannot be read.

    Args:
        data: Data that may be a TIFF structure, such as EXIF data.
    """
    layout = read_layout(data)
    return None if layout is None else next(read_directories(data, layout), None)
