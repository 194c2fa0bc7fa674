"""The jobs of a run: their list in the ledger, made before they are sent, and how far sending is.

::

    {run}/jobs/000000.jsonl.gz    5,000 jobs, one a line, as in a JSON-lines manifest
    {run}/sent.json               how many of them, in this order, are on the queue

The list is what a run is resumed from, and what it is verified against.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import orjson
from pydantic import ValidationError

from ingest.runs.folder import run_folder
from ingest.sources.base import Entry
from serve_app.config import LedgerConfig
from serve_app.contracts.base import Contract
from serve_app.errors import InvalidConfig, InvalidMessage, SourceNotFound
from serve_app.storage.protocol import ObjectStore

PART_JOBS = 5_000
"""Jobs of a part; of each part but the last."""


class Sent(Contract):
    """How far the sending of a run is."""

    jobs: int = 0
    """Of the list, from its beginning; a job past them may be on the queue too."""
    complete: bool = False


@dataclass(frozen=True, slots=True)
class JobList:
    """The list of one run's jobs."""

    store: ObjectStore
    ledger: LedgerConfig
    run_id: str

    @property
    def _folder(self) -> str:
        return f"{run_folder(self.ledger, self.run_id)}jobs/"

    def parts(self) -> int:
        """Return the number of parts that are stored; blocks."""
        return sum(1 for _ in self.store.keys(self.ledger.bucket, self._folder))

    def write(self, number: int, entries: Iterable[Entry]) -> None:
        """Store a part; blocks.

        Raises:
            InvalidConfig: It exists: another process makes the list of this run.
        """
        lines = (
            orjson.dumps({name: value for name, value in entry._asdict().items() if value})
            for entry in entries
        )
        data = gzip.compress(b"\n".join(lines) + b"\n", compresslevel=6, mtime=0)
        bucket, key = self.ledger.bucket, self._key(number)
        if not self.store.put_if_absent(bucket, key, data, "application/gzip"):
            raise InvalidConfig(
                f"run {self.run_id} is being sent by another process (s3://{bucket}/{key} exists): "
                "wait for its end, or stop it, and send the run again under the same --run-id"
            )

    def read(self, number: int) -> list[Entry]:
        """Return the jobs of a part; blocks.

        Raises:
            InvalidMessage: It is not one.
        """
        key = self._key(number)
        data = self.store.get(self.ledger.bucket, key)
        try:
            return [Entry(**orjson.loads(line)) for line in gzip.decompress(data).splitlines()]
        except (OSError, EOFError, ValueError, TypeError) as error:
            raise InvalidMessage(
                f"s3://{self.ledger.bucket}/{key} is not a list of jobs: {error!r}"
            ) from error

    def entries(self) -> Iterator[Entry]:
        """Yield every job of the list; blocks."""
        for number in range(self.parts()):
            yield from self.read(number)

    def sent(self) -> Sent | None:
        """Return how far the sending is; None where there was none with a list; blocks."""
        key = self._sent_key
        try:
            return Sent.model_validate_json(self.store.get(self.ledger.bucket, key))
        except SourceNotFound:
            return None
        except ValidationError as error:
            raise InvalidMessage(f"s3://{self.ledger.bucket}/{key}: {error}") from error

    def write_sent(self, sent: Sent) -> None:
        """Store how far the sending is; blocks."""
        data = sent.model_dump_json().encode()
        self.store.put(self.ledger.bucket, self._sent_key, data, "application/json")

    @property
    def _sent_key(self) -> str:
        return f"{run_folder(self.ledger, self.run_id)}sent.json"

    def _key(self, number: int) -> str:
        return f"{self._folder}{number:06d}.jsonl.gz"
