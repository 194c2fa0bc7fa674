"""Objects in local files, for a laptop and for tests."""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, NoReturn

from serve_app.errors import (
    ForeedgeError,
    ImageTooLarge,
    SourceChanged,
    SourceForbidden,
    SourceNotAllowed,
    SourceNotFound,
    StorageUnavailable,
)
from serve_app.storage.protocol import CHUNK_BYTES, ObjectInfo
from serve_app.storage.rooted_files import LeadsOut, Parts, RootedFiles

_ABSENT = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
_MAX_KEY_BYTES = 1024
"""Longest key of an object, in bytes, as in S3."""
_MAX_NAME_BYTES = 255
"""Longest name of a folder, in bytes, on the file systems of Linux (``NAME_MAX``)."""
_IMPOSSIBLE_NAME = {errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ}
"""Numbers of the errors for a name that the file system cannot hold."""


class LocalStore:
    """Objects as files. Each bucket is a folder under the root, and ETags are MD5 as in S3.

    A key is the path of its file, so a few keys of S3 have no file: those with an empty part, with
    ``.`` or ``..`` as a part, or with a part that is longer than the file system allows. Symbolic
    links are followed within the root only.
    """

    def __init__(self, root: Path) -> None:
        self._files = RootedFiles(root)

    def head(self, bucket: str, key: str, version_id: str | None = None) -> ObjectInfo | None:
        """See ObjectStore."""
        path = _parts(bucket, key)
        try:
            with self._files.reading(path) as file:
                data = file.read()
                written_at = datetime.fromtimestamp(os.fstat(file.fileno()).st_mtime, UTC)
        except _ABSENT:
            return None
        except OSError as error:
            raise _mapped(error, bucket, key) from error
        return ObjectInfo(key, len(data), _md5(data), written_at=written_at)

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
        with self._reading(bucket, key) as file:
            size = os.fstat(file.fileno()).st_size
            if max_bytes is not None and size > max_bytes:
                raise ImageTooLarge(
                    f"{bucket}/{key} has {size:,} bytes; the limit is {max_bytes:,} "
                    "(limits.max_bytes)"
                )
            data = file.read()
        if etag and _md5(data) != etag:
            raise SourceChanged(f"{bucket}/{key} is no longer the object that the job names (ETag)")
        return data

    def put(self, bucket: str, key: str, data: bytes, media_type: str) -> None:
        """See ObjectStore."""
        path = _parts(bucket, key)
        try:
            self._files.write(path, data, replace=True)
        except OSError as error:
            _raise_for_write(error, bucket, key)

    def put_if_absent(
        self, bucket: str, key: str, data: bytes, media_type: str, *, model: str | None = None
    ) -> bool:
        """See ObjectStore. A file has no metadata, so the model is not kept."""
        path = _parts(bucket, key)
        try:
            self._files.write(path, data, replace=False)
        except FileExistsError:
            return False
        except OSError as error:
            _raise_for_write(error, bucket, key)
        return True

    def chunks(self, bucket: str, key: str) -> Iterator[bytes]:
        """See ObjectStore."""
        with self._reading(bucket, key) as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk

    def list(self, bucket: str, prefix: str, after: str | None = None) -> Iterator[ObjectInfo]:
        """See ObjectStore."""
        for key in self.keys(bucket, prefix, after):
            if (info := self.head(bucket, key)) is not None:
                yield info

    def keys(self, bucket: str, prefix: str, after: str | None = None) -> Iterator[str]:
        """See ObjectStore."""
        _check_bucket(bucket)
        try:
            folder = self._files.resolve((bucket,))
            yield from self._walk((folder,), "", prefix, after or "")
        except OSError as error:
            raise _mapped(error, bucket, prefix) from error

    def folders(self, bucket: str, prefix: str) -> Iterator[str]:
        """See ObjectStore."""
        names = (key[len(prefix) :].partition("/") for key in self.keys(bucket, prefix))
        for name, _ in itertools.groupby(folder for folder, slash, _ in names if slash):
            yield name

    def delete(self, bucket: str, keys: Sequence[str]) -> None:
        """See ObjectStore."""
        for key in keys:
            path = _parts(bucket, key)
            try:
                self._files.remove(path)
            except _ABSENT:
                continue
            except OSError as error:
                raise _mapped(error, bucket, key) from error

    def _walk(self, path: tuple[Parts, ...], at: str, prefix: str, after: str) -> Iterator[str]:
        """Yield keys below a folder in order, without a look into folders that hold none of them.

        Args:
            path: Resolved paths of the folders from the bucket down to this one.
            at: Part of every key that stands for the folder. It is empty or ends in a slash.
            prefix: Prefix of the keys to yield.
            after: Key that the keys to yield must follow.
        """
        try:
            entries = self._files.entries(path[-1])
        except (FileNotFoundError, NotADirectoryError):
            return
        # A folder is sorted by the keys in it, in which a slash follows its name.
        named = [(entry.name + "/" * (entry.folder is not None), entry) for entry in entries]
        for name, entry in sorted(named, key=lambda item: item[0]):
            key = at + name
            if entry.folder is None:
                if key.startswith(prefix) and key > after:
                    yield key
            # A link to a folder above has no end.
            elif entry.folder not in path:
                leads_there = key.startswith(prefix) or prefix.startswith(key)
                if leads_there and (key > after or after.startswith(key)):
                    yield from self._walk((*path, entry.folder), key, prefix, after)

    @contextmanager
    def _reading(self, bucket: str, key: str) -> Iterator[BinaryIO]:
        path = _parts(bucket, key)
        try:
            with self._files.reading(path) as file:
                yield file
        except OSError as error:
            raise _mapped(error, bucket, key) from error


