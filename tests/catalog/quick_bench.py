"""A consumer of catalog jobs on a real Postgres, with a queue in memory and files as objects.

It does what ``Bench`` does without a server for SQS and S3, for tests that need many deliveries.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from serve_app.config import AppConfig
from serve_app.storage.local import LocalStore
from serve_app.storage.protocol import ObjectInfo
from tests.catalog.catalog_bench import CatalogBench, bench_settings
from tests.catalog.collection import Collection
from tests.catalog.stand_in_pipeline import jpeg
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


class QuickBench(CatalogBench):
    """A bench without servers for SQS and S3."""

    def __init__(
        self, folder: Path, collection: Collection, url: str | None = None, **queue: Any
    ) -> None:
        """Open nothing yet.

        Args:
            folder: Folder of the objects, which benches of several processes may share.
            collection: The application's side of the database.
            url: URL of the database with the consumer's login. None for that of the application.
            **queue: Settings of the queue.
        """
        bucket = "collection"
        (folder / bucket).mkdir(exist_ok=True)
        used = {"url": "https://sqs/q", "stop_grace_s": 0.1, **queue}
        settings = bench_settings(url or collection.url, bucket, used, part_interval_s=0.02)
        super().__init__(collection, AppConfig.load(settings), FileStore(folder))
        self.queue = InMemoryQueue(time.monotonic, max_receives=3, latency_s=0.001)

    def upload_original(self, key: str) -> None:
        self.store.put(self.bucket, key, jpeg(), "image/jpeg")

    def send_body(self, body: str) -> None:
        self.queue.send(body)

    @asynccontextmanager
    async def open_queue(self) -> AsyncIterator[InMemoryQueue]:
        yield self.queue

    def has_messages(self) -> bool:
        return bool(self.queue.stored)

    def dead_letters(self) -> list[tuple[str | None, dict[str, Any]]]:
        """Return the code and the body of each dead letter."""
        return [(each.code, json.loads(each.body)) for each in self.queue.dead]

    def objects(self) -> set[str]:
        """Return the keys of the objects below ``books/``."""
        return set(self.store.keys(self.bucket, "books/"))
