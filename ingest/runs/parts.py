"""Parts of a ledger as bytes: gzipped JSON lines, and several parts in one object.

Gzip files can be joined: their contents are read one after the other, by every version of this
program. A *compacted* part is such a file. Each of its members is a part that was an object of its
own, and has the name of that part in its header (RFC 1952, FNAME). A reader that has read one of
them already can therefore skip it.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

SUFFIX = ".jsonl.gz"
"""End of the key of every part."""

PART_TIME_FORMAT = "%Y%m%dT%H%M%S"
"""Format of the time, to the second, that the names of results and redriven parts begin with."""

_COMPACTED = "-compacted-"
_TIME_LENGTH = len("20260101T000000")
_GZIP_WBITS = 16 + zlib.MAX_WBITS
_FLAGS_AT, _NAME_AT = 3, 10
_FLAG_EXTRA, _FLAG_NAME = 4, 8
_CHUNK_BYTES = 16 * 1024
"""Bytes that are given to the decompressor at a time: what follows a member is copied."""

DAMAGED = (OSError, EOFError, ValueError, zlib.error)
"""Errors that say that bytes are not a part."""


def part_name(key: str) -> str:
    """Return the name of a part from its key."""
    return key.rpartition("/")[2].removesuffix(SUFFIX)


def compacted_name(newest: str, unique: str) -> str:
    """Return the name for a compacted part.

    Args:
        newest: Name of the newest part in it. By that name, the compacted part is in every listing
            that would have had one of its parts.
        unique: Text that no other compacted part has.
    """
    return f"{newest}{_COMPACTED}{unique}"


def part_time(name: str) -> datetime | None:
    """Return the time that the name of a part begins with, or None if it begins with none."""
    try:
        return datetime.strptime(name[:_TIME_LENGTH], PART_TIME_FORMAT).replace(tzinfo=UTC)
    except ValueError:
        return None


def pack(lines: Iterable[bytes], name: str = "") -> bytes:
    """Return lines as a gzip file. The same lines and the same name are always the same bytes.

    Args:
        lines: Lines without their ends.
        name: Name to write into the header, in ASCII.
    """
    content = b"\n".join(lines) + b"\n"
    if not name:
        return gzip.compress(content, compresslevel=6, mtime=0)
    file = io.BytesIO()
    with gzip.GzipFile(filename=name, mode="wb", compresslevel=6, fileobj=file, mtime=0) as packed:
        packed.write(content)
    return file.getvalue()


def unpack(name: str, data: bytes) -> list[tuple[str, list[bytes]]]:
    """Return the parts in an object, each with its name and its lines.

    Args:
        name: Name of the object.
        data: Content of the object.

    Raises:
        DAMAGED: The bytes are not a part.
    """
    if _COMPACTED not in name:
        return [(name, gzip.decompress(data).splitlines())]
    return [(member, lines.splitlines()) for member, lines in _members(data)]


def _members(data: bytes) -> Iterator[tuple[str, bytes]]:
    start = 0
    while start < len(data):
        name = _member_name(data, start)
        decompressor = zlib.decompressobj(_GZIP_WBITS)
        pieces = []
        while not decompressor.eof:
            chunk = data[start : start + _CHUNK_BYTES]
            if not chunk:
                raise EOFError("the last member is cut off")
            pieces.append(decompressor.decompress(chunk))
            start += len(chunk)
        start -= len(decompressor.unused_data)
        yield name, b"".join(pieces)


def _member_name(data: bytes, start: int) -> str:
    flags = data[start + _FLAGS_AT] if start + _FLAGS_AT < len(data) else 0
    if not flags & _FLAG_NAME or flags & _FLAG_EXTRA:
        raise ValueError("a member has no name")
    begin = start + _NAME_AT
    return data[begin : data.index(0, begin)].decode("latin-1")
