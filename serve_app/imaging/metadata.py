"""Metadata: which way up an image is, its resolution, and the EXIF data that a result may keep."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass

from PIL import ExifTags, Image

from serve_app.imaging.formats.container import Container, resolution
from serve_app.imaging.formats.directory import ORIENTATION, first_directory

_logger = logging.getLogger(__name__)

_ORIENTATION_IN_XMP = re.compile(rb"""tiff:Orientation(?:=["']|>)([1-8])""")
_SIDEWAYS = frozenset({5, 6, 7, 8})
_KEPT_TAGS = frozenset(
    {
        ExifTags.Base.ImageDescription,
        ExifTags.Base.Make,
        ExifTags.Base.Model,
        ExifTags.Base.Software,
        ExifTags.Base.DateTime,
        ExifTags.Base.Artist,
        ExifTags.Base.HostComputer,
        ExifTags.Base.Copyright,
        ExifTags.Base.Rating,
        ExifTags.Base.RatingPercent,
        ExifTags.Base.XPTitle,
        ExifTags.Base.XPComment,
        ExifTags.Base.XPAuthor,
        ExifTags.Base.XPKeywords,
        ExifTags.Base.XPSubject,
    }
)
"""Tags of the first directory that a result keeps. All others are about the file that they were in,
or give the place."""
_DROPPED_PHOTO_TAGS = frozenset(
    {
        ExifTags.Base.MakerNote,
        ExifTags.Base.ExifImageWidth,
        ExifTags.Base.ExifImageHeight,
        ExifTags.Base.ExifInteroperabilityOffset,
        ExifTags.Base.ColorSpace,
    }
)
"""Tags of the exposure that are no longer true. A maker's note may hold a place and a preview."""
_SRGB = 1
_INCHES = 2
_EXIF_PREFIX = b"Exif\0\0"
_MAX_EXIF_BYTES = 65_535 - 2 - len(_EXIF_PREFIX)
"""What fits into the segment of a JPEG."""


@dataclass(frozen=True, slots=True)
class ImageMetadata:
    """What a result may say of the image that it was made of."""

    dpi: tuple[float, float] | None = None
    """Pixels per inch, across and down, of the upright image."""
    exif: bytes | None = None
    """EXIF data, a TIFF structure, without orientation, thumbnail and place."""


NO_METADATA = ImageMetadata()
"""Metadata of an image that says nothing."""


def read_orientation(container: Container) -> int:
    """Return the EXIF orientation of an image, from 1 to 8. 1 is upright.

    Args:
        container: What the file says of the image.
    """
    directory = None if container.exif is None else first_directory(container.exif)
    found = 0 if directory is None else directory.number(ORIENTATION, 0)
    if not found and container.xmp:
        match = _ORIENTATION_IN_XMP.search(container.xmp)
        found = int(match[1]) if match else 0
    return found if 1 <= found <= 8 else 1


def read_metadata(container: Container, orientation: int, *, keep: bool) -> ImageMetadata:
    """Return what a result may say of an image.

    Args:
        container: What the file says of the image.
        orientation: EXIF orientation of the image.
        keep: Whether the EXIF data is wanted.
    """
    dpi = container.dpi
    directory = None if container.exif is None else first_directory(container.exif)
    if dpi is None and directory is not None and directory.dpi is not None:
        dpi = resolution(*directory.dpi)
    if dpi and orientation in _SIDEWAYS:
        dpi = dpi[::-1]
    exif = _clean(container.exif) if keep and container.exif else None
    return ImageMetadata(dpi, exif)


def exif_with_resolution(metadata: ImageMetadata) -> bytes | None:
    """Return the EXIF data of a result with its resolution in it, or None if there is neither.

    Args:
        metadata: What the result says of the image.
    """
    if metadata.dpi is None:
        return metadata.exif
    exif = Image.Exif()
    if metadata.exif:
        exif.load(metadata.exif)
    exif[ExifTags.Base.XResolution], exif[ExifTags.Base.YResolution] = metadata.dpi
    exif[ExifTags.Base.ResolutionUnit] = _INCHES
    return exif.tobytes().removeprefix(_EXIF_PREFIX)


def _clean(exif: bytes) -> bytes | None:
    """Return EXIF data without what is no longer true and without the place, or None."""
    try:
        source = Image.Exif()
        source.load(exif)
        kept = Image.Exif()
        for tag in _KEPT_TAGS & set(source):
            kept[tag] = source[tag]
        photo = source.get_ifd(ExifTags.IFD.Exif)
        if photo:
            kept.get_ifd(ExifTags.IFD.Exif).update(
                {tag: value for tag, value in photo.items() if tag not in _DROPPED_PHOTO_TAGS}
            )
            kept.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ColorSpace] = _SRGB
        content = kept.tobytes().removeprefix(_EXIF_PREFIX)
    except Exception as error:  # noqa: BLE001 - Pillow raises nearly anything on broken data
        _logger.info("leaving out the EXIF data, which cannot be read: %s", type(error).__name__)
        return None
    return content if len(kept) and len(content) <= _MAX_EXIF_BYTES else None
