"""The retry of ``queue_failed`` jobs for the HTTP endpoint, as the application's own does it."""

from __future__ import annotations

import asyncio
from functools import cached_property

from ingest.catalog.database import Database
from ingest.catalog.login import Login
from ingest.catalog.sweep import FAILING, INVALID, SENT, sweep, sweep_queue
from ingest.catalog.unsent import NEVER_SENT, UNDER_WAY
from ingest.sqs.queue_client import QueueClient
from serve_app.config import AwsConfig, CatalogConfig
from serve_app.contracts.retry import RetryCounts
from serve_app.errors import QueueUnavailable

_MOST_JOBS = 50
"""Number of jobs of one request, which is that of the application's own endpoint."""


class CatalogRetry:
    """The jobs of one database; see ``QueueFailedJobs``.

    It is created when the application is wired, and opens its connections in the replica that
    uses it.
    """

    def __init__(self, catalog: CatalogConfig, queue_url: str, aws: AwsConfig) -> None:
        self._catalog = catalog
        self._queue_url = queue_url
        self._aws = aws

    async def retry(self) -> RetryCounts:
        """See QueueFailedJobs."""
        return await asyncio.to_thread(self._retry)

    @cached_property
    def _database(self) -> Database:
        return Database(Login(self._catalog, self._aws))

    @cached_property
    def _queue(self) -> QueueClient:
        return sweep_queue(self._queue_url, self._aws)

    def _retry(self) -> RetryCounts:
        swept = sweep(self._database, self._queue, NEVER_SENT, limit=_MOST_JOBS)
        # SQS that does not answer is one of the counts.
        if swept.error is not None and not isinstance(swept.error, QueueUnavailable):
            raise swept.error
        ends = swept.ends
        counts = {
            "succeeded": ends[SENT] + ends[UNDER_WAY],
            "still_failing": ends[FAILING],
            "permanently_failed": ends[INVALID],
        }
        return RetryCounts(retried=sum(counts.values()), **counts)
