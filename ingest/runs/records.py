"""The records of a run, folded to one for each job, in bounded memory.

A run may have millions of records, and a job may have several. They are folded in a temporary
SQLite database, whose pages beyond a fixed cache lie in a file that nobody else sees: memory does
not grow with the run, and the fold is exact. What it costs is in docs/performance.md.

A job's record that counts is the one of the highest status, and among those the latest::

    failed < redriven < skipped_existing < done

``redriven`` is a failure whose job was put on the queue again: until it ends anew, the job counts
as one without a result. Which failure that was is known by its time, as its own record gives it,
so that it does not matter how the clocks of workers and operators differ.
"""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import orjson

from ingest.runs.folder import PART_TIME_FORMAT, PartKind, RunFolder

Record = dict[str, Any]
"""One line of a part, as JSON: the fields of an Outcome."""

FAILED, REDRIVEN, SKIPPED, DONE = 0, 1, 2, 4
"""Ranks of a record. Halves, rounded down, are compared first, then times, then ranks."""

STATUSES = {"failed": FAILED, "skipped_existing": SKIPPED, "done": DONE}
"""Ranks of the ways in which a job ends."""

_CACHE_KIB = 96 * 1024
# A part has the time at which it was closed in its name, and comes to be there later: clocks
# differ, and a writer whose store was away tries again. Names are looked for from this long ago,
# and now and then from the beginning, so that even a part that is later than that is found.
_OVERLAP = timedelta(minutes=15)
_FULL_LISTING_EVERY = 300

_SCHEMA = f"""
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA cache_size = -{_CACHE_KIB};
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
    UPDATE tally SET jobs = jobs - 1 WHERE rank = old.rank AND code = old.code;
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


class Records:
    """A run's records, folded. Reads each part once; a context manager."""

    def __init__(
        self,
        folder: RunFolder,
        *,
        keep: Collection[str] = (),
        on_record: Callable[[Record], None] | None = None,
    ) -> None:
        """Begin with none; see ``update``.

        Args:
            folder: Folder of the run.
            keep: Statuses whose records are kept whole, in a temporary file.
            on_record: Called with each record that is read, before it is folded.
        """
        self._folder = folder
        self._keep = frozenset(keep)
        self._on_record = on_record
        self._seen: set[str] = set()
        self._latest: datetime | None = None
        self._updates = 0
        self._kept = tempfile.TemporaryFile() if keep else None  # noqa: SIM115 (close)
        self._end = 0
        # SQLite's name for a database in a temporary file of its own.
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._db.executescript(_SCHEMA)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the temporary files."""
        self.close()

    def close(self) -> None:
        """Remove the temporary files."""
        self._db.close()
        if self._kept is not None:
            self._kept.close()

    def update(self, on_read: Callable[[int], None] = lambda _: None) -> bool:
        """Read the parts that were added since the last time; return whether there were any.

        Args:
            on_read: Called with the number of records after each part.

        Raises:
            InvalidMessage: A part is not one.
            ForeedgeError: The store refuses or does not answer.
        """
        before = len(self._seen)
        for key, lines in self._folder.read_parts(self._new_keys("results")):
            self._add(key, self._records(key, lines), on_read)
        for key, lines in self._folder.read_parts(self._new_keys("redriven")):
            found = (record for record, _ in self._records(key, lines))
            rows = ((record["job_id"], REDRIVEN, record["failed_at"]) for record in found)
            self._fold((*row, "", None, None, None) for row in rows)
            self._remember(key)
        self._updates += 1
        return len(self._seen) > before

    def counts(self) -> tuple[Counter[int], Counter[str], datetime | None]:
        """Return the jobs by rank, the failed ones by code, and when the latest of all ended."""
        ranks: Counter[int] = Counter()
        codes: Counter[str] = Counter()
        last: float | None = None
        for rank, code, jobs, latest in self._db.execute("SELECT * FROM tally WHERE jobs > 0"):
            ranks[rank] += jobs
            last = latest if last is None else max(last, latest)
            if rank == FAILED:
                codes[code] += jobs
        return ranks, codes, None if last is None else datetime.fromtimestamp(last, UTC)

    def rank(self, job_id: str) -> int | None:
        """Return the rank of a job's record; None where it has none."""
        row = self._db.execute("SELECT rank FROM job WHERE job_id = ?", (job_id,)).fetchone()
        return None if row is None else int(row[0])

    def query(self, sql: str, parameters: Iterable[Any] = ()) -> Iterator[Any]:
        """Yield the rows of a query over the table ``job``; see the schema above."""
        yield from self._db.execute(sql, tuple(parameters))

    def kept(self, where: str, parameters: Iterable[Any] = ()) -> Iterator[Record]:
        """Yield kept records that count, in an order.

        Args:
            where: What follows ``FROM job`` in a query.
            parameters: Of the query.
        """
        for position, length in self.query(f"SELECT position, length FROM job {where}", parameters):
            if position is not None:
                yield self.kept_at(position, length)

    def kept_at(self, position: int, length: int) -> Record:
        """Return one kept record."""
        if self._kept is None:
            raise ValueError("records are not kept")
        record: Record = orjson.loads(os.pread(self._kept.fileno(), length, position))
        return record

    def _new_keys(self, kind: PartKind) -> Iterator[str]:
        """Yield the keys of parts that were not read yet."""
        after = ""
        if self._latest is not None and self._updates % _FULL_LISTING_EVERY:
            after = f"{self._latest - _OVERLAP:{PART_TIME_FORMAT}}"
        for key in self._folder.part_keys(kind, after):
            if key not in self._seen:
                yield key

    def _records(self, key: str, lines: list[bytes]) -> Iterator[tuple[Record, bytes]]:
        for line in lines:
            try:
                record = orjson.loads(line)
                record["job_id"]
            except (ValueError, KeyError, TypeError) as error:
                raise self._folder.damaged_part(key, error) from error
            yield record, line

    def _add(
        self, key: str, lines: Iterator[tuple[Record, bytes]], on_read: Callable[[int], None]
    ) -> None:
        """Fold a part's records and remember that it was read."""
        rows: list[tuple[Any, ...]] = []
        kept: list[bytes] = []
        end = self._end
        for record, line in lines:
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
            self._kept.write(b"".join(kept))
            self._kept.flush()
            self._end = end
        self._fold(rows)
        self._remember(key)
        on_read(len(rows))

    def _fold(self, rows: Iterable[tuple[Any, ...]]) -> None:
        self._db.execute("BEGIN")
        self._db.executemany(_FOLD, rows)
        self._db.execute("COMMIT")

    def _remember(self, key: str) -> None:
        self._seen.add(key)
        name = key.rpartition("/")[2]
        try:
            at = datetime.strptime(name[:15], PART_TIME_FORMAT)
        except ValueError:
            return
        self._latest = at if self._latest is None else max(self._latest, at)


def _row(record: Record, position: int | None, length: int) -> tuple[Any, ...]:
    """Return a record's row; raises ValueError, KeyError or TypeError where it is not one."""
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
