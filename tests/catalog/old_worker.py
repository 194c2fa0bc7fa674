"""A model of the worker that Foreedge replaces, with its faults.

It is written from the description of that worker and shares no code with it or with ``ingest``. The
tests run it next to ours: on the scenario of each fault, so that an assertion that cannot fail is
found, and as the worker that takes over after a roll-back.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg
from botocore.exceptions import ClientError
from psycopg.rows import dict_row

from serve_app.contracts.job import CatalogJob
from serve_app.errors import ForeedgeError
from serve_app.storage.protocol import ObjectStore
from tests.catalog.collection import Record

Cut = Callable[[str], object]
"""Cuts out an image with the model of a name, or raises."""
MODELS = ("u2net-alpha", "u2net-alpha", "isnet-general-use")
"""Models in the order in which they are tried, the first one twice."""
MAX_RECEIVES = 3
_TYPES = ("title_page", "binding", "cover", "spine")


class OldError(RuntimeError):
    """The old worker raised. It caught every error, of which these are the ones in the model."""


class Died(BaseException):
    """The process of the worker was killed."""


_CAUGHT = (OldError, ForeedgeError, psycopg.Error)
"""Errors that reach the handlers of the model, which caught all errors alike."""


def nothing(*_: object) -> None:
    """Do nothing."""


def object_key(s3_key: str) -> str:
    """Return the key in the bucket. The worker adds the folder if it is missing."""
    return s3_key if s3_key.startswith("books/") else f"books/{s3_key}"


def thumbnail_key(s3_key: str) -> str:
    """Return the key of a thumbnail."""
    return f"books/thumb_{s3_key}"


@dataclass
class OldWorker:
    """The worker, as one invocation for each message."""

    url: str
    """URL of the database."""
    store: ObjectStore
    """Object store of the images."""
    bucket: str
    """Bucket of the images."""
    cut: Cut = nothing
    """Stands for a model. It may raise, and may kill the worker with ``Died``."""
    thumbnail: Callable[[str], str | None] = thumbnail_key
    """Key of the thumbnail of an ``s3_key``. None for a version that made none."""
    uploaded: Callable[[], object] = nothing
    """Called between the upload and the rows."""
    seen: Callable[[], object] = nothing
    """Called between the reading of the order and the writing of it."""

    @classmethod
    def start(cls, environment: Mapping[str, str], store: ObjectStore) -> OldWorker:
        """Return the worker of an environment. An empty name is a name like any other."""
        return cls(environment.get("DATABASE_URL", ""), store, environment.get("IMAGES_BUCKET", ""))

    def invoke(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer to an invocation: of the smoke test, or of the queue."""
        if event.get("smoke_test"):
            # Before anything is loaded or opened.
            return {"statusCode": 200}
        failed = [
            {"itemIdentifier": record["messageId"]}
            for record in event["Records"]
            if not self.deliver(CatalogJob.model_validate_json(record["body"]))
        ]
        return {"batchItemFailures": failed}

    def deliver(self, job: CatalogJob) -> bool:
        """Return whether the message of a job is acknowledged."""
        with psycopg.connect(self.url, row_factory=dict_row) as connection:
            found = connection.execute(
                "SELECT status FROM image_processing_jobs WHERE id = %s", [job.job_id]
            ).fetchone()
            if found is None:
                return False
            if found["status"] in ("processing", "completed"):
                return True
            # The row was read without a lock.
            connection.execute(
                "UPDATE image_processing_jobs SET status = 'processing', attempt_count = 1,"
                " updated_at = now() WHERE id = %s",
                [job.job_id],
            )
            connection.commit()
            try:
                self._work(connection, job)
            except _CAUGHT as error:
                connection.rollback()
                connection.execute(
                    "UPDATE image_processing_jobs SET status = 'failed', failure_reason = %s,"
                    " updated_at = now(), completed_at = now() WHERE id = %s",
                    [str(error)[:1_000], job.job_id],
                )
                return False
        return True

    def _work(self, connection: psycopg.Connection[Record], job: CatalogJob) -> None:
        images = connection.execute(
            "SELECT * FROM book_images WHERE book_id = %s FOR UPDATE", [job.book_id]
        ).fetchall()
        source = choose(images, job.image_id)
        if source is None:
            raise OldError("No images")
        model = self._try_models(connection, job)
        s3_key = f"{job.book_id}_processed_{uuid.uuid4()}.png"
        data = self.store.get(self.bucket, object_key(source["s3_key"]))
        if (small := self.thumbnail(s3_key)) is not None:
            self.store.put(self.bucket, small, data, "image/jpeg")
        self.store.put(self.bucket, object_key(s3_key), data, "image/png")
        self.uploaded()
        self._write(connection, job, source["id"], s3_key, model)

    def _try_models(self, connection: psycopg.Connection[Record], job: CatalogJob) -> str:
        for attempt, model in enumerate(MODELS, 1):
            connection.execute(
                "UPDATE image_processing_jobs SET attempt_count = %s WHERE id = %s",
                [attempt, job.job_id],
            )
            # The lock on the images ends here, seconds before the write that it is to protect.
            connection.commit()
            try:
                self.cut(model)
            except _CAUGHT:
                continue
            return model
        raise OldError("All processing attempts failed")

    def _write(
        self,
        connection: psycopg.Connection[Record],
        job: CatalogJob,
        source_id: int,
        s3_key: str,
        model: str,
    ) -> None:
        present = connection.execute(
            "SELECT id FROM book_images WHERE book_id = %s ORDER BY display_order", [job.book_id]
        ).fetchall()
        self.seen()
        others = [row["id"] for row in present if row["id"] != source_id]
        if len(others) == len(present):
            raise OldError("Could not refresh instance '<BookImage at 0x7f0>'")
        made = connection.execute(
            "INSERT INTO book_images"
            " (book_id, s3_key, display_order, is_primary, is_background_processed)"
            " VALUES (%s, %s, 0, true, true) RETURNING id",
            [job.book_id, s3_key],
        ).fetchone()
        assert made is not None
        for position, image_id in enumerate([*others, source_id], 1):
            connection.execute(
                "UPDATE book_images SET display_order = %s, is_primary = false WHERE id = %s",
                [position, image_id],
            )
        # The reason of an earlier failure stays.
        connection.execute(
            "UPDATE image_processing_jobs SET status = 'completed', model_used = %s,"
            " processed_image_id = %s, completed_at = now(), updated_at = now() WHERE id = %s",
            [model, made["id"], job.job_id],
        )


