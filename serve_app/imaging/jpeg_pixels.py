"""Pixels of a JPEG file, or an error if some of them are missing.

libjpeg fills up what is missing: with grey, or with a coarse version of a progressive image. It
warns, and Pillow does not pass the warning on. Source: ITU-T T.81, annexes B, F and G.
"""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np
import simplejpeg
from PIL import Image

from serve_app.imaging.bounds.jpeg import END_OF_IMAGE, FRAMES, START_OF_SCAN, read_segments
from serve_app.imaging.pixels import Pixels

_END = bytes([0xFF, END_OF_IMAGE])
_NOISE = bytes(range(251, 7, -9)) * 40


def _restarts(first: int) -> bytes:
    numbers = (0xD0 + (first + step) % 8 for step in range(8))
    return b"".join(bytes([0xFF, number]) + _NOISE for number in numbers) + _END


_NO_PIXELS = (_NOISE + _END, _restarts(0), _restarts(4))
"""Bytes that are no pixels, as they are and as restart intervals. If pixels are missing, a decoder
makes some of them. It leaves an interval out if the number of the next one is close to its own."""
_FILLED_UP = bytes(64)
"""Zeros at the end of a file that was filled up to its length. Pixels do not end in that many."""
_LAST_ZEROS = bytes(2)
"""Zeros that may be the last bytes of such a file's pixels. A loss of as little is not seen."""
_BLOCK_PX = 8
_GREYS = (127, 128)
"""What a block is filled up with. CMYK is stored inverted."""
_PROGRESSIVE = frozenset({0xC2, 0xCA})
_COEFFICIENTS = 64


class _Scans(NamedTuple):
    """What the scans of a file declare to have."""

    complete: bool
    """Whether they have every bit of every coefficient."""
    every_component: bool
    """Whether they have at least the mean of every block of every component."""
    has_end: bool
    """Whether the end marker is there."""
    end: int
    """Position after the last scan."""


def read_sound_jpeg(image: Image.Image, data: bytes) -> Pixels | None:
    """Return the pixels of a JPEG file of colours that has nothing to judge, or None.

    Pillow decodes them into memory of its own, with four bytes for a pixel, from which they are
    copied twice. This is the same libjpeg-turbo with the same settings, straight into an array. It
    raises on every warning that Pillow keeps to itself, and then ``load_jpeg`` judges the file.

    Args:
        image: Image of the file that Pillow has opened, and whose pixels are not decoded.
        data: Content of the file, from which metadata was left out.

    Returns:
        uint8 [H, W, 3], RGB.
    """
    if image.mode != "RGB" or data.endswith(_FILLED_UP):
        return None
    scans = _read_scans(data)
    if not (scans.complete and scans.has_end):
        return None
    try:
        pixels: Pixels = simplejpeg.decode_jpeg(data, "RGB", strict=True)
    except ValueError:
        return None
    height, width, _ = pixels.shape
    if (width, height) != image.size or _is_filled_up(pixels[-_BLOCK_PX:, -_BLOCK_PX:]):
        return None
    return pixels


def load_jpeg(image: Image.Image, data: bytes) -> Image.Image:
    """Return a JPEG image with its pixels decoded.

    A file may lack its end marker if all of its pixels are there, and a progressive one that has
    it may lack details, which its encoder then left out.

    Args:
        image: Image of the file that Pillow has opened.
        data: Content of the file, from which metadata was left out.

    Raises:
        OSError: Pixels are missing, or the file is damaged.
    """
    if data.endswith(_FILLED_UP):
        data = data.rstrip(b"\0")
        if not data.endswith(_END):
            return _load_without_end(data + _LAST_ZEROS)
    try:
        image.load()
    except OSError:
        return _load_without_end(data)
    scans = _read_scans(data)
    if not scans.every_component:
        raise OSError("a component of the colours is missing")
    if scans.has_end and _may_be_filled_up(image):
        return _compare_endings(data[: scans.end])
    return image


def _may_be_filled_up(image: Image.Image) -> bool:
    """Return whether the last block of an image is what libjpeg fills a cut-off one up with."""
    width, height = image.size
    corner = image.crop((max(0, width - _BLOCK_PX), max(0, height - _BLOCK_PX), width, height))
    return _is_filled_up(np.asarray(corner))


def _is_filled_up(block: Pixels) -> bool:
    return bool(np.isin(block, _GREYS).all())


def _load_without_end(data: bytes) -> Image.Image:
    """Return a JPEG image that lacks nothing but its end marker and what is not read.

    Args:
        data: Content of the file.

    Raises:
        OSError: Pixels are missing.
    """
    scans = _read_scans(data)
    if not scans.complete:
        raise OSError("scans are missing")
    return _compare_endings(data[: scans.end])


def _compare_endings(data: bytes) -> Image.Image:
    """Return a JPEG image if it makes no difference what follows its last scan.

    Args:
        data: Content of the file up to the end of its last scan.

    Raises:
        OSError: The end of the last scan is missing.
    """
    # Half of a marker, or half of a stuffed byte.
    data = data.rstrip(b"\xff")
    complete = _open(data + _END)
    expected = complete.tobytes()
    if any(_open(data + ending).tobytes() != expected for ending in _NO_PIXELS):
        raise OSError("pixels are missing")
    return complete


def _open(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data), formats=("JPEG",))


def _read_scans(data: bytes) -> _Scans:
    """Return what the scans of a file declare."""
    missing: dict[int, list[int | None]] = {}
    progressive, has_end, end = False, False, len(data)
    for segment in read_segments(data, 2, in_scan=True):
        content = data[segment.start + 4 : segment.end]
        end = min(end, segment.start)
        if segment.marker == END_OF_IMAGE:
            has_end = True
            break
        if segment.marker in FRAMES:
            progressive = segment.marker in _PROGRESSIVE
            missing = {number: [None] * _COEFFICIENTS for number in content[6::3]}
        elif segment.marker == START_OF_SCAN:
            _note_scan(missing, content, progressive)
            end = len(data)
    return _Scans(
        all(not any(bits) and None not in bits for bits in missing.values()),
        all(bits[0] is not None for bits in missing.values()),
        has_end,
        end,
    )


def _note_scan(missing: dict[int, list[int | None]], content: bytes, progressive: bool) -> None:
    """Note which bits of which coefficients a scan leaves for a later one.

    Args:
        missing: Number of low bits that are missing of each coefficient, by component. None if all
            are. Changed here.
        content: Header of the scan (T.81, B.2.3).
        progressive: Whether a scan has a part of the coefficients only.
    """
    count = content[0] if content else 0
    if len(content) < 4 + 2 * count:
        return
    first, last, bits = content[1 + 2 * count : 4 + 2 * count]
    chosen = slice(first, last + 1) if progressive else slice(None)
    for number in content[1 : 1 + 2 * count : 2]:
        if number in missing:
            part = missing[number][chosen]
            missing[number][chosen] = [bits & 15 if progressive else 0] * len(part)
