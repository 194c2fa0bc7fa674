"""A worker that is killed at every point of a job: the next delivery ends the job, once."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Self

import pytest

from tests.catalog.bench import Bench, in_run
from tests.catalog.collection import Collection, photographs

_NEVER = 10**9
"""Number of a point that no run has."""
DELETED = "after delete of the queue"
PART = "put_if_absent _foreedge/runs/r1/results/"
"""Beginning of the call that stores a part of the ledger."""


def settings_of(bench: Bench) -> str:
    catalog = bench.config.catalog
    assert catalog is not None
    assert catalog.database_url is not None
    return json.dumps(
        {
            "aws.endpoint_url": bench.aws.endpoint_url,
            "queue": {"url": bench.url, "long_poll_s": 0},
            "ledger": {"bucket": bench.bucket, "part_interval_s": 0.01},
            "catalog": {
                "database_url": catalog.database_url.get_secret_value(),
                "images_bucket": bench.bucket,
                "row_wait_s": 1,
            },
        }
    )


class Deliveries:
    """A process whose consumers receive the message, and die at the point that they are given."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._handle = ""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.catalog.crash_worker", settings_of(bench)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=30)

    def deliver(self, deadly: int = _NEVER) -> str:
        """Let a consumer run, and return the point at which it died, or ``end``."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(deadly, file=self._process.stdin, flush=True)
        self._handle, point = (self._process.stdout.readline().strip() for _ in range(2))
        return point

    def expire(self) -> None:
        """End the lease of the consumer that died, as the visibility timeout does later."""
        self._bench.sqs.change_message_visibility(
            QueueUrl=self._bench.url, ReceiptHandle=self._handle, VisibilityTimeout=0
        )


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_crash_at_every_point_leaves_a_job_that_ends_once(
    bench: Bench, collection: Collection
) -> None:
    """The points are found by running the job: a new statement is a new point."""
    book, [source, *_] = collection.add_book(*photographs(3))
    bench.upload(book)
    job = in_run(collection.queue(book, source))
    images, keys = collection.images(book), set(bench.store.keys(bench.bucket, ""))
    died: list[str] = []
    with Deliveries(bench) as deliveries:
        while "end" not in died:
            restore(bench, collection, images, keys)
            bench.send(job)
            point = deliveries.deliver(len(died))
            died.append(point)
            assert point != "failed", died
            # The message is left, unless the consumer died after its deletion.
            is_left = point not in ("end", DELETED)
            assert bench.has_messages() == is_left, point
            if is_left:
                deliveries.expire()
                assert deliveries.deliver() == "end", point
            check(bench, collection, book, source, point)
            check_receives(bench, 2 if is_left else 1, point)
    check_points(died)


def check_points(died: list[str]) -> None:
    """Check that the points are those of a whole job, in the order row, ledger, deletion."""
    text = "\n".join(died)
    for part in (
        "after BEGIN",
        "before UPDATE image_processing_jobs",
        "after UPDATE image_processing_jobs",
        "after WITH book AS",
        "before INSERT INTO book_images, UPDATE book_images, UPDATE image_processing_jobs",
        "after INSERT INTO book_images, UPDATE book_images, UPDATE image_processing_jobs",
        "before COMMIT",
        "before put_if_absent books/thumb_",
        "after put_if_absent books/",
        "before head books/",
        f"before {PART}",
    ):
        assert part in text, text
    [ledger] = [n for n, point in enumerate(died) if point.startswith(f"after {PART}")]
    committed = max(n for n, point in enumerate(died) if point == "after COMMIT")
    assert committed < ledger < died.index("before delete of the queue") < died.index(DELETED), text
    print(f"{len(died)} points")


def restore(
    bench: Bench, collection: Collection, images: list[dict[str, object]], keys: set[str]
) -> None:
    """Put rows and objects back to what they were before the job."""
    collection.execute("DELETE FROM book_images WHERE is_background_processed")
    for row in images:
        collection.execute(
            "UPDATE book_images SET display_order = %s, is_primary = %s WHERE id = %s",
            row["display_order"],
            row["is_primary"],
            row["id"],
        )
    collection.execute("UPDATE image_processing_jobs SET status = 'pending', attempt_count = 0")
    made = set(bench.store.keys(bench.bucket, "")) - keys
    bench.store.delete(bench.bucket, sorted(made))


def check(bench: Bench, collection: Collection, book: int, source: int, point: str) -> None:
    """Check what a naive reader expects of a job that is done."""
    images = collection.images(book)
    assert len(collection.order(book)) == 4, point
    assert images[-1]["id"] == source, point
    [row] = collection.rows("SELECT * FROM image_processing_jobs")
    assert (row["status"], row["failure_reason"]) == ("completed", None), point
    assert row["processed_image_id"] == images[0]["id"], point
    made = [key for key in bench.objects() if "_processed_" in key]
    key = images[0]["s3_key"]
    assert sorted(made) == sorted([f"books/{key}", f"books/thumb_{key}"]), point
    idle = "SELECT 1 FROM pg_stat_activity WHERE state LIKE 'idle in transaction%%'"
    assert collection.rows(idle) == [], point
    assert bench.dead_letters() == [], point


def check_receives(bench: Bench, receives: int, point: str) -> None:
    """Check that a consumer that died has used one receive, and one that was done none."""
    records = bench.records("r1")
    assert {record.status for record in records} <= {"done", "skipped_existing"}, point
    assert max(record.receive_count or 0 for record in records) == receives, point
    assert len(records) <= receives, point
    assert not bench.has_messages(), point