def choose(images: list[Record], asked: int | None) -> Record | None:
    """Return the image that is cut out. Equals come in whatever order the database has them."""
    originals = [row for row in images if not row["is_background_processed"]]
    for kind in _TYPES:
        for row in originals:
            if row["image_type"] == kind:
                return row
    rest = [row for row in originals if row["is_primary"]]
    rest += [row for row in originals or images if row["id"] == asked]
    return next(iter(rest + originals + images), None)


@dataclass
class OldSweep:
    """The function that sends the jobs whose message was never sent."""

    url: str
    """URL of the database."""
    send: Callable[[str], object]
    """Sends the body of a message, or raises."""
    committed: Callable[[], object] = field(default=nothing)
    """Called after each commit."""

    def run(self) -> dict[str, int]:
        """Send up to 50 jobs, and return the counts of the sweep."""
        counts = dict.fromkeys(("succeeded", "still_failing", "permanently_failed"), 0)
        with psycopg.connect(self.url, row_factory=dict_row) as connection:
            rows = connection.execute(
                "SELECT * FROM image_processing_jobs WHERE status = 'queue_failed'"
                " AND queue_retry_count < 3 ORDER BY created_at LIMIT 50 FOR UPDATE SKIP LOCKED"
            ).fetchall()
            for row in rows:
                counts[self._send_again(connection, row)] += 1
                # One commit for each row, of which the first frees the locks of all.
                connection.commit()
                self.committed()
        return counts

    def _send_again(self, connection: psycopg.Connection[Record], row: Record) -> str:
        body = {
            "job_id": str(row["id"]),
            "book_id": row["book_id"],
            "image_id": row["source_image_id"],
        }
        changes: dict[str, Any] = {"status": "pending", "queue_retry_count": 0}
        result = "succeeded"
        try:
            self.send(json.dumps(body))
        except _CAUGHT:
            tries = row["queue_retry_count"] + 1
            ended = tries >= MAX_RECEIVES
            result = "permanently_failed" if ended else "still_failing"
            status = "permanently_failed" if ended else "queue_failed"
            changes = {"status": status, "queue_retry_count": tries}
        connection.execute(
            "UPDATE image_processing_jobs SET status = %s, queue_retry_count = %s,"
            " updated_at = now() WHERE id = %s",
            [*changes.values(), row["id"]],
        )
        return result


def queue_health(sqs: Any, name: str) -> str:
    """Return what the application's health check says of a queue: what SQS says of it."""
    try:
        url = sqs.get_queue_url(QueueName=name)["QueueUrl"]
        sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"])
    except ClientError as error:
        return str(error)
    return "healthy"
