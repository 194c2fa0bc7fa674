"""What the rest needs of a store of objects.

Every method blocks; asynchronous callers use threads. Stores are safe to share among threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

CHUNK_BYTES = 1024 * 1024
"""Of the pieces of an object that does not fit in memory."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What a listing or a HEAD says of an object."""

    key: str
    size: int
    """In bytes."""
    etag: str
    """Without quotation marks."""


class ObjectStore(Protocol):
    """Buckets of immutable objects."""

    def head(self, bucket: str, key: str, version_id: str | None = None) -> ObjectInfo | None:
        """Return what is known of an object, or None where it does not exist."""
        ...

    def get(
        self,
        bucket: str,
        key: str,
        *,
        etag: str | None = None,
        version_id: str | None = None,
        max_bytes: int | None = None,
    ) -> bytes:
        """Return an object's bytes.

        Raises:
            SourceNotFound: It does not exist.
            SourceForbidden: The store denies the read.
            SourceChanged: ``etag`` is given, and the object's is another.
            ImageTooLarge: It has more than ``max_bytes``; nothing was read then.
            StorageUnavailable: The store does not answer.
        """
        ...

    def put(self, bucket: str, key: str, data: bytes, media_type: str) -> None:
        """Write an object, or write it anew."""
        ...

    def put_if_absent(self, bucket: str, key: str, data: bytes, media_type: str) -> bool:
        """Write an object unless it exists; return whether this call wrote it."""
        ...

    def chunks(self, bucket: str, key: str) -> Iterator[bytes]:
        """Yield an object's bytes piece by piece, for objects that do not fit in memory.

        Raises:
            SourceNotFound: It does not exist.
            SourceForbidden: The store denies the read.
            StorageUnavailable: The store does not answer, or stopped in the middle.
        """
        ...

    def list(self, bucket: str, prefix: str, after: str | None = None) -> Iterator[ObjectInfo]:
        """Yield the objects under a prefix in the order of their keys, from past ``after`` on."""
        ...

    def keys(self, bucket: str, prefix: str, after: str | None = None) -> Iterator[str]:
        """Yield only the keys of what ``list`` yields, which a local store has for less."""
        ...
