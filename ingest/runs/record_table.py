"""The records of a run as a temporary table with one row for each job, in bounded memory.

The table is a SQLite database whose pages beyond a fixed cache are written to a file that is
removed with it. So memory does not grow with the run, and the fold is exact.

A run that was sent by ``foreedge bulk`` has a list of its jobs. A record of another job that names
the run is a stranger's: anybody who may send messages can name any run. It is kept and does not
count.
"""

from __future__ import annotations

import sqlite3
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

_LISTED, FAILED, REDRIVEN, SKIPPED, DONE = -2, 0, 1, 2, 4
"""Ranks of a row. Halves are compared first, then times, then ranks. A row of the lowest rank has
no record yet."""

STATUSES = {"done": DONE, "skipped_existing": SKIPPED, "failed": FAILED}
"""Rank of each status that a job can end with."""

_SCHEMA = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
CREATE TABLE part (name TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE record (
    job_id TEXT PRIMARY KEY,
    rank INTEGER NOT NULL,
    finished_at REAL NOT NULL,
    code TEXT NOT NULL,
    confidence REAL,
    position INTEGER,
    length INTEGER,
    counts INTEGER NOT NULL
) WITHOUT ROWID;
CREATE VIEW job AS SELECT * FROM record WHERE counts AND rank > -2;
-- Kept by triggers, so that a run of millions is counted without being read.
CREATE TABLE tally (
    counts INTEGER, rank INTEGER, code TEXT, jobs INTEGER, last REAL,
    PRIMARY KEY (counts, rank, code)
) WITHOUT ROWID;
CREATE TRIGGER counted AFTER INSERT ON record WHEN new.rank > -2 BEGIN
    INSERT INTO tally VALUES (new.counts, new.rank, new.code, 1, new.finished_at)
    ON CONFLICT DO UPDATE SET jobs = jobs + 1, last = max(last, excluded.last);
END;
CREATE TRIGGER recounted AFTER UPDATE ON record WHEN new.rank > -2 BEGIN
    UPDATE tally SET jobs = jobs - 1
    WHERE (counts, rank, code) = (old.counts, old.rank, old.code);
    INSERT INTO tally VALUES (new.counts, new.rank, new.code, 1, new.finished_at)
    ON CONFLICT DO UPDATE SET jobs = jobs + 1, last = max(last, excluded.last);
END;
"""
_FOLD = """
INSERT INTO record VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
    rank = excluded.rank, finished_at = excluded.finished_at, code = excluded.code,
    confidence = excluded.confidence, position = excluded.position, length = excluded.length
WHERE (excluded.rank / 2, excluded.finished_at, excluded.rank)
    >= (rank / 2, finished_at, rank)
"""
_LIST = """
INSERT INTO record VALUES (?, -2, 0, '', NULL, NULL, NULL, 1)
ON CONFLICT DO UPDATE SET counts = 1
"""


class Row(NamedTuple):
    """One record, as it is folded."""

    job_id: str
    rank: int
    finished_at: float
    """End of the job, in seconds since the epoch."""
    code: str = ""
    """Error code of a failure."""
    confidence: float | None = None
    """Mask confidence of a result."""
    position: int | None = None
    """Place of the whole record in the file of kept records."""
    length: int | None = None
    """Length of the whole record there, in bytes."""


class ResultCounts(NamedTuple):
    """The jobs of a run, counted by the record that counts for each."""

    by_rank: Counter[int]
    codes: Counter[str]
    """Number of failed jobs by error code."""
    last_ended_at: datetime | None
    """Time at which the latest job ended. None if none did."""
    unlisted: int = 0
    """Number of jobs with a record that are not in the run's list. They are not counted above."""

    @property
    def by_status(self) -> dict[str, int]:
        """Number of jobs by the status that they ended with."""
        return {status: self.by_rank[rank] for status, rank in STATUSES.items()}

    @property
    def ended(self) -> int:
        """Number of jobs with a result."""
        return sum(self.by_status.values())


class RecordTable:
    """The folded records of one run. Raises sqlite3.OperationalError if the disk is full."""

    def __init__(self, cache_kib: int) -> None:
        """Create an empty table whose cache has a size in KiB."""
        # An empty name is SQLite's for a database in a temporary file of its own.
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        # For owners that live as long as their process and close nothing.
        weakref.finalize(self, self._db.close)
        self._db.executescript(f"{_SCHEMA} PRAGMA cache_size = -{cache_kib};")
        self._has_list = False

    def close(self) -> None:
        """Remove the temporary file."""
        self._db.close()

    def knows(self, part: str) -> bool:
        """Return whether a part was folded."""
        found = self._db.execute("SELECT 1 FROM part WHERE name = ?", (part,))
        return found.fetchone() is not None

    def note(self, part: str) -> None:
        """Remember that an object was read whose parts were folded one by one."""
        self._write(_FOLD, (), part)

    def fold(self, part: str, rows: Iterable[Row]) -> None:
        """Fold the rows of a part, and remember that it was read."""
        counts = not self._has_list
        self._write(_FOLD, ((*row, counts) for row in rows), part)

    def add_listed(self, part: str, job_ids: Iterable[str]) -> None:
        """Add jobs to the run's list. Once there is a list, no other jobs count."""
        if not self._has_list:
            self._has_list = True
            self._db.execute("UPDATE record SET counts = 0")
        self._write(_LIST, ((job_id,) for job_id in job_ids), part)

    def counts(self) -> ResultCounts:
        """Return how many jobs ended, and how."""
        ranks: Counter[int] = Counter()
        codes: Counter[str] = Counter()
        last: float | None = None
        unlisted = 0
        for counts, rank, code, jobs, latest in self._db.execute(
            "SELECT * FROM tally WHERE jobs > 0"
        ):
            if not counts:
                unlisted += jobs
                continue
            ranks[rank] += jobs
            last = latest if last is None else max(last, latest)
            if rank == FAILED:
                codes[code] += jobs
        last_ended_at = None if last is None else datetime.fromtimestamp(last, UTC)
        return ResultCounts(ranks, codes, last_ended_at, unlisted)

    def query(self, sql: str, parameters: Iterable[Any] = ()) -> Iterator[Any]:
        """Yield the rows of a query over ``job``: the records that count, one for each job."""
        yield from self._db.execute(sql, tuple(parameters))

    def _write(self, sql: str, rows: Iterable[tuple[Any, ...]], part: str) -> None:
        self._db.execute("BEGIN")
        self._db.executemany(sql, rows)
        self._db.execute("INSERT OR IGNORE INTO part VALUES (?)", (part,))
        self._db.execute("COMMIT")
