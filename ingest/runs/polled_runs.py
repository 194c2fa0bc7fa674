"""Counts of runs for clients that poll them over HTTP, in bounded time and memory."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import Executor

from ingest.runs.folder import RunFolder
from ingest.runs.live import LIVE_RUN, named_run_id
from ingest.runs.manifest import RunManifest, read_manifest
from ingest.runs.records import Records
from serve_app.config import LedgerConfig
from serve_app.contracts.submission import RunCounts
from serve_app.errors import SourceNotFound
from serve_app.storage.protocol import ObjectStore

PARTS_PER_REQUEST = 64
"""Number of parts of the ledger that one request reads at most: 64,000 results, in about a
second."""

_MOST_OPEN = 16
_CACHE_KIB = 1024
_FRESH_S = 1.0


class PolledRuns:
    """The runs that clients poll. Belongs to one event loop.

    Requests for the same run share one reading of its ledger, so that counts never go back. The
    least recently polled runs are closed, and read again from the beginning if they are polled
    later.
    """

    def __init__(
        self,
        store: ObjectStore,
        ledger: LedgerConfig,
        executor: Executor,
        *,
        most_open: int = _MOST_OPEN,
    ) -> None:
        """Open no run yet.

        Args:
            store: Object store of the ledger.
            ledger: Bucket and prefix of the ledger.
            executor: Threads to read in.
            most_open: Number of runs to keep open. Each takes up to about 4 MB.
        """
        self._store, self._ledger, self._executor = store, ledger, executor
        self._most_open = most_open
        # Runs that exist, the least recently polled one first.
        self._open: dict[str, _PolledRun] = {}
        self._readings: dict[str, asyncio.Task[RunCounts]] = {}

    @property
    def open_runs(self) -> list[str]:
        """Ids of the runs that are open, the least recently polled one first."""
        return list(self._open)

    async def counts(self, run_id: str) -> RunCounts:
        """Return the counts of a run, after reading at most 64 more parts of its ledger.

        Raises:
            SourceNotFound: The run does not exist.
            StorageUnavailable: The ledger does not answer.
        """
        # Tomorrow's messages without a run are in another folder than today's.
        run_id = named_run_id(run_id)
        reading = self._readings.get(run_id)
        if reading is None:
            reading = self._readings[run_id] = asyncio.create_task(self._read(run_id))
            # Keeps asyncio quiet about an error that no request is left to receive.
            reading.add_done_callback(lambda task: task.cancelled() or task.exception())
        # A request that is cancelled must not cancel the reading of the others, nor leave a thread
        # behind that reads while the next request does.
        return await asyncio.shield(reading)

    async def _read(self, run_id: str) -> RunCounts:
        run = self._open.pop(run_id, None)
        if run is None:
            run = _PolledRun(RunFolder(self._store, self._ledger, run_id))
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, run.read)
        finally:
            del self._readings[run_id]
            self._keep(run_id, run)

    def _keep(self, run_id: str, run: _PolledRun) -> None:
        """Keep a run open if it exists, so that guessed names do not close the others."""
        if run.exists and not run.unusable:
            self._open[run_id] = run
        else:
            run.close()
        while len(self._open) > self._most_open:
            self._open.pop(next(iter(self._open))).close()


class _PolledRun:
    """One run, read in steps that each continue where the last one ended."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder
        self._manifest: RunManifest | None = None
        self._records = Records(folder, cache_kib=_CACHE_KIB)
        self._read_at: float | None = None
        self.exists = folder.run_id == named_run_id(LIVE_RUN)
        """Whether the run has a manifest or a result, or is that of today's messages."""

    @property
    def unusable(self) -> bool:
        """Whether the run must be read again from the beginning."""
        return self._records.unusable

    def close(self) -> None:
        """Remove the temporary files."""
        self._records.close()

    def read(self) -> RunCounts:
        """Read some more parts and return the counts. Blocks.

        Raises:
            SourceNotFound: The run does not exist.
            StorageUnavailable: The ledger does not answer.
        """
        fresh = self._read_at is not None and time.monotonic() - self._read_at < _FRESH_S
        if not (fresh and self._is_complete()):
            if not self._is_listed():
                self._read_manifest()
            found = self._records.update(max_parts=PARTS_PER_REQUEST)
            self._read_at = time.monotonic()
            self.exists = self.exists or found
        if not self.exists:
            raise SourceNotFound(f"no run {self._folder.run_id!r} in this ledger")
        return self._counts()

    def _is_listed(self) -> bool:
        return self._manifest is not None and self._manifest.complete

    def _is_complete(self) -> bool:
        listed = self._manifest is None or self._manifest.complete
        return listed and self._records.up_to_date

    def _read_manifest(self) -> None:
        try:
            self._manifest = read_manifest(self._folder)
        except SourceNotFound:
            # A run of other producers' messages has results and no manifest.
            return
        self.exists = True

    def _counts(self) -> RunCounts:
        results = self._records.counts()
        jobs = None if self._manifest is None else self._manifest.jobs
        return RunCounts(
            run_id=self._folder.run_id,
            jobs=jobs,
            counts=results.by_status,
            remaining=None if jobs is None else max(0, jobs - results.ended),
            codes=dict(results.codes.most_common()),
            complete=self._is_complete(),
        )
