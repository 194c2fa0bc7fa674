"""The progress of a run: how many of its jobs ended, and how."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from ingest.runs.cancellation import is_cancelled
from ingest.runs.folder import RunFolder
from ingest.runs.job_list import JobList, Sent
from ingest.runs.manifest import RunManifest, read_manifest
from ingest.runs.record_table import STATUSES, ResultCounts
from ingest.runs.records import Record, Records
from ingest.sqs.backlog import Backlog
from serve_app.errors import QueueUnavailable

_RATE_WINDOW_S = 15.0
_LISTING_PATIENCE = 10


@dataclass(frozen=True, slots=True)
class RunStatus:
    """The progress of a run at one moment."""

    run_id: str
    jobs: int | None
    """Number of jobs listed so far. None for messages that name no run."""
    counts: dict[str, int]
    """Number of jobs by the status that they ended with, and ``missing`` for those without one."""
    codes: dict[str, int]
    """Number of failed jobs by error code, the most frequent first."""
    wall_s: float
    """Seconds from the start of the run to the end of its latest job."""
    images_per_s: float
    """Average throughput over that time."""
    last_ended_at: datetime | None = None
    """Time at which the latest job ended. None if none did."""
    listed: bool = True
    """Whether every job of the run is known. False while its source is still being read."""
    unsent: int = 0
    """Number of listed jobs that are not on the queue yet."""
    unlisted: int = 0
    """Number of jobs with a result that are not in the run's list, and are not counted."""
    backlog: Backlog | None = None
    """Messages on the queue. None if it was not asked or did not answer."""
    queue_error: QueueUnavailable | None = None
    """Reason why the queue did not answer."""
    cancelled: bool = False
    """Whether the run is cancelled (``foreedge cancel``)."""
    stalled: bool = False
    """Whether jobs have no result and nothing is left that could end them."""

    @property
    def queue_trouble(self) -> str | None:
        """Code and text of the reason why the queue did not answer, or None."""
        error = self.queue_error
        return None if error is None else f"{error.code}: {error.message}"

    @property
    def missing(self) -> int:
        """Number of jobs without a result."""
        return self.counts["missing"]

    @property
    def finished(self) -> int:
        """Number of jobs with a result."""
        return sum(self.counts[status] for status in STATUSES)

    @property
    def expected(self) -> int:
        """Number of jobs of the run. If it is unknown, those that have a result."""
        return self.finished if self.jobs is None else self.jobs

    @property
    def ended(self) -> bool:
        """Whether every job has a result and no more jobs will come."""
        return self.listed and not self.unsent and not self.missing and self.jobs is not None

    @property
    def state(self) -> str:
        """One word: ``ended``, ``stalled``, ``cancelled``, ``sending``, ``running`` or ``open``.

        Messages that name no run are ``open``, since nobody knows how many will come.
        """
        if self.ended:
            return "ended"
        if self.stalled:
            return "stalled"
        if self.cancelled:
            return "cancelled"
        if self.jobs is None:
            return "open"
        return "sending" if self.unsent or not self.listed else "running"

    def as_dict(self) -> dict[str, Any]:
        """Return the status as ``foreedge status --json`` prints it."""
        return {
            "run_id": self.run_id,
            "state": self.state,
            "jobs": self.jobs,
            "counts": self.counts,
            "codes": self.codes,
            "remaining": None if self.jobs is None else self.missing,
            "unsent": self.unsent,
            "unlisted": self.unlisted,
            "cancelled": self.cancelled,
            "queue": asdict(self.backlog) if self.backlog else None,
            "queue_error": self.queue_trouble,
            "wall_s": round(self.wall_s, 3),
            "images_per_s": round(self.images_per_s, 3),
        }


