"""A container: an image file, split into its pixels and what it says of them.

What does not belong to the pixels is read within bounds or left out, so that a broken comment,
profile or thumbnail is no reason to refuse a sound image. Pillow never sees it.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass

from serve_app.errors import CorruptImage, EmptyImage

MAX_PARTS = 65_536
"""Most chunks, segments or blocks that a file may have. A file of 32 MiB that libpng writes has
4,096 chunks."""
MAX_ANCILLARY_BYTES = 4 * 2**20
"""Most bytes of a profile, of EXIF data or of XMP data that are read. The profiles of printers have
up to 3 MB."""

_MIN_DPI, _MAX_DPI = 1.5, 65_535
"""Resolutions of 1 and below are what programs write that have none. A JPEG has 16 bits for one."""


@dataclass(frozen=True, slots=True)
class Samples:
    """What a file declares of its samples beyond what Pillow does with them."""

    inverted: bool = False
    """Whether 0 is white in grey samples of 16 bits."""
    significant_bits: int = 16
    """Bits that are in use of grey samples in 16 bits."""
    transparent: tuple[int, ...] | None = None
    """Grey value or colour of the transparent pixels, in samples of ``depth`` bits."""
    depth: int = 8
    """Bits of a sample of a PNG or TIFF."""


@dataclass(frozen=True, slots=True)
class CodePoints:
    """Colours as ITU-T H.273 numbers them: in a PNG's cICP chunk, in AVIF and in HEIF."""

    primaries: int
    transfer: int


@dataclass(frozen=True, slots=True)
class PngGamma:
    """The gAMA and cHRM chunks of a PNG."""

    exponent: float
    """Exponent that light was raised to. 0.45455 is the usual one."""
    chromaticities: tuple[float, ...] | None
    """x and y of white, red, green and blue."""


@dataclass(frozen=True, slots=True)
class Container:
    """An image file, split into its pixels and what it says of them."""

    format: str
    """Pillow's name of the format."""
    pixels: bytes
    """The file without what does not belong to its pixels."""
    samples: Samples = Samples()
    icc_profile: bytes | None = None
    exif: bytes | None = None
    """EXIF data, a TIFF structure."""
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    """Resolution that the container itself declares: pixels per inch, across and down."""
    code_points: CodePoints | None = None
    """Colours by number. They come before a profile."""
    gamma: PngGamma | None = None
    """Colours of a PNG that has neither a profile nor an sRGB chunk."""
    still_size: tuple[int, int] | None = None
    """Width and height of a WebP image that is no animation, which Pillow does not decode."""
    covered: tuple[int, int, int, int] | None = None
    """Left, top, right and bottom of the part of the image that is not transparent, or None."""
    kind: str | None = None
    """The kind of the samples in words, if Pillow does not read every kind of the format."""


def cut_off(name: str, place: str) -> CorruptImage:
    """Return the error for a file that ends too early.

    Args:
        name: Name of the format.
        place: Part of the file in which it ends.
    """
    return CorruptImage(f"the {name} image is cut off or damaged: it ends in {place}")


def check_sides(width: int, height: int) -> None:
    """Refuse an image without pixels.

    Args:
        width: Width in pixels.
        height: Height in pixels.

    Raises:
        EmptyImage: A side has no pixels.
    """
    if width < 1 or height < 1:
        raise EmptyImage(f"the image is {width} x {height} pixels")


def too_many_parts(name: str) -> CorruptImage:
    """Return the error for a file of more parts than any program writes.

    Args:
        name: Name of the format.
    """
    return CorruptImage(f"the {name} image has more than {MAX_PARTS:,} parts")


def inflate(content: bytes) -> bytes | None:
    """Return what zlib data holds, or None if it is broken or more than we read.

    Args:
        content: zlib data (RFC 1950).
    """
    inflater = zlib.decompressobj()
    try:
        found = inflater.decompress(content, MAX_ANCILLARY_BYTES)
    except zlib.error:
        return None
    return None if inflater.unconsumed_tail else found


def resolution(across: float, down: float, inches: float = 1.0) -> tuple[float, float] | None:
    """Return a resolution in pixels per inch, or None if it says nothing.

    Args:
        across: Pixels per unit, from left to right.
        down: Pixels per unit, from top to bottom.
        inches: Length of the unit, in inches.
    """
    found = (across / inches, down / inches)
    sound = all(math.isfinite(value) and _MIN_DPI <= value <= _MAX_DPI for value in found)
    return found if sound else None
