"""The object store interface, implemented by S3 and by local files.

Every method blocks, so asynchronous callers use threads. Threads can share a store.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

CHUNK_BYTES = 1024 * 1024
"""Size of the chunks in which large objects are read, in bytes."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """Facts about an object, without its bytes."""

    key: str
    """Key of the object."""
    size: int
    """Size of the object, in bytes."""
    etag: str
    """ETag of the object, without quotation marks."""
    model: str | None = None
    """Name of the model that a result was made with. None if the store does not keep it."""
    media_type: str | None = None
    """Media type of the object. None if the store does not keep it, or a listing does not say."""
    written_at: datetime | None = None
    """Time of the latest write, by the store's clock. None if only a listing says it."""


class ObjectStore(Protocol):
    """Buckets of objects."""

    def head(self, bucket: str, key: str, version_id: str | None = None) -> ObjectInfo | None:
        """Return facts about an object, or None if it does not exist.

        Raises:
            SourceNotFound: No object can have this bucket, key or version.
            SourceForbidden: The store denies the read.
            StorageUnavailable: The store does not answer.
        """
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
            SourceNotFound: The object does not exist.
            SourceForbidden: The store denies the read.
            SourceChanged: The object has another ETag than ``etag``.
            ImageTooLarge: The object is larger than ``max_bytes``. Nothing was read.
            StorageUnavailable: The store does not answer.
        """
        ...

    def put(self, bucket: str, key: str, data: bytes, media_type: str) -> None:
        """Write an object. An existing one is replaced."""
        ...

    def put_if_absent(
        self, bucket: str, key: str, data: bytes, media_type: str, *, model: str | None = None
    ) -> bool:
        """Write an object unless it exists, and return whether this call wrote it.

        Args:
            bucket: Bucket of the object.
            key: Key of the object.
            data: Content of the object.
            media_type: Media type of the content.
            model: Name of the model that made a result, which S3 keeps in the metadata.
        """
        ...

    def chunks(self, bucket: str, key: str) -> Iterator[bytes]:
        """Yield an object's bytes in chunks, for objects that do not fit in memory.

        Raises:
            SourceNotFound: The object does not exist.
            SourceForbidden: The store denies the read.
            StorageUnavailable: The store does not answer, or stopped in the middle.
        """
        ...

    def list(self, bucket: str, prefix: str, after: str | None = None) -> Iterator[ObjectInfo]:
        """Yield the objects under a prefix in the order of their keys, starting after ``after``."""
        ...

    def keys(self, bucket: str, prefix: str, after: str | None = None) -> Iterator[str]:
        """Yield only the keys of the objects that ``list`` yields.

        A local store need not read the files for that.
        """
        ...

    def folders(self, bucket: str, prefix: str) -> Iterator[str]:
        """Yield the names that follow a prefix up to the next slash, in order, each once.

        Args:
            bucket: Bucket of the objects.
            prefix: Beginning of the keys, which is empty or ends in a slash.
        """
        ...

    def delete(self, bucket: str, keys: Sequence[str]) -> None:
        """Delete objects. Those that do not exist count as deleted.

        Raises:
            SourceForbidden: The store denies the deletion. Some may be deleted.
            StorageUnavailable: The store does not answer. Some may be deleted.
        """
        ...
