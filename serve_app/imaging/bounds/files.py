"""The bound of any image file, by its format."""

from __future__ import annotations

from serve_app.config import ImageLimits
from serve_app.imaging.bounds.bmp import check_bmp
from serve_app.imaging.bounds.gif import bound_gif
from serve_app.imaging.bounds.jpeg import check_jpeg
from serve_app.imaging.bounds.tiff import check_tiff

_TIFF = (b"II*\0", b"II\0*", b"II+\0", b"MM*\0", b"MM\0*", b"MM\0+")
"""Signatures of TIFF and BigTIFF, with those in the wrong byte order that Pillow accepts."""


def bound_file(data: bytes, limits: ImageLimits) -> bytes:
    """Return an image file that a decoder reads in a bounded time, with the same pixels.

    The result is the same object unless blocks of a GIF were left out. A file of an unknown format
    and a damaged one are returned as they are, for their reader to refuse.

    Args:
        data: Content of the file.
        limits: Largest accepted number of pixels.

    Raises:
        ImageTooLarge: The file has more parts than are read, or would be decoded for too long.
    """
    if data.startswith((b"GIF87a", b"GIF89a")):
        return bound_gif(data)
    if data.startswith(b"\xff\xd8\xff"):
        check_jpeg(data, limits.max_pixels)
    elif data.startswith(_TIFF):
        check_tiff(data)
    elif data.startswith(b"BM"):
        check_bmp(data)
    return data
