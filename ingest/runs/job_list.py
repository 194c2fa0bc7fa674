"""The list of a run's jobs, which is written before they are sent, and how many were sent.

::

    {run}/jobs/000000.jsonl.gz    5,000 jobs, one a line, as in a JSON-lines manifest
    {run}/sent.json               how many of them, in this order, are on the queue

A stopped run is resumed from the list, and a finished run is verified against it.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import orjson
from pydantic import ValidationError

from ingest.runs.folder import RunFolder
from ingest.sources.base import Entry
from serve_app.contracts.base import Contract, describe_validation_error
from serve_app.errors import InvalidConfig, InvalidMessage, SourceNotFound

PART_JOBS = 5_000
"""Jobs in each part of a list but the last."""

_SENT_NAME = "sent.json"


class Sent(Contract):
    """How many jobs of a run were sent."""

    jobs: int = 0
    """Number of jobs, from the beginning of the list, that are on the queue. Jobs past them may
    be on the queue too."""
    complete: bool = False
    """Whether every job of the run was sent."""


@dataclass(frozen=True, slots=True)
class JobList:
    """The list of one run's jobs."""

    folder: RunFolder
    writer: str = field(default_factory=lambda: uuid.uuid4().hex)
    """Name that no other process has which writes this list."""

    def parts(self) -> int:
        """Return the number of stored parts. Blocks."""
        return sum(1 for _ in self.folder.part_keys("jobs"))

    def write(self, number: int, entries: Iterable[Entry]) -> None:
        """Store a part. Blocks.

        Raises:
            InvalidConfig: The part exists, because another process lists the jobs of this run.
        """
        lines = (
            orjson.dumps({name: value for name, value in entry._asdict().items() if value})
            for entry in entries
        )
        key = self._key(number)
        if not self.folder.create_part(key, lines, self.writer):
            raise InvalidConfig(
                f"Run {self.folder.run_id} is being sent by another process "
                f"({self.folder.url(key)} exists). Wait until it ends, or stop it and send the run "
                "again with the same --run-id"
            )

    def read(self, number: int) -> list[Entry]:
        """Return the jobs of a part. Blocks.

        Raises:
            InvalidMessage: The part is damaged.
        """
        key = self._key(number)
        parts = self.folder.read_part(key)
        try:
            return [Entry(**orjson.loads(line)) for _, lines in parts for line in lines]
        except (ValueError, TypeError) as error:
            raise self.folder.damaged_part(key, error) from error

    def entries(self) -> Iterator[Entry]:
        """Yield every job of the list. Blocks."""
        for number in range(self.parts()):
            yield from self.read(number)

    def sent(self) -> Sent | None:
        """Return how many jobs were sent, or None for a run without a list. Blocks."""
        try:
            return Sent.model_validate_json(self.folder.read(_SENT_NAME))
        except SourceNotFound:
            return None
        except ValidationError as error:
            url = self.folder.url(self.folder.key(_SENT_NAME))
            raise InvalidMessage(f"{url}: {describe_validation_error(error)}") from error

    def write_sent(self, sent: Sent) -> None:
        """Store how many jobs were sent. Blocks."""
        self.folder.write_json(_SENT_NAME, sent.model_dump_json())

    def _key(self, number: int) -> str:
        return self.folder.part_key("jobs", f"{number:06d}")
