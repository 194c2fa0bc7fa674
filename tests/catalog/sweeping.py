"""What the tests of sweeps share."""

from __future__ import annotations

import json
from operator import itemgetter
from typing import Any

from ingest.catalog.sweep import Swept, sweep, sweep_queue
from ingest.catalog.unsent import Wanted
from ingest.sqs.queue_client import QueueClient
from tests.catalog.bench import Bench
from tests.catalog.collection import Collection, photographs
from tests.support.fault_proxy import Proxy

DAY_S = 86_400.0
WANTED = Wanted(lost_after_s=DAY_S, stale_after_s=600)


def queue_behind(proxy: Proxy, bench: Bench) -> QueueClient:
    aws = bench.config.aws.model_copy(update={"endpoint_url": proxy.endpoint_url})
    return sweep_queue(bench.url, aws)


def swept(bench: Bench, database: Any, wanted: Wanted = WANTED, **options: Any) -> Swept:
    return sweep(database, sweep_queue(bench.url, bench.config.aws), wanted, **options)


def received(bench: Bench) -> list[dict[str, Any]]:
    """Receive and delete every message, and return their bodies."""
    bodies: list[dict[str, Any]] = []
    while messages := bench.sqs.receive_message(QueueUrl=bench.url, MaxNumberOfMessages=10).get(
        "Messages"
    ):
        bodies += [json.loads(each["Body"]) for each in messages]
        bench.sqs.delete_message_batch(
            QueueUrl=bench.url,
            Entries=[
                {"Id": str(n), "ReceiptHandle": each["ReceiptHandle"]}
                for n, each in enumerate(messages)
            ],
        )
    return bodies


def add_books(collection: Collection, number: int, status: str = "queue_failed") -> list[str]:
    """Add books, each with one job, and return the ids of the jobs, the oldest first."""
    rows = collection.rows(
        "WITH book AS (INSERT INTO books (title) SELECT n::text FROM generate_series(1, %s) n"
        " RETURNING id), image AS (INSERT INTO book_images (book_id, s3_key, display_order,"
        " is_primary) SELECT id, id || '_a.jpg', 0, true FROM book RETURNING id, book_id)"
        " INSERT INTO image_processing_jobs (book_id, source_image_id, status, created_at)"
        " SELECT book_id, id, %s, now() - interval '1 hour' + book_id * interval '1 ms' FROM image"
        " RETURNING id, created_at",
        number,
        status,
    )
    return [str(row["id"]) for row in sorted(rows, key=itemgetter("created_at"))]


def blocked_job(collection: Collection) -> tuple[str, str]:
    """Add the row that stopped the application's sweep, and return its id and that of the other.

    It is ``queue_failed``, older than all others, and its image has an active job.
    """
    book, [image] = collection.add_book(*photographs(1))
    failed = collection.queue(book, image, "queue_failed")
    active = collection.queue(book, image)
    collection.execute(
        "UPDATE image_processing_jobs SET created_at = now() - interval '2 days' WHERE id = %s",
        failed.job_id,
    )
    return failed.job_id, active.job_id


def add_unqueued(collection: Collection, number: int, key: str = "shared.jpg") -> list[int]:
    """Add books that have one image each, all of them the same object, and return their ids."""
    rows = collection.rows(
        "WITH book AS (INSERT INTO books (title) SELECT n::text FROM generate_series(1, %s) n"
        " RETURNING id) INSERT INTO book_images (book_id, s3_key, display_order, is_primary)"
        " SELECT id, %s, 0, true FROM book RETURNING book_id",
        number,
        key,
    )
    return sorted(row["book_id"] for row in rows)
