"""The records of a run, folded to one for each job, in bounded memory.

A run may have millions of records, and a job may have several. They are folded in a temporary
SQLite database. Its pages beyond a fixed cache are written to a file that is removed with it, so
memory does not grow with the run, and the fold is exact. Its cost is in docs/performance.md.

The record of a job that counts is the one of the highest status, and among those the latest::

    failed < redriven < skipped_existing < done

``redriven`` is a failure whose job was put on the queue again. Until that job ends again, it
counts as one without a result. A redriven failure is identified by the time in its own record, so
differences between the clocks of workers and operators do not matter.
"""

from __future__ import annotations

import itertools
import os
import sqlite3
import tempfile
import time
import weakref
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple, Self

import orjson

from ingest.runs.folder import PART_TIME_FORMAT, PartKind, RunFolder
from serve_app.errors import StorageUnavailable

Record = dict[str, Any]
"""One line of a part, as JSON: the fields of an Outcome."""

FAILED, REDRIVEN, SKIPPED, DONE = 0, 1, 2, 4
"""Ranks of a record. Halves, rounded down, are compared first, then times, then ranks."""

STATUSES = {"done": DONE, "skipped_existing": SKIPPED, "failed": FAILED}
"""Rank of each status that a job can end with."""

_CACHE_KIB = 96 * 1024
# The name of a part has the time at which it was closed, and the part may appear later: clocks
# differ, and a writer whose store is unavailable repeats the write. So each listing begins this
# long before the latest known part, and from time to time it begins at the first part.
_OVERLAP = timedelta(minutes=15)
_FULL_LISTING_EVERY_S = 300.0

