"""Decoding: upright sRGB pixels of 8 bits per channel from the bytes of an image file.

An image over a limit is refused by its header, before any pixel is decoded.
"""

from __future__ import annotations

import io
import logging
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError

from serve_app.config import ImageLimits
from serve_app.errors import (
    CorruptImage,
    EmptyImage,
    ImageTooLarge,
    UnsupportedFormat,
)
from serve_app.imaging.bounds.files import bound_file
from serve_app.imaging.pixels import Pixels

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")
"""Accepted formats, by Pillow's names. No other decoder of Pillow's can be reached.

JPEG includes MPO, whose first frame is a JPEG image.
"""

# The configured limits replace Pillow's own, which warns before it raises.
Image.MAX_IMAGE_PIXELS = None

_logger = logging.getLogger(__name__)

_EXIF_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Transposition that turns an image of each EXIF orientation upright."""
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"RIFF", b"II*\0", b"MM\0*")
_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """The format and size that an image file declares before its pixels."""

    format: str
    """Pillow's name of the format."""
    width: int
    """Width in pixels, before the EXIF orientation is applied."""
    height: int
    """Height in pixels, before the EXIF orientation is applied."""

    @property
    def pixels(self) -> int:
        """Number of pixels."""
        return self.width * self.height


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """The pixels of an image."""

    rgb: Pixels
    """Upright colours in sRGB, [H, W, 3]."""
    alpha: Pixels | None
    """Transparency, [H, W], or None if the image has none."""

    @property
    def width(self) -> int:
        """Width in pixels."""
        return int(self.rgb.shape[1])

    @property
    def height(self) -> int:
        """Height in pixels."""
        return int(self.rgb.shape[0])


def read_header(data: bytes, limits: ImageLimits) -> ImageHeader:
    """Return the header of an image file that is within the limits.

    Args:
        data: Content of an image file.
        limits: Largest accepted number of bytes and pixels, and longest accepted side.

    Raises:
        EmptyImage: There are no bytes, or a side has 0 pixels.
        UnsupportedFormat: The bytes are not an image, or its format is not accepted.
        CorruptImage: The bytes begin like an image, but the header cannot be read.
        ImageTooLarge: The image is over a limit.
    """
    with _open(data, limits) as image:
        return ImageHeader(image.format or "", image.width, image.height)


def decode_image(data: bytes, limits: ImageLimits) -> DecodedImage:
    """Return the pixels of an image file, or those of the first frame of an animation.

    Args:
        data: Content of an image file.
        limits: Largest accepted number of bytes and pixels, and longest accepted side.

    Raises:
        ForeedgeError: See ``read_header``. CorruptImage is also raised if the pixels cannot be
            decoded, and UnsupportedFormat if the colour mode is not accepted.
    """
    with _open(data, limits) as image:
        try:
            image.load()
        except MemoryError:
            raise
        # Pillow's decoders raise nearly anything on broken data.
        except Exception as error:
            raise CorruptImage(f"the {image.format} image cannot be decoded: {error}") from error
        upright = _turn_upright(image)
        return _convert_to_srgb(upright, image.info.get("icc_profile"))


def _open(data: bytes, limits: ImageLimits) -> Image.Image:
    if not data:
        raise EmptyImage("the image has no bytes")
    if len(data) > limits.max_bytes:
        raise ImageTooLarge(
            f"the image has {len(data):,} bytes. The limit is {limits.max_bytes:,} "
            "(limits.max_bytes)"
        )
    bounded = bound_file(data, limits)
    try:
        image = Image.open(io.BytesIO(bounded), formats=FORMATS)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - Pillow raises nearly anything on broken data
        _refuse_unreadable(data, error)
    _check_size(image.width, image.height, limits)
    return image


def _refuse_unreadable(data: bytes, error: Exception) -> NoReturn:
    if data.startswith(_SIGNATURES):
        # Pillow's own message ends with the address of an object.
        unidentified = isinstance(error, UnidentifiedImageError)
        reason = "it is truncated or damaged" if unidentified else error
        raise CorruptImage(f"the header of the image cannot be read: {reason}") from error
    if isinstance(error, UnidentifiedImageError):
        raise UnsupportedFormat(
            f"the data is not an image of a supported format ({', '.join(FORMATS)}). "
            f"It begins with {data[:8]!r}"
        ) from error
    raise CorruptImage(f"the header of the image cannot be read: {error}") from error


def _check_size(width: int, height: int, limits: ImageLimits) -> None:
    if width < 1 or height < 1:
        raise EmptyImage(f"the image is {width} x {height} pixels")
    if width * height > limits.max_pixels:
        raise ImageTooLarge(
            f"the image has {width} x {height} = {width * height:,} pixels. The limit is "
            f"{limits.max_pixels:,} (limits.max_pixels)"
        )
    if max(width, height) > limits.max_side_px:
        raise ImageTooLarge(
            f"the image is {width} x {height} pixels. The limit for a side is "
            f"{limits.max_side_px:,} (limits.max_side_px)"
        )


def _turn_upright(image: Image.Image) -> Image.Image:
    # This must follow load(), in which Pillow turns TIFF files itself and removes their tag.
    try:
        orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception as error:  # noqa: BLE001 - Pillow raises nearly anything on broken data
        # Broken metadata is no reason to refuse sound pixels.
        _logger.info("ignoring the EXIF data, which cannot be read: %s", error)
        return image
    transpose = _UPRIGHT.get(orientation)
    return image if transpose is None else image.transpose(transpose)


def _convert_to_srgb(image: Image.Image, icc_profile: bytes | None) -> DecodedImage:
    """Return the sRGB colours and the transparency of an image in any of Pillow's modes."""
    alpha: Pixels | None = None
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        high_byte = (np.asarray(image) >> 8).astype(np.uint8)
        image, icc_profile = Image.fromarray(high_byte), None
    elif image.mode in {"I", "F"}:
        raise UnsupportedFormat(
            f"pixels of 32 bits (mode {image.mode}) have no defined white. Store the image with 8 "
            "or 16 bits per channel"
        )
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = np.array(image.getchannel("A"))
        image = image.convert("RGB")
    elif image.mode not in {"RGB", "CMYK", "L"}:
        image = _convert_mode(image)
    if icc_profile:
        image = _apply_profile(image, icc_profile)
    return DecodedImage(np.asarray(_convert_mode(image)), alpha)


def _convert_mode(image: Image.Image) -> Image.Image:
    try:
        return image if image.mode == "RGB" else image.convert("RGB")
    except ValueError as error:
        raise UnsupportedFormat(f"the colour mode {image.mode} is not supported") from error


def _apply_profile(image: Image.Image, icc_profile: bytes) -> Image.Image:
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc_profile))
        if "sRGB" in ImageCms.getProfileDescription(profile):
            return image
        converted = ImageCms.profileToProfile(image, profile, _SRGB, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        # A profile that is broken, or made for another colour mode, describes nothing.
        _logger.info("ignoring the ICC profile, which cannot be applied: %s", error)
        return image
    return image if converted is None else converted
