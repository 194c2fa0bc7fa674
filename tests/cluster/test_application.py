"""The whole application with autoscaling: a run through the queue brings more replicas."""

from __future__ import annotations

from typing import Any

import httpx
from ray import serve

from ingest.local.application import APPLICATION, serving
from ingest.local.aws import LocalAws, use_dummy_credentials
from ingest.local.ports import free_port
from ingest.messages.build import new_run_id
from ingest.runs.folder import RunFolder
from ingest.runs.send import plan_run, send_run
from ingest.runs.status import RunMonitor, follow
from ingest.sources.base import Entry
from ingest.sqs.queue_client import QueueClient
from serve_app.aws import aws_client
from serve_app.config import AppConfig
from serve_app.contracts.job import Output
from serve_app.storage import open_store
from tests.support.images import book, jpeg

BUCKET = "autoscaled"
IMAGES = 60


def update_most_replicas(seen: dict[str, int]) -> None:
    """Update the maximum number of replicas of each deployment."""
    for name, deployment in serve.status().applications[APPLICATION].deployments.items():
        count = sum(deployment.replica_states.values())
        seen[name] = max(seen.get(name, 0), count)


def test_a_run_brings_replicas_and_every_image_is_done() -> None:
    use_dummy_credentials()
    with LocalAws() as server:
        server.create_bucket(BUCKET)
        args: dict[str, Any] = {
            "aws": {"endpoint_url": server.endpoint_url},
            "queue": {"url": server.create_queue("autoscaled"), "long_poll_s": 1},
            "ledger": {"bucket": BUCKET, "part_interval_s": 0.3},
            # 60 images in one second are more than two replicas can process.
            "autoscaling": {
                "max_replicas": 2,
                "drain_target_s": 2,
                "upscale_delay_s": 1,
                "read_period_s": 0.5,
            },
        }
        config = AppConfig.load(args)
        assert config.queue is not None
        assert config.ledger is not None
        store = open_store(config)
        data = jpeg(book().image)
        keys = [f"photographs/{number}.jpg" for number in range(IMAGES)]
        for key in keys:
            store.put(BUCKET, key, data, "image/jpeg")
        plan = plan_run(
            [Entry(BUCKET, key) for key in keys],
            folder=RunFolder(store, config.ledger, new_run_id()),
            description="test",
            output=Output(bucket=BUCKET),
            recipe={"checks": {"min_subject_px": 1}},
        )
        with serving(args, port=free_port(), quiet=True) as endpoints:
            client = aws_client("sqs", config.aws)
            manifest = send_run(QueueClient(client, config.queue.url), plan)
            seen: dict[str, int] = {}
            done = 0
            for standing in follow(RunMonitor(plan.folder, manifest), interval_s=0.3):
                update_most_replicas(seen)
                done = standing.counts["done"]
            assert done == IMAGES
            assert seen == {
                "HttpApi": 1, "SqsIngest": 1, "CutoutPipeline": 2, "Segmenter-folio": 2,
            }  # fmt: skip
            with httpx.Client(trust_env=False, timeout=60) as http:
                assert http.get(f"{endpoints.http}/readyz").status_code == 200
