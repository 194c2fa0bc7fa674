"""Image files that are written byte by byte, since Pillow writes no such ones."""

from __future__ import annotations

import itertools
import struct
import zlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_LETTERS = {1: "B", 2: "B", 3: "H", 4: "I", 5: "I", 7: "B", 12: "d"}
Tags = dict[int, tuple[int, Sequence[int]]]
"""Type and values of each tag of a TIFF directory."""


def png_chunk(name: bytes, content: bytes) -> bytes:
    """Return a chunk of a PNG."""
    checksum = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)


def png_file(
    rows: Sequence[bytes], width: int, depth: int, colour_type: int, before: bytes = b""
) -> bytes:
    """Return a PNG of unfiltered rows, with chunks before its pixels."""
    header = struct.pack(">IIBBBBB", width, len(rows), depth, colour_type, 0, 0, 0)
    content = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [png_chunk(b"IHDR", header), before, png_chunk(b"IDAT", content)]
    return b"".join([b"\x89PNG\r\n\x1a\n", *parts, png_chunk(b"IEND", b"")])


def with_chunk(png: bytes, chunk: bytes) -> bytes:
    """Return a PNG with one chunk more, right after its header."""
    return png[:33] + chunk + png[33:]


def pixel_tags(
    width: int, height: int, bits: int, channels: int, photometric: int, **more: int
) -> Tags:
    """Return the tags of uncompressed pixels in one strip.

    Args:
        width: Width in pixels.
        height: Height in pixels.
        bits: Bits of a sample.
        channels: Samples of a pixel.
        photometric: TIFF's number of the colours.
        **more: Tags of one SHORT each, by their number after a letter: ``t339=2``.
    """
    tags: Tags = {
        256: (4, [width]),
        257: (4, [height]),
        258: (3, [bits] * channels),
        259: (3, [1]),
        262: (3, [photometric]),
        277: (3, [channels]),
        278: (4, [height]),
    }
    return tags | {int(name[1:]): (3, [value]) for name, value in more.items()}


def tiff_file(
    tags: Tags, strips: Sequence[bytes], order: str = "<", further: Sequence[Tags] = ()
) -> bytes:
    """Return a TIFF file of one or more directories that share their strips.

    A tag with the values ``[-1]`` points to the first of the further directories.

    Args:
        tags: Tags of the first directory, without the place of the strips.
        strips: The strips.
        order: ``<`` or ``>``, the order of bytes.
        further: Tags of more directories, in a chain.
    """
    data = (b"II*\0" if order == "<" else b"MM\0*") + bytes(4)
    places = []
    for strip in strips:
        places.append(len(data))
        data += strip + bytes(len(strip) % 2)
    sub_place = 0
    links: list[int] = []
    starts: list[int] = []
    for directory in (*reversed(further), tags):
        full = directory | {273: (4, places), 279: (4, [len(strip) for strip in strips])}
        table, outside = b"", b""
        start = len(data)
        outside_at = start + 2 + 12 * len(full) + 4
        for tag in sorted(full):
            kind, values = full[tag]
            values = [sub_place] if list(values) == [-1] else values
            raw = struct.pack(f"{order}{len(values)}{_LETTERS[kind]}", *values)
            count = len(values) // 2 if kind == 5 else len(values)
            table += struct.pack(order + "HHI", tag, kind, count)
            if len(raw) > 4:
                table += struct.pack(order + "I", outside_at + len(outside))
                outside += raw + bytes(len(raw) % 2)
            else:
                table += raw.ljust(4, b"\0")
        data += struct.pack(order + "H", len(full)) + table
        links.append(len(data))
        starts.append(start)
        data += bytes(4) + outside
        sub_place = start
    chained = bytearray(data)
    chained[4:8] = struct.pack(order + "I", starts[-1])
    if 330 not in tags:
        for link, target in zip(links[1:], starts, strict=False):
            chained[link : link + 4] = struct.pack(order + "I", target)
    return bytes(chained)


def samples(values: npt.ArrayLike, dtype: str, order: str = "<") -> bytes:
    """Return values as the samples of a TIFF file."""
    return np.asarray(values).astype(np.dtype(dtype).newbyteorder(order)).tobytes()  # type: ignore[arg-type]


def tiff_pages_first(tags: Tags, strips: Sequence[bytes], *, tiled: bool = False) -> bytes:
    """Return a little-endian TIFF file whose directory is before its strips or tiles.

    Args:
        tags: Tags of the directory. Those of the places are added unless they are given.
        strips: The strips or tiles.
        tiled: Whether they are tiles.
    """
    offsets, sizes = (324, 325) if tiled else (273, 279)
    full = {offsets: (4, [0] * len(strips)), sizes: (4, [len(strip) for strip in strips])} | tags
    outside_at = 8 + 2 + 12 * len(full) + 4
    lengths = {
        tag: len(values) * struct.calcsize(_LETTERS[kind]) for tag, (kind, values) in full.items()
    }
    first = outside_at + sum(size + size % 2 for size in lengths.values() if size > 4)
    if offsets not in tags:
        starts = itertools.accumulate((len(strip) for strip in strips[:-1]), initial=first)
        full[offsets] = (4, list(starts))
    table, outside = b"", b""
    for tag in sorted(full):
        kind, values = full[tag]
        raw = struct.pack(f"<{len(values)}{_LETTERS[kind]}", *values)
        table += struct.pack("<HHI", tag, kind, len(values))
        if len(raw) > 4:
            table += struct.pack("<I", outside_at + len(outside))
            outside += raw + bytes(len(raw) % 2)
        else:
            table += raw.ljust(4, b"\0")
    head = b"II*\0" + struct.pack("<IH", 8, len(full)) + table + bytes(4)
    return head + outside + b"".join(strips)
