"""Whether a run lost anything: every job has an outcome, and every outcome its object.

The jobs are those of the run's list in the ledger, the outcomes its records, and the objects what
a listing of the results says. Nothing of this is held in memory; see ``records``.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Self

from ingest.runs.folder import RunFolder
from ingest.runs.job_list import JobList
from ingest.runs.manifest import RunManifest
from ingest.runs.records import FAILED, REDRIVEN, Record, Records
from ingest.sources.base import Entry
from serve_app.storage.protocol import ObjectStore

_PAGE = 1_000
_CACHE_KIB = 64 * 1024


@dataclass(frozen=True, slots=True)
class Verified:
    """What a verification found, in numbers."""

    jobs: int
    """Jobs of the run's list."""
    listed: bool
    """Whether that list is complete."""
    ended: int
    """Jobs of the list with an outcome; exactly one, after duplicate records are folded."""
    failed: int
    """Those whose outcome is a failure."""
    duplicates: int
    """Records beyond one for each job: deliveries that came twice, and redrives."""
    strange: int
    """Outcomes of jobs that are not in the list."""
    objects: int
    """Objects that the outcomes name."""
    without_outcome: int
    unsent: int
    """Those of them that were not put on the queue yet, as far as is known."""
    without_object: int
    """Jobs whose outcome names an object that is not there."""

    @property
    def sound(self) -> bool:
        """Whether nothing is missing."""
        return self.listed and not self.without_outcome and not self.without_object


class Missing(NamedTuple):
    """A job of which something is missing."""

    entry: Entry
    problem: str
    """``no_outcome`` or ``no_object``."""


class Verification:
    """A run against its list and its objects. A context manager: it has temporary files."""

    def __init__(self, folder: RunFolder, manifest: RunManifest) -> None:
        """Begin; see ``run``."""
        self._store = folder.store
        self._manifest = manifest
        self._jobs = JobList(folder)
        self._objects = _Objects()
        self._some_absent = False
        self._read = 0
        self._records = Records(folder, on_record=self._take)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the temporary files."""
        self._records.close()
        self._objects.close()

    def run(self, on_step: Callable[[str], None] = lambda _: None) -> Verified:
        """Compare everything; blocks.

        Args:
            on_step: Called with what is done now, for people.

        Raises:
            ForeedgeError: The store refuses or does not answer, or the ledger is damaged.
        """
        self._records.update(lambda _: on_step(f"Reading the ledger: {self._read:,} records"))
        objects = self._objects.count()
        on_step(f"Looking for {objects:,} objects")
        self._some_absent = self._objects.look(self._store)
        on_step("Comparing with the list of jobs")
        jobs = ended = failed = without_object = 0
        for _, rank, gone in self._standing():
            jobs += 1
            if rank is not None and rank != REDRIVEN:
                ended += 1
                failed += rank == FAILED
                without_object += gone
        ranks = self._records.counts().by_rank
        sent = self._jobs.sent()
        with_outcome = ranks.total() - ranks[REDRIVEN]
        return Verified(
            jobs=jobs,
            listed=self._manifest.complete and jobs == self._manifest.jobs,
            ended=ended,
            failed=failed,
            duplicates=self._read - with_outcome - ranks[REDRIVEN],
            strange=with_outcome - ended,
            objects=objects,
            without_outcome=jobs - ended,
            unsent=jobs - sent.jobs if sent and not sent.complete else 0,
            without_object=without_object,
        )

    def missing(self) -> Iterator[Missing]:
        """Yield the jobs of which something is missing, in the order of the list; blocks."""
        for entry, rank, gone in self._standing():
            if rank is None or rank == REDRIVEN:
                yield Missing(entry, "no_outcome")
            elif gone:
                yield Missing(entry, "no_object")

    def _standing(self) -> Iterator[tuple[Entry, int | None, bool]]:
        """Yield each job of the list with its rank, and whether its object is absent."""
        for entry in self._jobs.entries():
            job_id = entry.job_id or ""
            gone = self._some_absent and self._objects.is_absent(job_id)
            yield entry, self._records.rank(job_id), gone

    def _take(self, record: Record) -> None:
        self._read += 1
        bucket = record.get("output_bucket")
        if record["status"] == "failed" or bucket is None:
            return
        for name in ("output_key", "thumbnail_key"):
            if key := record.get(name):
                self._objects.add(bucket, key, record["job_id"])


class _Objects:
    """The objects that outcomes name, and the jobs of those that are not there."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.executescript(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;"
            f"PRAGMA cache_size = -{_CACHE_KIB};"
            "CREATE TABLE object (bucket TEXT, key TEXT, job_id TEXT,"
            " PRIMARY KEY (bucket, key, job_id)) WITHOUT ROWID;"
            "CREATE TABLE absent (job_id TEXT PRIMARY KEY) WITHOUT ROWID;"
        )
        self._waiting: list[tuple[str, str, str]] = []

    def close(self) -> None:
        """Remove the temporary file."""
        self._db.close()

    def add(self, bucket: str, key: str, job_id: str) -> None:
        """Take one in; ``count`` and ``look`` know all that came before."""
        self._waiting.append((bucket, key, job_id))
        if len(self._waiting) >= _PAGE:
            self._write()

    def count(self) -> int:
        """Return how many there are."""
        self._write()
        [(number,)] = self._db.execute("SELECT count(*) FROM object")
        return int(number)

    def look(self, store: ObjectStore) -> bool:
        """Find out which are not there; return whether any is not; blocks."""
        self._write()
        query = "SELECT bucket, min(key), max(key) FROM object GROUP BY bucket"
        for bucket, first, last in self._db.execute(query).fetchall():
            wanted = self._db.execute(
                "SELECT key, job_id FROM object WHERE bucket = ? ORDER BY key", [bucket]
            )
            prefix = os.path.commonprefix([first, last])  # noqa: RUF071 (keys are not paths)
            for job_id in absent(store, bucket, prefix, wanted):
                self._db.execute("INSERT OR IGNORE INTO absent VALUES (?)", [job_id])
        return self._db.execute("SELECT 1 FROM absent LIMIT 1").fetchone() is not None

    def is_absent(self, job_id: str) -> bool:
        """Return whether a job's object is not there."""
        found = self._db.execute("SELECT 1 FROM absent WHERE job_id = ?", [job_id])
        return found.fetchone() is not None

    def _write(self) -> None:
        self._db.execute("BEGIN")
        self._db.executemany("INSERT OR IGNORE INTO object VALUES (?, ?, ?)", self._waiting)
        self._db.execute("COMMIT")
        self._waiting.clear()


def absent(
    store: ObjectStore, bucket: str, prefix: str, wanted: Iterable[tuple[str, str]]
) -> Iterator[str]:
    """Yield the jobs whose objects are not there; blocks.

    The wanted keys and a listing are both in order, and are gone through side by side. Where a
    page of the listing has none that is wanted, since the results of other runs lie there too, it
    begins anew at the next key that is: there are never more calls than pages, nor than objects.

    Args:
        store: Where they are looked for.
        bucket: Their bucket.
        prefix: Of all the keys.
        wanted: Keys with their jobs, in the order of the keys.
    """
    listing = store.keys(bucket, prefix)
    at = next(listing, None)
    for key, job_id in wanted:
        passed = 0
        while at is not None and at < key:
            passed += 1
            if passed == _PAGE:
                # Lists what is past it: this is as near before a key as a name can be had.
                listing = store.keys(bucket, prefix, key[:-1])
            at = next(listing, None)
        if at != key:
            yield job_id
