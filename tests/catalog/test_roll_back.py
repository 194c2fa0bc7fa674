"""A roll-back in the middle of 200 jobs: the old worker ends every one of them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ingest.cli.main import app
from ingest.local.aws import LocalAws
from serve_app.contracts.job import CatalogJob
from tests.catalog.bench import Bench
from tests.catalog.collection import Collection, photographs
from tests.catalog.old_worker import OldWorker

JOBS = 200
PATIENCE_S = 400.0
"""Longest wait, in seconds, of which a quiet machine needs a tenth."""


def settings_of(bench: Bench) -> dict[str, Any]:
    queue = bench.config.queue
    assert queue is not None
    return {
        "aws": {"endpoint_url": bench.aws.endpoint_url},
        "queue": {"url": bench.url, "visibility_timeout_s": 10, "long_poll_s": 0},
        "ledger": {"bucket": bench.bucket, "part_interval_s": 0.2},
        "catalog": {"database_url": bench.collection.url, "images_bucket": bench.bucket},
    }


def states(collection: Collection) -> dict[str, int]:
    found = collection.rows("SELECT status, count(*) FROM image_processing_jobs GROUP BY status")
    return {row["status"]: row["count"] for row in found}


def drain(bench: Bench, worker: OldWorker) -> None:
    """Let the old worker serve the queue until it is empty."""
    until = time.monotonic() + PATIENCE_S
    while bench.backlog() or bench.backlog():
        assert time.monotonic() < until, "messages are left"
        answer = bench.sqs.receive_message(
            QueueUrl=bench.url, MaxNumberOfMessages=10, VisibilityTimeout=10
        )
        for message in answer.get("Messages", []):
            if worker.deliver(CatalogJob.model_validate_json(message["Body"])):
                receipt = message["ReceiptHandle"]
                bench.sqs.delete_message(QueueUrl=bench.url, ReceiptHandle=receipt)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_the_old_worker_ends_all_jobs(
    how: signal.Signals, aws: LocalAws, collection: Collection, tmp_path: Path
) -> None:
    bench = Bench(aws, collection)
    books = [collection.add_book(*photographs(1)) for _ in range(JOBS)]
    bench.upload(*(book for book, _ in books))
    bench.send(*(collection.queue(book, images[0]) for book, images in books))
    settings = settings_of(bench)
    worker = subprocess.Popen(
        [sys.executable, "-m", "tests.catalog.consuming", json.dumps(settings)]
    )
    until = time.monotonic() + PATIENCE_S
    while states(collection).get("completed", 0) < JOBS / 4:
        assert time.monotonic() < until, states(collection)
        time.sleep(0.05)
    worker.send_signal(how)
    assert worker.wait(PATIENCE_S) == (0 if how is signal.SIGTERM else -signal.SIGKILL)
    stopped = states(collection)
    assert stopped["completed"] < JOBS
    # A consumer that is stopped gives its jobs back. One that is killed cannot.
    assert ("processing" in stopped) == (how is signal.SIGKILL), stopped
    file = tmp_path / "settings.yaml"
    file.write_text(json.dumps(settings))
    answer = CliRunner().invoke(app, ["catalog", "release", "--config", str(file), "--json"])
    assert json.loads(answer.output) == {"released": stopped.get("processing", 0)}
    drain(bench, OldWorker(collection.url, bench.store, bench.bucket))
    assert states(collection) == {"completed": JOBS}
    for book, images in books:
        assert collection.order(book)[-1] == images[0]
        assert len(collection.images(book)) == 2
