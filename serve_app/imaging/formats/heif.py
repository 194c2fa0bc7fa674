"""HEIF and AVIF files, whose profile and orientation their decoders read.

Sources: ISO/IEC 14496-12 (boxes), ISO/IEC 23008-12 (HEIF), AVIF 1.1 (AOMedia). HEIC needs the extra
``heif``: pi-heif, which decodes only and is under the LGPL.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import re
import struct

from PIL import AvifImagePlugin

from serve_app.errors import UnsupportedFormat
from serve_app.imaging.formats.container import (
    MAX_PARTS,
    CodePoints,
    Container,
    too_many_parts,
)

_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
_READ_BOXES = {b"avif": b"meta", b"avis": b"moov"}
"""Boxes of each brand that libavif reads. It passes over nothing behind them."""
_MAX_BRANDS = 64
_EXIF_ITEM = re.compile(rb"infe(?:\x02.{3}.{2}|\x03.{3}.{4}).{2}Exif", re.DOTALL)
"""Entry of an item of EXIF data up to its type (ISO/IEC 14496-12, 8.11.6)."""
_META_BYTES = 65_536
"""Length of the part of a file in which its properties are searched."""

_BOX_BYTES, _LONG = 8, 1
"""Length of the head of a box, and the length that stands for another one of 8 bytes after it."""

# Every image has a thread of its own.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1
_HAS_HEIF = importlib.util.find_spec("pi_heif") is not None
if _HAS_HEIF:
    # The extra may be missing, so it is no ordinary import.
    importlib.import_module("pi_heif").register_heif_opener(
        thumbnails=False, depth_images=False, aux_images=False, decode_threads=1
    )


def is_avif(data: bytes) -> bool:
    """Return whether data begins like an AVIF file.

    Args:
        data: Content of any file.
    """
    return bool(_AVIF_BRANDS & _brands(data))


def is_heif(data: bytes) -> bool:
    """Return whether data begins like a HEIF file, such as HEIC.

    Args:
        data: Content of any file.
    """
    return bool(_HEIF_BRANDS & _brands(data))


def read_avif(data: bytes) -> Container:
    """Return an AVIF file with its colours by number.

    Args:
        data: Content of an AVIF file.

    Raises:
        CorruptImage: The file has more boxes than are read.
    """
    brands = _brands(data)
    read = {box for brand, box in _READ_BOXES.items() if brand in brands}
    _count_boxes("AVIF", data, read)
    return Container("AVIF", data, code_points=_colour_box(data))


def read_heif(data: bytes) -> Container:
    """Return a HEIF file with its colours by number.

    Args:
        data: Content of a HEIF file.

    Raises:
        CorruptImage: The file has more boxes than are read.
        UnsupportedFormat: The extra ``heif`` is not installed.
    """
    _count_boxes("HEIF", data, set())
    if not _HAS_HEIF:
        raise UnsupportedFormat(
            "HEIC images need the extra heif, which is not installed (pip install -e '.[heif]' in "
            "the clone of Foreedge, or build the image with HEIF=1)"
        )
    return Container("HEIF", data, code_points=_colour_box(data))


def without_exif(container: Container) -> Container | None:
    """Return an AVIF file whose EXIF data is not found, or None if it has none.

    libavif refuses an image whose EXIF data is broken. Its orientation is in other boxes.

    Args:
        container: An image file of any format.
    """
    found = _EXIF_ITEM.search(container.pixels, 0, _META_BYTES)
    if container.format != "AVIF" or found is None:
        return None
    # The type of the item becomes one that no reader knows.
    view = memoryview(container.pixels)
    pixels = b"".join([view[: found.end() - 4], b"skip", view[found.end() :]])
    return dataclasses.replace(container, pixels=pixels)


def _count_boxes(name: str, data: bytes, until: set[bytes]) -> None:
    """Refuse a file of more boxes than are read, which a decoder takes while no thread can run.

    Args:
        name: Name of the format.
        data: Content of the file.
        until: Boxes after which the decoder reads no more. None of them means all boxes.
    """
    position, missing = 0, set(until)
    for _ in range(MAX_PARTS):
        size = int.from_bytes(data[position : position + 4], "big")
        missing.discard(data[position + 4 : position + 8])
        if size == _LONG:
            size = int.from_bytes(data[position + 8 : position + 16], "big")
        if size < _BOX_BYTES or position + size >= len(data) or (until and not missing):
            return
        position += size
    raise too_many_parts(name)


def _brands(data: bytes) -> set[bytes]:
    """Return the brands of a file of boxes (ISO/IEC 14496-12, 4.3), or nothing."""
    if data[4:8] != b"ftyp":
        return set()
    end = min(int.from_bytes(data[:4], "big"), len(data), 16 + 4 * _MAX_BRANDS)
    return {data[8:12], *(data[at : at + 4] for at in range(16, end - 3, 4))}


def _colour_box(data: bytes) -> CodePoints | None:
    """Return the first colours by number of a file (ISO/IEC 14496-12, 12.1.5)."""
    position = data.find(b"colrnclx", 0, _META_BYTES)
    if position < 0 or position + 12 > len(data):
        return None
    return CodePoints(*struct.unpack_from(">HH", data, position + 8))
