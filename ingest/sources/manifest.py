"""The images that a CSV or JSON-lines file lists."""

from __future__ import annotations

import csv
import gzip
import hashlib
import re
import zlib
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TextIO, cast
from urllib.parse import unquote_plus

import orjson
from pydantic import ValidationError

from ingest.sources.base import Entry, ImageSource
from ingest.sources.distinct import Distinct
from serve_app.contracts.base import describe_validation_error
from serve_app.contracts.job import MAX_JOB_ID_LENGTH, Source
from serve_app.errors import InvalidConfig

_FIELDS = ("bucket", "key", "etag", "version_id", "job_id")
_S3_BATCH_FIELDS = ("bucket", "key", "version_id")
"""Columns of a manifest of S3 Batch Operations, which has no header.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/batch-ops-create-job.html
"""
_FIELD_BY_SPELLING = {name.replace("_", ""): name for name in _FIELDS}
"""Fields by their names without case, hyphens and underscores: ``VersionId``, ``version-id``."""
_ETAG = re.compile(r'"?[0-9a-f]{32}(-\d+)?"?')
_OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_SHOWN_BAD_LINES = 10
_GZIP_MAGIC = b"\x1f\x8b"


class ManifestSource(ImageSource):
    """The images that a CSV or JSON-lines file lists. It may be compressed with gzip.

    Its fields are ``bucket``, ``key`` and optionally ``etag``, ``version_id`` and ``job_id``, also
    spelt ``ETag`` or ``VersionId``. A CSV file without a header has its columns in this order, or
    those of S3 Batch Operations if its keys are URL-encoded. A file is taken for JSON lines if its
    name ends in ``.jsonl`` or ``.ndjson`` or if it begins with ``{``.
    """

    def __init__(self, path: Path, *, url_encoded: bool = False) -> None:
        """Read the whole file once, so that errors are found before anything is sent.

        Args:
            path: The file.
            url_encoded: Whether its keys are URL-encoded, as in the manifests of S3 Batch.

        Raises:
            InvalidConfig: The file cannot be read, or has bad lines. The message names them.
        """
        super().__init__()
        self._path, self._url_encoded = path, url_encoded
        self.buckets: set[str] = set()
        """Buckets of the images."""
        with _reading(path):
            self.digest = _sha256(path)
        self.total = self._check()

    def entries(self, after: str | None = None) -> Iterator[Entry]:
        """Yield the images. See ``ImageSource``."""
        for number, fields in self._lines():
            try:
                yield _parse_fields(fields, self._url_encoded)
            except ValueError as error:
                raise InvalidConfig(f"{self._path}: line {number}: {error}") from error

    def _check(self) -> int:
        """Check every line and return the number of different images."""
        total = bad_lines = 0
        bad: list[str] = []
        with closing(Distinct()) as images, closing(Distinct()) as job_ids:
            for number, fields in self._lines():
                try:
                    entry = _parse_fields(fields, self._url_encoded)
                    if entry.job_id is not None and not job_ids.add(entry.job_id):
                        raise ValueError(f"job_id {entry.job_id!r} was used in an earlier line")
                except ValueError as error:
                    bad_lines += 1
                    if bad_lines <= _SHOWN_BAD_LINES:
                        bad.append(f"line {number}: {error}")
                else:
                    self.buckets.add(entry.bucket)
                    total += images.add(*entry[:5])
        if bad:
            more = f"; and {bad_lines - len(bad)} more" if bad_lines > len(bad) else ""
            raise InvalidConfig(
                f"{self._path} has {bad_lines} bad lines, so nothing was sent. Fix them: "
                f"{'; '.join(bad)}{more}"
            )
        return total

    def _lines(self) -> Iterator[tuple[int, Any]]:
        """Yield the number of each line with its fields, or with the error in it."""
        name = self._path.name.lower().removesuffix(".gz")
        with _reading(self._path), _open_text(self._path) as file:
            first = next((line for line in file if line.strip()), "")
            file.seek(0)
            is_json = name.endswith((".jsonl", ".ndjson")) or first.lstrip().startswith("{")
            if first.lstrip().startswith("["):
                yield 1, ValueError("a JSON array; write one object on each line, without brackets")
            elif is_json:
                yield from _json_lines(file)
            else:
                yield from _csv_lines(file, self._url_encoded)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Map the errors of reading a file to InvalidConfig."""
    try:
        yield
    except (OSError, UnicodeDecodeError, EOFError, zlib.error) as error:
        raise InvalidConfig(f"cannot read {path}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return "it is no text in UTF-8, so it is no CSV or JSON-lines file"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


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
                yield number, _with_our_names(orjson.loads(line))
            except orjson.JSONDecodeError as error:
                yield number, ValueError(f"not JSON: {error}")


def _csv_lines(file: TextIO, url_encoded: bool) -> Iterator[tuple[int, Any]]:
    names: tuple[str, ...] | None = None
    rows, lines_before = csv.reader(file, strict=True), 0
    first = True
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield lines_before + rows.line_num, ValueError(str(error))
            continue
        if not any(cell.strip() for cell in row):
            continue
        if first and (header := _header(row)):
            names = header
            # Whoever writes a space after each comma of the header does so in every line.
            if row[1].startswith(" "):
                lines_before = rows.line_num
                rows = csv.reader(file, strict=True, skipinitialspace=True)
        else:
            yield lines_before + rows.line_num, _fields(row, names, url_encoded)
        first = False


def _header(row: list[str]) -> tuple[str, ...] | None:
    """Return our names of the columns that a row names, or None if it is no header."""
    names = tuple(_our_name(cell.strip()) for cell in row)
    return names if {"bucket", "key"} <= set(names) else None


def _fields(row: list[str], names: tuple[str, ...] | None, url_encoded: bool) -> Any:
    """Return the fields of a row, or the error in it.

    Args:
        row: Cells of the row.
        names: Names of the columns. None if the file has no header.
        url_encoded: Whether the keys are URL-encoded, as in the manifests of S3 Batch.
    """
    if names is None:
        of_batch = url_encoded and len(row) == len(_S3_BATCH_FIELDS)
        names = _S3_BATCH_FIELDS if of_batch and not _ETAG.fullmatch(row[2]) else _FIELDS
    if 2 <= len(row) <= len(names):
        return dict(zip(names, row, strict=False))
    separator = next((_OTHER_SEPARATORS[s] for s in _OTHER_SEPARATORS if s in row[0]), None)
    if len(row) == 1 and separator:
        return ValueError(f"the columns are separated by {separator}; separate them by commas")
    return ValueError(f"{len(row)} columns instead of {','.join(names)}")


def _our_name(name: str) -> str:
    """Return our name of a field, or the name itself if it is none of ours."""
    return _FIELD_BY_SPELLING.get(re.sub("[-_]", "", name).lower(), name)


def _with_our_names(fields: Any) -> Any:
    return {_our_name(n): v for n, v in fields.items()} if isinstance(fields, dict) else fields


def _parse_fields(fields: Any, url_encoded: bool) -> Entry:
    """Return the image of one line.

    Raises:
        ValueError: The line is bad. The message says why.
    """
    if isinstance(fields, ValueError):
        raise fields
    if not isinstance(fields, dict):
        raise ValueError("not a JSON object")
    given = {name: value for name, value in fields.items() if value not in (None, "")}
    job_id = given.pop("job_id", None)
    if job_id is not None and not (isinstance(job_id, str) and len(job_id) <= MAX_JOB_ID_LENGTH):
        raise ValueError(f"job_id: must be a string of at most {MAX_JOB_ID_LENGTH} characters")
    if url_encoded and isinstance(given.get("key"), str):
        try:
            given["key"] = unquote_plus(given["key"], errors="strict")
        except UnicodeDecodeError:
            raise ValueError("key: is not UTF-8 once it is decoded") from None
    try:
        source = Source.model_validate(given)
    except ValidationError as error:
        raise ValueError(describe_validation_error(error)) from error
    return Entry(source.bucket, source.key, source.etag, source.version_id, job_id)
