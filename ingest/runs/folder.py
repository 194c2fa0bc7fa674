"""A run's folder in the ledger: its keys, and its parts, which are gzipped JSON lines.

::

    {prefix}runs/{run_id}/run.json                                      the manifest
    {prefix}runs/{run_id}/jobs/{number}.jsonl.gz                        the list of its jobs
    {prefix}runs/{run_id}/sent.json                                     jobs already on the queue
    {prefix}runs/{run_id}/results/{time}-{consumer}-{seq}.jsonl.gz      how its jobs ended
    {prefix}runs/{run_id}/redriven/{time}-{random}.jsonl.gz             failures sent again

Of messages without a run, ``live-2026-01-31`` has those of one UTC day (``live``). A part is
written once and never changed. The results of a run that ended may be joined to fewer parts
(``compaction``).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Literal

from ingest.runs.live import LIVE_RUN, day_of_run
from ingest.runs.parts import DAMAGED, PART_TIME_FORMAT, SUFFIX, pack, part_name, unpack
from serve_app.config import LedgerConfig
from serve_app.errors import InvalidMessage, SourceNotFound, StorageUnavailable
from serve_app.storage.protocol import ObjectStore

PartKind = Literal["jobs", "results", "redriven"]

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
        return self.key(f"{kind}/{name}{SUFFIX}")

    def new_part_key(self, kind: PartKind, writer: str) -> str:
        """Return the key of a new part, which sorts by the present time.

        Args:
            kind: Kind of the part.
            writer: Name that no other part written at this time has.
        """
        return self.part_key(kind, f"{datetime.now(UTC):{PART_TIME_FORMAT}.%fZ}-{writer}")

    def part_keys(self, kind: PartKind, after: str = "") -> Iterator[str]:
        """Yield the keys of the stored parts in order, from the first name past ``after`` on."""
        yield from self._keys_below(self.key(f"{kind}/"), after)
        day = day_of_run(self.run_id)
        if day is not None and kind == "results":
            yield from self._older_keys_of(day)

    def _older_keys_of(self, day: date) -> Iterator[str]:
        """Yield the keys of the parts that version 0.1.0 wrote on a day for messages without a run.

        They are few, since that version ends with the update, and are listed whole each time.
        """
        folder = f"{self.ledger.prefix}runs/{LIVE_RUN}/results/"
        name = f"{day:%Y%m%d}"
        for key in self._keys_below(folder, name):
            if not key.startswith(folder + name):
                return
            yield key

    def _keys_below(self, folder: str, after: str) -> Iterator[str]:
        for key in self.store.keys(self.bucket, folder, folder + after if after else None):
            if key.endswith(SUFFIX):
                yield key

    def create_part(self, key: str, lines: Iterable[bytes], writer: str) -> bool:
        """Write a part unless its key exists, and return whether this writer wrote it.

        Args:
            key: Key of the part.
            lines: Lines of the part.
            writer: Name that no other writer has. By it, an own part whose answer was lost differs
                from another writer's part of the same lines.
        """
        return self._put_once(key, pack(lines, writer))

    def write_part(self, key: str, lines: Iterable[bytes]) -> None:
        """Write a part whose key no other writer uses. Repeating the write is safe.

        Raises:
            StorageUnavailable: The store refused the part and does not hold it.
        """
        self._put_own(key, pack(lines))

    def write_joined_part(self, key: str, members: Mapping[str, list[bytes]]) -> None:
        """Write several parts as one object, whose key no other writer uses.

        Args:
            key: Key of the object.
            members: Lines of each part by its name.

        Raises:
            StorageUnavailable: The store refused the object and does not hold it.
        """
        self._put_own(key, b"".join(pack(lines, name) for name, lines in members.items()))

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects of the run. Those that do not exist count as deleted."""
        self.store.delete(self.bucket, keys)

    def read_part(self, key: str) -> list[tuple[str, list[bytes]]]:
        """Return the parts in an object, each with its name and its lines. Most have one.

        Raises:
            InvalidMessage: The object is damaged or not a part.
        """
        data = self.store.get(self.bucket, key)
        try:
            return unpack(part_name(key), data)
        except DAMAGED as error:
            raise self.damaged_part(key, error) from error

    def read_parts(
        self, keys: Iterable[str]
    ) -> Iterator[tuple[str, list[tuple[str, list[bytes]]] | None]]:
        """Yield keys with the parts in their objects, in order. Up to 16 are fetched at once.

        An object that is gone has None: it was compacted, and another one has its parts.
        """
        waiting = iter(keys)
        with ThreadPoolExecutor(_READ_AHEAD_PARTS, "ledger-read") as pool:
            while batch := list(itertools.islice(waiting, _READ_AHEAD_PARTS)):
                yield from zip(batch, pool.map(self._read_if_there, batch), strict=True)

    def damaged_part(self, key: str, error: Exception) -> InvalidMessage:
        """Return the error to raise for a part that cannot be read."""
        return InvalidMessage(f"{self.url(key)} is damaged or not a part of a ledger: {error!r}")

    def _read_if_there(self, key: str) -> list[tuple[str, list[bytes]]] | None:
        try:
            return self.read_part(key)
        except SourceNotFound:
            return None

    def _put_own(self, key: str, data: bytes) -> None:
        """Write an object whose key no other writer uses."""
        # S3 also refuses when two writes meet, and then it may have kept neither.
        if not self._put_once(key, data):
            raise StorageUnavailable(f"{self.url(key)} was refused and is not stored")

    def _put_once(self, key: str, data: bytes) -> bool:
        """Write an object unless it exists, and return whether it has exactly these bytes.

        If it exists with these bytes, an earlier attempt has succeeded and its answer was lost.
        """
        if self.store.put_if_absent(self.bucket, key, data, _MEDIA_TYPE):
            return True
        try:
            return self.store.get(self.bucket, key) == data
        except SourceNotFound:
            return False
