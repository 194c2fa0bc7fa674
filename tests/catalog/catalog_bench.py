"""What the benches of the catalog share: jobs are sent, consumed and looked at."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from ingest.consumer.consumer import Consumer
from ingest.messages.build import catalog_message_body
from ingest.runs.folder import RunFolder
from ingest.runs.ledger import read_outcomes
from ingest.sqs.queue import Queue
from serve_app.config import AppConfig
from serve_app.contracts.job import CatalogJob
from serve_app.contracts.outcome import Outcome
from serve_app.serving.metrics import UNRECORDED, Metrics
from serve_app.storage.protocol import ObjectStore
from tests.catalog.collection import Collection
from tests.catalog.consuming import consuming_catalog
from tests.catalog.stand_in_pipeline import Process, StandInPipeline

PATIENCE_S = 200.0


class CatalogBench(ABC):
    """One queue, one bucket and one database."""

    def __init__(self, collection: Collection, config: AppConfig, store: ObjectStore) -> None:
        """Open nothing yet.

        Args:
            collection: The application's side of the database.
            config: Settings of the consumer.
            store: Store of its objects.
        """
        assert config.catalog is not None
        self.collection = collection
        self.bucket = config.catalog.images_bucket
        self.config = config
        self.store = store
        self.pipeline = StandInPipeline(store)
        self.metrics: Metrics = UNRECORDED

    @abstractmethod
    def upload_original(self, key: str) -> None:
        """Store an image of the application."""

    @abstractmethod
    def send_body(self, body: str) -> None:
        """Send a message."""

    @abstractmethod
    def open_queue(self) -> AbstractAsyncContextManager[Queue]:
        """Open the queue for a consumer."""

    @abstractmethod
    def has_messages(self) -> bool:
        """Return whether the queue has a message, visible or not."""

    def upload(self, *books: int) -> None:
        """Store the image of every row of books, and its thumbnail."""
        for book in books:
            for row in self.collection.images(book):
                key = row["s3_key"].removeprefix("books/")
                for name in (f"books/{key}", f"books/thumb_{row['s3_key']}"):
                    self.upload_original(name)

    def send(self, *jobs: CatalogJob) -> None:
        for job in jobs:
            self.send_body(catalog_message_body(job))

    @asynccontextmanager
    async def consuming(self, process: Process | None = None) -> AsyncIterator[Consumer]:
        """Run a consumer as SqsIngest does, until the context ends."""
        process = process or self.pipeline.process
        async with (
            self.open_queue() as queue,
            consuming_catalog(self.config, queue, self.store, process, self.metrics) as consumer,
        ):
            yield consumer

    async def serve(self, *jobs: CatalogJob, process: Process | None = None) -> None:
        """Send jobs, and consume until the queue is empty."""
        self.send(*jobs)
        async with self.consuming(process):
            await self.drained()

    async def drained(self) -> None:
        """Return when no message is left."""
        await asyncio.to_thread(self._wait_until_drained)

    def _wait_until_drained(self) -> None:
        until = time.monotonic() + PATIENCE_S
        while self.has_messages():
            assert time.monotonic() < until, "messages are left"
            time.sleep(0.02)

    def records(self, run_id: str) -> list[Outcome]:
        assert self.config.ledger is not None
        return list(read_outcomes(RunFolder(self.store, self.config.ledger, run_id)))


def bench_settings(
    database_url: str, bucket: str, queue: dict[str, Any], part_interval_s: float
) -> dict[str, Any]:
    """Return the settings of a consumer on a bench."""
    fast = {
        "visibility_timeout_s": 30,
        "long_poll_s": 0,
        "max_in_flight": 8,
        "retry_base_s": 0.2,
        "retry_max_s": 2,
    }
    return {
        "queue": fast | queue,
        "ledger": {"bucket": bucket, "part_interval_s": part_interval_s},
        "catalog": {
            "database_url": database_url,
            "images_bucket": bucket,
            "cdn_domain": "cdn.example",
            "row_wait_s": 2,
        },
    }
