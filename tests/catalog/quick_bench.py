"""A consumer of catalog jobs on a real Postgres, with a queue in memory and files as objects.

It does what ``Bench`` does without a server for SQS and S3, for tests that need many deliveries.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ingest.consumer.consumer import Consumer
from ingest.messages.build import catalog_message_body
from ingest.runs.folder import RunFolder
from ingest.runs.ledger import read_outcomes
from serve_app.config import AppConfig
from serve_app.contracts.job import CatalogJob
from serve_app.contracts.outcome import Outcome
from serve_app.serving.metrics import UNRECORDED, Metrics
from serve_app.storage.local import LocalStore
from serve_app.storage.protocol import ObjectInfo
from tests.catalog.bench import PATIENCE_S
from tests.catalog.collection import Collection
from tests.catalog.consuming import consuming_catalog
from tests.catalog.stand_in_pipeline import Process, StandInPipeline, jpeg
from tests.support.in_memory_queue import InMemoryQueue


class FileStore(LocalStore):
    """Files as objects that also keep the model of a result, as S3 does in the metadata."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._models: dict[tuple[str, str], str | None] = {}

    def put_if_absent(
        self, bucket: str, key: str, data: bytes, media_type: str, *, model: str | None = None
    ) -> bool:
        written = super().put_if_absent(bucket, key, data, media_type, model=model)
        if written:
            self._models[bucket, key] = model
        return written

    def head(self, bucket: str, key: str, version_id: str | None = None) -> ObjectInfo | None:
        info = super().head(bucket, key, version_id)
        return None if info is None else replace(info, model=self._models.get((bucket, key)))


class QuickBench:
    """One queue, one bucket and one database."""

    def __init__(
        self, folder: Path, collection: Collection, url: str | None = None, **queue: Any
    ) -> None:
        """Open nothing yet.

        Args:
            folder: Empty folder of the objects.
            collection: The application's side of the database.
            url: URL of the database with the consumer's login. None for that of the application.
            **queue: Settings of the queue.
        """
        self.collection = collection
        self.bucket = "collection"
        (folder / self.bucket).mkdir()
        self.config = AppConfig.load(
            {
                "queue": {
                    "url": "https://sqs/q",
                    "visibility_timeout_s": 30,
                    "long_poll_s": 0,
                    "max_in_flight": 8,
                    "retry_base_s": 0.2,
                    "retry_max_s": 2,
                    "stop_grace_s": 0.1,
                    **queue,
                },
                "ledger": {"bucket": self.bucket, "part_interval_s": 0.02},
                "catalog": {
                    "database_url": url or collection.url,
                    "images_bucket": self.bucket,
                    "cdn_domain": "cdn.example",
                    "row_wait_s": 2,
                },
            }
        )
        self.store = FileStore(folder)
        self.pipeline = StandInPipeline(self.store)
        self.metrics: Metrics = UNRECORDED
        self.queue = InMemoryQueue(time.monotonic, max_receives=3, latency_s=0.001)

    def upload(self, *books: int) -> None:
        """Store the image of every row of books, and its thumbnail."""
        for book in books:
            for row in self.collection.images(book):
                key = row["s3_key"].removeprefix("books/")
                for name in (f"books/{key}", f"books/thumb_{row['s3_key']}"):
                    self.store.put(self.bucket, name, jpeg(), "image/jpeg")

    def send(self, *jobs: CatalogJob) -> None:
        for job in jobs:
            self.queue.send(catalog_message_body(job))

    @asynccontextmanager
    async def consuming(self, process: Process | None = None) -> AsyncIterator[Consumer]:
        """Run a consumer as SqsIngest does, until the context ends."""
        process = process or self.pipeline.process
        async with consuming_catalog(
            self.config, self.queue, self.store, process, self.metrics
        ) as consumer:
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
        while self.queue.stored:
            assert time.monotonic() < until, "messages are left"
            time.sleep(0.01)

    def dead_letters(self) -> list[tuple[str | None, dict[str, Any]]]:
        """Return the code and the body of each dead letter."""
        return [(each.code, json.loads(each.body)) for each in self.queue.dead]

    def records(self, run_id: str) -> list[Outcome]:
        assert self.config.ledger is not None
        return list(read_outcomes(RunFolder(self.store, self.config.ledger, run_id)))

    def objects(self) -> set[str]:
        """Return the keys of the objects below ``books/``."""
        return set(self.store.keys(self.bucket, "books/"))
