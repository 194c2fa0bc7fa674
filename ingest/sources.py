"""What a run is made of: photographs under a prefix, in a manifest, or in a local folder.

Each is read as a stream, since there may be millions of photographs. ``inventory`` has one more.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import os
import sqlite3
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TextIO, cast
from urllib.parse import unquote_plus

import orjson
from pydantic import ValidationError

from serve_app.contracts import Output, Source, describe
from serve_app.errors import InvalidConfig
from serve_app.storage import ObjectStore

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

_FIELDS = ("bucket", "key", "etag", "version_id", "job_id")
_SHOWN_BAD_LINES = 10
_UPLOAD_THREADS = 8
_GZIP_MAGIC = b"\x1f\x8b"


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


class InManifest(Photographs):
    """The photographs that a CSV or JSON-lines file names, which may be compressed by gzip.

    Fields are ``bucket``, ``key`` and, where wanted, ``etag``, ``version_id`` and ``job_id``.
    A CSV file without a header has them in this order. It is JSON lines where its name ends in
    ``.jsonl`` or ``.ndjson``, or where it begins with ``{``.
    """

    def __init__(self, path: Path, *, url_encoded: bool = False) -> None:
        """Read the file once, to know that all of it can be read.

        Args:
            path: The file.
            url_encoded: Keys are URL-encoded, as in S3's inventories and batch manifests.

        Raises:
            InvalidConfig: The file cannot be read, or has bad lines; names each with its number.
        """
        super().__init__()
        self._path, self._url_encoded = path, url_encoded
        self.buckets: set[str] = set()
        """Buckets of its photographs."""
        with _reading(path):
            self.digest = _sha256(path)
        self.total = self._check()

    def entries(self, after: str | None = None) -> Iterator[Entry]:
        """See Photographs."""
        for number, fields in self._lines():
            try:
                yield _entry(fields, self._url_encoded)
            except ValueError as error:
                raise InvalidConfig(f"{self._path}: line {number}: {error}") from error

    def _check(self) -> int:
        """Return the number of photographs; each counts once."""
        total = bad_lines = 0
        bad: list[str] = []
        photographs, job_ids = Distinct(), Distinct()
        for number, fields in self._lines():
            try:
                entry = _entry(fields, self._url_encoded)
                again = entry.job_id is not None and not job_ids.add(entry.job_id)
                _refuse(again, f"job_id {entry.job_id!r} is that of an earlier line too")
            except ValueError as error:
                bad_lines += 1
                if bad_lines <= _SHOWN_BAD_LINES:
                    bad.append(f"line {number}: {error}")
            else:
                self.buckets.add(entry.bucket)
                total += photographs.add(*entry)
        photographs.close()
        job_ids.close()
        if bad:
            more = f"; and {bad_lines - len(bad)} more" if bad_lines > len(bad) else ""
            raise InvalidConfig(
                f"{self._path}: {bad_lines} bad lines, nothing was sent: {'; '.join(bad)}{more}"
            )
        return total

    def _lines(self) -> Iterator[tuple[int, Any]]:
        """Yield the fields of each line, or what is wrong with it, with the line's number."""
        name = self._path.name.lower().removesuffix(".gz")
        with _reading(self._path), _open_text(self._path) as file:
            first = next((line for line in file if line.strip()), "")
            file.seek(0)
            is_json = name.endswith((".jsonl", ".ndjson")) or first.lstrip().startswith("{")
            yield from _json_lines(file) if is_json else _csv_lines(file)


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


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what can go wrong with a file into InvalidConfig."""
    try:
        yield
    except (OSError, UnicodeDecodeError, EOFError, zlib.error) as error:
        raise InvalidConfig(f"{path}: {error}") from error


def _open_text(path: Path) -> TextIO:
    with path.open("rb") as file:
        compressed = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
    opened = gzip.open if compressed else open
    return cast(TextIO, opened(path, "rt", encoding="utf-8-sig", newline=""))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _json_lines(file: Iterable[str]) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(file, start=1):
        if line.strip():
            try:
                yield number, orjson.loads(line)
            except orjson.JSONDecodeError as error:
                yield number, ValueError(f"not JSON: {error}")


def _csv_lines(file: Iterable[str]) -> Iterator[tuple[int, Any]]:
    names: tuple[str, ...] = _FIELDS
    rows = csv.reader(file, strict=True)
    first = True
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield rows.line_num, ValueError(str(error))
            continue
        if not any(cell.strip() for cell in row):
            continue
        header = tuple(cell.strip().lower() for cell in row)
        if first and {"bucket", "key"} <= set(header):
            names = header
        elif len(row) < 2 or len(row) > len(names):
            yield rows.line_num, ValueError(f"{len(row)} columns; expected {','.join(names)}")
        else:
            yield rows.line_num, dict(zip(names, row, strict=False))
        first = False


def _entry(fields: Any, url_encoded: bool) -> Entry:
    """Return one line's photograph; raises ValueError with what is wrong."""
    if isinstance(fields, ValueError):
        raise fields
    _refuse(not isinstance(fields, dict), "not a JSON object")
    given = {name: value for name, value in fields.items() if value not in (None, "")}
    job_id = given.pop("job_id", None)
    _refuse(
        job_id is not None and not (isinstance(job_id, str) and len(job_id) <= 200),
        "job_id: must be a text of at most 200 characters",
    )
    try:
        source = Source.model_validate(given)
    except ValidationError as error:
        raise ValueError(describe(error)) from error
    key = unquote_plus(source.key) if url_encoded else source.key
    return Entry(source.bucket, key, source.etag, source.version_id, job_id)


def _refuse(wrong: bool, why: str) -> None:
    if wrong:
        raise ValueError(why)


def _is_text(path: Path) -> bool:
    # A file name may be any bytes; a key is UTF-8.
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True