_SCHEMA = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
CREATE TABLE part (key TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE job (
    job_id TEXT PRIMARY KEY,
    rank INTEGER NOT NULL,
    finished_at REAL NOT NULL,
    code TEXT NOT NULL,
    confidence REAL,
    position INTEGER,
    length INTEGER
) WITHOUT ROWID;
-- Kept by triggers, so that a run of millions is counted without being read.
CREATE TABLE tally (
    rank INTEGER, code TEXT, jobs INTEGER, last REAL, PRIMARY KEY (rank, code)
) WITHOUT ROWID;
CREATE TRIGGER counted AFTER INSERT ON job BEGIN
    INSERT INTO tally VALUES (new.rank, new.code, 1, new.finished_at)
    ON CONFLICT DO UPDATE SET jobs = jobs + 1, last = max(last, excluded.last);
END;
CREATE TRIGGER recounted AFTER UPDATE ON job BEGIN
    UPDATE tally SET jobs = jobs - 1
    WHERE (rank, code) = (old.rank, old.code);
    INSERT INTO tally VALUES (new.rank, new.code, 1, new.finished_at)
    ON CONFLICT DO UPDATE SET jobs = jobs + 1, last = max(last, excluded.last);
END;
"""
_FOLD = """
INSERT INTO job VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET
    rank = excluded.rank, finished_at = excluded.finished_at, code = excluded.code,
    confidence = excluded.confidence, position = excluded.position, length = excluded.length
WHERE (excluded.rank / 2, excluded.finished_at, excluded.rank)
    >= (rank / 2, finished_at, rank)
"""


class ResultCounts(NamedTuple):
    """The jobs of a run, counted by the record that counts for each."""

    by_rank: Counter[int]
    codes: Counter[str]
    """Number of failed jobs by error code."""
    last_ended_at: datetime | None
    """Time at which the latest job ended. None if none did."""

    @property
    def by_status(self) -> dict[str, int]:
        """Number of jobs by the status that they ended with."""
        return {status: self.by_rank[rank] for status, rank in STATUSES.items()}

    @property
    def ended(self) -> int:
        """Number of jobs with a result."""
        return sum(self.by_status.values())


class Records:
    """The folded records of one run. Reads each part once. A context manager."""

    def __init__(
        self,
        folder: RunFolder,
        *,
        keep: Collection[str] = (),
        on_record: Callable[[Record], None] | None = None,
        cache_kib: int = _CACHE_KIB,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create an empty fold; call ``update`` to read records.

        Args:
            folder: Folder of the run.
            keep: Statuses whose records are kept whole, in a temporary file.
            on_record: Function to call with each result before it is folded.
            cache_kib: Memory for the pages of the database, in KiB.
            clock: Monotonic clock, in seconds.
        """
        self._folder = folder
        self._keep = frozenset(keep)
        self._on_record = on_record
        self._clock = clock
        self.up_to_date = False
        """Whether the last update read every part that was stored."""
        self.unusable = False
        """Whether the temporary files could not be written, so that the fold is incomplete."""
        self._latest: dict[PartKind, datetime] = {}
        self._listed_in_full_at: dict[PartKind, float] = {}
        self._kept = tempfile.TemporaryFile() if keep else None  # noqa: SIM115 (see close)
        self._end = 0
        # An empty name is SQLite's for a database in a temporary file of its own.
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        # For owners that live as long as their process and close nothing.
        weakref.finalize(self, self._db.close)
        self._db.executescript(f"{_SCHEMA} PRAGMA cache_size = -{cache_kib};")

    def __enter__(self) -> Self:
        """Return the records themselves."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the temporary files."""
        self.close()

    def close(self) -> None:
        """Remove the temporary files."""
        self._db.close()
        if self._kept is not None:
            self._kept.close()

    def update(
        self, on_read: Callable[[int], None] = lambda _: None, *, max_parts: int | None = None
    ) -> bool:
        """Read the parts that were added since the last update, and return whether there were any.

        Args:
            on_read: Function to call with the number of results after each part.
            max_parts: Number of parts to read at most; None for no limit.

        Raises:
            InvalidMessage: A part is damaged.
            ForeedgeError: The store refuses or does not answer.
        """
        read = 0
        self.up_to_date = True
        # Redriven parts come first, so that a limit does not make a redriven failure count.
        for kind in ("redriven", "results"):
            new_keys = self._new_keys(kind)
            within_limit = None if max_parts is None else max_parts - read
            for key, lines in self._folder.read_parts(itertools.islice(new_keys, within_limit)):
                if kind == "redriven":
                    self._add_redriven(key, lines)
                else:
                    on_read(self._add_results(key, lines))
                self._note_time(kind, key)
                read += 1
            if next(new_keys, None) is not None:
                self.up_to_date = False
        return read > 0

    def counts(self) -> ResultCounts:
        """Return how many jobs ended, and how."""
        ranks: Counter[int] = Counter()
        codes: Counter[str] = Counter()
        last: float | None = None
        for rank, code, jobs, latest in self._db.execute("SELECT * FROM tally WHERE jobs > 0"):
            ranks[rank] += jobs
            last = latest if last is None else max(last, latest)
            if rank == FAILED:
                codes[code] += jobs
        last_ended_at = None if last is None else datetime.fromtimestamp(last, UTC)
        return ResultCounts(ranks, codes, last_ended_at)

    def rank(self, job_id: str) -> int | None:
        """Return the rank of a job's record, or None if it has no record."""
        row = self._db.execute("SELECT rank FROM job WHERE job_id = ?", (job_id,)).fetchone()
        return None if row is None else int(row[0])

    def query(self, sql: str, parameters: Iterable[Any] = ()) -> Iterator[Any]:
        """Yield the rows of a query over the table ``job``; see the schema in this module."""
        yield from self._db.execute(sql, tuple(parameters))

    def kept(
        self, condition: str = "TRUE", parameters: Iterable[Any] = (), *, order: str = "position"
    ) -> Iterator[Record]:
        """Yield the kept records that count.

        Args:
            condition: Condition on the rows of the table ``job``, in SQL.
            parameters: Parameters of the condition.
            order: Columns to order by.
        """
        sql = f"SELECT position, length FROM job WHERE {condition} ORDER BY {order}"
        for position, length in self.query(sql, parameters):
            if position is not None:
                yield self.kept_at(position, length)

    def failures(self, code: str | None = None) -> Iterator[Record]:
        """Yield the records of failed jobs, or of those with one error code, ordered by code."""
        condition = "rank = ? AND (? IS NULL OR code = ?)"
        return self.kept(condition, [FAILED, code, code], order="code, position")

    def kept_at(self, position: int, length: int) -> Record:
        """Return one kept record."""
        if self._kept is None:
            raise ValueError("records are not kept")
        record: Record = orjson.loads(os.pread(self._kept.fileno(), length, position))
        return record

    def _new_keys(self, kind: PartKind) -> Iterator[str]:
        """Yield the keys of stored parts that were not read yet."""
        now = self._clock()
        after = ""
        listed_at = self._listed_in_full_at.get(kind)
        if listed_at is None or now - listed_at >= _FULL_LISTING_EVERY_S:
            self._listed_in_full_at[kind] = now
        elif kind in self._latest:
            after = f"{self._latest[kind] - _OVERLAP:{PART_TIME_FORMAT}}"
        for key in self._folder.part_keys(kind, after):
            if not self._db.execute("SELECT 1 FROM part WHERE key = ?", (key,)).fetchone():
                yield key

    def _note_time(self, kind: PartKind, key: str) -> None:
        name = key.rpartition("/")[2]
        try:
            at = datetime.strptime(name[:15], PART_TIME_FORMAT)
        except ValueError:
            return
        self._latest[kind] = max(at, self._latest.get(kind, at))

    def _add_redriven(self, key: str, lines: list[bytes]) -> None:
        """Fold the failures of a part that were sent again."""
        rows: list[tuple[Any, ...]] = []
        for record, _ in self._parse(key, lines):
            try:
                failed_at = float(record["failed_at"])
            except (ValueError, KeyError, TypeError) as error:
                raise self._folder.damaged_part(key, error) from error
            rows.append((record["job_id"], REDRIVEN, failed_at, "", None, None, None))
        self._fold(key, rows)

    def _add_results(self, key: str, lines: list[bytes]) -> int:
        """Fold the results of a part, and return their number."""
        rows: list[tuple[Any, ...]] = []
        kept: list[bytes] = []
        end = self._end
        for record, line in self._parse(key, lines):
            position = None
            if record.get("status") in self._keep:
                position, end = end, end + len(line)
                kept.append(line)
            try:
                rows.append(_row(record, position, len(line)))
            except (ValueError, KeyError, TypeError) as error:
                raise self._folder.damaged_part(key, error) from error
            if self._on_record is not None:
                self._on_record(record)
        if self._kept is not None:
            with self._map_disk_errors():
                self._kept.write(b"".join(kept))
                self._kept.flush()
            self._end = end
        self._fold(key, rows)
        return len(rows)

    def _parse(self, key: str, lines: list[bytes]) -> Iterator[tuple[Record, bytes]]:
        for line in lines:
            try:
                record = orjson.loads(line)
                record["job_id"]
            except (ValueError, KeyError, TypeError) as error:
                raise self._folder.damaged_part(key, error) from error
            yield record, line

    def _fold(self, key: str, rows: list[tuple[Any, ...]]) -> None:
        """Fold the rows of a part and remember that it was read."""
        with self._map_disk_errors():
            self._db.execute("BEGIN")
            self._db.executemany(_FOLD, rows)
            self._db.execute("INSERT OR IGNORE INTO part VALUES (?)", (key,))
            self._db.execute("COMMIT")

    @contextmanager
    def _map_disk_errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.OperationalError, OSError) as error:
            self.unusable = True
            raise StorageUnavailable(
                f"The temporary files for the records of run {self._folder.run_id} cannot be "
                f"written ({error}). Free some space, or set TMPDIR to a folder that has enough"
            ) from error


def _row(record: Record, position: int | None, length: int) -> tuple[Any, ...]:
    """Return the row of a result. Raise ValueError, KeyError or TypeError if it is malformed."""
    status, cutout = record["status"], record.get("cutout")
    return (
        record["job_id"],
        STATUSES[status],
        datetime.fromisoformat(record["finished_at"]).timestamp(),
        (record.get("code") or "unknown") if status == "failed" else "",
        cutout["mask_confidence"] if cutout else None,
        position,
        length,
    )
