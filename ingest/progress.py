"""How far a run is: its ledger, read in steps, and what is seen of it on a terminal."""

from __future__ import annotations

import gzip
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ingest.ledger import RunManifest
from serve_app.config import LedgerConfig
from serve_app.storage import ObjectStore

STATUSES = ("done", "skipped_existing", "failed")
"""Ways in which a job ends."""

_RATE_WINDOW_S = 15.0
# The order in which a duplicate record loses, as in ``ledger.fold``.
_RANK = {"failed": 0, "skipped_existing": 1, "done": 2}


@dataclass(frozen=True, slots=True)
class Standing:
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

    @property
    def missing(self) -> int:
        """Jobs without a result."""
        return self.counts["missing"]

    @property
    def finished(self) -> int:
        """Jobs with a result."""
        return sum(self.counts[status] for status in STATUSES)

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "run_id": self.run_id,
            "jobs": self.jobs,
            "counts": self.counts,
            "codes": self.codes,
            "remaining": self.missing,
            "wall_s": round(self.wall_s, 3),
            "images_per_s": round(self.images_per_s, 3),
        }


def standing(
    manifest: RunManifest, counts: Counter[str], codes: Counter[str], last: datetime | None
) -> Standing:
    """Return how far a run is.

    Args:
        manifest: What was asked for.
        counts: Jobs by how they ended.
        codes: Failed jobs by code.
        last: When the latest job ended; None where none did.
    """
    finished = counts.total()
    wall_s = max(0.0, (last - manifest.created_at).total_seconds()) if last else 0.0
    return Standing(
        run_id=manifest.run_id,
        jobs=manifest.jobs,
        counts={name: counts[name] for name in STATUSES}
        | {"missing": max(0, manifest.jobs - finished)},
        codes=dict(codes.most_common()),
        wall_s=wall_s,
        images_per_s=finished / wall_s if wall_s else 0.0,
    )


class Tally:
    """Counts a run's results; reads only the parts of its ledger that are new.

    Of each job it keeps a tuple, not the record, so that a run of millions can be watched.
    """

    def __init__(self, store: ObjectStore, ledger: LedgerConfig, manifest: RunManifest) -> None:
        self._store = store
        self._bucket = ledger.bucket
        self._prefix = f"{ledger.prefix}runs/{manifest.run_id}/results/"
        self._manifest = manifest
        self._seen: set[str] = set()
        self._jobs: dict[str, tuple[int, datetime, str | None]] = {}
        self._counts: Counter[str] = Counter()
        self._codes: Counter[str] = Counter()
        self._last: datetime | None = None

    def update(self) -> Standing:
        """Read the parts that were added since the last time; blocks."""
        keys = [item.key for item in self._store.list(self._bucket, self._prefix)]
        for key in keys:
            if key.endswith(".jsonl.gz") and key not in self._seen:
                for line in gzip.decompress(self._store.get(self._bucket, key)).splitlines():
                    self._add(orjson.loads(line))
                self._seen.add(key)
        return standing(self._manifest, self._counts, self._codes, self._last)

    def _add(self, record: dict[str, Any]) -> None:
        status, code = record["status"], record.get("code")
        finished_at = datetime.fromisoformat(record["finished_at"])
        new = (_RANK[status], finished_at, code)
        known = self._jobs.get(record["job_id"])
        if known is not None:
            if new[:2] < known[:2]:
                return
            self._count(known, -1)
        self._jobs[record["job_id"]] = new
        self._count(new, 1)
        self._last = max(self._last or finished_at, finished_at)

    def _count(self, job: tuple[int, datetime, str | None], change: int) -> None:
        rank, _, code = job
        self._counts[next(status for status in STATUSES if _RANK[status] == rank)] += change
        if rank == _RANK["failed"]:
            self._codes[code or "unknown"] += change
            if not self._codes[code or "unknown"]:
                del self._codes[code or "unknown"]


def follow(
    tally: Tally,
    *,
    interval_s: float = 1.0,
    stalled_after_s: float | None = None,
    on_stalled: Callable[[Standing], None] = lambda _: None,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Standing]:
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
        now = tally.update()
        if now.finished != finished:
            finished, since = now.finished, clock()
        yield now
        if not now.missing:
            return
        if stalled_after_s is not None and clock() - since >= stalled_after_s:
            on_stalled(now)
            since = clock()
        sleep(interval_s)


def show(console: Console, steps: Iterator[Standing], clock: Callable[[], float]) -> Standing:
    """Draw a bar while a run proceeds; return how far it was in the end.

    Args:
        console: Where to.
        steps: See ``follow``.
        clock: A monotonic clock, in seconds.
    """
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[detail]}"),
        TimeElapsedColumn(),
    )
    last: Standing | None = None
    recent: list[tuple[float, int]] = []
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("Cutting out", total=None, detail="")
        for now in steps:
            last = now
            recent.append((clock(), now.finished))
            while recent[-1][0] - recent[0][0] > _RATE_WINDOW_S:
                recent.pop(0)
            elapsed = recent[-1][0] - recent[0][0]
            rate = (recent[-1][1] - recent[0][1]) / elapsed if elapsed else now.images_per_s
            progress.update(task, total=now.jobs, completed=now.finished, detail=_detail(now, rate))
    if last is None:
        raise ValueError("there was no step to show")
    return last


def _detail(now: Standing, rate: float) -> str:
    failed = f"[red]{now.counts['failed']:,} failed[/red] · " if now.counts["failed"] else ""
    left = f" · {_duration(now.missing / rate)} left" if rate and now.missing else ""
    return f"{failed}{rate:.1f} images/s{left}"


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes}:{seconds:02}"


def describe(now: Standing) -> str:
    """Return a run's standing as lines of text with rich's markup."""
    counts = now.counts
    lines = [
        f"[bold]{now.finished:,}[/bold] of {now.jobs:,} images have a result"
        + (f", {now.missing:,} remain" if now.missing else ""),
        f"  done     {counts['done']:,}",
    ]
    if counts["skipped_existing"]:
        lines.append(f"  existed  {counts['skipped_existing']:,}")
    if counts["failed"]:
        lines.append(f"  failed   [red]{counts['failed']:,}[/red]")
        lines += [f"    {code}: {count:,}" for code, count in now.codes.items()]
    if now.wall_s:
        lines.append(f"  {now.images_per_s:.2f} images/s over {now.wall_s:,.1f} s")
    return "\n".join(lines)
