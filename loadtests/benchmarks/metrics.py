"""Cost of the metrics: ``python -m loadtests.benchmarks.metrics``.

One pipeline runs the same images in turns with metrics, which it then records to Ray as a replica
does, without, and without once more. What the first two differ by is what the metrics cost in
images/s and in CPU time for each image. What the last two differ by says how exact that is. It is
one pipeline, since two of them differ by themselves: each has other memory and other threads. What
was noted in a round reaches Ray within it, in a thread of its own, so that a round without metrics
pays nothing of it. The order of the three changes from turn to turn. The calls of these images are
then made again on their own: on a busy machine, their sum is the more exact number.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import statistics
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ray
from rich.console import Console
from rich.table import Table

from ingest.local.application import ray_environment
from ingest.local.socket_folders import ray_temporary_folder
from loadtests.harness.corpus import corpus
from loadtests.harness.results import describe_measurement, write_result
from serve_app.config import AppConfig
from serve_app.contracts.recipe import Recipe, parse_recipe
from serve_app.models.registry import BUNDLED_MODEL
from serve_app.pipeline.image_pipeline import ImagePipeline, imaging_threads
from serve_app.pipeline.segmenters import LocalSegmenters
from serve_app.serving.metrics import UNRECORDED, Metric, Metrics
from serve_app.serving.ray_metrics import FLUSHED_EVERY_S, RayMetrics
from serve_app.storage import open_store

_LIMIT = 0.02
"""Share of images/s, and of CPU time for each image, that the metrics may cost."""
_ROUNDS = ("recorded", "unrecorded", "control")
"""Rounds of a turn. The control records nothing either."""
_AT_ONCE = 4
_TURNS = 15
_IMAGES = 40
_REPEATS = 50
_NORMAL_95 = 1.96
"""Quantile of the normal distribution for an interval of 95 %."""


@dataclass(frozen=True, slots=True)
class Round:
    """The time of one pipeline for all images."""

    wall_s: float
    cpu_s: float


class SwitchedMetrics:
    """Records to other metrics while it is switched on. Implements ``Metrics``."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._now: Metrics = UNRECORDED

    def switch(self, *, on: bool) -> None:
        """Record what comes from now on, or do not."""
        self._now = self._metrics if on else UNRECORDED

    def add(self, metric: Metric, amount: float, *labels: str) -> None:
        """See ``Metrics``."""
        self._now.add(metric, amount, *labels)

    def set(self, metric: Metric, value: float, *labels: str) -> None:
        """See ``Metrics``."""
        self._now.set(metric, value, *labels)

    def observe(self, metric: Metric, value: float, *labels: str) -> None:
        """See ``Metrics``."""
        self._now.observe(metric, value, *labels)


class CountedMetrics:
    """Keeps the calls, to make them again. Implements ``Metrics``."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Metric, float, tuple[str, ...]]] = []

    def add(self, metric: Metric, amount: float, *labels: str) -> None:
        """See ``Metrics``."""
        self.calls.append(("add", metric, amount, labels))

    def set(self, metric: Metric, value: float, *labels: str) -> None:
        """See ``Metrics``."""
        self.calls.append(("set", metric, value, labels))

    def observe(self, metric: Metric, value: float, *labels: str) -> None:
        """See ``Metrics``."""
        self.calls.append(("observe", metric, value, labels))


def time_calls(counted: CountedMetrics) -> dict[str, float]:
    """Return the CPU seconds of each call, of its flush, and the longest time of a call.

    Args:
        counted: Calls to make again.
    """
    metrics = RayMetrics()
    calls_s, flush_s, longest_s = 0.0, 0.0, 0.0
    for _ in range(_REPEATS):
        for name, metric, value, labels in counted.calls:
            record = getattr(metrics, name)
            wall_s, cpu_s = time.perf_counter(), time.thread_time()
            record(metric, value, *labels)
            calls_s += time.thread_time() - cpu_s
            longest_s = max(longest_s, time.perf_counter() - wall_s)
        cpu_s = time.thread_time()
        metrics.flush()
        flush_s += time.thread_time() - cpu_s
    made = _REPEATS * len(counted.calls)
    return {"call_s": calls_s / made, "flush_s": flush_s / made, "longest_s": longest_s}


def main() -> None:
    """Measure, print the results, and write them to ``out/bench/metrics.json``."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.benchmarks.metrics")
    parser.add_argument("--turns", type=int, default=_TURNS, help="turns of rounds (%(default)s)")
    parser.add_argument("--images", type=int, default=_IMAGES, help="of a round (%(default)s)")
    parser.add_argument("--corpus", default="1600x1200", help="set of images (%(default)s)")
    options = parser.parse_args()
    images = [path.read_bytes() for path in corpus(options.corpus, options.images)]
    with ray_environment():
        ray.init(
            address="local",
            num_cpus=1,
            include_dashboard=False,
            log_to_driver=False,
            _temp_dir=ray_temporary_folder(),
        )
        try:
            numbers = asyncio.run(measure(images, options.turns))
        finally:
            ray.shutdown()
    print_result(numbers, Console())
    content = {**describe_measurement("loadtests.benchmarks.metrics"), **numbers}
    print(f"Written to {write_result('metrics.json', content)}")


