"""The records of a run, folded to one for each job, in bounded memory.

A run may have millions of records, and a job may have several. They are folded on disk
(``record_table``). Its cost is in docs/performance.md.

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
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, Self

import orjson

from ingest.runs.folder import PartKind, RunFolder
from ingest.runs.parts import PART_TIME_FORMAT, part_name, part_time
from ingest.runs.record_table import FAILED, REDRIVEN, STATUSES, RecordTable, ResultCounts, Row
from serve_app.errors import SourceNotFound, StorageUnavailable

Record = dict[str, Any]
"""One line of a part, as JSON: the fields of an Outcome."""

_CACHE_KIB = 96 * 1024
# The name of a part has the time at which it was closed, and the part may appear later: clocks
# differ, and a writer whose store is unavailable repeats the write. So each listing begins this
# long before the latest known part, and from time to time it begins at the first part.
_OVERLAP = timedelta(minutes=15)
_FULL_LISTING_EVERY_S = 300.0


class Records:
    """The folded records of one run. Reads each part once. A context manager."""

    def __init__(
        self,
        folder: RunFolder,
        *,
        keep: Collection[str] = (),
        on_record: Callable[[Record], None] | None = None,
        compare_with_list: bool = True,
        cache_kib: int = _CACHE_KIB,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create an empty fold; call ``update`` to read records.

        Args:
            folder: Folder of the run.
            keep: Statuses whose records are kept whole, in a temporary file.
            on_record: Function to call with each result before it is folded.
            compare_with_list: Whether the run's list of jobs is read, if there is one, so that
                records of other jobs do not count.
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
        self._latest: dict[PartKind, str] = {}
        self._listed_in_full_at: dict[PartKind, float] = {}
        self._kept = tempfile.TemporaryFile() if keep else None  # noqa: SIM115 (see close)
        self._end = 0
        self._table = RecordTable(cache_kib)
        self._kinds: tuple[PartKind, ...] = ("redriven", "results")
        if compare_with_list:
            # The list comes first: no message of a job is sent before the job is listed.
            self._kinds = ("jobs", *self._kinds)

    def __enter__(self) -> Self:
        """Return the records themselves."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the temporary files."""
        self.close()

    def close(self) -> None:
        """Remove the temporary files."""
        self._table.close()
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
        # Redriven parts come before results: a limit must not make a redriven failure count.
        for kind in self._kinds:
            room = None if max_parts is None else max(0, max_parts - read)
            read += self._read_new_parts(kind, on_read, room)
        return read > 0

    def counts(self) -> ResultCounts:
        """Return how many jobs ended, and how."""
        return self._table.counts()

    def rank(self, job_id: str) -> int | None:
        """Return the rank of a job's record, or None if it has no record."""
        row = next(self.query("SELECT rank FROM job WHERE job_id = ?", [job_id]), None)
        return None if row is None else int(row[0])

    def query(self, sql: str, parameters: Iterable[Any] = ()) -> Iterator[Any]:
        """Yield the rows of a query over the view ``job``; see the schema of ``record_table``."""
        return self._table.query(sql, parameters)

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

    def _read_new_parts(
        self, kind: PartKind, on_read: Callable[[int], None], room: int | None
    ) -> int:
        """Fold the parts of a kind that are new, and return the number of objects that were read.

        A part that is listed and then gone was compacted meanwhile. Its records are in a part that
        was stored before, so that another listing has it.
        """
        read = 0
        gone: list[str] = []
        for in_full in (False, True, True):
            keys = self._new_keys(kind, in_full)
            within = itertools.islice(keys, None if room is None else max(0, room - read))
            gone = []
            for key, members in self._folder.read_parts(within):
                read += 1
                if members is None:
                    gone.append(key)
                    continue
                for name, lines in members:
                    self._add_part(kind, key, name, lines, on_read)
                if not self._knows(kind, part_name(key)):
                    # A joined object has a name that none of its parts has.
                    with self._map_disk_errors():
                        self._table.note(f"{kind}/{part_name(key)}")
                self._note_time(kind, key)
            if next(keys, None) is not None:
                self.up_to_date = False
            gone = [key for key in gone if not self._knows(kind, part_name(key))]
            if not gone or not self.up_to_date:
                return read
        raise SourceNotFound(
            f"{self._folder.url(gone[0])} was listed and is gone: somebody deletes the parts of "
            f"run {self._folder.run_id}. Repeat the command"
        )

    def _new_keys(self, kind: PartKind, in_full: bool) -> Iterator[str]:
        """Yield the keys of stored parts that were not read yet."""
        now = self._clock()
        after = ""
        listed_at = self._listed_in_full_at.get(kind)
        if in_full or listed_at is None or now - listed_at >= _FULL_LISTING_EVERY_S:
            self._listed_in_full_at[kind] = now
        elif kind in self._latest:
            after = self._latest[kind]
        for key in self._folder.part_keys(kind, after):
            if not self._knows(kind, part_name(key)):
                yield key

    def _knows(self, kind: PartKind, name: str) -> bool:
        return self._table.knows(f"{kind}/{name}")

    def _note_time(self, kind: PartKind, key: str) -> None:
        """Remember from which name on the next listing begins."""
        name = part_name(key)
        if kind != "jobs":
            at = part_time(name)
            if at is None:
                return
            name = f"{at - _OVERLAP:{PART_TIME_FORMAT}}"
        self._latest[kind] = max(name, self._latest.get(kind, name))

    def _add_part(
        self,
        kind: PartKind,
        key: str,
        name: str,
        lines: list[bytes],
        on_read: Callable[[int], None],
    ) -> None:
        """Fold a part, unless it was folded already as a part or within another one."""
        if self._knows(kind, name):
            return
        part = f"{kind}/{name}"
        if kind == "jobs":
            listed = [record["job_id"] for record, _ in self._parse(key, lines)]
            with self._map_disk_errors():
                self._table.add_listed(part, listed)
        elif kind == "redriven":
            rows = self._redriven_rows(key, lines)
            with self._map_disk_errors():
                self._table.fold(part, rows)
        else:
            rows = self._result_rows(key, lines)
            with self._map_disk_errors():
                self._table.fold(part, rows)
            on_read(len(rows))

    def _redriven_rows(self, key: str, lines: list[bytes]) -> list[Row]:
        """Return the failures of a part that were sent again."""
        rows = []
        for record, _ in self._parse(key, lines):
            try:
                rows.append(Row(record["job_id"], REDRIVEN, float(record["failed_at"])))
            except (ValueError, KeyError, TypeError) as error:
                raise self._folder.damaged_part(key, error) from error
        return rows

    def _result_rows(self, key: str, lines: list[bytes]) -> list[Row]:
        """Return the results of a part, and keep the records that are to be kept."""
        rows: list[Row] = []
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
        return rows

    def _parse(self, key: str, lines: list[bytes]) -> Iterator[tuple[Record, bytes]]:
        for line in lines:
            try:
                record = orjson.loads(line)
                record["job_id"]
            except (ValueError, KeyError, TypeError) as error:
                raise self._folder.damaged_part(key, error) from error
            yield record, line

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


def _row(record: Record, position: int | None, length: int) -> Row:
    """Return the row of a result. Raise ValueError, KeyError or TypeError if it is malformed."""
    status, cutout = record["status"], record.get("cutout")
    return Row(
        record["job_id"],
        STATUSES[status],
        datetime.fromisoformat(record["finished_at"]).timestamp(),
        (record.get("code") or "unknown") if status == "failed" else "",
        cutout["mask_confidence"] if cutout else None,
        position,
        length,
    )
