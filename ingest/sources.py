"""What a run is made of: photographs under a prefix, in a manifest, or in a local folder."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
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


class Entry(NamedTuple):
    """One photograph of a run. A tuple, since there may be millions of them in memory."""

    bucket: str
    key: str
    etag: str | None = None
    version_id: str | None = None
    job_id: str | None = None
    """None: made from the run and the object."""


@dataclass(slots=True)
class Found:
    """The photographs of a source, and what was left out."""

    entries: list[Entry] = field(default_factory=list)
    skipped: int = 0
    """Names that are not an image's."""


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


def under_prefix(
    store: ObjectStore, bucket: str, prefix: str, *, output: Output, ledger: tuple[str, str]
) -> Found:
    """Return the images under a prefix, with the ETags that they have now; blocks.

    Args:
        store: Where they are.
        bucket: Their bucket.
        prefix: Of their keys.
        output: Where results go; nothing from there is taken for a source.
        ledger: Bucket and prefix of the ledger; the same.

    Raises:
        InvalidConfig: The results would land among the sources.
    """
    if output.bucket == bucket and prefix.startswith(output.prefix):
        raise InvalidConfig(
            f"results would be written to s3://{bucket}/{output.prefix}, which holds the sources "
            f"s3://{bucket}/{prefix}: choose another --output"
        )
    places = ((output.bucket, output.prefix), ledger)
    own = tuple(own_prefix for own_bucket, own_prefix in places if own_bucket == bucket)
    found = Found()
    for item in store.list(bucket, prefix):
        if item.key.startswith(own):
            continue
        if is_image(item.key):
            found.entries.append(Entry(bucket, item.key, item.etag))
        elif not item.key.endswith("/"):
            found.skipped += 1
    return found


def in_manifest(path: Path, *, url_encoded: bool = False) -> Found:
    """Return the photographs that a CSV or JSON-lines file names.

    Fields are ``bucket``, ``key`` and, where wanted, ``etag``, ``version_id`` and ``job_id``.
    A CSV file without a header has them in this order.

    Args:
        path: The file; JSON lines where its name ends in ``.jsonl`` or ``.ndjson``, or where it
            begins with ``{``.
        url_encoded: Keys are URL-encoded, as in S3's inventories and batch manifests.

    Raises:
        InvalidConfig: The file cannot be read, or has bad lines; names each with its number.
    """
    try:
        text = path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidConfig(f"{path}: {error}") from error
    is_json = path.suffix.lower() in {".jsonl", ".ndjson"} or text.lstrip().startswith("{")
    found, bad = Found(), []
    job_ids: dict[str, int] = {}
    for number, fields in _json_lines(text) if is_json else _csv_lines(text):
        try:
            entry = _entry(fields, url_encoded)
            if entry.job_id is not None and (first := job_ids.setdefault(entry.job_id, number)):
                _refuse(first != number, f"job_id {entry.job_id!r} is that of line {first} too")
        except ValueError as error:
            bad.append(f"line {number}: {error}")
        else:
            found.entries.append(entry)
    if bad:
        more = f"; and {len(bad) - _SHOWN_BAD_LINES} more" if len(bad) > _SHOWN_BAD_LINES else ""
        shown = "; ".join(bad[:_SHOWN_BAD_LINES])
        raise InvalidConfig(f"{path}: {len(bad)} bad lines, nothing was sent: {shown}{more}")
    return found


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


def _json_lines(text: str) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                yield number, orjson.loads(line)
            except orjson.JSONDecodeError as error:
                yield number, ValueError(f"not JSON: {error}")


def _csv_lines(text: str) -> Iterator[tuple[int, Any]]:
    names: tuple[str, ...] = _FIELDS
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
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
