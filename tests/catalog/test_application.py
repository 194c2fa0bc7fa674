"""A catalog message through the whole application: Ray, SqsIngest, the pipeline and a model."""

from __future__ import annotations

import io
import time
from typing import Any

import httpx
import pytest
from PIL import Image as Pillow

from ingest.local.application import serving
from ingest.local.ports import free_port
from serve_app.models.folio.synthetic.photograph import draw_photograph
from tests.catalog.bench import PATIENCE_S, Bench
from tests.catalog.collection import Collection, Record, photographs


def ended(collection: Collection, job: Any) -> Record:
    until = time.monotonic() + PATIENCE_S
    while (row := collection.job(job))["status"] not in ("completed", "failed"):
        assert time.monotonic() < until, row
        time.sleep(0.2)
    return row


@pytest.mark.slow
def test_a_message_of_the_collection_ends_as_a_picture_of_its_book(
    bench: Bench, collection: Collection
) -> None:
    book, [source, other] = collection.add_book(*photographs(2))
    file = io.BytesIO()
    drawn = draw_photograph(7, width=480, height=400, kind="book").image
    Pillow.fromarray(drawn).save(file, "JPEG", quality=92)
    key = f"books/{collection.images(book)[0]['s3_key']}"
    bench.s3.put_object(Bucket=bench.bucket, Key=key, Body=file.getvalue())
    args = {
        "models": ["folio"],
        "aws": {"endpoint_url": bench.aws.endpoint_url},
        "queue": {"url": bench.url, "long_poll_s": 1},
        "ledger": {"bucket": bench.bucket, "part_interval_s": 0.3},
        "catalog": {"database_url": collection.url, "images_bucket": bench.bucket},
    }
    empty, [lost] = collection.add_book(*photographs(1))
    job, failing = collection.queue(book, other), collection.queue(empty, lost)
    with serving(args, port=free_port(), quiet=True) as endpoints:
        bench.send(job, failing)
        assert ended(collection, job)["status"] == "completed"
        assert ended(collection, failing)["failure_reason"].startswith("source_not_found: ")
        health = httpx.get(f"{endpoints.http}/readyz").json()["ingest"]
        assert health["healthy"], health
        assert health["catalog"]["reason"] is None
        assert "pending" not in health["catalog"]["jobs"]
    [made, *others] = collection.order(book)
    assert others == [other, source]
    [row] = collection.rows("SELECT * FROM book_images WHERE id = %s", made)
    for prefix, kind, size in (("", "PNG", (480, 400)), ("thumb_", "JPEG", (300, 250))):
        body = bench.s3.get_object(Bucket=bench.bucket, Key=f"books/{prefix}{row['s3_key']}")
        image = Pillow.open(io.BytesIO(body["Body"].read()))
        assert (image.format, image.mode, image.size) == (kind, "RGB", size)
    assert collection.job(job)["model_used"] == "folio"
