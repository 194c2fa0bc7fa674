"""Kinds of files: which bytes begin a format that is read, and names for those that are not."""

from __future__ import annotations

from collections.abc import Callable

from serve_app.errors import UnsupportedFormat
from serve_app.imaging.formats.bmp import is_bmp, read_bmp
from serve_app.imaging.formats.container import Container
from serve_app.imaging.formats.directory import read_layout
from serve_app.imaging.formats.gif import read_gif
from serve_app.imaging.formats.heif import is_avif, is_heif, read_avif, read_heif
from serve_app.imaging.formats.jpeg import read_jpeg
from serve_app.imaging.formats.png import read_png
from serve_app.imaging.formats.tiff import read_tiff
from serve_app.imaging.formats.webp import read_webp

FORMATS = ("JPEG", "PNG", "WebP", "AVIF", "HEIC", "TIFF", "BMP", "GIF")
"""Names of the accepted formats. No other decoder of Pillow's can be reached."""

_OTHERS = (
    (b"8BPS", "Photoshop document"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"II\xbc", "JPEG XR"),
    (b"\0\0\1\0", "ICO"),
    (b"\x8aMNG", "MNG"),
    (b"\x8bJNG", "JNG"),
    (b"%PDF", "PDF"),
    (b"%!PS", "PostScript"),
    (b"<svg", "SVG"),
    (b"v/1\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"DDS ", "DDS"),
    (b"qoif", "QOI"),
    (b"gimp xcf", "XCF"),
    (b"FUJIFILMCCD-RAW", "camera raw"),
    (b"IIRO", "camera raw"),
    (b"IIRS", "camera raw"),
    (b"MMOR", "camera raw"),
    (b"IIU\0", "camera raw"),
    *((b"P%d" % number, "PNM") for number in range(1, 8)),
)
"""How files of formats begin that are not read, and the name of each format."""


def read_container(data: bytes) -> Container:
    """Return an image file, split into its pixels and what it says of them.

    Args:
        data: Content of a file, at least one byte.

    Raises:
        CorruptImage: The file is cut off or damaged before its pixels.
        EmptyImage: The file declares an image without pixels.
        UnsupportedFormat: The file is not an image, or one of a kind that is not read.
    """
    for recognises, read in _READERS:
        if recognises(data):
            return read(data)
    known = next((name for start, name in _OTHERS if data.startswith(start)), None)
    formats = ", ".join(FORMATS)
    if known:
        raise UnsupportedFormat(f"the data is a {known} file. Supported formats are {formats}")
    raise UnsupportedFormat(f"the data is not an image of a supported format ({formats})")


_READERS: tuple[tuple[Callable[[bytes], bool], Callable[[bytes], Container]], ...] = (
    (lambda data: data.startswith(b"\xff\xd8\xff"), read_jpeg),
    (lambda data: data.startswith(b"\x89PNG"), read_png),
    (lambda data: data.startswith(b"RIFF") and data[8:12] == b"WEBP", read_webp),
    (lambda data: data.startswith((b"GIF87a", b"GIF89a")), read_gif),
    (lambda data: read_layout(data) is not None, read_tiff),
    (is_bmp, read_bmp),
    (is_avif, read_avif),
    (is_heif, read_heif),
)
"""How each format is recognised, and what reads it."""
