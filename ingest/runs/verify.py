"""Verification that a run lost nothing: every job has an outcome, and every outcome its object.

The jobs are those of the run's list, the outcomes its records, and the objects those that a
listing of the results finds. None of these are held in memory; see ``records``. A run without a
list, whose messages were not sent by ``foreedge bulk``, has the jobs that ended.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Self

from ingest.runs.folder import RunFolder
from ingest.runs.job_list import JobList
from ingest.runs.ledger import read_outcomes
from ingest.runs.manifest import RunManifest
from ingest.runs.record_table import FAILED, REDRIVEN
from ingest.runs.records import Record, Records
from ingest.sources.base import Entry
from ingest.sources.distinct import Distinct
from serve_app.contracts.outcome import Outcome
from serve_app.errors import InternalError
from serve_app.storage.protocol import ObjectStore

_PAGE = 1_000
_CACHE_KIB = 64 * 1024


@dataclass(frozen=True, slots=True)
class VerificationResult:
    """What a verification found."""

    jobs: int
    """Number of jobs in the run's list. Without a list, the number that the manifest has, or else
    the number of jobs that ended."""
    has_list: bool
    """Whether the run has a list of its jobs."""
    listed: bool
    """Whether that list is complete, if there is one."""
    ended: int
    """Number of listed jobs with an outcome, after duplicate records are folded."""
    failed: int
    """Number of listed jobs whose outcome is a failure."""
    duplicates: int
    """Number of records beyond one for each job, because of repeated deliveries and redrives."""
    unlisted: int
    """Number of outcomes of jobs that are not in the list."""
    objects: int
    """Number of objects that the outcomes name."""
    without_outcome: int
    """Number of listed jobs without an outcome."""
    unsent: int
    """Number of jobs among them that were not put on the queue yet, as far as is known."""
    without_object: int
    """Number of listed jobs whose outcome names an object that does not exist."""

    @property
    def sound(self) -> bool:
        """Whether nothing is missing."""
        return self.listed and not self.without_outcome and not self.without_object


class IncompleteJob(NamedTuple):
    """A job whose outcome or object is missing."""

    entry: Entry
    problem: str
    """``no_outcome`` or ``no_object``."""


class Verification:
    """A comparison of a run with its list and its objects.

    A context manager, because it has temporary files.
    """

    def __init__(self, folder: RunFolder, manifest: RunManifest | None) -> None:
        """Prepare to verify; see ``run``.

        Args:
            folder: Folder of the run.
            manifest: Manifest of the run. None for messages that name no run.
        """
        self._folder = folder
        self._store = folder.store
        self._manifest = manifest
        self._job_list = JobList(folder)
        self._objects = _ExpectedObjects()
        self._objects_missing = False
        self._records_read = 0
        self._has_list = True
        self._records = Records(folder, on_record=self._note_objects, compare_with_list=False)

    def __enter__(self) -> Self:
        """Return the verification itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the temporary files."""
        self._records.close()
        self._objects.close()

    def run(self, on_step: Callable[[str], None] = lambda _: None) -> VerificationResult:
        """Compare everything. Blocks.

        Args:
            on_step: Function to call with a description of each step, for people.

        Raises:
            ForeedgeError: The store refuses or does not answer, or the ledger is damaged.
        """
        self._records.update(
            lambda _: on_step(f"Reading the ledger: {self._records_read:,} records")
        )
        objects = self._objects.count()
        on_step(f"Looking for {objects:,} objects")
        self._objects_missing = self._objects.find_missing(self._store)
        on_step("Comparing with the list of jobs")
        self._has_list = self._job_list.parts() > 0
        return self._compare_with_list() if self._has_list else self._compare_without_list()

    def _compare_with_list(self) -> VerificationResult:
        jobs = ended = failed = without_object = 0
        for _, rank, object_missing in self._compared_jobs():
            jobs += 1
            if rank is not None and rank != REDRIVEN:
                ended += 1
                failed += rank == FAILED
                without_object += object_missing
        results = self._records.counts()
        sent = self._job_list.sent()
        manifest = self._manifest
        return VerificationResult(
            jobs=jobs,
            has_list=True,
            listed=manifest is not None and manifest.complete and jobs == manifest.jobs,
            ended=ended,
            failed=failed,
            duplicates=self._records_read - results.by_rank.total(),
            unlisted=results.ended - ended,
            objects=self._objects.count(),
            without_outcome=jobs - ended,
            unsent=jobs - sent.jobs if sent and not sent.complete else 0,
            without_object=without_object,
        )

    def _compare_without_list(self) -> VerificationResult:
        results = self._records.counts()
        jobs = results.ended if self._manifest is None else self._manifest.jobs
        return VerificationResult(
            jobs=jobs,
            has_list=False,
            # A run of which not even one part is listed has jobs that nobody knows.
            listed=self._manifest is None or self._manifest.complete,
            ended=results.ended,
            failed=results.by_rank[FAILED],
            duplicates=self._records_read - results.by_rank.total(),
            unlisted=0,
            objects=self._objects.count(),
            without_outcome=max(0, jobs - results.ended),
            unsent=0,
            without_object=self._objects.count_missing(),
        )

    def incomplete_jobs(self) -> Iterator[IncompleteJob]:
        """Yield the jobs whose outcome or object is missing, in the order of the list. Blocks.

        Without a list, only jobs that ended are known, and the ledger is read again for them.
        """
        if not self._has_list:
            yield from self._jobs_without_object()
            return
        for entry, rank, object_missing in self._compared_jobs():
            if rank is None or rank == REDRIVEN:
                yield IncompleteJob(entry, "no_outcome")
            elif object_missing:
                yield IncompleteJob(entry, "no_object")

    def _compared_jobs(self) -> Iterator[tuple[Entry, int | None, bool]]:
        """Yield each listed job with its rank, and whether an object of it is missing."""
        for entry in self._job_list.entries():
            job_id = entry.job_id or ""
            object_missing = self._objects_missing and self._objects.is_missing(job_id)
            yield entry, self._records.rank(job_id), object_missing

    def _jobs_without_object(self) -> Iterator[IncompleteJob]:
        if not self._objects_missing:
            return
        seen = Distinct()
        try:
            for outcome in read_outcomes(self._folder):
                if outcome.status == "failed" or not self._objects.is_missing(outcome.job_id):
                    continue
                if seen.add(outcome.job_id):
                    yield IncompleteJob(_entry(outcome), "no_object")
        finally:
            seen.close()

    def _note_objects(self, record: Record) -> None:
        """Remember the objects that a record names."""
        self._records_read += 1
        bucket = record.get("output_bucket")
        if record["status"] == "failed" or bucket is None:
            return
        for name in ("output_key", "thumbnail_key"):
            if key := record.get(name):
                self._objects.add(bucket, key, record["job_id"])


class _ExpectedObjects:
    """The objects that outcomes name, and the jobs whose objects do not exist."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.executescript(
            "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;"
            f"PRAGMA cache_size = -{_CACHE_KIB};"
            "CREATE TABLE object (bucket TEXT, key TEXT, job_id TEXT,"
            " PRIMARY KEY (bucket, key, job_id)) WITHOUT ROWID;"
            "CREATE TABLE missing (job_id TEXT PRIMARY KEY) WITHOUT ROWID;"
        )
        self._waiting: list[tuple[str, str, str]] = []

    def close(self) -> None:
        """Remove the temporary file."""
        self._db.close()

    def add(self, bucket: str, key: str, job_id: str) -> None:
        """Add an object of a job."""
        self._waiting.append((bucket, key, job_id))
        if len(self._waiting) >= _PAGE:
            self._write()

    def count(self) -> int:
        """Return the number of objects."""
        self._write()
        [(number,)] = self._db.execute("SELECT count(*) FROM object")
        return int(number)

    def find_missing(self, store: ObjectStore) -> bool:
        """Look for every object, and return whether any does not exist. Blocks."""
        self._write()
        query = "SELECT bucket, min(key), max(key) FROM object GROUP BY bucket"
        for bucket, first, last in self._db.execute(query).fetchall():
            wanted = self._db.execute(
                "SELECT key, job_id FROM object WHERE bucket = ? ORDER BY key", [bucket]
            )
            prefix = os.path.commonprefix([first, last])  # noqa: RUF071 (keys are not paths)
            for job_id in jobs_without_object(store, bucket, prefix, wanted):
                self._db.execute("INSERT OR IGNORE INTO missing VALUES (?)", [job_id])
        return self._db.execute("SELECT 1 FROM missing LIMIT 1").fetchone() is not None

    def count_missing(self) -> int:
        """Return the number of jobs with an object that does not exist."""
        [(number,)] = self._db.execute("SELECT count(*) FROM missing")
        return int(number)

    def is_missing(self, job_id: str) -> bool:
        """Return whether an object of a job does not exist."""
        found = self._db.execute("SELECT 1 FROM missing WHERE job_id = ?", [job_id])
        return found.fetchone() is not None

    def _write(self) -> None:
        self._db.execute("BEGIN")
        self._db.executemany("INSERT OR IGNORE INTO object VALUES (?, ?, ?)", self._waiting)
        self._db.execute("COMMIT")
        self._waiting.clear()


def _entry(outcome: Outcome) -> Entry:
    source = outcome.source
    if source is None:
        raise InternalError(f"the result of job {outcome.job_id} names no image")
    return Entry(source.bucket, source.key, source.etag, source.version_id, outcome.job_id)


def jobs_without_object(
    store: ObjectStore, bucket: str, prefix: str, wanted: Iterable[tuple[str, str]]
) -> Iterator[str]:
    """Yield the jobs whose objects do not exist. Blocks.

    The wanted keys and a listing are both sorted, and are read in step. The results of other runs
    lie under the same prefix. If a page of the listing has no wanted key, it begins again at the
    next wanted key, so there are never more calls than pages, nor than objects.

    Args:
        store: Object store to look in.
        bucket: Bucket of the objects.
        prefix: Common beginning of all keys.
        wanted: Keys and their jobs, ordered by key.
    """
    listing = store.keys(bucket, prefix)
    at = next(listing, None)
    for key, job_id in wanted:
        passed = 0
        while at is not None and at < key:
            passed += 1
            if passed == _PAGE:
                # A listing begins past a name. This one is the nearest that can be had before key.
                listing = store.keys(bucket, prefix, key[:-1])
            at = next(listing, None)
        if at != key:
            yield job_id
