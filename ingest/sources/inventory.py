"""The photographs of an S3 Inventory report: a ``manifest.json`` and its CSV files.

S3 writes an inventory daily or weekly: a list of all objects of a bucket, for far less than it
costs to list them. Keys in it are URL-encoded. What it says of an object may be a week old, so
that its ETag is not made a condition: the photograph that is there now is the one that is meant.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO
from urllib.parse import unquote_plus

import orjson

from ingest.sources.base import Entry, ImageSource, is_image, parse_s3_url
from serve_app.errors import InvalidConfig
from serve_app.storage.protocol import ObjectStore

MANIFEST = "manifest.json"
"""How the name of an inventory ends."""

_ARN = "arn:aws:s3:::"
_NEEDED = ("Bucket", "Key")


class InventorySource(ImageSource):
    """The images that an inventory lists: each object's current version."""

    def __init__(self, store: ObjectStore, where: str) -> None:
        """Read the manifest.

        Args:
            store: Where the inventory is.
            where: ``s3://…/manifest.json``, or a local copy of that file.

        Raises:
            InvalidConfig: It is not a manifest, or its files are not CSV.
            SourceNotFound: It does not exist.
        """
        super().__init__()
        self._store, self._where = store, where
        self.reserved: tuple[str, ...] = ()
        """Prefixes of keys that are no sources: results, and the ledger."""
        data = _read(store, where)
        self.digest = hashlib.sha256(data).hexdigest()
        try:
            content = orjson.loads(data)
            self.bucket: str = content["sourceBucket"]
            file_format: str = content["fileFormat"]
            self._destination: str = content["destinationBucket"].removeprefix(_ARN)
            self._files = [(file["key"], file["MD5checksum"]) for file in content["files"]]
            schema: str = content["fileSchema"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidConfig(f"{where} is not an S3 Inventory manifest: {error!r}") from error
        if file_format != "CSV":
            raise InvalidConfig(
                f"{where}: its files are {file_format}; foreedge reads inventories in CSV"
            )
        self._columns = [name.strip() for name in schema.split(",")]
        if lacking := [name for name in _NEEDED if name not in self._columns]:
            raise InvalidConfig(f"{where}: fileSchema has no {' and no '.join(lacking)}")

    def entries(self, after: str | None = None) -> Iterator[Entry]:
        """See Photographs.

        Raises:
            InvalidConfig: A file is damaged or has a bad line; says which.
        """
        self.skipped = 0
        for key, md5 in self._files:
            where = f"s3://{self._destination}/{key}"
            with tempfile.TemporaryFile() as spool:
                self._fetch(spool, key, md5)
                yield from self._read(spool, where)

    def _fetch(self, spool: IO[bytes], key: str, md5: str) -> None:
        """Copy a file to this machine: it may be too large for the memory."""
        digest = hashlib.md5(usedforsecurity=False)
        for chunk in self._store.chunks(self._destination, key):
            digest.update(chunk)
            spool.write(chunk)
        if digest.hexdigest() != md5:
            raise InvalidConfig(
                f"s3://{self._destination}/{key} has not the MD5 that {self._where} says: it is "
                "damaged, or of another inventory"
            )
        spool.seek(0)

    def _read(self, spool: IO[bytes], where: str) -> Iterator[Entry]:
        number = 0
        try:
            with gzip.open(spool, "rt", encoding="utf-8", newline="") as file:
                rows = csv.reader(file, strict=True)
                for row in rows:
                    number = rows.line_num
                    entry = self._entry(row)
                    if entry is not None:
                        yield entry
        except (OSError, EOFError, zlib.error, ValueError, csv.Error) as error:
            raise InvalidConfig(f"{where}: after line {number}: {error}") from error

    def _entry(self, row: list[str]) -> Entry | None:
        """Return a line's photograph; None where it is none. Raises ValueError."""
        if len(row) != len(self._columns):
            raise ValueError(f"{len(row)} columns; expected {', '.join(self._columns)}")
        fields = dict(zip(self._columns, row, strict=True))
        bucket, key = fields["Bucket"], unquote_plus(fields["Key"], errors="strict")
        if not bucket or not key:
            raise ValueError("no bucket or no key")
        if fields.get("IsLatest") == "false" or fields.get("IsDeleteMarker") == "true":
            return None
        if key.startswith(self.reserved):
            return None
        if not is_image(key):
            self.skipped += not key.endswith("/")
            return None
        return Entry(bucket, key)


def _read(store: ObjectStore, where: str) -> bytes:
    if where.startswith("s3://"):
        return store.get(*parse_s3_url(where))
    try:
        return Path(where).read_bytes()
    except OSError as error:
        raise InvalidConfig(f"{where}: {error}") from error


def is_inventory(source: str) -> bool:
    """Return whether a command's source names an inventory."""
    return source.rpartition("/")[2] == MANIFEST
