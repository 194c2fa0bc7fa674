"""The images of an S3 Inventory report: a ``manifest.json`` and its CSV files.

S3 writes an inventory daily or weekly. It lists all objects of a bucket, and costs far less than
listing them. Its keys are URL-encoded. An inventory may be a week old, so the ETags in it are not
used as conditions: the run processes the images that exist now.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import re
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO
from urllib.parse import unquote_plus

import orjson

from ingest.sources.base import (
    Entry,
    ImageSource,
    count_skipped,
    is_image,
    kind_of,
    parse_s3_url,
)
from serve_app.errors import InvalidConfig
from serve_app.storage.protocol import ObjectStore

MANIFEST = "manifest.json"
"""File name of every inventory's manifest."""

_BUCKET_ARN = re.compile(r"arn:[a-z0-9-]+:s3:::")
"""Beginning of a bucket's ARN. Its second part is a partition: ``aws``, ``aws-cn`` or another."""
_NEEDED_COLUMNS = ("Bucket", "Key")


class InventorySource(ImageSource):
    """The images in an inventory: the current version of each object."""

    def __init__(self, store: ObjectStore, place: str, *, all_names: bool = False) -> None:
        """Read the manifest.

        Args:
            store: The object store that holds the inventory.
            place: ``s3://…/manifest.json`` or the path of a local copy.
            all_names: Whether objects without the extension of an image are images too.

        Raises:
            InvalidConfig: The file is not a manifest, or its files are not CSV.
            SourceNotFound: The object does not exist.
        """
        super().__init__()
        self._store, self._place, self._all_names = store, place, all_names
        self.reserved: tuple[str, ...] = ()
        """Prefixes of keys that are not images of the run: its results and the ledger."""
        data = _read_manifest(store, place)
        self.digest = hashlib.sha256(data).hexdigest()
        try:
            content = orjson.loads(data)
            self.bucket: str = content["sourceBucket"]
            file_format: str = content["fileFormat"]
            self._destination: str = _BUCKET_ARN.sub("", content["destinationBucket"])
            self._files = [(file["key"], file["MD5checksum"]) for file in content["files"]]
            schema: str = content["fileSchema"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidConfig(f"{place} is not an S3 Inventory manifest: {error!r}") from error
        if file_format != "CSV":
            raise InvalidConfig(
                f"{place} lists files in {file_format}, but only inventories in CSV can be read. "
                "Configure the inventory's output format as CSV"
            )
        self._columns = [name.strip() for name in schema.split(",")]
        if lacking := [name for name in _NEEDED_COLUMNS if name not in self._columns]:
            raise InvalidConfig(f"{place}: its fileSchema has no {' and no '.join(lacking)}")

    def entries(self, after: str | None = None) -> Iterator[Entry]:
        """Yield the images. See ``ImageSource``.

        Raises:
            InvalidConfig: A file is damaged or has a bad line. The message names both.
        """
        self.skipped.clear()
        self.undecodable = 0
        for key, md5 in self._files:
            url = f"s3://{self._destination}/{key}"
            with tempfile.TemporaryFile() as spool:
                self._download(spool, key, md5)
                yield from self._read_rows(spool, url)

    def _download(self, spool: IO[bytes], key: str, md5: str) -> None:
        """Copy a file of the inventory to a local one, because it may not fit in memory."""
        digest = hashlib.md5(usedforsecurity=False)
        for chunk in self._store.chunks(self._destination, key):
            digest.update(chunk)
            spool.write(chunk)
        if digest.hexdigest() != md5:
            raise InvalidConfig(
                f"s3://{self._destination}/{key} does not have the MD5 that {self._place} states. "
                "It is damaged, or belongs to another inventory"
            )
        spool.seek(0)

    def _read_rows(self, spool: IO[bytes], url: str) -> Iterator[Entry]:
        number = 0
        try:
            with gzip.open(spool, "rt", encoding="utf-8", newline="") as file:
                rows = csv.reader(file, strict=True)
                for row in rows:
                    number = rows.line_num
                    entry = self._parse_row(row)
                    if entry is not None:
                        yield entry
        except (OSError, EOFError, zlib.error, ValueError, csv.Error) as error:
            raise InvalidConfig(f"{url}: error after line {number}: {error}") from error

    def _parse_row(self, row: list[str]) -> Entry | None:
        """Return the image of a row, or None if the row is not one.

        Raises:
            ValueError: The row is not one of this inventory.
        """
        if len(row) != len(self._columns):
            raise ValueError(f"{len(row)} columns instead of {', '.join(self._columns)}")
        fields = dict(zip(self._columns, row, strict=True))
        if not fields["Bucket"] or not fields["Key"]:
            raise ValueError("the bucket or the key is empty")
        if fields.get("IsLatest") == "false" or fields.get("IsDeleteMarker") == "true":
            return None
        try:
            key = unquote_plus(fields["Key"], errors="strict")
        except UnicodeDecodeError:
            self.undecodable += 1
            return None
        if key.startswith(self.reserved):
            return None
        if not is_image(key, all_names=self._all_names):
            if not key.endswith("/"):
                count_skipped(self.skipped, kind_of(key))
            return None
        return Entry(fields["Bucket"], key)


def _read_manifest(store: ObjectStore, place: str) -> bytes:
    if place.startswith("s3://"):
        return store.get(*parse_s3_url(place))
    try:
        return Path(place).read_bytes()
    except OSError as error:
        raise InvalidConfig(f"cannot read {place}: {error.strerror}") from error


def is_inventory(source: str) -> bool:
    """Return whether the source argument of a command names an inventory."""
    return source.rpartition("/")[2] == MANIFEST