def run_status(
    folder: RunFolder, manifest: RunManifest | None, sent: Sent | None, results: ResultCounts
) -> RunStatus:
    """Return the status of a run, without what its queue holds. Blocks.

    Args:
        folder: Folder of the run.
        manifest: Manifest of the run. None for messages that name no run.
        sent: How many jobs of the run were sent. None for a run without a list.
        results: Counts of the run's records.
    """
    wall_s = 0.0
    if results.last_ended_at is not None and manifest is not None:
        wall_s = max(0.0, (results.last_ended_at - manifest.created_at).total_seconds())
    jobs = None if manifest is None else manifest.jobs
    unsent = 0 if sent is None or sent.complete else max(0, (jobs or 0) - sent.jobs)
    return RunStatus(
        run_id=folder.run_id,
        jobs=jobs,
        counts=results.by_status | {"missing": max(0, (jobs or 0) - results.ended)},
        codes=dict(results.codes.most_common()),
        wall_s=wall_s,
        images_per_s=results.ended / wall_s if wall_s else 0.0,
        listed=manifest is None or manifest.complete,
        unsent=unsent,
        unlisted=results.unlisted,
        cancelled=manifest is not None and is_cancelled(folder),
        last_ended_at=results.last_ended_at,
    )


class RunMonitor:
    """A run that is watched: each update reads only the parts of its ledger that are new."""

    def __init__(
        self,
        folder: RunFolder,
        manifest: RunManifest | None,
        backlog: Callable[[], Backlog | QueueUnavailable | None] = lambda: None,
        on_record: Callable[[Record], None] | None = None,
    ) -> None:
        """Begin to watch a run.

        Args:
            folder: Folder of the run.
            manifest: Manifest of the run. It is read again as long as the list of jobs grows. None
                for messages that name no run.
            backlog: Function that returns the messages on the run's queue, or why they are unknown.
            on_record: Function to call with each result that an update reads.
        """
        self._folder = folder
        self._manifest = manifest
        self._backlog = backlog
        self._job_list = JobList(folder)
        self._sent: Sent | None = None if manifest is None else Sent()
        self._records = Records(folder, on_record=on_record)

    def close(self) -> None:
        """Remove the temporary files, which otherwise stay until the monitor is collected."""
        self._records.close()

    def update(self, on_read: Callable[[int], None] = lambda _: None) -> RunStatus:
        """Read what was added since the last update, and return the status. Blocks.

        Args:
            on_read: Function to call with the number of results after each part.
        """
        manifest = self._manifest
        if manifest is not None and not manifest.complete:
            manifest = self._manifest = read_manifest(self._folder)
        if self._sent is not None and not self._sent.complete:
            self._sent = self._job_list.sent()
        self._records.update(on_read)
        backlog = self._backlog()
        return replace(
            run_status(self._folder, manifest, self._sent, self._records.counts()),
            backlog=backlog if isinstance(backlog, Backlog) else None,
            queue_error=backlog if isinstance(backlog, QueueUnavailable) else None,
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


def end_if_stalled(
    steps: Iterator[RunStatus],
    stalled_after_s: float,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[RunStatus]:
    """Yield statuses, and end with a stalled one if nothing is left that could end the jobs.

    A run is stalled if for some time the queue is empty and neither a result nor a job is new.
    SQS's counts may be a minute late, and a batch of the ledger waits for some seconds.

    Args:
        steps: The statuses that ``follow`` yields, with the messages on the queue.
        stalled_after_s: Length of that time in seconds.
        clock: Monotonic clock, in seconds.

    Raises:
        QueueUnavailable: The queue has not answered for that time, and nothing else is new.
    """
    progress: tuple[int, ...] = ()
    since = clock()
    for now in steps:
        found = (now.finished, now.expected, now.unsent)
        if found != progress or not (now.queue_error or _is_empty(now.backlog)):
            progress, since = found, clock()
        # A source may have few images, and takes long to be listed then.
        patience_s = stalled_after_s * (1 if now.listed else _LISTING_PATIENCE)
        if now.ended or clock() - since < patience_s:
            yield now
            continue
        if now.queue_error is not None:
            raise now.queue_error
        yield replace(now, stalled=True)
        return


def _is_empty(backlog: Backlog | None) -> bool:
    return backlog is not None and not backlog.waiting and not backlog.in_flight
