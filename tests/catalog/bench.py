"""A consumer of catalog jobs between a real Postgres, SQS and S3, with a pipeline of the test's."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from ingest.local.aws import LocalAws
from ingest.sqs.queue import SqsQueue
from serve_app.aws import aws_client
from serve_app.config import AppConfig
from serve_app.contracts.job import CatalogJob
from serve_app.storage import open_store
from tests.catalog.catalog_bench import CatalogBench, bench_settings
from tests.catalog.collection import Collection
from tests.catalog.stand_in_pipeline import jpeg


class Bench(CatalogBench):
    """A bench with a queue and a bucket of its own in a local AWS."""

    def __init__(self, aws: LocalAws, collection: Collection, **queue: Any) -> None:
        bucket = f"b-{uuid.uuid4().hex[:12]}"
        aws.create_bucket(bucket)
        self.aws = aws
        self.s3 = aws_client("s3", aws.aws)
        self.sqs = aws_client("sqs", aws.aws)
        self.url = aws.create_queue(bucket)
        self.dead_url = f"{self.url}-dead"
        used = {"url": self.url, "stop_grace_s": 5, **queue}
        settings = bench_settings(collection.url, bucket, used, part_interval_s=0.2)
        config = AppConfig.load({"aws.endpoint_url": aws.endpoint_url, **settings})
        super().__init__(collection, config, open_store(config))

    def upload_original(self, key: str) -> None:
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=jpeg())

    def send_body(self, body: str) -> None:
        self.sqs.send_message(QueueUrl=self.url, MessageBody=body)

    @asynccontextmanager
    async def open_queue(self) -> AsyncIterator[SqsQueue]:
        assert self.config.queue is not None
        queue = await SqsQueue.open(self.config.queue, self.config.aws)
        try:
            yield queue
        finally:
            await queue.close()

    def has_messages(self) -> bool:
        # Twice: a message that becomes visible between the two counts is in neither.
        return bool(self.backlog() or self.backlog())

    def backlog(self, url: str | None = None) -> int:
        """Return how many messages the queue of the bench or another one has."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.sqs.get_queue_attributes(QueueUrl=url or self.url, AttributeNames=names)
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
