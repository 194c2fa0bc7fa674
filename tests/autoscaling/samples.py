"""What a run of a backlog showed, as it passes from its namespaces to whoever started it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Sample:
    """The queue, the replicas and the nodes at one moment."""

    at_s: float
    """Seconds since the start of the watch."""
    waiting: int
    """Messages that wait, as SQS counts them."""
    in_flight: int
    """Messages that the consumer holds, as SQS counts them."""
    wanted: int
    """Replicas of all deployments that Serve keeps or starts."""
    running: int
    """Replicas of all deployments that run."""
    without_node: int
    """Actors that fit on no node, as Ray's autoscaler counts them."""
    nodes: int
    """Nodes besides the head."""

    @property
    def backlog(self) -> int:
        """Messages that wait or are held."""
        return self.waiting + self.in_flight

    @property
    def state(self) -> tuple[int, ...]:
        """What changes seldom."""
        return self.wanted, self.running, self.without_node, self.nodes


@dataclass(frozen=True, slots=True)
class BacklogRun:
    """A backlog from an empty cluster to an empty cluster."""

    samples: list[Sample]
    jobs: list[str]
    """Images of the jobs that were sent."""
    records: list[tuple[str, str]]
    """Image and status of each record of the ledger."""
    results: int
    """Stored objects that the records name, each counted once."""
    moments: dict[str, float]
    """Seconds since the start of the watch at which each part of the run ended."""

    @property
    def lost(self) -> set[str]:
        """Images without a record."""
        return set(self.jobs) - {job for job, _ in self.records}

    @property
    def double(self) -> set[str]:
        """Images with several records."""
        counted = Counter(job for job, _ in self.records)
        return {job for job, number in counted.items() if number > 1}

    def to_json(self) -> str:
        """Return the run as one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Return the run of a line of ``to_json``."""
        found = json.loads(text)
        samples = [Sample(**each) for each in found.pop("samples")]
        records = [(job, status) for job, status in found.pop("records")]
        return cls(samples=samples, records=records, **found)
