"""How far a run is: its ledger, read in steps, and what is seen of it on a terminal."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from ingest.runs.folder import RunFolder
from ingest.runs.job_list import JobList, Sent
from ingest.runs.manifest import RunManifest, read_manifest
from ingest.runs.records import DONE, FAILED, SKIPPED, Records
from ingest.sqs.backlog import Backlog

_RANKS = {"done": DONE, "skipped_existing": SKIPPED, "failed": FAILED}

_RATE_WINDOW_S = 15.0


@dataclass(frozen=True, slots=True)
class RunStatus:
    """How far a run is."""

    run_id: str
    jobs: int
    counts: dict[str, int]
    """Jobs by how they ended; ``missing`` have not, so far."""
    codes: dict[str, int]
    """Failed jobs by code, the most frequent first."""
    wall_s: float
    """From the start of the run to the end of its latest job."""
    images_per_s: float
    """Over that time."""
    listed: bool = True
    """Whether all of the run's jobs are known; False while they are still being listed."""
    unsent: int = 0
    """Jobs that are known and not on the queue yet."""
    backlog: Backlog | None = None
    """None where the queue was not asked, or did not answer."""

    @property
    def missing(self) -> int:
        """Jobs without a result."""
        return self.counts["missing"]

    @property
    def finished(self) -> int:
        """Jobs with a result."""
        return sum(self.counts[status] for status in _RANKS)

    @property
    def ended(self) -> bool:
        """Whether every job has a result, and no more will come."""
        return self.listed and not self.unsent and not self.missing

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
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
    ranks: Counter[int],
    codes: Counter[str],
    last: datetime | None,
    *,
    unsent: int = 0,
    backlog: Backlog | None = None,
) -> RunStatus:
    """Return how far a run is.

    Args:
        manifest: What was asked for.
        ranks: Jobs by how they ended; see ``records``.
        codes: Failed jobs by code.
        last: When the latest job ended; None where none did.
        unsent: Jobs that are not on the queue yet.
        backlog: Of the queue.
    """
    counts = {status: ranks[rank] for status, rank in _RANKS.items()}
    finished = sum(counts.values())
    wall_s = max(0.0, (last - manifest.created_at).total_seconds()) if last else 0.0
    return RunStatus(
        run_id=manifest.run_id,
        jobs=manifest.jobs,
        counts=counts | {"missing": max(0, manifest.jobs - finished)},
        codes=dict(codes.most_common()),
        wall_s=wall_s,
        images_per_s=finished / wall_s if wall_s else 0.0,
        listed=manifest.complete,
        unsent=unsent,
        backlog=backlog,
    )


class RunMonitor:
    """Counts a run's results; reads only the parts of its ledger that are new."""

    def __init__(
        self,
        folder: RunFolder,
        manifest: RunManifest,
        backlog: Callable[[], Backlog | None] = lambda: None,
    ) -> None:
        """Begin to count.

        Args:
            folder: Folder of the run.
            manifest: The run; read again for as long as its list of jobs grows.
            backlog: Returns what waits on the run's queue, where that is known.
        """
        self._folder = folder
        self._manifest = manifest
        self._backlog = backlog
        self._list = JobList(folder)
        self._sent: Sent | None = Sent()
        self._records = Records(folder)

    def update(self, on_read: Callable[[int], None] = lambda _: None) -> RunStatus:
        """Read what was added since the last time; blocks.

        Args:
            on_read: Called with a number of records as they are read.
        """
        if not self._manifest.complete:
            self._manifest = read_manifest(self._folder)
        if self._sent is not None and not self._sent.complete:
            self._sent = self._list.sent()
        self._records.update(on_read)
        unsent = 0
        if self._sent is not None and not self._sent.complete:
            unsent = max(0, self._manifest.jobs - self._sent.jobs)
        return run_status(
            self._manifest, *self._records.counts(), unsent=unsent, backlog=self._backlog()
        )


class Rate:
    """How fast a count grows, over the last 15 seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin; ``clock`` gives seconds and never goes back."""
        self._clock = clock
        self._recent: deque[tuple[float, int]] = deque()

    def after(self, count: int) -> float:
        """Return the rate per second, now that the count is that high."""
        recent = self._recent
        recent.append((self._clock(), count))
        while len(recent) > 2 and recent[-1][0] - recent[0][0] > _RATE_WINDOW_S:
            recent.popleft()
        elapsed = recent[-1][0] - recent[0][0]
        return (recent[-1][1] - recent[0][1]) / elapsed if elapsed else 0.0


def follow(
    tally: RunMonitor,
    *,
    interval_s: float = 1.0,
    stalled_after_s: float | None = None,
    on_stalled: Callable[[RunStatus], None] = lambda _: None,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[RunStatus]:
    """Yield how far a run is, until every job has a result.

    Args:
        tally: The run.
        interval_s: Between two looks at the ledger.
        stalled_after_s: Without a new result for that long, ``on_stalled`` is called, once for
            each such time; it may raise.
        on_stalled: See there.
        sleep: Waits, in seconds.
        clock: A monotonic clock, in seconds.
    """
    finished, since = -1, clock()
    while True:
        started_at = clock()
        now = tally.update()
        took_s = clock() - started_at
        if now.finished != finished:
            finished, since = now.finished, clock()
        yield now
        if now.ended:
            return
        if stalled_after_s is not None and clock() - since >= stalled_after_s:
            on_stalled(now)
            since = clock()
        # A look that takes long, since many results come, must not be all that this machine does.
        sleep(max(interval_s, took_s))
