"""A consumer of catalog jobs between a real Postgres, SQS and S3, with a pipeline of the test's."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from ingest.consumer.consumer import Consumer
from ingest.local.aws import LocalAws
from ingest.messages.build import catalog_message_body
from ingest.runs.folder import RunFolder
from ingest.runs.ledger import read_outcomes
from ingest.sqs.queue import SqsQueue
from serve_app.aws import aws_client
from serve_app.config import AppConfig
from serve_app.contracts.job import CatalogJob
from serve_app.contracts.outcome import Outcome
from serve_app.storage import open_store
from tests.catalog.collection import Collection
from tests.catalog.consuming import consuming_catalog
from tests.catalog.stand_in_pipeline import Process, StandInPipeline, jpeg

__all__ = ["PATIENCE_S", "Bench", "Process", "StandInPipeline", "in_run", "jpeg"]

PATIENCE_S = 200.0


class Bench:
    """One queue, one bucket and one database."""

    def __init__(self, aws: LocalAws, collection: Collection, **queue: Any) -> None:
        self.aws = aws
        self.collection = collection
        self.bucket = f"b-{uuid.uuid4().hex[:12]}"
        aws.create_bucket(self.bucket)
        self.s3 = aws_client("s3", aws.aws)
        self.sqs = aws_client("sqs", aws.aws)
        self.url = aws.create_queue(self.bucket)
        self.dead_url = f"{self.url}-dead"
        settings = {
            "url": self.url,
            "visibility_timeout_s": 30,
            "long_poll_s": 0,
            "max_in_flight": 8,
            "retry_base_s": 0.2,
            "retry_max_s": 2,
            "stop_grace_s": 5,
        }
        self.config = AppConfig.load(
            {
                "aws.endpoint_url": aws.endpoint_url,
                "queue": {**settings, **queue},
                "ledger": {"bucket": self.bucket, "part_interval_s": 0.2},
                "catalog": {
                    "database_url": collection.url,
                    "images_bucket": self.bucket,
                    "cdn_domain": "cdn.example",
                    "row_wait_s": 2,
                },
            }
        )
        self.store = open_store(self.config)
        self.pipeline = StandInPipeline(self.store)

    def upload(self, *books: int) -> None:
        """Store the image of every row of books that is no cut-out, and its thumbnail."""
        for book in books:
            for row in self.collection.images(book):
                key = row["s3_key"].removeprefix("books/")
                for name in (f"books/{key}", f"books/thumb_{row['s3_key']}"):
                    self.s3.put_object(Bucket=self.bucket, Key=name, Body=jpeg())

    def send(self, *jobs: CatalogJob) -> None:
        for job in jobs:
            self.sqs.send_message(QueueUrl=self.url, MessageBody=catalog_message_body(job))

    @asynccontextmanager
    async def consuming(self, process: Process | None = None) -> AsyncIterator[Consumer]:
        """Run a consumer as SqsIngest does, until the context ends."""
        config = self.config
        assert config.queue is not None
        queue = await SqsQueue.open(config.queue, config.aws)
        process = process or self.pipeline.process
        try:
            async with consuming_catalog(config, queue, self.store, process) as consumer:
                yield consumer
        finally:
            await queue.close()

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
        # Twice: a message that becomes visible between the two counts is in neither.
        while self.backlog() or self.backlog():
            assert time.monotonic() < until, "messages are left"
            time.sleep(0.05)

    def backlog(self) -> int:
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=names)
        return sum(int(found["Attributes"][name]) for name in names)

    def dead_letters(self) -> list[tuple[str, dict[str, Any]]]:
        """Return the code and the body of each dead letter."""
        answer = self.sqs.receive_message(
            QueueUrl=self.dead_url, MaxNumberOfMessages=10, MessageAttributeNames=["All"]
        )
        return [
            (each["MessageAttributes"]["foreedge.code"]["StringValue"], json.loads(each["Body"]))
            for each in answer.get("Messages", [])
        ]

    def records(self, run_id: str) -> list[Outcome]:
        assert self.config.ledger is not None
        return list(read_outcomes(RunFolder(self.store, self.config.ledger, run_id)))

    def objects(self) -> dict[str, str]:
        """Return the type of every object below ``books/``, by key."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix="books/"
        )
        names = [item["Key"] for page in pages for item in page.get("Contents", [])]
        return {
            name: self.s3.head_object(Bucket=self.bucket, Key=name)["ContentType"] for name in names
        }


def in_run(job: CatalogJob, run_id: str = "r1") -> CatalogJob:
    return job.model_copy(update={"run_id": run_id})
