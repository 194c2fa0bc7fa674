"""Decoding: upright sRGB pixels of 8 bits per channel from the bytes of an image file.

An image over a limit is refused by its header, before any pixel is decoded.
"""

from __future__ import annotations

import dataclasses
import io
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np
from PIL import Image

from serve_app.config import ImageLimits
from serve_app.errors import (
    CorruptImage,
    EmptyImage,
    ForeedgeError,
    ImageTooLarge,
    UnsupportedFormat,
)
from serve_app.imaging.bounds.files import bound_file
from serve_app.imaging.colour import convert_to_srgb, declared_profile, is_srgb
from serve_app.imaging.formats.container import Container, check_sides
from serve_app.imaging.formats.heif import without_exif
from serve_app.imaging.formats.kinds import read_container
from serve_app.imaging.jpeg_pixels import load_jpeg, read_sound_jpeg
from serve_app.imaging.metadata import NO_METADATA, ImageMetadata, read_metadata, read_orientation
from serve_app.imaging.pixels import Pixels
from serve_app.imaging.samples import separate_transparency, wide_samples
from serve_app.imaging.strips import strips

# The configured limits replace Pillow's own, which warns before it raises.
Image.MAX_IMAGE_PIXELS = None

_logger = logging.getLogger(__name__)

_TURNS: dict[int, Callable[[Pixels], cv2.typing.MatLike]] = {
    2: partial(cv2.flip, flipCode=1),
    3: partial(cv2.rotate, rotateCode=cv2.ROTATE_180),
    4: partial(cv2.flip, flipCode=0),
    5: cv2.transpose,
    6: partial(cv2.rotate, rotateCode=cv2.ROTATE_90_CLOCKWISE),
    7: lambda pixels: cv2.transpose(cv2.rotate(pixels, cv2.ROTATE_180)),
    8: partial(cv2.rotate, rotateCode=cv2.ROTATE_90_COUNTERCLOCKWISE),
}
"""Function that turns the pixels of an image with each EXIF orientation upright."""


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """The format and size that an image file declares before its pixels."""

    format: str
    """Pillow's name of the format."""
    width: int
    """Width in pixels, before the EXIF orientation is applied."""
    height: int
    """Height in pixels, before the EXIF orientation is applied."""
    has_alpha: bool = True
    """Whether the image may have transparency of its own."""
    has_wide_colours: bool = False
    """Whether the image has 16 bits per sample, to which a profile may be applied."""

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
    metadata: ImageMetadata = NO_METADATA
    """What a result may say of the image."""

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
    container = _split(data, limits)
    if container.still_size:
        return ImageHeader(container.format, *container.still_size, _has_alpha(container))
    with _open(container, limits) as image:
        has_alpha = image.has_transparency_data or _has_alpha(container)
        has_wide_colours = container.samples.depth == 16 and bool(declared_profile(container))
        size = image.width, image.height
        return ImageHeader(container.format, *size, has_alpha, has_wide_colours)


def _has_alpha(container: Container) -> bool:
    """Return whether the file itself says that the image may have transparency."""
    if container.still_size:
        # A file that begins with lossy pixels has no room for an alpha channel.
        return container.pixels[12:16] != b"VP8 "
    return container.samples.transparent is not None or container.covered is not None


def decode_image(data: bytes, limits: ImageLimits, keep_metadata: bool = False) -> DecodedImage:
    """Return the pixels of an image file, or those of the first frame of an animation.

    Args:
        data: Content of an image file.
        limits: Largest accepted number of bytes and pixels, and longest accepted side.
        keep_metadata: Whether the EXIF data is wanted.

    Raises:
        ForeedgeError: See ``read_header``. CorruptImage is also raised if the pixels cannot be
            decoded, and UnsupportedFormat if their kind is not accepted.
    """
    container = _split(data, limits)
    try:
        rgb = _read_plain_jpeg(container, limits)
        if rgb is not None:
            orientation = read_orientation(container)
            metadata = read_metadata(container, orientation, keep=keep_metadata)
            return DecodedImage(_turned(rgb, orientation), None, metadata)
        image = _load_webp(container) if container.still_size else _load(container, limits)
        return _convert(container, image, keep_metadata)
    except (MemoryError, ForeedgeError):
        raise
    # Decoders raise nearly anything on broken data.
    except Exception as error:
        raise _undecodable(container, error) from error


def _read_plain_jpeg(container: Container, limits: ImageLimits) -> Pixels | None:
    """Return the pixels of a JPEG image in sRGB as they are stored, or None for any other file."""
    if container.format != "JPEG" or not is_srgb(container):
        return None
    with _open(container, limits) as image:
        return read_sound_jpeg(image, container.pixels)


