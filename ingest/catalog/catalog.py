"""The catalog of one consumer: what SqsIngest needs of it, opened from the settings."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from ingest.catalog import rows
from ingest.catalog.catalog_metrics import record_answer, record_counts
from ingest.catalog.database import Database
from ingest.catalog.login import Login
from ingest.catalog.process import CatalogProcess, CatalogRecorder, Process
from ingest.catalog.rows import JobCounts
from ingest.catalog.sweep import sweep_queue
from ingest.catalog.sweep_schedule import SweepSchedule
from ingest.catalog.tables import check_tables
from ingest.catalog.transactions import Transactions
from ingest.catalog.unsent import Wanted
from ingest.runs.ledger import OutcomeSink
from serve_app.config import AwsConfig, CatalogConfig
from serve_app.errors import ForeedgeError
from serve_app.serving.metrics import UNRECORDED, Metrics
from serve_app.storage.protocol import ObjectStore

_logger = logging.getLogger(__name__)

_FRESH_S = 15.0
"""Time, in seconds, for which the numbers of jobs are not counted again."""
_LOOK_S = 1.0
"""Time, in seconds, that a caller waits for the numbers. A database that hangs must not hold it."""


class Catalog:
    """The application's database, its jobs, and its health. Belongs to one event loop."""

    def __init__(
        self,
        config: CatalogConfig,
        aws: AwsConfig,
        store: ObjectStore,
        stale_after_s: float,
        metrics: Metrics = UNRECORDED,
    ) -> None:
        """Open no connection yet.

        Args:
            config: Settings of the catalog.
            aws: Settings of the connection to Secrets Manager.
            store: Object store of the images.
            stale_after_s: Time, in seconds, after which no consumer works on a job any more.
            metrics: Metrics of the process.
        """
        self._metrics = metrics
        self._config = config
        self._aws = aws
        self._store = store
        self._stale_after_s = stale_after_s
        self._database = Database(Login(config, aws), metrics=metrics)
        self._transactions = Transactions(self._database)
        self._health: dict[str, Any] = {"reason": "the database was not asked yet"}
        self._looked_at: float | None = None
        self._look: asyncio.Task[None] | None = None
        self._sweeps: asyncio.Task[None] | None = None

    async def check(self) -> None:
        """Check that the database answers and has the tables.

        Raises:
            InvalidConfig: The tables do not fit, or the login cannot be read.
            DatabaseUnavailable: The database does not answer.
        """
        for warning in await self._transactions.run(check_tables):
            _logger.warning("catalog: %s", warning)

    def process(self, process: Process) -> CatalogProcess:
        """Return the jobs around a function that processes images."""
        return CatalogProcess(process, self._transactions, self._store, self._config)

    def recorder(self, ledger: OutcomeSink) -> CatalogRecorder:
        """Return the rows of final failures before a ledger."""
        return CatalogRecorder(ledger, self._transactions)

    def start_sweeps(self, queue_url: str) -> None:
        """Send the jobs that need a message, every five minutes, until the catalog is closed.

        Args:
            queue_url: URL of the queue.
        """
        schedule = SweepSchedule(
            # Connections of its own, so that no job waits for a sweep.
            Database(Login(self._config, self._aws)),
            sweep_queue(queue_url, self._aws),
            Wanted(self._config.lost_after_s, self._stale_after_s),
        )
        self._sweeps = asyncio.create_task(schedule.run())

    async def status(self) -> dict[str, Any]:
        """Return the health of the database and the numbers of its jobs. It never raises.

        Returns:
            ``reason`` (None if all is well), ``latency_ms`` of one transaction, ``jobs`` by state,
            ``oldest_pending_s``, and ``stale`` jobs.
        """
        loop = asyncio.get_running_loop()
        if self._looked_at is None or loop.time() >= self._looked_at + _FRESH_S:
            if self._look is None or self._look.done():
                self._look = asyncio.create_task(self._look_now())
            await asyncio.wait({self._look}, timeout=_LOOK_S)
        trouble = self._database.trouble
        return self._health if trouble is None else {**self._health, "reason": trouble}

    async def record(self) -> None:
        """Record the health of the database and the numbers of its jobs as metrics."""
        record_answer(self._metrics, (await self.status())["reason"])

    def close(self) -> None:
        """Close the connections."""
        for task in (self._look, self._sweeps):
            if task is not None:
                task.cancel()
        self._transactions.close()

    async def _look_now(self) -> None:
        began_s = time.monotonic()
        try:
            await self._transactions.run(check_tables)
            answered_s = time.monotonic()
            counts = await self._transactions.run(
                lambda connection: rows.count_jobs(connection, self._stale_after_s)
            )
        except ForeedgeError as error:
            self._health = {"reason": f"{error.code}: {error.message}"}
        else:
            self._health = _healthy(counts, (answered_s - began_s) * 1000)
            record_counts(self._metrics, counts)
        self._looked_at = asyncio.get_running_loop().time()


def _healthy(counts: JobCounts, latency_ms: float) -> dict[str, Any]:
    return {
        "reason": None,
        "latency_ms": round(latency_ms, 1),
        "jobs": counts.by_state,
        "oldest_pending_s": counts.oldest_pending_s,
        "stale": counts.stale,
    }
