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
from serve_app.imaging.formats.container import CodePoints, Container

_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
_MAX_BRANDS = 64
_EXIF_ITEM = re.compile(rb"infe(?:\x02.{3}.{2}|\x03.{3}.{4}).{2}Exif", re.DOTALL)
"""Entry of an item of EXIF data up to its type (ISO/IEC 14496-12, 8.11.6)."""
_META_BYTES = 65_536
"""Length of the part of a file in which its properties are searched."""

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
    """
    return Container("AVIF", data, code_points=_colour_box(data))


def read_heif(data: bytes) -> Container:
    """Return a HEIF file with its colours by number.

    Args:
        data: Content of a HEIF file.

    Raises:
        UnsupportedFormat: The extra ``heif`` is not installed.
    """
    if not _HAS_HEIF:
        raise UnsupportedFormat(
            "HEIC images need the extra heif (pip install 'foreedge[heif]'), which is not installed"
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