def _turned(pixels: Pixels, orientation: int) -> Pixels:
    """Return the pixels of an image with an EXIF orientation, upright."""
    turn = _TURNS.get(orientation)
    return pixels if turn is None else np.asarray(turn(pixels), np.uint8)


def _convert(container: Container, image: Image.Image, keep_metadata: bool) -> DecodedImage:
    # Callers refer to each image until the end, so what is replaced by another one is closed.
    container = _with_information(container, image)
    colours, alpha = separate_transparency(image, container)
    if container.covered:
        alpha = _only_within(container.covered, alpha, image.size)
    # Grey of 16 bits is in the image, and colours of 16 bits are read again.
    wide = image if image.mode.startswith("I;16") else _replaced(image, colours)
    rgb = convert_to_srgb(colours, container, lambda: wide_samples(wide, container))
    for replaced in (wide, colours):
        _replaced(replaced, rgb)
    orientation = read_orientation(container)
    return DecodedImage(
        _turned(_moved(rgb), orientation),
        None if alpha is None else _turned(_moved(alpha), orientation),
        read_metadata(container, orientation, keep=keep_metadata),
    )


def _moved(image: Image.Image) -> Pixels:
    """Return the pixels of an image, whose own memory is freed."""
    pixels = np.asarray(image)
    image.close()
    return pixels


def _only_within(
    part: tuple[int, int, int, int], alpha: Image.Image | None, size: tuple[int, int]
) -> Image.Image:
    """Return the transparency of an image that has nothing outside of a part of it."""
    found = Image.new("L", size)
    found.paste(255 if alpha is None else alpha.crop(part), part)
    return found


def _replaced(image: Image.Image, by: Image.Image) -> Image.Image:
    """Return an image after the memory of the one that it replaces was freed."""
    if by is not image:
        image.close()
    return by


def _split(data: bytes, limits: ImageLimits) -> Container:
    if not data:
        raise EmptyImage("the image has no bytes")
    if len(data) > limits.max_bytes:
        raise ImageTooLarge(
            f"the image has {len(data):,} bytes. The limit is {limits.max_bytes:,} "
            "(limits.max_bytes)"
        )
    container = read_container(bound_file(data, limits))
    if container.still_size:
        _check_size(*container.still_size, limits)
    return container


def _open(container: Container, limits: ImageLimits) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(container.pixels), formats=(container.format,))
    except MemoryError:
        raise
    # Pillow raises nearly anything on broken data.
    except Exception as error:
        spare = without_exif(container)
        if spare is not None:
            return _open(spare, limits)
        if isinstance(error, OSError) and container.kind:
            raise UnsupportedFormat(
                f"the {container.format} image has {container.kind}, which is not supported. Store "
                "it as grey or RGB with 8 or 16 bits per channel"
            ) from error
        raise _undecodable(container, error) from error
    _check_size(image.width, image.height, limits)
    return image


def _undecodable(container: Container, error: Exception) -> CorruptImage:
    # The messages of libraries show bytes of the file and addresses of objects.
    _logger.info("a %s image cannot be decoded: %s", container.format, type(error).__name__)
    return CorruptImage(f"the {container.format} image is cut off or damaged")


def _load(container: Container, limits: ImageLimits) -> Image.Image:
    """Return an image with its pixels decoded."""
    image = _open(container, limits)
    if container.format == "JPEG":
        return load_jpeg(image, container.pixels)
    image.load()
    return image


def _load_webp(container: Container) -> Image.Image:
    """Return a WebP image of one frame, decoded into one buffer.

    Pillow decodes it like an animation, by the same library, into four buffers of RGBA.

    Raises:
        OSError: The image cannot be decoded.
    """
    content = np.frombuffer(container.pixels, np.uint8)
    pixels = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.shape[1::-1] != container.still_size:
        raise OSError("the WebP image cannot be decoded")
    height, width, channels = pixels.shape
    swap = cv2.COLOR_BGR2RGB if channels == 3 else cv2.COLOR_BGRA2RGBA
    for rows in strips(0, height, width):
        pixels[rows] = cv2.cvtColor(pixels[rows], swap)
    return Image.fromarray(np.asarray(pixels, np.uint8))


def _with_information(container: Container, image: Image.Image) -> Container:
    """Return a container with what Pillow has read of files that we do not split ourselves."""
    if container.format not in {"AVIF", "HEIF"}:
        return container
    info = image.info
    return dataclasses.replace(
        container,
        icc_profile=info.get("icc_profile"),
        exif=(info.get("exif") or b"").removeprefix(b"Exif\0\0") or None,
        xmp=info.get("xmp"),
    )


def _check_size(width: int, height: int, limits: ImageLimits) -> None:
    check_sides(width, height)
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
