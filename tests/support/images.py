"""Test images with the traits and the defects that real files have.

Each is made from known pixels, so that a test knows what must be decoded from it.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from serve_app.models.folio.synthetic.photograph import SyntheticPhotograph, draw_photograph
from tests.support.image_files import pixel_tags, png_chunk, png_file, tiff_file, with_chunk

Pixels = npt.NDArray[np.uint8]

WIDTH, HEIGHT = 400, 300
_EXIF_ORIENTATION = 0x0112

_STORED_AS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""Transposition of an upright image that each EXIF orientation stands for."""


def noise(height: int, width: int, *channels: int, seed: int = 0) -> Pixels:
    """Return random values, uint8 [height, width] or [height, width, channels]."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, *channels), dtype=np.uint8)


def rectangle_mask(
    box: tuple[int, int, int, int], height: int = 30, width: int = 40, value: int = 255
) -> Pixels:
    """Return a mask, uint8 [height, width], with a value in one rectangle and 0 around it.

    Args:
        box: Left, top, right and bottom of the rectangle, in pixels.
        height: Height of the mask, in pixels.
        width: Width of the mask, in pixels.
        value: Value inside the rectangle, 0 to 255.
    """
    mask = np.zeros((height, width), np.uint8)
    left, top, right, bottom = box
    mask[top:bottom, left:right] = value
    return mask


def book(seed: int = 7, width: int = WIDTH, height: int = HEIGHT) -> SyntheticPhotograph:
    """Return a synthetic photograph of a book, with its true mask."""
    return draw_photograph(seed, width=width, height=height, kind="book")


def saved(image: Image.Image, file_format: str, **options: object) -> bytes:
    """Return an image as a file."""
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def jpeg(image: Pixels, **options: object) -> bytes:
    """Return pixels as a JPEG of high quality."""
    return saved(Image.fromarray(image), "JPEG", quality=95, subsampling=0, **options)


@dataclass(frozen=True, slots=True)
class Trait:
    """An unusual but valid image."""

    name: str
    data: bytes
    """Content of the file."""
    expected: Pixels
    """Upright sRGB pixels, uint8 [H, W, 3]."""
    tolerance: float
    """Largest mean absolute difference, in grey levels, that the loss of the format explains."""
    alpha: Pixels | None = None
    """Transparency, uint8 [H, W], or None if the image has none."""
    grey: bool = False
    """Whether the image has lost its colours, so that its mask differs."""


@cache
def traits() -> tuple[Trait, ...]:
    """Return a photograph of a book with every trait of an image file."""
    pixels = book().image
    image = Image.fromarray(pixels)
    grey = np.asarray(image.convert("L"))
    grey_rgb = np.dstack([grey] * 3)
    paletted = image.quantize(128)
    from_palette = np.asarray(paletted.convert("RGB"))
    alpha = np.full(grey.shape, 255, np.uint8)
    alpha[:, : WIDTH // 8] = 0
    other = Image.fromarray(255 - pixels)
    gif = image.quantize(255)
    dots = image.convert("1")
    found = [
        Trait(f"exif-{number}", _turned(image, number), pixels, 3)
        for number in range(1, len(_STORED_AS) + 1)
    ]
    found += [
        Trait("tiff", saved(image, "TIFF"), pixels, 0),
        Trait("tiff-exif-6", _turned(image, 6, "TIFF"), pixels, 0),
        Trait("bmp", saved(image, "BMP"), pixels, 0),
        Trait("webp", saved(image, "WEBP", quality=95), pixels, 6),
        Trait("progressive-jpeg", jpeg(pixels, progressive=True), pixels, 3),
        Trait("cmyk-jpeg", saved(image.convert("CMYK"), "JPEG", quality=95), pixels, 6),
        Trait("grey-jpeg", saved(image.convert("L"), "JPEG", quality=95), grey_rgb, 3, None, True),
        Trait("grey-16-bit-png", _png16(grey), grey_rgb, 0, None, True),
        Trait("rgb-16-bit-png", _png16(pixels), pixels, 0),
        Trait("palette-png", saved(paletted, "PNG"), from_palette, 0),
        Trait("one-bit-png", saved(dots, "PNG"), np.asarray(dots.convert("RGB")), 0, None, True),
        Trait("alpha-png", _with_alpha(image, alpha), pixels, 0, alpha),
        Trait("grey-alpha-png", _with_alpha(image.convert("L"), alpha), grey_rgb, 0, alpha, True),
        Trait(
            "animated-gif",
            saved(gif, "GIF", save_all=True, append_images=[other.quantize(255)]),
            np.asarray(gif.convert("RGB")),
            0,
        ),
        Trait("linear-icc-jpeg", *_in_linear_light(pixels)),
        Trait("linear-icc-named-srgb-jpeg", *_in_linear_light(pixels, b"Linear sRGB")),
        Trait("linear-cicp-png", *_in_linear_light_by_number(pixels)),
        Trait("broken-icc-jpeg", jpeg(pixels, icc_profile=b"not a profile"), pixels, 3),
    ]
    found += [
        Trait("avif", saved(image, "AVIF", quality=95), pixels, 6),
        Trait("jpeg-without-its-end", jpeg(pixels)[:-2], pixels, 3),
        Trait("large-text-png", with_chunk(saved(image, "PNG"), _large_text()), pixels, 0),
        Trait("white-is-0-tiff", _white_is_zero(grey), grey_rgb, 0, None, True),
        Trait("preview-first-tiff", _after_a_preview(pixels), pixels, 0),
    ]
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Defect:
    """Bytes that are refused, and how."""

    name: str
    data: bytes
    """Content of the file."""
    code: str
    """Code of the error."""
    status: int
    """HTTP status of the error."""


@cache
def defects() -> tuple[Defect, ...]:
    """Return inputs that are refused with the default limits."""
    sound = jpeg(book().image)
    return (
        Defect("zero-bytes", b"", "empty_image", 422),
        Defect("truncated-jpeg", sound[: len(sound) // 2], "corrupt_image", 422),
        Defect("header-only-jpeg", sound[:16], "corrupt_image", 422),
        Defect("text", b"I only have the name of an image.\n", "unsupported_format", 415),
        Defect("svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported_format", 415),
        Defect("dng", _dng(), "unsupported_format", 415),
        Defect("signed-tiff", _signed(), "unsupported_format", 415),
        Defect("pq-png", with_chunk(flat(40, 30), _PQ), "unsupported_format", 415),
        Defect("photoshop", b"8BPS\0\1" + bytes(300), "unsupported_format", 415),
        Defect("no-palette", png_file([bytes(4)] * 4, 4, 8, 3), "corrupt_image", 422),
        Defect("bomb", bomb(60_000, 60_000), "image_too_large", 413),
        Defect("long-side", flat(20_000, 10), "image_too_large", 413),
        Defect("one-pixel", flat(1, 1), "no_subject", 422),
        Defect("uniform", flat(400, 300), "no_subject", 422),
    )


def flat(width: int, height: int) -> bytes:
    """Return a PNG of one colour."""
    return saved(Image.new("RGB", (width, height), (120, 130, 140)), "PNG")


def bomb(width: int, height: int) -> bytes:
    """Return a small PNG whose header declares an enormous image."""

    def chunk(name: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(1 + 3 * width))
    signature = b"\x89PNG\r\n\x1a\n"
    return signature + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def _turned(image: Image.Image, orientation: int, file_format: str = "JPEG") -> bytes:
    exif = Image.Exif()
    exif[_EXIF_ORIENTATION] = orientation
    how = _STORED_AS[orientation]
    stored = image if how is None else image.transpose(how)
    if file_format == "JPEG":
        return saved(stored, "JPEG", quality=95, subsampling=0, exif=exif)
    return saved(stored, file_format, exif=exif)


def _png16(pixels: Pixels) -> bytes:
    """Return pixels as a PNG of 16 bits per channel, of which the low 8 are noise."""
    low = np.random.default_rng(1).integers(0, 256, pixels.shape, dtype=np.uint16)
    wide = (pixels.astype(np.uint16) << 8) + low
    if wide.ndim == 3:
        wide = np.ascontiguousarray(wide[..., ::-1])
    return cv2.imencode(".png", wide)[1].tobytes()


def _with_alpha(image: Image.Image, alpha: Pixels) -> bytes:
    image = image.copy()
    image.putalpha(Image.fromarray(alpha))
    return saved(image, "PNG")


def _large_text() -> bytes:
    return png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(1_600_000)))


_PQ = png_chunk(b"cICP", bytes([9, 16, 0, 1]))
"""BT.2020 with the curve PQ."""


def _white_is_zero(grey: Pixels) -> bytes:
    wide = (255 - grey).astype("<u2") * 257
    return tiff_file(pixel_tags(WIDTH, HEIGHT, 16, 1, 0), [wide.tobytes()])


def _after_a_preview(pixels: Pixels) -> bytes:
    page = pixel_tags(WIDTH, HEIGHT, 8, 3, 2)
    return tiff_file(pixel_tags(80, 60, 8, 3, 2, t254=1), [pixels.tobytes()], further=[page])


def _dng() -> bytes:
    preview = pixel_tags(80, 60, 8, 3, 2, t254=1) | {50706: (1, [1, 4, 0, 0])}
    return tiff_file(preview, [bytes(80 * 60 * 3)])


def _signed() -> bytes:
    return tiff_file(pixel_tags(40, 30, 16, 1, 1, t339=2), [bytes(40 * 30 * 2)])


def _in_linear_light(pixels: Pixels, name: bytes = b"Linear") -> tuple[bytes, Pixels, float]:
    """Return an image in linear light with its ICC profile, its sRGB pixels and the tolerance.

    8 bits of linear light cannot represent the shadows, so that their decoded pixels differ.
    """
    return jpeg(_to_linear(pixels), icc_profile=_linear_profile(name)), pixels, 8


def _in_linear_light_by_number(pixels: Pixels) -> tuple[bytes, Pixels, float]:
    numbers = png_chunk(b"cICP", bytes([1, 8, 0, 1]))
    return with_chunk(saved(Image.fromarray(_to_linear(pixels)), "PNG"), numbers), pixels, 8


def _to_linear(pixels: Pixels) -> Pixels:
    share = np.arange(256) / 255
    to_linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return np.round(to_linear * 255).astype(np.uint8)[pixels]


def _linear_profile(text: bytes) -> bytes:
    """Return an ICC profile (version 2.1, ICC.1:1998-09) with sRGB's primaries and a gamma of 1."""

    def fixed(value: float) -> int:
        return round(value * 65536)

    def xyz(x: float, y: float, z: float) -> bytes:
        return b"XYZ \0\0\0\0" + struct.pack(">iii", fixed(x), fixed(y), fixed(z))

    description = b"desc\0\0\0\0" + struct.pack(">I", len(text) + 1) + text + b"\0"
    description += bytes(4 + 4 + 2 + 1 + 67)
    description += bytes(-len(description) % 4)
    curve = b"curv\0\0\0\0" + struct.pack(">I", 0)
    tags = {
        b"desc": description,
        b"cprt": b"text\0\0\0\0none\0\0\0\0",
        b"wtpt": xyz(0.9642, 1.0, 0.8249),
        b"rXYZ": xyz(0.4361, 0.2225, 0.0139),
        b"gXYZ": xyz(0.3851, 0.7169, 0.0971),
        b"bXYZ": xyz(0.1431, 0.0606, 0.7141),
        b"rTRC": curve,
        b"gTRC": curve,
        b"bTRC": curve,
    }
    table, body, start = b"", b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        table += name + struct.pack(">II", start + len(body), len(content))
        body += content
    size = start + len(body)
    header = struct.pack(">I4sI4s4s4s", size, b"none", 0x02100000, b"mntr", b"RGB ", b"XYZ ")
    header += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    header += struct.pack(">iii", fixed(0.9642), fixed(1.0), fixed(0.8249))
    header += bytes(128 - len(header))
    return header + struct.pack(">I", len(tags)) + table + body
