"""From the bytes of a photograph to its pixels: upright, in sRGB, 8 bits a channel.

What is refused is refused from the header, before any pixel is decoded.
"""

from __future__ import annotations

import io
import logging
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, UnidentifiedImageError

from serve_app.config import ImageLimits
from serve_app.errors import (
    CorruptImage,
    EmptyImage,
    ImageTooLarge,
    UnsupportedFormat,
)

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")
"""Pillow's names of the formats that are read; every other decoder stays out of reach. JPEG stands
for MPO too, whose first frame is one."""

# Our own limits, from the configuration, take the place of Pillow's, which warn before they raise.
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
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"RIFF", b"II*\0", b"MM\0*")
_SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """What an image says of itself before its pixels are decoded."""

    format: str
    """Pillow's name."""
    width: int
    """In pixels, before the EXIF orientation is applied."""
    height: int

    @property
    def pixels(self) -> int:
        """Number of pixels."""
        return self.width * self.height


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """Decoded pixels."""

    rgb: npt.NDArray[np.uint8]
    """[H, W, 3], sRGB, upright."""
    alpha: npt.NDArray[np.uint8] | None
    """[H, W], 0 to 255; None where the image has no transparency."""

    @property
    def width(self) -> int:
        """In pixels."""
        return int(self.rgb.shape[1])

    @property
    def height(self) -> int:
        """In pixels."""
        return int(self.rgb.shape[0])


def read_header(data: bytes, limits: ImageLimits) -> ImageHeader:
    """Return what the header says, if the image is one that is accepted.

    Args:
        data: An image file.
        limits: Bytes, pixels and sides over which it is refused.

    Raises:
        EmptyImage: No bytes, or a side of 0 pixels.
        UnsupportedFormat: Not an image, or of a format that is not read.
        CorruptImage: The signature is that of an image, and the header cannot be read.
        ImageTooLarge: Over a limit.
    """
    with _open(data, limits) as image:
        return ImageHeader(image.format or "", image.width, image.height)


def decode_image(data: bytes, limits: ImageLimits) -> DecodedImage:
    """Return the pixels of a photograph; of an animation, those of its first frame.

    Args:
        data: An image file.
        limits: Bytes, pixels and sides over which it is refused.

    Raises:
        ForeedgeError: As ``read_header``, and CorruptImage where the pixels cannot be decoded.
    """
    with _open(data, limits) as image:
        try:
            image.load()
        except MemoryError:
            raise
        # Pillow's decoders raise nearly anything on broken data.
        except Exception as error:
            raise CorruptImage(f"the {image.format} cannot be decoded: {error}") from error
        upright = _turn_upright(image)
        return _to_srgb(upright, image.info.get("icc_profile"))


def _open(data: bytes, limits: ImageLimits) -> Image.Image:
    if not data:
        raise EmptyImage("the image has no bytes")
    if len(data) > limits.max_bytes:
        raise ImageTooLarge(
            f"the image has {len(data):,} bytes; the limit is {limits.max_bytes:,} "
            "(limits.max_bytes)"
        )
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - Pillow raises nearly anything on broken data
        _refuse(data, error)
    _check_size(image.width, image.height, limits)
    return image


def _refuse(data: bytes, error: Exception) -> NoReturn:
    if data.startswith(_SIGNATURES):
        # Pillow's own words for it end in the address of an object.
        unknown = isinstance(error, UnidentifiedImageError)
        reason = "it is cut off or damaged" if unknown else error
        raise CorruptImage(f"the image's header cannot be read: {reason}") from error
    if isinstance(error, UnidentifiedImageError):
        raise UnsupportedFormat(
            f"not an image of a format that is read ({', '.join(FORMATS)}); "
            f"it begins with {data[:8]!r}"
        ) from error
    raise CorruptImage(f"the image's header cannot be read: {error}") from error


def _check_size(width: int, height: int, limits: ImageLimits) -> None:
    if width < 1 or height < 1:
        raise EmptyImage(f"the image is {width} x {height} pixels")
    if width * height > limits.max_pixels:
        raise ImageTooLarge(
            f"the image has {width} x {height} = {width * height:,} pixels; the limit is "
            f"{limits.max_pixels:,} (limits.max_pixels)"
        )
    if max(width, height) > limits.max_side_px:
        raise ImageTooLarge(
            f"the image is {width} x {height} pixels; the limit of a side is "
            f"{limits.max_side_px:,} (limits.max_side_px)"
        )


def _turn_upright(image: Image.Image) -> Image.Image:
    # Read after load(): Pillow turns TIFF files itself, and then forgets their tag.
    try:
        orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception as error:  # noqa: BLE001 - as above
        # Broken metadata is no reason to refuse sound pixels.
        _logger.info("the EXIF data cannot be read: %s", error)
        return image
    transpose = _UPRIGHT.get(orientation)
    return image if transpose is None else image.transpose(transpose)


def _to_srgb(image: Image.Image, icc_profile: bytes | None) -> DecodedImage:
    """Return pixels of any mode as sRGB and alpha."""
    alpha: npt.NDArray[np.uint8] | None = None
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        high_byte = (np.asarray(image) >> 8).astype(np.uint8)
        image, icc_profile = Image.fromarray(high_byte), None
    elif image.mode in {"I", "F"}:
        raise UnsupportedFormat(
            f"pixels of 32 bits (mode {image.mode}) have no defined white: store the image with 8 "
            "or 16 bits a channel"
        )
    elif image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = np.array(image.getchannel("A"))
        image = image.convert("RGB")
    elif image.mode not in {"RGB", "CMYK", "L"}:
        image = _convert(image)
    if icc_profile:
        image = _apply_profile(image, icc_profile)
    return DecodedImage(np.asarray(_convert(image)), alpha)


def _convert(image: Image.Image) -> Image.Image:
    try:
        return image if image.mode == "RGB" else image.convert("RGB")
    except ValueError as error:
        raise UnsupportedFormat(f"the colour mode {image.mode} is not read") from error


def _apply_profile(image: Image.Image, icc_profile: bytes) -> Image.Image:
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc_profile))
        if "sRGB" in ImageCms.getProfileDescription(profile):
            return image
        converted = ImageCms.profileToProfile(image, profile, _SRGB, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        # A profile that is broken, or that is another mode's, describes nothing.
        _logger.info("the ICC profile is ignored: %s", error)
        return image
    return image if converted is None else converted
