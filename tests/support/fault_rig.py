"""A queue, buckets with images, and consumers for the fault tests.

Everything is real, and reaches SQS and S3 through the proxy. The pipeline runs in the consumer's
process, without Ray, except in the tests of Ray itself.
"""

from __future__ import annotations

import asyncio
import io
import json
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from ingest.consumer.consumer import Consumer
from ingest.local.aws import LocalAws
from ingest.runs.folder import RunFolder
from ingest.runs.ledger import Ledger, read_outcomes
from ingest.runs.record_table import STATUSES
from ingest.runs.records import Records
from ingest.sqs.backlog import Backlog, read_backlog
from ingest.sqs.queue import SqsQueue
from ingest.sqs.queue_client import QueueClient
from serve_app.aws import aws_client
from serve_app.config import AppConfig
from serve_app.contracts.model import ModelInfo
from serve_app.contracts.outcome import Outcome
from serve_app.contracts.priority import Priority
from serve_app.models.folio.synthetic.photograph import draw_photograph
from serve_app.models.inference import Model, load_model
from serve_app.pipeline.image_pipeline import ImagePipeline, imaging_threads
from serve_app.segmenter.batcher import Batcher
from serve_app.segmenter.deployment import model_info
from serve_app.storage import open_store
from serve_app.storage.protocol import ObjectStore
from tests.support.fault_proxy import Proxy, recorded_before_deleted
from tests.support.running_consumer import running_consumer

RECIPE = {"checks": {"min_subject_px": 1}}
MAX_RECEIVES = 4
VISIBILITY_S = 3
_PATIENCE_S = 60.0
_INGEST = {
    "visibility_timeout_s": VISIBILITY_S,
    "long_poll_s": 1,
    "max_in_flight": 8,
    "retry_base_s": 0.2,
    "retry_max_s": 2,
    "stop_grace_s": 5,
}


@cache
def image_of_a_book(seed: int = 7) -> bytes:
    """Return a small image of a book as a JPEG."""
    file = io.BytesIO()
    image = draw_photograph(seed, width=160, height=120, kind="book").image
    Image.fromarray(image).save(file, "JPEG", quality=90)
    return file.getvalue()


def commented(number: int) -> bytes:
    """Return the image of a book with a comment that makes it another object."""
    file = io.BytesIO()
    Image.open(io.BytesIO(image_of_a_book())).save(
        file, "JPEG", quality=90, comment=str(number).encode()
    )
    return file.getvalue()


@cache
def _model() -> Model:
    return load_model("folio", AppConfig.load())


class Models:
    """The models of the pipeline, in this process."""

    def __init__(self) -> None:
        model = _model()
        self._info = model_info(model)

        def run(images: Sequence[npt.NDArray[np.uint8]]) -> list[npt.NDArray[np.uint8]]:
            return list(model.masks(np.stack(images)))

        self._run = run
        self._batcher: Batcher[Any, Any] | None = None

    async def describe(self, name: str) -> ModelInfo:
        return self._info

    async def segment(
        self, name: str, image: npt.NDArray[np.uint8], priority: Priority
    ) -> npt.NDArray[np.uint8]:
        if self._batcher is None:
            self._batcher = Batcher(self._run, slots=1, max_batch_size=1)
        mask: npt.NDArray[np.uint8] = await self._batcher.submit(image, priority)
        return mask


@asynccontextmanager
async def consuming(config: AppConfig) -> AsyncIterator[Consumer]:
    """Run a consumer until the context ends."""
    assert config.queue is not None
    assert config.ledger is not None
    store = open_store(config)
    queue = await SqsQueue.open(config.queue, config.aws)
    pipeline = ImagePipeline(config, store, Models(), imaging_threads(config.pipeline))
    ledger = Ledger(store, config.ledger, retry_base_s=0.1)
    try:
        async with running_consumer(queue, pipeline.process, ledger, config.queue) as consumer:
            yield consumer
    finally:
        await queue.close()


