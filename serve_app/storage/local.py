"""Objects in local files, for a laptop and for tests."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NoReturn

from serve_app.errors import (
    ImageTooLarge,
    SourceChanged,
    SourceForbidden,
    SourceNotAllowed,
    SourceNotFound,
    StorageUnavailable,
)
from serve_app.storage.protocol import CHUNK_BYTES, ObjectInfo


class LocalStore:
    """Objects as files. Each bucket is a folder under the root, and ETags are MD5 as in S3."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def head(self, bucket: str, key: str, version_id: str | None = None) -> ObjectInfo | None:
        """See ObjectStore."""
        try:
            data = self._path(bucket, key).read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None
        except OSError as error:
            _raise_mapped(error, bucket, key)
        return ObjectInfo(key, len(data), _md5(data))

    def get(
        self,
        bucket: str,
        key: str,
        *,
        etag: str | None = None,
        version_id: str | None = None,
        max_bytes: int | None = None,
    ) -> bytes:
        """See ObjectStore."""
        path = self._path(bucket, key)
        try:
            size = path.stat().st_size
            if max_bytes is not None and size > max_bytes:
                raise ImageTooLarge(
                    f"{path} has {size:,} bytes; the limit is {max_bytes:,} (limits.max_bytes)"
                )
            data = path.read_bytes()
        except OSError as error:
            _raise_mapped(error, bucket, key)
        if etag and _md5(data) != etag:
            raise SourceChanged(f"{path} is no longer the object that the job names (ETag)")
        return data

    def put(self, bucket: str, key: str, data: bytes, media_type: str) -> None:
        """See ObjectStore."""
        temporary, path = self._write_temporary(bucket, key, data)
        temporary.replace(path)

    def put_if_absent(self, bucket: str, key: str, data: bytes, media_type: str) -> bool:
        """See ObjectStore."""
        temporary, path = self._write_temporary(bucket, key, data)
        try:
            # A hard link fails if the name exists, unlike a rename.
            os.link(temporary, path)
        except FileExistsError:
            return False
        finally:
            temporary.unlink()
        return True

    def chunks(self, bucket: str, key: str) -> Iterator[bytes]:
        """See ObjectStore."""
        try:
            with self._path(bucket, key).open("rb") as file:
                while chunk := file.read(CHUNK_BYTES):
                    yield chunk
        except OSError as error:
            _raise_mapped(error, bucket, key)

    def list(self, bucket: str, prefix: str, after: str | None = None) -> Iterator[ObjectInfo]:
        """See ObjectStore."""
        for key in self.keys(bucket, prefix, after):
            if (info := self.head(bucket, key)) is not None:
                yield info

    def keys(self, bucket: str, prefix: str, after: str | None = None) -> Iterator[str]:
        """See ObjectStore."""
        return _walk_keys(str(self._root / bucket), "", prefix, after or "")

    def _path(self, bucket: str, key: str) -> Path:
        # A key is a name and not a path: it must not lead out of its bucket.
        if ".." in PurePosixPath(bucket).parts + PurePosixPath(key).parts:
            raise SourceNotAllowed(f"{bucket}/{key}: the key of a local file must not contain '..'")
        return self._root / bucket / key.lstrip("/")

    def _write_temporary(self, bucket: str, key: str, data: bytes) -> tuple[Path, Path]:
        path = self._path(bucket, key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(dir=self._root, prefix=".writing-")
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
        except OSError as error:
            _raise_mapped(error, bucket, key)
        return Path(name), path


def _walk_keys(folder: str, at: str, prefix: str, after: str) -> Iterator[str]:
    """Yield the keys below a folder in order, without a look into folders that hold none of them.

    Args:
        folder: Path of the folder.
        at: Part of every key that stands for the folder. It is empty or ends in a slash.
        prefix: Prefix of the keys to yield.
        after: Key that the keys to yield must follow.
    """
    try:
        with os.scandir(folder) as found:
            # A folder is sorted by the keys in it, in which a slash follows its name.
            names = [f"{item.name}/" if item.is_dir() else item.name for item in found]
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise StorageUnavailable(f"{folder}: {error}") from error
    for name in sorted(names):
        key = at + name
        if name.endswith("/"):
            leads_there = key.startswith(prefix) or prefix.startswith(key)
            if leads_there and (key > after or after.startswith(key)):
                yield from _walk_keys(f"{folder}/{name[:-1]}", key, prefix, after)
        elif key.startswith(prefix) and key > after:
            yield key


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _raise_mapped(error: OSError, bucket: str, key: str) -> NoReturn:
    where = f"{bucket}/{key}"
    if isinstance(error, (FileNotFoundError, IsADirectoryError, NotADirectoryError)):
        raise SourceNotFound(f"{where} does not exist") from error
    if isinstance(error, PermissionError):
        raise SourceForbidden(f"{where}: permission denied") from error
    raise StorageUnavailable(f"{where}: {error}") from error
