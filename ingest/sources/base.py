"""What a run is made of: photographs under a prefix, in a local folder, or named by a program.

Each is read as a stream, since there may be millions of them. ``manifest_file`` and ``inventory``
have two more.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from serve_app.contracts import Output
from serve_app.errors import InvalidConfig
from serve_app.storage.protocol import ObjectStore

MEDIA_TYPES = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".mpo": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".bmp": "image/bmp",
    ".gif": "image/gif",
}
"""Media type by the extension of an image's name; other names are not taken for images."""

_UPLOAD_THREADS = 8


class Entry(NamedTuple):
    """One photograph of a run."""

    bucket: str
    key: str
    etag: str | None = None
    version_id: str | None = None
    job_id: str | None = None
    """None: made from the run and the object."""


class Photographs(ABC):
    """The photographs of a run, as a stream that can be read again."""

    digest: str | None = None
    """sha256 of what names them; None where that is a place, whose content may change."""
    total: int | None = None
    """Their number, where it is known without reading them all."""
    ordered: bool = False
    """Whether they come in the order of their keys, each once: then reading can go on after a
    key. Others are the same from the beginning each time, and may name one twice."""

    def __init__(self) -> None:
        self.skipped = 0
        """Names that are not an image's, in the latest reading."""

    @abstractmethod
    def entries(self, after: str | None = None) -> Iterator[Entry]:
        """Yield them; blocks.

        Args:
            after: The key of the last one that is known; only where ``ordered``.
        """


class Given(Photographs):
    """Photographs that a program names."""

    def __init__(self, entries: Iterable[Entry], *, ordered: bool = False) -> None:
        super().__init__()
        self._entries = list(entries)
        self.ordered = ordered

    def entries(self, after: str | None = None) -> Iterator[Entry]:
        """See Photographs."""
        return (entry for entry in self._entries if after is None or entry.key > after)


class Distinct:
    """Tells which names come for the first time; exact, and in bounded memory."""

    def __init__(self) -> None:
        # A temporary file of SQLite's own: what does not fit in its cache is written there.
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._db.executescript(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -65536;"
            "CREATE TABLE name (digest BLOB PRIMARY KEY) WITHOUT ROWID; BEGIN;"
        )

    def add(self, *name: str | None) -> bool:
        """Return whether a name was not there before."""
        digest = hashlib.sha256("\0".join(part or "" for part in name).encode()).digest()[:16]
        return self._db.execute("INSERT OR IGNORE INTO name VALUES (?)", (digest,)).rowcount == 1

    def close(self) -> None:
        """Remove the temporary file."""
        self._db.close()


@dataclass(frozen=True, slots=True)
class Upload:
    """A local file and the object that it becomes."""

    path: Path
    bucket: str
    key: str


def is_image(name: str) -> bool:
    """Return whether a name has an image's extension."""
    return os.path.splitext(name)[1].lower() in MEDIA_TYPES  # noqa: PTH122 (keys are not paths)


def parse_s3_url(url: str) -> tuple[str, str]:
    """Return bucket and prefix of ``s3://bucket/prefix``.

    Raises:
        InvalidConfig: It is not such a URL.
    """
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    if not url.startswith("s3://") or not bucket:
        raise InvalidConfig(f"{url!r} is not an s3://bucket/prefix URL")
    return bucket, prefix


class UnderPrefix(Photographs):
    """The images under a prefix, with the ETags that they have when they are listed."""

    ordered = True

    def __init__(
        self,
        store: ObjectStore,
        bucket: str,
        prefix: str,
        *,
        output: Output,
        ledger: tuple[str, str],
    ) -> None:
        """Begin with none.

        Args:
            store: Where they are.
            bucket: Their bucket.
            prefix: Of their keys.
            output: Where results go; nothing from there is taken for a source.
            ledger: Bucket and prefix of the ledger; the same.

        Raises:
            InvalidConfig: The results would land among the sources.
        """
        super().__init__()
        if output.bucket == bucket and prefix.startswith(output.prefix):
            raise InvalidConfig(
                f"results would be written to s3://{bucket}/{output.prefix}, which holds the "
                f"sources s3://{bucket}/{prefix}: choose another --output"
            )
        self._store, self._bucket, self._prefix = store, bucket, prefix
        self._own = own_prefixes(bucket, output, ledger)

    def entries(self, after: str | None = None) -> Iterator[Entry]:
        """See Photographs."""
        self.skipped = 0
        for item in self._store.list(self._bucket, self._prefix, after):
            if item.key.startswith(self._own):
                continue
            if is_image(item.key):
                yield Entry(self._bucket, item.key, item.etag)
            elif not item.key.endswith("/"):
                self.skipped += 1


def own_prefixes(bucket: str, output: Output, ledger: tuple[str, str]) -> tuple[str, ...]:
    """Return the prefixes of a bucket whose objects are ours: results, and the ledger."""
    places = ((output.bucket, output.prefix), ledger)
    return tuple(prefix for own_bucket, prefix in places if own_bucket == bucket)


def in_folder(folder: Path) -> tuple[list[Path], int]:
    """Return the image files below a folder, and the number of other files.

    Links to folders are not followed, nor are links to files that lie outside.
    """
    root = folder.resolve()
    images: list[Path] = []
    skipped = 0
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(parent, name)
            inside = not path.is_symlink() or path.resolve().is_relative_to(root)
            if inside and is_image(name) and path.is_file() and _is_text(path):
                images.append(path)
            else:
                skipped += 1
    return images, skipped


def uploads(folder: Path, images: Iterable[Path], bucket: str, prefix: str) -> list[Upload]:
    """Return where the image files of a folder go."""
    return [Upload(path, bucket, prefix + path.relative_to(folder).as_posix()) for path in images]


def upload(
    store: ObjectStore, files: list[Upload], on_uploaded: Callable[[int], None] = lambda _: None
) -> None:
    """Write local files to the object store, several at a time; blocks.

    Args:
        store: Where they go.
        files: What goes where.
        on_uploaded: Called with 1 after each file.

    Raises:
        InvalidConfig: A file cannot be read.
    """

    def put(file: Upload) -> None:
        try:
            data = file.path.read_bytes()
        except OSError as error:
            raise InvalidConfig(f"{file.path}: {error}") from error
        store.put(file.bucket, file.key, data, MEDIA_TYPES[file.path.suffix.lower()])

    with ThreadPoolExecutor(_UPLOAD_THREADS, "upload") as pool:
        try:
            for _ in pool.map(put, files):
                on_uploaded(1)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _is_text(path: Path) -> bool:
    # A file name may be any bytes; a key is UTF-8.
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True
