"""Scan of PNG files: the number of chunks, and compressed metadata (ISO/IEC 15948, clause 11)."""

from __future__ import annotations

import struct
import zlib

from serve_app.imaging.bounds.exif import is_costly_exif
from serve_app.imaging.bounds.parts import MAX_PARTS, KeptParts, refuse_parts

_SIGNATURE_BYTES = 8
_HEAD_BYTES, _CHECKSUM_BYTES = 8, 4
_MAX_TEXT_BYTES = 1 << 20
"""Largest decompressed text. Pillow refuses the image for a larger one (``MAX_TEXT_CHUNK``)."""
_MAX_PLAIN_TEXTS = 64
"""Most texts without effect on the pixels that Pillow gets to read."""
_MAX_KEYWORD_BYTES = 79
_ORIENTED = {b"XML:com.adobe.xmp", b"Raw profile type exif", b"Raw profile type APP1"}
"""Keywords of texts from which Pillow reads the orientation."""


def bound_png(data: bytes) -> bytes:
    """Return a PNG file without the metadata that Pillow would read for long.

    Compressed texts are left out unless they can give the orientation, and plain texts if there are
    many. The first colour profile is kept. EXIF data with too many entries is left out.

    Args:
        data: Content of the file.

    Raises:
        ImageTooLarge: The file has too many chunks.
    """
    plain: list[tuple[int, int]] = []
    costly: list[tuple[int, int]] = []
    seen: set[bytes] = set()
    at = _SIGNATURE_BYTES
    for _ in range(MAX_PARTS):
        if at + _HEAD_BYTES > len(data):
            break
        length, name = struct.unpack_from(">I4s", data, at)
        start, at = at, at + _HEAD_BYTES + length + _CHECKSUM_BYTES
        if name in _BOUNDS:
            kept = _BOUNDS[name](data[start + _HEAD_BYTES : at - _CHECKSUM_BYTES], seen)
            if not kept:
                (plain if name == b"tEXt" else costly).append((start, at))
    else:
        raise refuse_parts("PNG", "chunks")
    left_out = KeptParts(data)
    for start, end in sorted(costly + plain if len(plain) > _MAX_PLAIN_TEXTS else costly):
        left_out.leave_out(start, end)
    return left_out.file()


def _keeps_text(content: bytes, seen: set[bytes]) -> bool:
    return _is_first_orientation(content, seen)


def _keeps_compressed_text(content: bytes, seen: set[bytes]) -> bool:
    if not _is_first_orientation(content, seen):
        return False
    _, _, rest = content.partition(b"\0")
    return _is_small(rest[1:])


def _keeps_international_text(content: bytes, seen: set[bytes]) -> bool:
    if not _is_first_orientation(content, seen):
        return False
    _, _, rest = content.partition(b"\0")
    compressed, text = rest[:1] != b"\0", rest[2:].split(b"\0", 2)[-1]
    return _is_small(text) if compressed else len(text) <= _MAX_TEXT_BYTES


def _keeps_profile(_content: bytes, seen: set[bytes]) -> bool:
    first = b"iCCP" not in seen
    seen.add(b"iCCP")
    return first


def _keeps_exif(content: bytes, _seen: set[bytes]) -> bool:
    return not is_costly_exif(content)


_BOUNDS = {
    b"tEXt": _keeps_text,
    b"zTXt": _keeps_compressed_text,
    b"iTXt": _keeps_international_text,
    b"iCCP": _keeps_profile,
    b"eXIf": _keeps_exif,
}


def _is_first_orientation(content: bytes, seen: set[bytes]) -> bool:
    keyword = content[: _MAX_KEYWORD_BYTES + 1].partition(b"\0")[0]
    first = keyword in _ORIENTED and keyword not in seen
    seen.add(keyword)
    return first


def _is_small(compressed: bytes) -> bool:
    """Return whether a text can be decompressed, to a size that Pillow accepts."""
    stream = zlib.decompressobj()
    try:
        stream.decompress(compressed, _MAX_TEXT_BYTES)
    except zlib.error:
        return False
    return not stream.unconsumed_tail
