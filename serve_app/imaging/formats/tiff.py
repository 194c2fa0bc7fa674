"""TIFF files, reduced to the one page that is the image and not a preview of it.

The page gets a directory of its own that has nothing but the tags of its pixels.

Sources: TIFF 6.0 (Adobe, 1992), TIFF/EP (ISO 12234-2:2001), DNG 1.7.1 (Adobe, 2023).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np

from serve_app.errors import CorruptImage, UnsupportedFormat
from serve_app.imaging.bounds.tiff import MAX_STRIPS
from serve_app.imaging.formats.container import MAX_ANCILLARY_BYTES, Container, check_sides, cut_off
from serve_app.imaging.formats.directory import (
    Directory,
    Layout,
    read_directories,
    read_directory,
    read_layout,
)
from serve_app.imaging.formats.tiff_places import (
    HEIGHT,
    STRIP_OFFSETS,
    TILE_OFFSETS,
    WIDTH,
    check_pixel_places,
)
from serve_app.imaging.formats.tiff_samples import (
    BITS,
    COLOUR_MAP,
    COMPRESSION,
    EXTRA,
    PHOTOMETRIC,
    check_samples,
    colour_map_of_8_bits,
    describe_samples,
    extra_samples,
    find_photometric,
)

_SUBFILE_TYPE, _OLD_SUBFILE_TYPE = 254, 255
_SUB_DIRECTORIES, _XMP, _ICC_PROFILE, _DNG_VERSION = 330, 700, 34675, 50706
_CLASSIC = 42
_SHORT, _LONG, _LONG8 = 3, 4, frozenset({16, 18})
_INLINE_BYTES = 4
_REDUCED, _MASK = 1, 4
_OLD_REDUCED = 2
_RAW_PHOTOMETRIC = frozenset({32803, 34892})
"""Colour filter array and linear raw."""
_PIXEL_TAGS = frozenset(
    {WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, STRIP_OFFSETS, TILE_OFFSETS, COLOUR_MAP}
    | {266, 277, 278, 279, 284, 292, 293, 317, 322, 323, 325, 332, 339, 347}
    | {*range(512, 522), 529, 530, 531, 532}
)
"""Tags that the pixels need: their place, their samples, and the parameters of compressions."""
_MAX_SUB_DIRECTORIES = 16


def read_tiff(data: bytes) -> Container:
    """Return the page of a TIFF file that is no preview.

    Args:
        data: Content of a TIFF or BigTIFF file.

    Raises:
        CorruptImage: A directory, or what it points to, is not within the file.
        EmptyImage: A side has no pixels.
        UnsupportedFormat: The file is the raw one of a camera, has nothing but previews,
            or declares samples that we do not read.
    """
    layout = read_layout(data)
    pages = [] if layout is None else list(read_directories(data, layout))
    if layout is None or not pages:
        raise cut_off("TIFF", "its first directory")
    parts = [part for page in pages for part in (page, *_sub_directories(page))]
    if data[8:10] == b"CR" or any(_is_raw(part) for part in parts):
        raise UnsupportedFormat(
            "the TIFF image is the raw file of a camera (DNG or the like). Only a small preview "
            "could be read. Develop it to JPEG, PNG or TIFF"
        )
    number = next((n for n, page in enumerate(pages) if not _is_reduced(page)), None)
    page = None if number is None else pages[number]
    if page is None or any(_is_larger(part, page) for part in _sub_directories(page)):
        raise UnsupportedFormat(
            "the TIFF image has nothing but a preview in its pages. Store it at its full size as "
            "the first page"
        )
    samples = check_samples(page)
    return Container(
        "TIFF",
        _with_one_directory(data, layout, page),
        samples,
        icc_profile=page.content(_ICC_PROFILE, MAX_ANCILLARY_BYTES),
        # Orientation and resolution are those of the page, and not of a preview before it.
        exif=_beginning_at(data, layout, pages[number - 1].next_offset) if number else data,
        xmp=page.content(_XMP, MAX_ANCILLARY_BYTES),
        kind=describe_samples(page),
    )


def _beginning_at(data: bytes, layout: Layout, offset: int) -> bytes:
    """Return a file whose first directory is the one at an offset."""
    field = struct.pack(layout.offset, offset)
    return data[: layout.header_bytes - len(field)] + field + data[layout.header_bytes :]


def _sub_directories(page: Directory) -> Iterator[Directory]:
    for offset in page.numbers(_SUB_DIRECTORIES)[:_MAX_SUB_DIRECTORIES]:
        found = read_directory(page.data, page.layout, int(offset))
        if found is not None:
            yield found


def _is_raw(page: Directory) -> bool:
    return _DNG_VERSION in page.entries or page.number(PHOTOMETRIC, 0) in _RAW_PHOTOMETRIC


def _is_reduced(page: Directory) -> bool:
    """Return whether a page is a preview or the transparency mask of another one."""
    kind = page.number(_SUBFILE_TYPE, 0)
    return bool(kind & (_REDUCED | _MASK)) or page.number(_OLD_SUBFILE_TYPE, 1) == _OLD_REDUCED


def _is_larger(part: Directory, page: Directory) -> bool:
    def pixels(directory: Directory) -> int:
        return directory.number(WIDTH, 0) * directory.number(HEIGHT, 0)

    return not _is_reduced(part) and pixels(part) > pixels(page)


def _stated(page: Directory) -> dict[int, tuple[int, ...]]:
    """Return the tags of a page that mean something else to Pillow, as it understands them."""
    stated: dict[int, tuple[int, ...]] = {PHOTOMETRIC: (find_photometric(page),)}
    if colours := colour_map_of_8_bits(page):
        stated[COLOUR_MAP] = tuple(colour * 257 for colour in colours)
    if extra := extra_samples(page):
        stated[EXTRA] = extra
    return stated


def _with_one_directory(data: bytes, layout: Layout, page: Directory) -> bytes:
    """Return a file with a last directory that alone is read, made of the tags of the pixels.

    It is no BigTIFF, since Pillow reads those of one order of bytes only.
    """
    if not {WIDTH, HEIGHT} <= page.entries.keys():
        raise CorruptImage("the TIFF image is damaged: it declares no width or height")
    check_sides(page.number(WIDTH, 0), page.number(HEIGHT, 0))
    check_pixel_places(page)
    tags = _PIXEL_TAGS & page.entries.keys()
    if any(page.entries[tag].end > len(data) for tag in tags):
        raise cut_off("TIFF", "its first directory")
    order = layout.order
    end = len(data) + len(data) % 2
    entries, values = {}, b""
    moved = {tag: _long_values(page, tag) for tag in tags if page.entries[tag].kind in _LONG8}
    shorts = {
        tag: (_SHORT, len(found), _shorts(order, found)) for tag, found in _stated(page).items()
    }
    for tag, (kind, count, content) in (moved | shorts).items():
        place = struct.pack(order + "I", end + len(values))
        values += content if len(content) > _INLINE_BYTES else b""
        inline = content.ljust(_INLINE_BYTES, b"\0") if len(content) <= _INLINE_BYTES else place
        entries[tag] = struct.pack(order + "HHI", tag, kind, count) + inline
    for tag in tags - entries.keys():
        entry = page.entries[tag]
        place = struct.pack(order + "I", entry.start)
        is_inline = entry.end - entry.start <= _INLINE_BYTES
        inline = data[entry.start : entry.end].ljust(_INLINE_BYTES, b"\0") if is_inline else place
        entries[tag] = struct.pack(order + "HHI", tag, entry.kind, entry.count) + inline
    start = end + len(values) + len(values) % 2
    head = data[:2] + struct.pack(order + "HI", _CLASSIC, start)
    return b"".join(
        [
            head,
            memoryview(data)[len(head) :],
            bytes(end - len(data)),
            values.ljust(start - end, b"\0"),
            struct.pack(order + "H", len(entries)),
            *(entries[tag] for tag in sorted(entries)),
            bytes(_INLINE_BYTES),
        ]
    )


def _shorts(order: str, values: tuple[int, ...]) -> bytes:
    return struct.pack(f"{order}{len(values)}H", *values)


def _long_values(page: Directory, tag: int) -> tuple[int, int, bytes]:
    """Return numbers of 64 bits as the type, the number and the content of those of 32 bits."""
    found = page.offsets(tag)[:MAX_STRIPS]
    content = np.minimum(found, 2**32 - 1).astype(page.layout.order + "u4").tobytes()
    return _LONG, len(found), content