def _parts(bucket: str, key: str) -> Parts:
    """Return the path of an object below the root.

    Raises:
        SourceNotAllowed: The bucket or the key would lead out of its folder.
        SourceNotFound: No file can have this name.
    """
    _check_bucket(bucket)
    parts = tuple(key.split("/"))
    if key.startswith("/") or ".." in parts:
        raise SourceNotAllowed(
            f"The key {key!r} in bucket {bucket!r} is refused: the key of a local file must not "
            "begin with '/' and must not contain '..'. Correct the key."
        )
    if "" in parts or "." in parts or not _is_name(key, _MAX_KEY_BYTES):
        raise SourceNotFound(
            f"No local file can have the key {key!r} in bucket {bucket!r}: a part of it is empty, "
            f"'.', or no name of a file, or it has over {_MAX_KEY_BYTES:,} bytes. Correct the key."
        )
    return (bucket, *parts)


def _check_bucket(bucket: str) -> None:
    if bucket == ".." or "/" in bucket:
        raise SourceNotAllowed(
            f"The bucket {bucket!r} is refused: a local bucket is the name of a folder in "
            "storage.local_root. Correct the bucket."
        )
    if bucket in ("", ".") or not _is_name(bucket, _MAX_NAME_BYTES):
        raise SourceNotFound(
            f"No local bucket can have the name {bucket!r}: it is empty, '.', or no name of a "
            "folder. Correct the bucket."
        )


def _is_name(text: str, max_bytes: int) -> bool:
    """Return whether the operating system can be asked for a file of this name."""
    try:
        name = os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return b"\0" not in name and len(name) <= max_bytes


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _raise_for_write(error: OSError, bucket: str, key: str) -> NoReturn:
    if isinstance(error, _ABSENT):
        raise SourceNotFound(
            f"{bucket}/{key} cannot be stored: a file has the name of one of its folders, or a "
            "folder has its name. Choose another key."
        ) from error
    raise _mapped(error, bucket, key) from error


def _mapped(error: OSError, bucket: str, key: str) -> ForeedgeError:
    where = f"{bucket}/{key}"
    if isinstance(error, LeadsOut) or error.errno == errno.ELOOP:
        return SourceNotAllowed(
            f"{where} is refused: a symbolic link leads out of storage.local_root, or in a circle. "
            "Replace the link by the files."
        )
    if isinstance(error, _ABSENT):
        return SourceNotFound(f"{where} does not exist")
    if error.errno in _IMPOSSIBLE_NAME:
        return SourceNotFound(f"{where} cannot exist, correct the bucket or key: {error.strerror}")
    if isinstance(error, PermissionError):
        return SourceForbidden(f"{where}: permission denied")
    return StorageUnavailable(f"{where}: {error}")
