"""A run's folder in the ledger: its keys, and its parts, which are gzipped JSON lines.

::

    {prefix}runs/{run_id}/run.json                                      the manifest
    {prefix}runs/{run_id}/jobs/{number}.jsonl.gz                        the list of its jobs
    {prefix}runs/{run_id}/sent.json                                     jobs already on the queue
    {prefix}runs/{run_id}/results/{time}-{consumer}-{seq}.jsonl.gz      how its jobs ended
    {prefix}runs/{run_id}/redriven/{time}-{random}.jsonl.gz             failures sent again

A part is written once and never changed.
"""

from __future__ import annotations

import gzip
import itertools
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from serve_app.config import LedgerConfig
from serve_app.errors import InvalidMessage, StorageUnavailable
from serve_app.storage.protocol import ObjectStore

PartKind = Literal["jobs", "results", "redriven"]

PART_TIME_FORMAT = "%Y%m%dT%H%M%S"
"""Format of the time, to the second, that the names of results and redriven parts begin with."""

_SUFFIX = ".jsonl.gz"
_MEDIA_TYPE = "application/gzip"
_READ_AHEAD_PARTS = 16


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder of one run. Every method that reads or writes blocks."""

    store: ObjectStore
    ledger: LedgerConfig
    run_id: str

    @property
    def bucket(self) -> str:
        """The bucket of the ledger."""
        return self.ledger.bucket

    def key(self, name: str) -> str:
        """Return the key of an object of the run, e.g. of ``run.json``."""
        return f"{self.ledger.prefix}runs/{self.run_id}/{name}"

    def url(self, key: str) -> str:
        """Return the s3:// URL of a key, for messages."""
        return f"s3://{self.bucket}/{key}"

    def read(self, name: str) -> bytes:
        """Return the content of an object of the run.

        Raises:
            SourceNotFound: The object does not exist.
        """
        return self.store.get(self.bucket, self.key(name))

    def write_json(self, name: str, text: str) -> None:
        """Write an object of the run, replacing its earlier content."""
        self.store.put(self.bucket, self.key(name), text.encode(), "application/json")

    def part_key(self, kind: PartKind, name: str) -> str:
        """Return the key of a part."""
        return self.key(f"{kind}/{name}{_SUFFIX}")

    def new_part_key(self, kind: PartKind, writer: str) -> str:
        """Return the key of a new part, which sorts by the present time.

        Args:
            kind: Kind of the part.
            writer: Name that no other part written at this time has.
        """
        return self.part_key(kind, f"{datetime.now(UTC):{PART_TIME_FORMAT}.%fZ}-{writer}")

    def part_keys(self, kind: PartKind, after: str = "") -> Iterator[str]:
        """Yield the keys of the stored parts in order, from the first name past ``after`` on."""
        folder = self.key(f"{kind}/")
        for key in self.store.keys(self.bucket, folder, folder + after if after else None):
            if key.endswith(_SUFFIX):
                yield key

    def create_part(self, key: str, lines: Iterable[bytes]) -> bool:
        """Write a part unless its key exists, and return whether this call wrote it."""
        return self.store.put_if_absent(self.bucket, key, _pack(lines), _MEDIA_TYPE)

    def write_part(self, key: str, lines: Iterable[bytes]) -> None:
        """Write a part whose key no other writer uses. Repeating the write is safe.

        Raises:
            StorageUnavailable: The store refused the part and does not hold it.
        """
        data = _pack(lines)
        if self.store.put_if_absent(self.bucket, key, data, _MEDIA_TYPE):
            return
        # No other writer uses this key. If it exists, an earlier attempt succeeded and its answer
        # was lost. S3 also refuses when two writes meet, and then it may have kept neither.
        info = self.store.head(self.bucket, key)
        if info is None or info.size != len(data):
            raise StorageUnavailable(f"{self.url(key)} was refused and is not stored")

    def read_part(self, key: str) -> list[bytes]:
        """Return the lines of a part.

        Raises:
            InvalidMessage: The object is damaged or not a part.
        """
        data = self.store.get(self.bucket, key)
        try:
            return gzip.decompress(data).splitlines()
        except (OSError, EOFError, zlib.error) as error:
            raise self.damaged_part(key, error) from error

    def read_parts(self, keys: Iterable[str]) -> Iterator[tuple[str, list[bytes]]]:
        """Yield parts with their keys, in order. Up to 16 are fetched at the same time."""
        waiting = iter(keys)
        with ThreadPoolExecutor(_READ_AHEAD_PARTS, "ledger-read") as pool:
            while batch := list(itertools.islice(waiting, _READ_AHEAD_PARTS)):
                yield from zip(batch, pool.map(self.read_part, batch), strict=True)

    def damaged_part(self, key: str, error: Exception) -> InvalidMessage:
        """Return the error to raise for a part that cannot be read."""
        return InvalidMessage(f"{self.url(key)} is damaged or not a part of a ledger: {error!r}")


def _pack(lines: Iterable[bytes]) -> bytes:
    # Without a time in the header, the same lines are always the same bytes.
    return gzip.compress(b"\n".join(lines) + b"\n", compresslevel=6, mtime=0)
