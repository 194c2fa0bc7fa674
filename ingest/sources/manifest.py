"""The photographs that a CSV or JSON-lines file names."""

from __future__ import annotations

import csv
import gzip
import hashlib
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO, cast
from urllib.parse import unquote_plus

import orjson
from pydantic import ValidationError

from ingest.sources.base import Entry, ImageSource
from ingest.sources.distinct import Distinct
from serve_app.contracts.base import describe_validation_error
from serve_app.contracts.job import Source
from serve_app.errors import InvalidConfig

_FIELDS = ("bucket", "key", "etag", "version_id", "job_id")
_SHOWN_BAD_LINES = 10
_GZIP_MAGIC = b"\x1f\x8b"


class ManifestSource(ImageSource):
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
        raise ValueError(describe_validation_error(error)) from error
    key = unquote_plus(source.key) if url_encoded else source.key
    return Entry(source.bucket, key, source.etag, source.version_id, job_id)


def _refuse(wrong: bool, why: str) -> None:
    if wrong:
        raise ValueError(why)
