"""The progress of a run: how many of its jobs ended, and how."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from ingest.runs.folder import RunFolder
from ingest.runs.job_list import JobList, Sent
from ingest.runs.manifest import RunManifest, read_manifest
from ingest.runs.records import STATUSES, Records, ResultCounts
from ingest.sqs.backlog import Backlog

_RATE_WINDOW_S = 15.0


@dataclass(frozen=True, slots=True)
class RunStatus:
    """The progress of a run at one moment."""

    run_id: str
    jobs: int
    """Number of jobs listed so far."""
    counts: dict[str, int]
    """Number of jobs by the status that they ended with, and ``missing`` for those without one."""
    codes: dict[str, int]
    """Number of failed jobs by error code, the most frequent first."""
    wall_s: float
    """Seconds from the start of the run to the end of its latest job."""
    images_per_s: float
    """Average throughput over that time."""
    listed: bool = True
    """Whether every job of the run is known. False while its source is still being read."""
    unsent: int = 0
    """Number of listed jobs that are not on the queue yet."""
    backlog: Backlog | None = None
    """Messages on the queue. None if it was not asked or did not answer."""

    @property
    def missing(self) -> int:
        """Number of jobs without a result."""
        return self.counts["missing"]

    @property
    def finished(self) -> int:
        """Number of jobs with a result."""
        return sum(self.counts[status] for status in STATUSES)

    @property
    def ended(self) -> bool:
        """Whether every job has a result and no more jobs will come."""
        return self.listed and not self.unsent and not self.missing

    def as_dict(self) -> dict[str, Any]:
        """Return the status as ``foreedge status --json`` prints it."""
        return {
            "run_id": self.run_id,
            "jobs": self.jobs,
            "counts": self.counts,
            "codes": self.codes,
            "remaining": self.missing,
            "unsent": self.unsent,
            "queue": asdict(self.backlog) if self.backlog else None,
            "wall_s": round(self.wall_s, 3),
            "images_per_s": round(self.images_per_s, 3),
        }


def run_status(
    manifest: RunManifest,
    results: ResultCounts,
    *,
    unsent: int = 0,
    backlog: Backlog | None = None,
) -> RunStatus:
    """Return the status of a run.

    Args:
        manifest: Manifest of the run.
        results: Counts of the run's records.
        unsent: Number of jobs that are not on the queue yet.
        backlog: Messages on the queue, if it was asked.
    """
    wall_s = 0.0
    if results.last_ended_at is not None:
        wall_s = max(0.0, (results.last_ended_at - manifest.created_at).total_seconds())
    return RunStatus(
        run_id=manifest.run_id,
        jobs=manifest.jobs,
        counts=results.by_status | {"missing": max(0, manifest.jobs - results.ended)},
        codes=dict(results.codes.most_common()),
        wall_s=wall_s,
        images_per_s=results.ended / wall_s if wall_s else 0.0,
        listed=manifest.complete,
        unsent=unsent,
        backlog=backlog,
    )


class RunMonitor:
    """A run that is watched: each update reads only the parts of its ledger that are new."""

    def __init__(
        self,
        folder: RunFolder,
        manifest: RunManifest,
        backlog: Callable[[], Backlog | None] = lambda: None,
    ) -> None:
        """Begin to watch a run.

        Args:
            folder: Folder of the run.
            manifest: Manifest of the run. It is read again as long as the list of jobs grows.
            backlog: Function that returns the messages on the run's queue, if they are known.
        """
        self._folder = folder
        self._manifest = manifest
        self._backlog = backlog
        self._job_list = JobList(folder)
        self._sent: Sent | None = Sent()
        self._records = Records(folder)

    def update(self, on_read: Callable[[int], None] = lambda _: None) -> RunStatus:
        """Read what was added since the last update, and return the status. Blocks.

        Args:
            on_read: Function to call with the number of results after each part.
        """
        if not self._manifest.complete:
            self._manifest = read_manifest(self._folder)
        if self._sent is not None and not self._sent.complete:
            self._sent = self._job_list.sent()
        self._records.update(on_read)
        unsent = 0
        if self._sent is not None and not self._sent.complete:
            unsent = max(0, self._manifest.jobs - self._sent.jobs)
        return run_status(
            self._manifest, self._records.counts(), unsent=unsent, backlog=self._backlog()
        )


class Rate:
    """The rate at which a count grows, over the last 15 seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with no counts; ``clock`` is monotonic and in seconds."""
        self._clock = clock
        self._recent: deque[tuple[float, int]] = deque()

    def after(self, count: int) -> float:
        """Add the present count, and return the rate per second."""
        recent = self._recent
        recent.append((self._clock(), count))
        while len(recent) > 2 and recent[-1][0] - recent[0][0] > _RATE_WINDOW_S:
            recent.popleft()
        elapsed = recent[-1][0] - recent[0][0]
        return (recent[-1][1] - recent[0][1]) / elapsed if elapsed else 0.0


def follow(
    monitor: RunMonitor,
    *,
    interval_s: float = 1.0,
    stalled_after_s: float | None = None,
    on_stalled: Callable[[RunStatus], None] = lambda _: None,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[RunStatus]:
    """Yield the status of a run until every job has a result.

    Args:
        monitor: The run.
        interval_s: Seconds between two updates.
        stalled_after_s: Seconds without a new result after which to call ``on_stalled``, and again
            after each further such time. None to never call it.
        on_stalled: Function to call when no results come; it may raise.
        sleep: Function that waits, in seconds.
        clock: Monotonic clock, in seconds.
    """
    finished, since = -1, clock()
    while True:
        started_at = clock()
        now = monitor.update()
        took_s = clock() - started_at
        if now.finished != finished:
            finished, since = now.finished, clock()
        yield now
        if now.ended:
            return
        if stalled_after_s is not None and clock() - since >= stalled_after_s:
            on_stalled(now)
            since = clock()
        # An update that takes long, because many results come, must leave the machine time for
        # other work.
        sleep(max(interval_s, took_s))
