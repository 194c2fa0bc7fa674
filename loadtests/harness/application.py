"""A Foreedge on this machine that benchmarks drive: over HTTP, and through the queue."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
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
from loadtests.harness.metering import Meter, ray_part, run_workers_beside_others
from loadtests.harness.results import percentile
from serve_app.aws import aws_client
from serve_app.config import AppConfig
from serve_app.contracts.job import Output
from serve_app.errors import DeadlineExceeded, InternalError
from serve_app.storage import open_store
from serve_app.storage.protocol import ObjectStore

_BUCKET, _QUEUE = "bench", "bench"
_STALLED_AFTER_S = 120.0
_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Round:
    """What one round of a system measured."""

    images: int
    wall_s: float
    latencies_s: list[float]
    cpu_s: dict[str, float]
    """By part of the system; the client's are not among them."""
    peak_mb: dict[str, float]
    output_bytes: int

    def numbers(self, leave_out: Sequence[str] = ()) -> dict[str, float]:
        """Return what tables are made of; ``leave_out`` names parts that do not count."""
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


@dataclass(frozen=True, slots=True)
class Answers:
    """How a closed loop of HTTP clients was answered."""

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
    on_answer: Callable[[], None] = lambda: None,
) -> Answers:
    """Post images, as many at a time as there are clients.

    Args:
        url: Where to.
        images: Files.
        clients: Each posts the next image when its last one is answered.
        multipart: As the field ``file`` of a form, else as the body.
        fields: Other fields of the form.
        accepted: Statuses that an answer may have.
        on_answer: Called after each one, in a client's thread.

    Raises:
        InternalError: Another status.
    """
    pool = urllib3.PoolManager(maxsize=clients, retries=False, timeout=_TIMEOUT_S)

    def post(data: bytes) -> tuple[float, int]:
        started_at = time.perf_counter()
        if multipart:
            form: dict[str, Any] = {**(fields or {}), "file": ("image.jpg", data, "image/jpeg")}
            answer = pool.request("POST", url, fields=form)
        else:
            answer = pool.request("POST", url, body=data, headers={"Content-Type": "image/jpeg"})
        if answer.status not in accepted:
            raise InternalError(f"{url}: status {answer.status}: {answer.data[:300]!r}")
        on_answer()
        return time.perf_counter() - started_at, len(answer.data)

    with ThreadPoolExecutor(clients, "client") as threads:
        started_at = time.perf_counter()
        found = list(threads.map(post, images))
        wall_s = time.perf_counter() - started_at
    return Answers(wall_s, [latency for latency, _ in found], sum(size for _, size in found))


class Foreedge:
    """The application while it runs; see ``running``."""

    def __init__(self, url: str, config: AppConfig) -> None:
        self.url = url
        self._config = config
        self._store: ObjectStore = open_store(config)
        self._runs = itertools.count(1)
        self._uploaded: dict[Path, sources.Entry] = {}

    def over_http(self, paths: Sequence[Path], clients: int) -> Round:
        """Post photographs in a closed loop."""
        images = [path.read_bytes() for path in paths]
        meter = Meter(os.getpid(), ray_part)
        answers = post_all(f"{self.url}/v1/cutout?min_subject_px=0", images, clients)
        return Round(
            len(images),
            answers.wall_s,
            answers.latencies_s,
            meter.cpu_s(),
            meter.peak_mb(),
            answers.output_bytes,
        )

    def through_queue(self, paths: Sequence[Path]) -> Round:
        """Put a run on the queue and wait for its end; latencies are those in the pipeline."""
        queue, ledger = self._config.queue, self._config.ledger
        if queue is None or ledger is None:
            raise InternalError("this application serves no queue")
        number = next(self._runs)
        plan = bulk.plan_run(
            [self._upload(path)._replace(job_id=f"{number}-{i}") for i, path in enumerate(paths)],
            folder=RunFolder(self._store, ledger, f"{new_run_id()}-{number}"),
            description="benchmark",
            # Another place for each run: what is there would be skipped.
            output=Output(bucket=_BUCKET, prefix=f"cutouts/{number}/"),
            recipe={"checks": {"min_subject_px": 0}},
        )
        sqs = aws_client("sqs", self._config.aws)
        meter = Meter(os.getpid(), ray_part)
        started_at = time.time()
        manifest = bulk.send_run(QueueClient(sqs, queue.url), plan)
        tally = RunMonitor(plan.folder, manifest)
        for _ in follow(tally, stalled_after_s=_STALLED_AFTER_S, on_stalled=_give_up):
            pass
        cpu_s = meter.cpu_s()
        outcomes = list(read_outcomes(plan.folder))
        bad = [outcome for outcome in outcomes if outcome.status != "done"]
        if bad:
            raise InternalError(f"{len(bad)} of {len(paths)} jobs not done: {bad[0]}")
        ended_at = max(outcome.finished_at.timestamp() for outcome in outcomes)
        latencies = [
            sum(outcome.cutout.stages_ms.values()) / 1000 for outcome in outcomes if outcome.cutout
        ]
        written = sum(outcome.output_bytes or 0 for outcome in outcomes)
        return Round(len(paths), ended_at - started_at, latencies, cpu_s, meter.peak_mb(), written)

    def _upload(self, path: Path) -> sources.Entry:
        """Return a photograph as ``foreedge bulk`` finds it in its bucket."""
        if path not in self._uploaded:
            key = f"photographs/{len(self._uploaded)}-{path.name}"
            self._store.put(_BUCKET, key, path.read_bytes(), "image/jpeg")
            info = self._store.head(_BUCKET, key)
            assert info is not None
            self._uploaded[path] = sources.Entry(_BUCKET, key, info.etag)
        return self._uploaded[path]


def on_one_machine(threads: int) -> dict[str, Any]:
    """Return the settings that are fastest where everything runs on one machine."""
    return {
        "segmenter": {"threads": threads, "placement": "pipeline"},
        "pipeline": {"threads": threads},
    }


@contextmanager
def running(settings: dict[str, Any], *, queue: bool = True) -> Iterator[Foreedge]:
    """Run the application, with a local S3 and SQS, for as long as the context lasts.

    Args:
        settings: Of the application, without the queue.
        queue: Whether a queue is served too.
    """
    use_dummy_credentials()
    run_workers_beside_others()
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


def _give_up(now: object) -> None:
    raise DeadlineExceeded(f"no result for {_STALLED_AFTER_S:.0f} s: {now}")
