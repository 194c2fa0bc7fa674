"""Latency over HTTP with an idle and with a saturated queue: ``make bench-mixed``.

``python -m loadtests.benchmarks.mixed`` starts the application on this machine. One client posts
small images one after the other, first alone, and then while a run of large images goes through the
queue. Only the requests count that were sent while more images of the run were left than may be in
flight. All share the same cores, and so does the client.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3
from rich.console import Console
from rich.table import Table

from ingest.local.photographs import make_photographs
from loadtests.harness.application import Foreedge, Round, running_application
from loadtests.harness.corpus import FOLDER
from loadtests.harness.results import (
    describe_measurement,
    measure_busy_cores,
    percentile,
    write_result,
)
from loadtests.harness.shaped_models import benchmark_model
from serve_app.errors import InternalError

_SMALL, _LARGE = (400, 300), (2000, 1500)
_SEED = 81_000
_DIFFERENT = 8
_IN_FLIGHT = 64
_TIMEOUT_S = 120.0
_WARM, _ALONE = 20, 12


@dataclass(frozen=True, slots=True)
class MixedLoad:
    """Latencies in seconds."""

    idle_s: list[float]
    """Requests while the queue was empty."""
    saturated_s: list[float]
    """Requests while the queue was full."""
    queue_image_s: float
    """Median time of one image of the queue's size, alone over HTTP."""
    queue_images_per_s: float
    """Images of the queue that were finished per second meanwhile."""

    def numbers(self) -> dict[str, float]:
        """Return the numbers of the result, in milliseconds but for the last one."""
        found = {
            "idle_p50_ms": percentile(self.idle_s, 0.50),
            "idle_p99_ms": percentile(self.idle_s, 0.99),
            "saturated_p50_ms": percentile(self.saturated_s, 0.50),
            "saturated_p99_ms": percentile(self.saturated_s, 0.99),
            "queue_image_ms": self.queue_image_s,
            # The aim: three times the idle median plus one image of the queue, and twice that.
            "aim_p50_ms": 3 * percentile(self.idle_s, 0.50) + self.queue_image_s,
            "aim_p99_ms": 2 * (3 * percentile(self.idle_s, 0.50) + self.queue_image_s),
        }
        return {name: round(1000 * seconds, 1) for name, seconds in found.items()} | {
            "queue_images_per_s": round(self.queue_images_per_s, 2)
        }


class Client:
    """One client that posts an image as soon as the last one is answered."""

    def __init__(self, url: str) -> None:
        self._url = f"{url}/v1/cutout?min_subject_px=0"
        self._pool = urllib3.PoolManager(maxsize=1, retries=False, timeout=_TIMEOUT_S)

    def post(self, data: bytes) -> tuple[float, float]:
        """Post an image, and return when it was sent and how long the answer took, in seconds.

        Raises:
            InternalError: The image was not cut out.
        """
        sent_at, started_at = time.time(), time.perf_counter()
        response = self._pool.request(
            "POST", self._url, body=data, headers={"Content-Type": "image/jpeg"}
        )
        if response.status != 200:
            raise InternalError(f"{self._url}: {response.status}: {response.data[:300]!r}")
        return sent_at, time.perf_counter() - started_at

    def post_in_turn(self, images: Sequence[bytes], count: int) -> list[float]:
        """Return the latencies of some posts, in seconds."""
        return [self.post(images[number % len(images)])[1] for number in range(count)]


def measure(application: Foreedge, requests: int, jobs: int) -> MixedLoad:
    """Measure an application, which must have nothing else to do.

    Args:
        application: Application with a queue.
        requests: Number of requests with the idle queue.
        jobs: Number of images that go through the queue.
    """
    small, large = _draw("mixed-small", _SMALL), _draw("mixed-large", _LARGE)
    small_images = [path.read_bytes() for path in small]
    client = Client(application.url)
    client.post_in_turn(small_images, _WARM)
    alone = client.post_in_turn([path.read_bytes() for path in large], _ALONE)
    idle = client.post_in_turn(small_images, requests)
    with ThreadPoolExecutor(1, "run") as threads:
        run = threads.submit(application.through_queue, _copies(large, jobs))
        posted = _post_while_running(client, small_images, run)
    return MixedLoad(
        idle,
        _during_saturation(posted, run.result().finished_at),
        percentile(alone[_ALONE // 3 :], 0.50),
        len(run.result().finished_at) / run.result().wall_s,
    )


def _post_while_running(
    client: Client, images: Sequence[bytes], run: Future[Round]
) -> list[tuple[float, float]]:
    posted: list[tuple[float, float]] = []
    while not run.done():
        posted.append(client.post(images[len(posted) % len(images)]))
    return posted


def _during_saturation(
    posted: Sequence[tuple[float, float]], finished_at: Sequence[float]
) -> list[float]:
    """Return the latencies of the requests that were sent while the queue was saturated.

    Args:
        posted: Time at which each request was sent, and its latency, in seconds.
        finished_at: Times at which the images of the run were finished.
    """
    ordered = sorted(finished_at)
    begin, end = ordered[0], ordered[-_IN_FLIGHT - 1]
    return [latency for sent_at, latency in posted if begin <= sent_at <= end]


def _draw(name: str, size: tuple[int, int]) -> list[Path]:
    return make_photographs(FOLDER / name, _DIFFERENT, _SEED, sizes=(size,), keep=True)


def _copies(paths: Sequence[Path], count: int) -> list[Path]:
    """Return links to the images under as many names, because no image is done twice in a run."""
    folder = paths[0].parent / "copies"
    folder.mkdir(exist_ok=True)
    copies = []
    for number in range(count):
        copy = folder / f"{number}.jpg"
        if not copy.exists():
            os.link(paths[number % len(paths)], copy)
        copies.append(copy)
    return copies


def main() -> None:
    """Measure, and print and write the result."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.benchmarks.mixed",
        description="Measure requests over HTTP with a saturated queue.",
    )
    parser.add_argument("--requests", type=int, default=300, help="requests with the idle queue")
    parser.add_argument("--jobs", type=int, default=320, help="images of the queue")
    parser.add_argument("--model", default="folio", help="name of a benchmark model")
    parser.add_argument("--placement", default="deployment", help="segmenter.placement")
    options = parser.parse_args()
    console = Console()
    settings: dict[str, Any] = {
        **benchmark_model(options.model).settings,
        "segmenter": {"placement": options.placement},
        "queue": {"max_in_flight": _IN_FLIGHT},
    }
    busy = measure_busy_cores()
    with running_application(settings) as application:
        found = measure(application, options.requests, options.jobs)
    numbers = found.numbers()
    table = Table("queue", "requests", "p50 ms", "p99 ms", "aim p50", "aim p99")
    table.add_row("idle", str(len(found.idle_s)), *_cells(numbers, "idle_p50_ms", "idle_p99_ms"))
    names = ["saturated_p50_ms", "saturated_p99_ms", "aim_p50_ms", "aim_p99_ms"]
    table.add_row("saturated", str(len(found.saturated_s)), *_cells(numbers, *names))
    console.print(table)
    console.print(
        f"one image of the queue alone: {numbers['queue_image_ms']:.0f} ms; queue: "
        f"{numbers['queue_images_per_s']:.1f} images/s; {busy} cores were busy before"
    )
    content = {**describe_measurement("loadtests.benchmarks.mixed"), "result": numbers}
    console.print(f"Written to {write_result('mixed.json', content)}", highlight=False)


def _cells(numbers: dict[str, float], *names: str) -> list[str]:
    return [f"{numbers[name]:.0f}" for name in names]


if __name__ == "__main__":
    main()