class Worker:
    """A consumer in its own process, which can be killed."""

    def __init__(self, args: dict[str, Any]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.fault_worker", json.dumps(args)],
            stdout=subprocess.PIPE,
            text=True,
        )

    def kill(self) -> None:
        """Kill the process, as the kernel does when memory runs out."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def terminate(self) -> dict[str, Any]:
        """Ask the process to end, as a roll-out does, and return the counters of its consumer."""
        self.process.send_signal(signal.SIGTERM)
        out, _ = self.process.communicate(timeout=30)
        assert self.process.returncode == 0
        stats: dict[str, Any] = json.loads(out.splitlines()[-1])
        return stats


@cache
def _clients(endpoint_url: str) -> tuple[Any, Any, ObjectStore]:
    """Return clients that do not use the proxy. They are cached, since they are slow to make."""
    config = AppConfig.load({"aws": {"endpoint_url": endpoint_url}})
    s3, sqs = (aws_client(service, config.aws) for service in ("s3", "sqs"))
    return s3, sqs, open_store(config)


class Rig:
    """A fresh queue and a fresh bucket behind the proxy."""

    def __init__(self, server: LocalAws, proxy: Proxy, max_receives: int = MAX_RECEIVES) -> None:
        self.proxy = proxy
        tag = uuid.uuid4().hex[:8]
        self.bucket, self.queue_name = f"bucket-{tag}", f"queue-{tag}"
        self.s3, self.sqs, self.store = _clients(server.endpoint_url)
        self.s3.create_bucket(Bucket=self.bucket)
        dead = self.sqs.create_queue(QueueName=f"{self.queue_name}-dead")["QueueUrl"]
        found = self.sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])
        arn = found["Attributes"]["QueueArn"]
        policy = {"deadLetterTargetArn": arn, "maxReceiveCount": max_receives}
        self.attributes = {"RedrivePolicy": json.dumps(policy)}
        self.sqs.create_queue(QueueName=self.queue_name, Attributes=self.attributes)
        self.dead_url = dead.replace(server.endpoint_url, proxy.endpoint_url)
        self.url = self.dead_url.removesuffix("-dead")
        self.sent: list[str] = []
        self._dead: dict[str, str | None] = {}
        self.run_id = "faults"

    def begin(self) -> None:
        """Begin another run, without rules and without messages."""
        self.proxy.clear()
        self.dead_letters()
        self._dead = {}
        self.sent = []
        self.run_id = f"faults-{uuid.uuid4().hex[:8]}"

    def message(self, name: str, **changes: Any) -> str:
        fields = {
            "job_id": name,
            "run_id": self.run_id,
            "source": {"bucket": self.bucket, "key": f"in/{name}.jpg"},
            "output": {"bucket": self.bucket, "prefix": f"cutouts/{self.run_id}/"},
            "recipe": RECIPE,
        }
        return json.dumps(fields | changes)

    def args(self, **queue: Any) -> dict[str, Any]:
        """Return the settings of the application."""
        return {
            "aws": {
                "endpoint_url": self.proxy.endpoint_url,
                "max_attempts": 2,
                "read_timeout_s": 5,
            },
            "storage": {"allowed_buckets": [self.bucket]},
            "queue": {"url": self.url, **_INGEST, **queue},
            "ledger": {"bucket": self.bucket, "part_interval_s": 0.2},
        }

    def put(self, *names: str) -> None:
        """Store images."""
        for number, name in enumerate(names, len(self.sent)):
            self.put_numbered(name, number)
            self.sent.append(name)

    def put_numbered(self, name: str, number: int) -> None:
        key = f"in/{name}.jpg"
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=commented(number))

    def send(self, *names: str, **changes: Any) -> None:
        """Store images, and send their jobs."""
        self.put(*names)
        for name in names:
            self.send_body(self.message(name, **changes))

    def send_body(self, body: str) -> None:
        self.sqs.send_message(QueueUrl=self.url, MessageBody=body)

    @asynccontextmanager
    async def consumer(self, **queue: Any) -> AsyncIterator[Consumer]:
        async with self.consumer_with(self.args(**queue)) as consumer:
            yield consumer

    @asynccontextmanager
    async def consumer_with(self, args: dict[str, Any]) -> AsyncIterator[Consumer]:
        async with consuming(AppConfig.load(args)) as consumer:
            yield consumer

    @contextmanager
    def worker(self, **queue: Any) -> Iterator[Worker]:
        """Run a consumer in its own process, which is killed if it still runs at the end."""
        worker = Worker(self.args(**queue))
        try:
            yield worker
        finally:
            if worker.process.poll() is None:
                worker.kill()

    def _folder(self, run_id: str) -> RunFolder:
        config = AppConfig.load(self.args()).ledger
        assert config is not None
        return RunFolder(self.store, config, run_id)

    def records(self, run_id: str | None = None) -> list[Outcome]:
        return list(read_outcomes(self._folder(run_id or self.run_id)))

    def outcomes(self) -> dict[str, Outcome]:
        """Return the record of each job that counts."""
        with Records(self._folder(self.run_id), keep=STATUSES) as records:
            records.update()
            found = map(Outcome.model_validate, records.kept())
            return {outcome.job_id: outcome for outcome in found}

    def backlog(self) -> Backlog:
        return read_backlog(QueueClient(self.sqs, self.url))

    def held(self) -> int:
        """Return the number of messages on the queue, waiting or in flight."""
        backlog = self.backlog()
        return backlog.waiting + backlog.in_flight

    def dead_letters(self) -> dict[str, str | None]:
        """Return the code of each dead letter by job id, which is None if SQS itself moved it.

        The letters are deleted, so that none is found by the next test.
        """
        while batch := self.sqs.receive_message(
            QueueUrl=self.dead_url, MaxNumberOfMessages=10, MessageAttributeNames=["All"]
        ).get("Messages"):
            for item in batch:
                attributes = item.get("MessageAttributes", {})
                code = attributes.get("foreedge.code", {}).get("StringValue")
                try:
                    job_id = json.loads(item["Body"])["job_id"]
                except (ValueError, TypeError, KeyError):
                    job_id = item["Body"][:20]
                assert job_id not in self._dead, f"{job_id} has two dead letters"
                self._dead[job_id] = code
                receipt = item["ReceiptHandle"]
                self.sqs.delete_message(QueueUrl=self.dead_url, ReceiptHandle=receipt)
        return dict(self._dead)

    async def until_settled(self) -> None:
        """Return when no message is left on the queue."""
        await self.until(lambda: self.backlog() == Backlog(0, 0))

    async def until(self, condition: Callable[[], bool]) -> None:
        give_up_at = time.monotonic() + _PATIENCE_S
        while not await asyncio.to_thread(condition):
            if time.monotonic() > give_up_at:
                found = {name: item.code or item.status for name, item in self.outcomes().items()}
                raise AssertionError(f"waited in vain: backlog {self.backlog()}, outcomes {found}")
            await asyncio.sleep(0.1)

    def objects(self) -> set[str]:
        return {item.key for item in self.store.list(self.bucket, f"cutouts/{self.run_id}/")}

    def check(self, failed: dict[str, str] | None = None) -> dict[str, Outcome]:
        """Assert that every job has one outcome, and every result one object.

        Args:
            failed: Codes of the jobs that must have failed. All others must have succeeded.

        Returns:
            The outcomes.
        """
        failed = failed or {}
        outcomes = self.outcomes()
        assert sorted(outcomes) == sorted(set(self.sent) | set(failed))
        codes = {name: item.code for name, item in outcomes.items() if item.status == "failed"}
        assert codes == failed
        named = [item.output_key for item in outcomes.values() if item.output_key]
        assert len(named) == len(set(named)) == len(outcomes) - len(failed)
        assert self.objects() == set(named), "an object that no outcome names, or none for one"
        assert self.backlog() == Backlog(0, 0)
        recorded_before_deleted(self.proxy.journal)
        return outcomes