async def measure(images: Sequence[bytes], turns: int) -> dict[str, Any]:
    """Return the cost of the metrics.

    Args:
        images: Image files.
        turns: Number of turns, each with one round of each of ``_ROUNDS``.
    """
    config = AppConfig.load({"models": [BUNDLED_MODEL]})
    metrics = RayMetrics()
    switched = SwitchedMetrics(metrics)
    pipeline = _pipeline(config, switched)
    recipe = parse_recipe({"checks": {"min_subject_px": 0}})

    async def run(kind: str) -> Round:
        recorded = kind == "recorded"
        switched.switch(on=recorded)
        return await _round(pipeline, images, recipe, metrics if recorded else None)

    for kind in _ROUNDS[:2]:
        await run(kind)
    found: dict[str, list[Round]] = {kind: [] for kind in _ROUNDS}
    for number in range(turns):
        first = number % len(_ROUNDS)
        for kind in (*_ROUNDS[first:], *_ROUNDS[:first]):
            found[kind].append(await run(kind))
    counted = CountedMetrics()
    await _round(_pipeline(config, counted), images, recipe, None)
    times = time_calls(counted)
    calls = len(counted.calls) / len(images)
    recorded, unrecorded, control = (found[kind] for kind in _ROUNDS)
    cpu_s = statistics.median(one.cpu_s for one in unrecorded) / len(images)
    return {
        "turns": turns,
        "images": len(images),
        "cpu_ms": cpu_s * 1e3,
        **_costs("", recorded, unrecorded),
        **_costs("control_", control, unrecorded),
        "calls": calls,
        "call_us": times["call_s"] * 1e6,
        "flush_us": times["flush_s"] * 1e6,
        "longest_call_us": times["longest_s"] * 1e6,
        "calls_share": calls * (times["call_s"] + times["flush_s"]) / cpu_s,
    }


def _costs(prefix: str, some: Sequence[Round], others: Sequence[Round]) -> dict[str, Any]:
    """Return by how much rounds exceed others of the same turns, as shares."""
    pairs = list(zip(some, others, strict=True))
    cpu = [one.cpu_s / other.cpu_s - 1 for one, other in pairs]
    wall = [one.wall_s / other.wall_s - 1 for one, other in pairs]
    return {
        f"{prefix}cpu_cost": statistics.median(cpu),
        f"{prefix}cpu_cost_interval": median_interval(cpu),
        f"{prefix}wall_cost": statistics.median(wall),
        f"{prefix}wall_cost_interval": median_interval(wall),
    }


def _pipeline(config: AppConfig, metrics: Metrics) -> ImagePipeline:
    threads = imaging_threads(config.pipeline)
    models = LocalSegmenters(config, threads, metrics)
    return ImagePipeline(config, open_store(config), models, threads, metrics)


async def _round(
    pipeline: ImagePipeline, images: Sequence[bytes], recipe: Recipe, metrics: RayMetrics | None
) -> Round:
    waiting = iter(images)
    ended = asyncio.Event()

    async def client() -> None:
        for data in waiting:
            await pipeline.cut_out(data, recipe)

    wall_s, cpu_s = time.perf_counter(), time.process_time()
    async with asyncio.TaskGroup() as tasks:
        if metrics is not None:
            tasks.create_task(_keep_flushing(metrics, ended))
        await asyncio.gather(*(client() for _ in range(_AT_ONCE)))
        ended.set()
    return Round(time.perf_counter() - wall_s, time.process_time() - cpu_s)


async def _keep_flushing(metrics: RayMetrics, ended: asyncio.Event) -> None:
    """Give Ray what was noted, each second and at the end, as ``ray_metrics`` does."""
    while not ended.is_set():
        with suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), FLUSHED_EVERY_S)
        await asyncio.to_thread(metrics.flush)


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the interval that holds the median of all possible values with 95 %.

    Its ends are two of the values, by the binomial distribution of those below the median, which
    assumes nothing about the distribution of the values themselves.

    Args:
        values: At least one value.
    """
    ordered, reach = sorted(values), _NORMAL_95 / 2 * math.sqrt(len(values))
    lowest = max(0, math.floor(len(values) / 2 - reach))
    return ordered[lowest], ordered[-1 - lowest]


def print_result(numbers: dict[str, Any], console: Console) -> None:
    """Print the result as a table."""
    table = Table(title="Cost of the metrics", title_justify="left")
    table.add_column("")
    table.add_column("value", justify="right")
    for text, value in (
        ("CPU time of an image without metrics", f"{numbers['cpu_ms']:.1f} ms"),
        ("more CPU time with metrics (median of turns, 95 %)", _share(numbers, "cpu_cost")),
        ("the same without metrics in both", _share(numbers, "control_cpu_cost")),
        ("more wall time with metrics (median of turns, 95 %)", _share(numbers, "wall_cost")),
        ("the same without metrics in both", _share(numbers, "control_wall_cost")),
        ("calls for each image", f"{numbers['calls']:.0f}"),
        ("CPU time of a call", f"{numbers['call_us']:.1f} µs"),
        ("CPU time of its flush, in another thread", f"{numbers['flush_us']:.1f} µs"),
        ("longest call", f"{numbers['longest_call_us']:.0f} µs"),
        ("all calls of an image and their flush", f"{numbers['calls_share']:.2%}"),
    ):
        table.add_row(text, value)
    console.print(table)
    met = max(numbers["calls_share"], numbers["cpu_cost"], numbers["wall_cost"]) <= _LIMIT
    console.print(f"The limit is {_LIMIT:.0%}: {'met' if met else 'missed'}.")


def _share(numbers: dict[str, Any], name: str) -> str:
    low, high = numbers[f"{name}_interval"]
    return f"{numbers[name]:+.2%} ({low:+.2%} to {high:+.2%})"


if __name__ == "__main__":
    main()
