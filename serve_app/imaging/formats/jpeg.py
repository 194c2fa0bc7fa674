"""JPEG files, split into their pixels and what they say of them.

Sources: ITU-T T.81 (1992), annex B; JFIF 1.02; Exif 2.32, 4.7.2; ICC.1:2022, annex B.4.
"""

from __future__ import annotations

import struct

from serve_app.errors import CorruptImage, UnsupportedFormat
from serve_app.imaging.formats.container import (
    MAX_ANCILLARY_BYTES,
    MAX_PARTS,
    Container,
    check_sides,
    cut_off,
    resolution,
    too_many_parts,
)

_START_OF_IMAGE = b"\xff\xd8"
_SOS, _EOI = 0xDA, 0xD9
_APP0, _APP1, _APP2, _APP14 = 0xE0, 0xE1, 0xE2, 0xEE
_ALONE = frozenset({0x00, 0x01, 0xD8, *range(0xD0, 0xD8)})
"""Markers without a length: stuffing, TEM, SOI and RST0 to RST7."""
_TABLES = frozenset({0xC4, 0xCC, 0xDB, 0xDD})
"""DHT, DAC, DQT and DRI."""
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_DECODED_FRAMES = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})
"""Baseline, extended and progressive frames, with Huffman or arithmetic coding."""
_JPEG_LS_FRAME = 0xF7
_JFIF_BYTES, _ADOBE_BYTES = 14, 12
_EXIF, _XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_ICC = b"ICC_PROFILE\0"


def read_jpeg(data: bytes) -> Container:
    """Return a JPEG file without its comments, profile, EXIF data and thumbnails.

    Args:
        data: Content of a JPEG file.

    Raises:
        CorruptImage: The file ends before its pixels, or has no frame.
        EmptyImage: A side has no pixels.
        UnsupportedFormat: The frame is of a kind that libjpeg-turbo does not decode with 8 bits.
    """
    reader = _Segments(data)
    position = reader.read()
    if not reader.has_frame:
        raise CorruptImage("the JPEG image is cut off or damaged: it has no frame header")
    return Container(
        "JPEG",
        b"".join([_START_OF_IMAGE, *reader.kept, memoryview(data)[position:]]),
        icc_profile=_join_profile(reader.profile),
        exif=reader.exif,
        xmp=reader.xmp,
        dpi=reader.dpi,
    )


class _Segments:
    """The segments of a JPEG file before its first scan."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.kept: list[bytes] = []
        self.profile: dict[int, bytes] = {}
        self._exif: list[bytes] = []
        self._exif_bytes = 0
        self.xmp: bytes | None = None
        self.dpi: tuple[float, float] | None = None
        self.has_frame = False

    @property
    def exif(self) -> bytes | None:
        """EXIF data, joined once, since a file can have thousands of segments of it."""
        return b"".join(self._exif) or None

    def read(self) -> int:
        """Read the segments, and return the offset of the first scan."""
        data, position = self._data, len(_START_OF_IMAGE)
        for _ in range(MAX_PARTS):
            position = data.find(b"\xff", position)
            marker_at = len(data) if position < 0 else _end_of_fill(data, position)
            if marker_at >= len(data):
                raise cut_off("JPEG", "its header")
            marker = data[marker_at]
            position = marker_at + 1
            if marker == _SOS:
                return marker_at - 1
            if marker == _EOI:
                raise CorruptImage("the JPEG image is cut off or damaged: it has no pixels")
            if marker in _ALONE:
                continue
            length = int.from_bytes(data[position : position + 2], "big")
            if position + max(length, 2) > len(data):
                raise cut_off("JPEG", "its header")
            self._take(marker, data[position + 2 : position + length])
            position += max(length, 2)
        raise too_many_parts("JPEG")

    def _take(self, marker: int, content: bytes) -> None:
        if marker in _FRAMES or marker == _JPEG_LS_FRAME:
            _check_frame(marker, content)
            self.has_frame = True
            self._keep(marker, content)
        elif marker in _TABLES:
            self._keep(marker, content)
        elif marker == _APP14 and content.startswith(b"Adobe") and len(content) >= _ADOBE_BYTES:
            # It says how the colours are stored.
            self._keep(marker, content)
        elif marker == _APP0 and content.startswith(b"JFIF\0") and len(content) >= _JFIF_BYTES:
            self._keep(marker, content)
            unit, across, down = struct.unpack_from(">BHH", content, 7)
            if unit in {1, 2}:
                self.dpi = self.dpi or resolution(across, down, 1.0 if unit == 1 else 1 / 2.54)
        elif marker == _APP1 and content.startswith(_EXIF):
            # EXIF data of more than 64 KB continues in the next segment.
            self._exif_bytes += len(content)
            if self._exif_bytes <= MAX_ANCILLARY_BYTES:
                self._exif.append(content[len(_EXIF) :])
        elif marker == _APP1 and content.startswith(_XMP):
            self.xmp = self.xmp or content[len(_XMP) :]
        elif marker == _APP2 and content.startswith(_ICC) and len(content) > len(_ICC) + 2:
            self.profile.setdefault(content[len(_ICC)], content[len(_ICC) + 1 :])

    def _keep(self, marker: int, content: bytes) -> None:
        self.kept.append(struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content)


def _end_of_fill(data: bytes, position: int) -> int:
    """Return the offset behind a run of 0xFF, of which a marker may have any number before it."""
    if data[position + 1 : position + 2] != b"\xff":
        return position + 1
    # A run of megabytes must not cost a step of Python for each byte.
    step = 65_536
    while data.startswith(b"\xff" * step, position):
        position += step
    run = data[position : position + step]
    return position + len(run) - len(run.lstrip(b"\xff"))


def _check_frame(marker: int, content: bytes) -> None:
    if len(content) < 6:
        raise cut_off("JPEG", "its header")
    bits, height, width, channels = struct.unpack_from(">BHHB", content)
    kind = None
    if marker not in _DECODED_FRAMES:
        kind = "a lossless or hierarchical one"
    elif bits != 8:
        kind = f"one of {bits} bits per sample"
    elif channels not in {1, 3, 4}:
        kind = f"one of {channels} channels"
    elif height == 0:
        kind = "one whose height is declared behind its pixels"
    if kind:
        raise UnsupportedFormat(
            f"the JPEG image is {kind}, which is not supported. Store it as a baseline JPEG"
        )
    check_sides(width, height)


def _join_profile(parts: dict[int, bytes]) -> bytes | None:
    """Return the ICC profile of numbered parts, each with the number of all parts before it."""
    if not parts or sorted(parts) != list(range(1, parts[min(parts)][0] + 1)):
        return None
    joined = b"".join(parts[number][1:] for number in sorted(parts))
    return joined if len(joined) <= MAX_ANCILLARY_BYTES else None
