"""The local SQS and S3 on the host's side of the bridge, and runs of jobs through them."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from functools import cache
from types import TracebackType
from typing import Any, Self

import httpx
from PIL import Image

from ingest.messages.build import new_run_id
from ingest.runs.folder import RunFolder
from ingest.runs.ledger import read_outcomes
from ingest.runs.send import plan_run, send_run
from ingest.sources.base import Entry
from ingest.sqs.backlog import Backlog, read_backlog
from ingest.sqs.queue_client import QueueClient
from serve_app.aws import aws_client
from serve_app.config import AppConfig
from serve_app.contracts.job import Output
from serve_app.contracts.outcome import Outcome
from serve_app.models.folio.synthetic.photograph import draw_photograph
from serve_app.storage import open_store
from tests.nodes.machines import HOST

_PORT = 5000
URL = f"http://{HOST}:{_PORT}"
BUCKET = "shelf"
_QUEUE = "foreedge"
_MAX_RECEIVES = 5
_SMALL = {"checks": {"min_subject_px": 1}}


@cache
def small_image() -> bytes:
    """Return an image of a book, which takes few milliseconds."""
    return _image(7, 320, 240)


def _image(seed: int, width: int, height: int) -> bytes:
    file = io.BytesIO()
    drawn = draw_photograph(seed, width=width, height=height, kind="book").image
    Image.fromarray(drawn).save(file, "JPEG", quality=90)
    return file.getvalue()


@cache
def job_image() -> bytes:
    """Return the image of each job, which takes a tenth of a second or two."""
    return _image(8, 1280, 960)


@dataclass(frozen=True)
class Verdict:
    """What has become of a run.

    Attributes:
        jobs: Number of jobs.
        outcomes: Number of jobs with an outcome that is a success.
        lost: Number of jobs without an outcome, or with a failure.
        twice: Number of jobs with more than one result.
        orphans: Number of results that no outcome names.
        repeated: Number of records more than one for a job, which a report folds.
        dead: Number of messages in the dead-letter queue.
        left: Number of messages on the queue, in flight or not.
    """

    jobs: int
    outcomes: int
    lost: int
    twice: int
    orphans: int
    repeated: int
    dead: int
    left: int

    @property
    def good(self) -> bool:
        bad = self.lost + self.twice + self.orphans + self.dead + self.left
        return self.outcomes == self.jobs and not bad


class LocalServices:
    """moto's server on the bridge. A context manager."""

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(_PORT)]
        self._process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        config = AppConfig.load({"aws": {"endpoint_url": URL}})
        self.sqs, self.s3 = aws_client("sqs", config.aws), aws_client("s3", config.aws)
        self.store = open_store(config)
        deadline = time.monotonic() + 60
        while not _answers(f"{URL}/moto-api/"):
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise TimeoutError("moto does not answer on the bridge")
            time.sleep(0.1)
        self.s3.create_bucket(Bucket=BUCKET)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()

    def create_queue(self, visibility_s: int) -> str:
        """Return the URL of the queue, which is made or changed."""
        dead = self.sqs.create_queue(QueueName=f"{_QUEUE}-dead")["QueueUrl"]
        found = self.sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])
        policy = {
            "deadLetterTargetArn": found["Attributes"]["QueueArn"],
            "maxReceiveCount": _MAX_RECEIVES,
        }
        attributes = {
            "RedrivePolicy": json.dumps(policy),
            "VisibilityTimeout": str(visibility_s),
        }
        url: str = self.sqs.create_queue(QueueName=_QUEUE, Attributes=attributes)["QueueUrl"]
        return url


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


class Jobs:
    """A run of jobs, each of which has an image of its own."""

    def __init__(self, services: LocalServices, queue_url: str, count: int) -> None:
        """Store the images.

        Args:
            services: SQS and S3.
            queue_url: URL of the queue.
            count: Number of jobs.
        """
        self._services = services
        self._queue_url = queue_url
        self.count = count
        self.run_id = new_run_id()
        config = AppConfig.load({"aws": {"endpoint_url": URL}, "ledger": {"bucket": BUCKET}})
        assert config.ledger is not None
        self._folder = RunFolder(services.store, config.ledger, self.run_id)
        self._prefix = f"cutouts/{self.run_id}/"
        self._keys = [f"in/{self.run_id}/{number:04}.jpg" for number in range(count)]
        for key in self._keys:
            services.s3.put_object(Bucket=BUCKET, Key=key, Body=job_image())

    def send(self) -> None:
        """Put all jobs on the queue."""
        plan = plan_run(
            [Entry(BUCKET, key) for key in self._keys],
            folder=self._folder,
            description=f"s3://{BUCKET}/in/",
            output=Output(bucket=BUCKET, prefix=self._prefix),
            recipe=_SMALL,
        )
        send_run(QueueClient(self._services.sqs, self._queue_url), plan)

    def outcomes(self) -> list[Outcome]:
        """Return all records of the run."""
        return list(read_outcomes(self._folder))

    def ended(self) -> int:
        """Return the number of jobs with an outcome."""
        return len({one.job_id for one in self.outcomes()})

    def backlog(self) -> Backlog:
        """Return the messages on the queue."""
        return read_backlog(QueueClient(self._services.sqs, self._queue_url))

    def is_over(self) -> bool:
        """Return whether every job has an outcome, and the queue is empty."""
        return self.backlog() == Backlog(0, 0) and self.ended() == self.count

    def verdict(self) -> Verdict:
        """Return what has become of the jobs."""
        records = self.outcomes()
        good = {one.job_id: one for one in records if one.status in ("done", "skipped_existing")}
        named = {one.output_key for one in records if one.output_key}
        listed = self._services.s3.get_paginator("list_objects_v2").paginate(
            Bucket=BUCKET, Prefix=self._prefix
        )
        results = [item["Key"] for page in listed for item in page.get("Contents", [])]
        # A result is {prefix}{stem of the source's key}/{fingerprint}.png.
        folders = Counter(key.rpartition("/")[0] for key in results)
        dead = read_backlog(QueueClient(self._services.sqs, f"{self._queue_url}-dead"))
        left = self.backlog()
        return Verdict(
            jobs=self.count,
            outcomes=len(good),
            lost=self.count - len(good),
            twice=sum(count > 1 for count in folders.values()),
            orphans=len(set(results) - named),
            repeated=len(records) - len({one.job_id for one in records}),
            dead=dead.waiting + dead.in_flight,
            left=left.waiting + left.in_flight,
        )


def arguments(queue_url: str, visibility_s: int) -> dict[str, Any]:
    """Return the settings of the application for this queue."""
    small = {"replicas": 2, "num_cpus": 0.5, "threads": 1}
    return {
        "models": ["folio"],
        "aws": {"endpoint_url": URL},
        "storage": {"allowed_buckets": [BUCKET]},
        "ledger": {"bucket": BUCKET, "part_interval_s": 0.5},
        "http": {"replicas": 2},
        "pipeline": small,
        "segmenter": small,
        "queue": {
            "url": queue_url,
            "consumers": 2,
            "max_in_flight": 16,
            "visibility_timeout_s": visibility_s,
            "long_poll_s": 2,
        },
    }
