"""Places of a TIFF page's pixels: whether all strips or tiles are there.

Pillow leaves a missing strip black, and reads uncompressed ones past their end. Source: TIFF 6.0
(Adobe, 1992), sections 8 and 15.
"""

from __future__ import annotations

import numpy as np

from serve_app.errors import CorruptImage
from serve_app.imaging.formats.container import cut_off
from serve_app.imaging.formats.directory import Directory
from serve_app.imaging.formats.tiff_samples import COMPRESSION, PLANAR, bits_of_samples

WIDTH, HEIGHT = 256, 257
STRIP_OFFSETS, TILE_OFFSETS = 273, 324
_STRIP_BYTES, _TILE_BYTES, _ROWS_PER_STRIP = 279, 325, 278
_TILE_WIDTH, _TILE_HEIGHT = 322, 323
_OLD_JPEG_START = 513
_UNCOMPRESSED, _OLD_JPEG = 1, 6
_SEPARATE_PLANES = 2
_MAX_BYTES = 2**62


def check_pixel_places(page: Directory) -> None:
    """Refuse a page whose pixels are not all within the file.

    Args:
        page: Directory of the page, with its width and height, at least 1 each.

    Raises:
        CorruptImage: A strip or tile is missing, or ends behind the file.
    """
    compression = page.number(COMPRESSION, _UNCOMPRESSED)
    tiled = TILE_OFFSETS in page.entries and _TILE_WIDTH in page.entries
    offsets_tag = TILE_OFFSETS if tiled else STRIP_OFFSETS
    if compression == _OLD_JPEG and _OLD_JPEG_START in page.entries:
        # Its strips are parts of one JPEG file, which other tags describe.
        return
    if offsets_tag not in page.entries:
        raise CorruptImage("the TIFF image is damaged: it does not say where its pixels are")
    name = "tiles" if tiled else "strips"
    count, full_bytes, last_bytes = _tiles(page) if tiled else _strips(page)
    planes = _planes(page)
    found = page.entries[offsets_tag].count
    if found < count * planes:
        raise CorruptImage(
            f"the TIFF image is cut off or damaged: it has {found:,} of {count * planes:,} {name}"
        )
    offsets = page.offsets(offsets_tag)[: count * planes]
    if compression == _UNCOMPRESSED:
        sizes = np.full(len(offsets), min(full_bytes, _MAX_BYTES), np.uint64)
        sizes[count - 1 :: count] = min(last_bytes, _MAX_BYTES)
        if (offsets < page.layout.header_bytes).any():
            raise CorruptImage(f"the TIFF image is damaged: some of its {name} have no place")
    else:
        sizes = page.offsets(_TILE_BYTES if tiled else _STRIP_BYTES)[: len(offsets)]
    size = np.uint64(len(page.data))
    starts = offsets[: len(sizes)]
    if not len(offsets) or (offsets > size).any() or (sizes > size - starts).any():
        raise cut_off("TIFF", f"one of its {name}")


def _planes(page: Directory) -> int:
    separate = page.number(PLANAR, 1) == _SEPARATE_PLANES
    return len(bits_of_samples(page)) if separate else 1


def _row_bytes(page: Directory, width: int) -> int:
    bits = bits_of_samples(page)
    bits_per_pixel = max(bits) if _planes(page) > 1 else sum(bits)
    return (width * bits_per_pixel + 7) // 8


def _strips(page: Directory) -> tuple[int, int, int]:
    """Return the number of strips of a plane, and the bytes of each and of the last one."""
    height, row_bytes = page.number(HEIGHT, 0), _row_bytes(page, page.number(WIDTH, 0))
    rows = min(page.number(_ROWS_PER_STRIP, height) or height, height)
    count = -(-height // rows)
    return count, rows * row_bytes, (height - rows * (count - 1)) * row_bytes


def _tiles(page: Directory) -> tuple[int, int, int]:
    """Return the number of tiles of a plane, and the bytes of each and of the last one."""
    width, height = page.number(_TILE_WIDTH, 0), page.number(_TILE_HEIGHT, 0)
    if width < 1 or height < 1:
        raise CorruptImage("the TIFF image is damaged: its tiles have no size")
    count = -(-page.number(WIDTH, 0) // width) * -(-page.number(HEIGHT, 0) // height)
    size = _row_bytes(page, width) * height
    return max(1, count), size, size
