"""The application on this machine, driven by benchmarks over HTTP and through the queue."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import urllib3

from ingest.local.application import serving
from ingest.local.aws import LocalAws, use_dummy_credentials
from ingest.local.ports import free_port
from ingest.messages.build import new_run_id
from ingest.runs import send as bulk
from ingest.runs.folder import RunFolder
from ingest.runs.ledger import read_outcomes
from ingest.runs.status import RunMonitor, follow
from ingest.sources import base as sources
from ingest.sqs.queue_client import QueueClient
from loadtests.harness.metering import Meter, ray_part, run_workers_at_normal_priority
from loadtests.harness.results import percentile
from serve_app.aws import aws_client
from serve_app.config import AppConfig, LedgerConfig
from serve_app.contracts.job import Output
from serve_app.contracts.precision import Accuracy
from serve_app.errors import DeadlineExceeded, InternalError
from serve_app.models.engines.network import Pair
from serve_app.storage import open_store
from serve_app.storage.protocol import ObjectStore

CPU_OF = "cpu of "
"""Beginning of the names of numbers that are CPU seconds of one part of a system."""

_BUCKET, _QUEUE = "bench", "bench"
_STALLED_AFTER_S = 120.0
_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Round:
    """Measurements of one system over one set of images."""

    images: int
    wall_s: float
    latencies_s: list[float]
    cpu_s: dict[str, float]
    """CPU seconds of each part of the system, without the client's."""
    peak_mb: dict[str, float]
    output_bytes: int
    finished_at: list[float] = field(default_factory=list)
    """Times at which the images of a run were finished, in seconds since the epoch."""

    def numbers(self, leave_out: Sequence[str] = ()) -> dict[str, float]:
        """Return the numbers of a result table.

        Args:
            leave_out: Names of parts whose CPU time and memory do not count.
        """
        cpu_s = sum(s for part, s in self.cpu_s.items() if part not in leave_out)
        peak_mb = sum(mb for part, mb in self.peak_mb.items() if part not in leave_out)
        return {
            "images_per_s": self.images / self.wall_s,
            "p50_s": percentile(self.latencies_s, 0.50),
            "p95_s": percentile(self.latencies_s, 0.95),
            "cpu_s_per_image": cpu_s / self.images,
            "peak_rss_mb": peak_mb,
            "png_mb_per_image": self.output_bytes / self.images / 1e6,
        }

    def cpu_of_parts(self) -> dict[str, float]:
        """Return the CPU seconds for each image of every part, also of those that do not count."""
        return {f"{CPU_OF}{part}": seconds / self.images for part, seconds in self.cpu_s.items()}


@dataclass(frozen=True, slots=True)
class Responses:
    """Responses that a closed loop of HTTP clients received."""

    wall_s: float
    latencies_s: list[float]
    output_bytes: int


def post_all(
    url: str,
    images: Sequence[bytes],
    clients: int,
    *,
    multipart: bool = False,
    fields: dict[str, str] | None = None,
    accepted: Sequence[int] = (200,),
    on_response: Callable[[], None] = lambda: None,
) -> Responses:
    """Post images in a closed loop: each client posts an image when its last one is answered.

    Args:
        url: URL that receives the images.
        images: Image files.
        clients: Number of clients.
        multipart: Send an image as the form field ``file`` instead of as the body.
        fields: Other fields of the form.
        accepted: Statuses that a response may have.
        on_response: Function to call after each response, in a client's thread.

    Raises:
        InternalError: A response had another status.
    """
    pool = urllib3.PoolManager(maxsize=clients, retries=False, timeout=_TIMEOUT_S)

    def post(data: bytes) -> tuple[float, int]:
        started_at = time.perf_counter()
        if multipart:
            form: dict[str, Any] = {**(fields or {}), "file": ("image.jpg", data, "image/jpeg")}
            response = pool.request("POST", url, fields=form)
        else:
            response = pool.request("POST", url, body=data, headers={"Content-Type": "image/jpeg"})
        if response.status not in accepted:
            raise InternalError(f"{url}: status {response.status}: {response.data[:300]!r}")
        on_response()
        return time.perf_counter() - started_at, len(response.data)

    with ThreadPoolExecutor(clients, "client") as threads:
        started_at = time.perf_counter()
        found = list(threads.map(post, images))
        wall_s = time.perf_counter() - started_at
    return Responses(wall_s, [latency for latency, _ in found], sum(size for _, size in found))


