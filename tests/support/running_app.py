"""The running application with its SQS and S3, as integration tests use them."""

from __future__ import annotations

import itertools
import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import ray

from ingest.local.application import APPLICATION
from ingest.local.aws import LocalAws
from ingest.messages.build import new_run_id
from ingest.runs.folder import RunFolder
from ingest.runs.ledger import read_outcomes
from ingest.runs.send import plan_run, send_run
from ingest.runs.status import RunMonitor, RunStatus, follow
from ingest.sources.base import Entry
from ingest.sqs.queue_client import QueueClient
from serve_app.aws import aws_client
from serve_app.config import AppConfig, AwsConfig
from serve_app.contracts.job import Output
from serve_app.contracts.outcome import Outcome
from serve_app.models.registry import BUNDLED_MODEL
from serve_app.storage import open_store
from serve_app.storage.protocol import ObjectStore
from tests.support.fault_proxy import Proxy

ANY_SIZE: dict[str, Any] = {"checks": {"min_subject_px": 1}}
"""Recipe for the small images of tests, whose subjects are less than 100 pixels wide."""

_MAX_RECEIVES = 3
_STALLED_AFTER_S = 90.0


def replica_actors(deployment: str) -> set[str]:
    """Return the names of the Ray actors that are the replicas of a deployment."""
    prefix = f"SERVE_REPLICA::{APPLICATION}#{deployment}#"
    actors = ray.util.list_named_actors(all_namespaces=True)
    return {actor["name"] for actor in actors if actor["name"].startswith(prefix)}


class Aws:
    """A local SQS and S3 that creates queues and buckets for tests."""

    def __init__(self, server: LocalAws) -> None:
        self.aws: AwsConfig = server.aws
        self.endpoint_url = server.endpoint_url
        self._server = server
        self._numbers = itertools.count(1)

    def client(self, service: Any) -> Any:
        return aws_client(service, self.aws)

    def bucket(self) -> str:
        name = f"bucket-{next(self._numbers)}"
        self._server.create_bucket(name)
        return name

    def queue(self) -> tuple[str, str]:
        """Return the URLs of a fresh queue and of its dead-letter queue."""
        name = f"queue-{next(self._numbers)}"
        url = self._server.create_queue(name)
        client = self.client("sqs")
        dead_url = client.get_queue_url(QueueName=f"{name}-dead")["QueueUrl"]
        policy = client.get_queue_attributes(QueueUrl=url, AttributeNames=["RedrivePolicy"])
        changed = json.loads(policy["Attributes"]["RedrivePolicy"])
        changed["maxReceiveCount"] = _MAX_RECEIVES
        client.set_queue_attributes(QueueUrl=url, Attributes={"RedrivePolicy": json.dumps(changed)})
        return url, dead_url

    def check_signatures(self, check: bool) -> None:
        """Let the server check signatures and permissions, or accept every request again."""
        # moto counts the requests that it does not check.
        unchecked = "0" if check else "inf"
        httpx.post(f"{self.endpoint_url}/moto-api/reset-auth", content=unchecked).raise_for_status()


def settings_behind(proxy: Proxy, aws: Aws, **queue: Any) -> tuple[dict[str, Any], str]:
    """Return the settings of an application that reaches its SQS and S3 by a proxy.

    Args:
        proxy: Proxy in front of the local SQS and S3.
        aws: What makes the bucket and the queue.
        **queue: Further settings of the queue.

    Returns:
        The settings, with a fresh bucket and queue, and the URL of the dead-letter queue.
    """
    bucket, (url, dead_url) = aws.bucket(), aws.queue()
    through = url.replace(aws.endpoint_url, proxy.endpoint_url)
    settings = {
        "models": [BUNDLED_MODEL],
        "aws": {"endpoint_url": proxy.endpoint_url, "max_attempts": 2},
        "storage": {"allowed_buckets": [bucket]},
        "queue": {"url": through, "long_poll_s": 1, **queue},
        "ledger": {"bucket": bucket, "part_interval_s": 0.5},
    }
    return settings, dead_url


@dataclass
class Run:
    """The results of a run."""

    outcomes: dict[str, Outcome]
    """Outcomes by the name of the image."""
    results: dict[str, bytes] = field(default_factory=dict)


class App:
    """The running application, used over HTTP and through its queue."""

    def __init__(self, url: str, config: AppConfig, dead_url: str, aws: Aws) -> None:
        assert config.queue is not None
        assert config.ledger is not None
        self.url = url
        self.config = config
        self.queue, self.ledger = config.queue, config.ledger
        self.bucket = config.ledger.bucket
        self.dead_url = dead_url
        self.store: ObjectStore = open_store(config)
        self.sqs = aws.client("sqs")
        # A proxy named by the environment cannot reach the port.
        self.http = httpx.Client(base_url=url, timeout=90, trust_env=False)

    def put(self, images: dict[str, bytes]) -> list[Entry]:
        """Store images under a new prefix."""
        prefix = f"photographs/{uuid.uuid4().hex[:8]}/"
        for name, data in images.items():
            self.store.put(self.bucket, prefix + name, data, "application/octet-stream")
        return [Entry(self.bucket, prefix + name) for name in images]

    def send(self, entries: list[Entry], recipe: dict[str, Any] = ANY_SIZE) -> RunMonitor:
        """Put a run on the queue and return its monitor."""
        plan = plan_run(
            entries,
            folder=RunFolder(self.store, self.ledger, new_run_id()),
            description="test",
            output=Output(bucket=self.bucket),
            recipe=recipe,
        )
        manifest = send_run(QueueClient(self.sqs, self.queue.url), plan)
        return RunMonitor(plan.folder, manifest)

    def follow(self, monitor: RunMonitor) -> Iterator[RunStatus]:
        """Yield the status of a run until every job has ended."""

        def stalled(now: RunStatus) -> None:
            raise AssertionError(f"no result for {_STALLED_AFTER_S:g} s: {now}")

        return follow(monitor, interval_s=0.3, stalled_after_s=_STALLED_AFTER_S, on_stalled=stalled)

    def finish(self, monitor: RunMonitor) -> Run:
        """Wait for the end of a run and read its results."""
        *_, status = self.follow(monitor)
        found = Run({})
        for outcome in read_outcomes(RunFolder(self.store, self.ledger, status.run_id)):
            assert outcome.source is not None
            name = outcome.source.key.rpartition("/")[2]
            assert name not in found.outcomes
            found.outcomes[name] = outcome
            if outcome.output_bucket and outcome.output_key:
                data = self.store.get(outcome.output_bucket, outcome.output_key)
                found.results[name] = data
        return found

    def run(self, images: dict[str, bytes], recipe: dict[str, Any] = ANY_SIZE) -> Run:
        """Process images through the queue."""
        return self.finish(self.send(self.put(images), recipe))

    def post(self, data: bytes, **options: str) -> httpx.Response:
        """Process an image over HTTP."""
        params = {"min_subject_px": "1", **options}
        return self.http.post("/v1/cutout", content=data, params=params)

    def dead_letters(self) -> list[Any]:
        """Remove all messages from the dead-letter queue and return them."""
        found: list[Any] = []
        while messages := self.sqs.receive_message(
            QueueUrl=self.dead_url, MaxNumberOfMessages=10, MessageAttributeNames=["All"]
        ).get("Messages"):
            found += messages
            for message in messages:
                self.sqs.delete_message(
                    QueueUrl=self.dead_url, ReceiptHandle=message["ReceiptHandle"]
                )
        return found
