"""A worker that is killed at every point of a job: the next delivery ends the job, once."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Self

import pytest

from serve_app.contracts.job import CatalogJob
from tests.catalog.bench import Bench, in_run
from tests.catalog.collection import Collection, photographs

_NEVER = 10**9
"""Number of a point that no run has."""


def settings_of(bench: Bench) -> str:
    catalog = bench.config.catalog
    assert catalog is not None
    assert catalog.database_url is not None
    return json.dumps(
        {
            "aws.endpoint_url": bench.aws.endpoint_url,
            "queue.url": bench.url,
            "ledger": {"bucket": bench.bucket, "part_interval_s": 0.01},
            "catalog": {
                "database_url": catalog.database_url.get_secret_value(),
                "images_bucket": bench.bucket,
                "row_wait_s": 1,
            },
        }
    )


class Deliveries:
    """A process that takes the job again and again, and dies at the point that it is given."""

    def __init__(self, bench: Bench, job: CatalogJob) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.catalog.crash_worker", settings_of(bench),
             job.model_dump_json()],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=30)

    def deliver(self, deadly: int = _NEVER) -> str:
        """Deliver the job, and return the point at which the consumer died, or ``end``."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(deadly, file=self._process.stdin, flush=True)
        return self._process.stdout.readline().strip()


@pytest.mark.slow
def test_a_crash_at_every_point_leaves_a_job_that_ends_once(
    bench: Bench, collection: Collection
) -> None:
    """The points are found by running the job: a new statement is a new point."""
    book, [source, *_] = collection.add_book(*photographs(3))
    bench.upload(book)
    job = in_run(collection.queue(book, source))
    images, objects = collection.images(book), bench.objects()
    died: list[str] = []
    with Deliveries(bench, job) as deliveries:
        while "end" not in died:
            restore(bench, collection, images, objects)
            point = deliveries.deliver(len(died))
            died.append(point)
            assert point != "failed", died
            if point != "end":
                assert deliveries.deliver() == "end"
            check(bench, collection, book, source, point)
    text = "\n".join(died)
    for part in (
        "after BEGIN",
        "before UPDATE image_processing_jobs",
        "after UPDATE image_processing_jobs",
        "after WITH book AS",
        "before INSERT INTO book_images, UPDATE book_images, UPDATE image_processing_jobs",
        "after INSERT INTO book_images, UPDATE book_images, UPDATE image_processing_jobs",
        "before COMMIT",
        "after COMMIT",
        "before put_if_absent books/thumb_",
        "after put_if_absent books/",
        "before put_if_absent _foreedge/runs/r1/results/",
        "after the record",
    ):
        assert part in text, text
    print(f"{len(died)} points")


def restore(
    bench: Bench, collection: Collection, images: list[dict[str, object]], objects: dict[str, str]
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
    for key in bench.objects().keys() - objects.keys():
        bench.s3.delete_object(Bucket=bench.bucket, Key=key)


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