class Foreedge:
    """The running application. ``running_application`` starts it."""

    def __init__(self, url: str, config: AppConfig) -> None:
        self.url = url
        self._config = config
        self._store: ObjectStore = open_store(config)
        self._run_numbers = itertools.count(1)
        self._uploaded: dict[Path, sources.Entry] = {}

    def pair_of(self, model: str) -> Pair:
        """Return the engine and precision that serve a model, as ``/v1/models`` says.

        Raises:
            InternalError: The application does not serve the model.
        """
        response = urllib3.PoolManager().request("GET", f"{self.url}/v1/models", timeout=_TIMEOUT_S)
        for each in response.json()["models"]:
            if each["name"] == model:
                return Pair(each["engine"], each["precision"])
        raise InternalError(f"{self.url}/v1/models has no {model}")

    def over_http(self, paths: Sequence[Path], clients: int) -> Round:
        """Post images in a closed loop, and measure it."""
        images = [path.read_bytes() for path in paths]
        meter = Meter(os.getpid(), ray_part)
        responses = post_all(f"{self.url}/v1/cutout?min_subject_px=0", images, clients)
        return Round(
            len(images),
            responses.wall_s,
            responses.latencies_s,
            meter.cpu_s(),
            meter.peak_mb(),
            responses.output_bytes,
        )

    def through_queue(self, paths: Sequence[Path]) -> Round:
        """Send a run through the queue, and measure it until its last result.

        The latencies are those of the pipeline, without the time that a message waits in the queue.
        """
        queue, ledger = self._config.queue, self._config.ledger
        if queue is None or ledger is None:
            raise InternalError("the application serves no queue: start it with queue=True")
        plan = self._plan_run(paths, ledger)
        sqs = aws_client("sqs", self._config.aws)
        meter = Meter(os.getpid(), ray_part)
        started_at = time.time()
        manifest = bulk.send_run(QueueClient(sqs, queue.url), plan)
        monitor = RunMonitor(plan.folder, manifest)
        for _ in follow(monitor, stalled_after_s=_STALLED_AFTER_S, on_stalled=_give_up):
            pass
        cpu_s = meter.cpu_s()
        outcomes = list(read_outcomes(plan.folder))
        failed = [outcome for outcome in outcomes if outcome.status != "done"]
        if failed:
            raise InternalError(f"{len(failed)} of {len(paths)} jobs failed, first {failed[0]}")
        finished_at = [outcome.finished_at.timestamp() for outcome in outcomes]
        latencies = [
            sum(outcome.cutout.stages_ms.values()) / 1000 for outcome in outcomes if outcome.cutout
        ]
        written = sum(outcome.output_bytes or 0 for outcome in outcomes)
        return Round(
            len(paths),
            max(finished_at) - started_at,
            latencies,
            cpu_s,
            meter.peak_mb(),
            written,
            finished_at,
        )

    def _plan_run(self, paths: Sequence[Path], ledger: LedgerConfig) -> bulk.RunPlan:
        number = next(self._run_numbers)
        return bulk.plan_run(
            [self._upload(path)._replace(job_id=f"{number}-{i}") for i, path in enumerate(paths)],
            folder=RunFolder(self._store, ledger, f"{new_run_id()}-{number}"),
            description="benchmark",
            # Every run has its own prefix, because existing results are skipped.
            output=Output(bucket=_BUCKET, prefix=f"cutouts/{number}/"),
            recipe={"checks": {"min_subject_px": 0}},
        )

    def _upload(self, path: Path) -> sources.Entry:
        """Return an image as ``foreedge bulk`` finds it in a bucket."""
        if path not in self._uploaded:
            key = f"images/{len(self._uploaded)}-{path.name}"
            self._store.put(_BUCKET, key, path.read_bytes(), "image/jpeg")
            info = self._store.head(_BUCKET, key)
            assert info is not None
            self._uploaded[path] = sources.Entry(_BUCKET, key, info.etag)
        return self._uploaded[path]


def single_machine_settings(threads: int, accuracy: Accuracy | None = None) -> dict[str, Any]:
    """Return the settings that are fastest when everything runs on one machine.

    Args:
        threads: Number of images in progress.
        accuracy: Accuracy with which the fastest engine and precision serves. None stands for the
            default engine.
    """
    segmenter = {"threads": threads, "placement": "pipeline", **engine_settings(accuracy)}
    return {"segmenter": segmenter, "pipeline": {"threads": threads}}


def engine_settings(accuracy: Accuracy | None) -> dict[str, Any]:
    """Return the settings of the Segmenter that choose the fastest engine with an accuracy."""
    return {} if accuracy is None else {"engine": "auto", "accuracy": accuracy}


@contextmanager
def running_application(settings: dict[str, Any], *, queue: bool = True) -> Iterator[Foreedge]:
    """Run the application, with a local S3 and SQS, until the context ends.

    Args:
        settings: Settings of the application, without the queue's URL.
        queue: Serve a queue too.
    """
    use_dummy_credentials()
    run_workers_at_normal_priority()
    with LocalAws() as local:
        local.create_bucket(_BUCKET)
        args: dict[str, Any] = {"aws": {"endpoint_url": local.endpoint_url}, **settings}
        if queue:
            args["queue"] = {
                "url": local.create_queue(_QUEUE),
                "long_poll_s": 2,
                "max_in_flight": 16,
                **settings.get("queue", {}),
            }
            args["ledger"] = {"bucket": _BUCKET}
        with serving(args, port=free_port(), quiet=True) as endpoints:
            yield Foreedge(endpoints.http, AppConfig.load(args))


def _give_up(status: object) -> None:
    raise DeadlineExceeded(f"the run has had no new result for {_STALLED_AFTER_S:.0f} s: {status}")
