"""``serve.batch`` compared with ``Batcher``, with the same arrivals and work in one replica.

``python -m loadtests.benchmarks.batching`` writes ``out/bench/batching.csv`` and prints a table.
There are three kinds of work: an expensive model (u2netp's shape) and a cheap one (folio), both
fanned out over threads, and a stand-in for an accelerator, which sleeps for as long as a batch
would take. Images arrive as a Poisson process, at shares of the rate that ``Batcher`` reaches when
all images are submitted at once.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import random
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt

# Imported before Ray's environment is set, after which a handle needs an event loop here.
from ray import serve
from rich.console import Console
from rich.table import Table

from ingest.local.application import local_serve
from ingest.local.ports import free_port
from loadtests.harness.shaped_models import benchmark_model
from serve_app.config import AppConfig
from serve_app.models.inference import load_model
from serve_app.segmenter.batcher import Batcher

THREADS = 2
MAX_BATCH_SIZE = 8
ACCELERATOR_RUN_S, ACCELERATOR_ITEM_S = 0.04, 0.004
"""Fixed time of a run and time for each image, so that large batches are much cheaper."""

ACCELERATOR = "accelerator"

_SEED = 11
_LOGICAL_CPUS = 4
_OUT = Path("out/bench/batching.csv")

Image = npt.NDArray[np.uint8]
RunBatch = Callable[[Sequence[Image]], Sequence[object]]
Submit = Callable[[Image], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Workload:
    """Images, and a function that processes batches of them."""

    name: str
    run: RunBatch
    """Function that processes one batch, and blocks meanwhile."""
    run_s: float
    """Approximate duration of a batch of one, which is the wait of one contender."""
    image: Image
    fan_out: bool
    """Run the images of a batch one by one on several threads."""
    images: int


@dataclass(frozen=True, slots=True)
class BatchingResult:
    """Rate and latencies of one contender under one load."""

    work: str
    load: str
    contender: str
    images_per_s: float
    p50_ms: float
    p95_ms: float
    mean_batch: float


class CountingRun:
    """A batch function that records the sizes of its batches."""

    def __init__(self, run: RunBatch) -> None:
        self._run = run
        self.sizes: list[int] = []

    def __call__(self, images: Sequence[Image]) -> Sequence[object]:
        """Run a batch."""
        self.sizes.append(len(images))
        return self._run(images)


def submit_to_batcher(run: RunBatch, work: Workload) -> Submit:
    """Return the submit method of a Batcher with the settings of Segmenter."""
    if work.fan_out:
        return Batcher(run, slots=THREADS, max_batch_size=1).submit
    return Batcher(run, slots=1, max_batch_size=MAX_BATCH_SIZE).submit


def submit_to_serve_batch(
    run: RunBatch, work: Workload, *, size: int, wait_s: float, concurrent: int = 1
) -> Submit:
    """Return a function that ``serve.batch`` decorates."""
    threads = ThreadPoolExecutor(THREADS)

    async def batch(images: list[Image]) -> list[object]:
        loop = asyncio.get_running_loop()
        if not work.fan_out:
            return list(await loop.run_in_executor(threads, run, images))
        calls = [loop.run_in_executor(threads, run, [image]) for image in images]
        return [(await call)[0] for call in calls]

    decorate = serve.batch(
        max_batch_size=size, batch_wait_timeout_s=wait_s, max_concurrent_batches=concurrent
    )
    submit: Submit = decorate(batch)
    return submit


def contenders(work: Workload) -> dict[str, Callable[[RunBatch], Submit]]:
    """Return every way to batch, by name."""

    def batched(size: int, wait_s: float, concurrent: int = 1) -> Callable[[RunBatch], Submit]:
        return lambda run: submit_to_serve_batch(
            run, work, size=size, wait_s=wait_s, concurrent=concurrent
        )

    found: dict[str, Callable[[RunBatch], Submit]] = {
        "Batcher": lambda run: submit_to_batcher(run, work)
    }
    found[f"serve.batch({MAX_BATCH_SIZE}, 10 ms)"] = batched(MAX_BATCH_SIZE, 0.01)
    found[f"serve.batch({MAX_BATCH_SIZE}, run time)"] = batched(MAX_BATCH_SIZE, work.run_s)
    if work.fan_out:
        found[f"serve.batch({THREADS}, 10 ms)"] = batched(THREADS, 0.01)
        found[f"serve.batch(1), {THREADS} at once"] = batched(1, 0, THREADS)
    else:
        found[f"serve.batch({MAX_BATCH_SIZE}, 0 ms)"] = batched(MAX_BATCH_SIZE, 0)
    return found


async def submit_all(
    submit: Submit, work: Workload, per_s: float | None
) -> tuple[float, list[float]]:
    """Submit all images of a workload, and return the images per second and the latencies.

    Args:
        submit: Function that takes an image.
        work: Workload with the images.
        per_s: Rate of arrivals, or None to submit all at once.
    """
    arrivals = random.Random(_SEED)
    latencies: list[float] = []

    async def submit_one() -> None:
        started_at = time.perf_counter()
        await submit(work.image)
        latencies.append(time.perf_counter() - started_at)

    began_at = time.perf_counter()
    due_at = began_at
    tasks = []
    for _ in range(work.images):
        if per_s is not None:
            due_at += arrivals.expovariate(per_s)
            await asyncio.sleep(max(0.0, due_at - time.perf_counter()))
        tasks.append(asyncio.create_task(submit_one()))
    await asyncio.gather(*tasks)
    return work.images / (time.perf_counter() - began_at), latencies


async def measure(work: Workload, loads: Sequence[float], repeats: int) -> list[BatchingResult]:
    """Measure every contender under every load. The contenders take turns.

    Args:
        work: Workload of all contenders.
        loads: Arrival rates, as shares of the capacity of Batcher.
        repeats: Number of turns.
    """
    capacity, _ = await submit_all(submit_to_batcher(work.run, work), work, None)
    results = []
    for share in [None, *loads]:
        per_s = None if share is None else share * capacity
        load = "all at once" if share is None else f"{share:.0%} ({per_s:.1f}/s)"
        rates: defaultdict[str, list[float]] = defaultdict(list)
        latencies: defaultdict[str, list[float]] = defaultdict(list)
        sizes: defaultdict[str, list[int]] = defaultdict(list)
        for _ in range(repeats):
            for name, contender in contenders(work).items():
                counting = CountingRun(work.run)
                rate, took = await submit_all(contender(counting), work, per_s)
                rates[name].append(rate)
                latencies[name] += took
                sizes[name] += counting.sizes
        for name, found in rates.items():
            p50_s, p95_s = np.percentile(latencies[name], [50, 95])
            results.append(
                BatchingResult(
                    work.name,
                    load,
                    name,
                    round(float(np.median(found)), 2),
                    round(float(p50_s) * 1000, 1),
                    round(float(p95_s) * 1000, 1),
                    # Fanned out, a batch becomes runs of one image, which hide its size.
                    1.0 if work.fan_out else round(float(np.mean(sizes[name])), 2),
                )
            )
    return results


def model_workload(name: str, images: int) -> Workload:
    """Return the workload of a real model, fanned out over threads."""
    found = benchmark_model(name)
    config = AppConfig.load({**found.settings, "segmenter": {"threads": THREADS}})
    model = load_model(found.name, config)
    image = np.random.default_rng(_SEED).integers(
        0, 256, (model.size_px, model.size_px, 3), dtype=np.uint8
    )

    def run(batch: Sequence[Image]) -> Sequence[object]:
        return list(model.masks(np.stack(batch)))

    run([image])
    started_at = time.perf_counter()
    run([image])
    run_s = time.perf_counter() - started_at
    return Workload(found.label, run, run_s, image, fan_out=True, images=images)


def accelerator_workload(images: int) -> Workload:
    """Return the workload of the stand-in for an accelerator."""

    def run(batch: Sequence[Image]) -> Sequence[object]:
        time.sleep(ACCELERATOR_RUN_S + ACCELERATOR_ITEM_S * len(batch))
        return batch

    name = (
        f"stand-in accelerator ({ACCELERATOR_RUN_S * 1000:.0f} ms "
        f"+ {ACCELERATOR_ITEM_S * 1000:.0f} ms an image)"
    )
    pixel = np.zeros((1, 1, 3), np.uint8)
    return Workload(name, run, ACCELERATOR_RUN_S, pixel, fan_out=False, images=images)


class BatchingBenchmark:
    """A deployment that measures within its replica, because ``serve.batch`` only works there."""

    async def measure(
        self, kind: str, images: int, loads: Sequence[float], repeats: int
    ) -> list[BatchingResult]:
        """Return the results of one kind of work."""
        work = accelerator_workload(images) if kind == ACCELERATOR else model_workload(kind, images)
        return await measure(work, loads, repeats)


def write_csv(path: Path, results: Sequence[BatchingResult]) -> None:
    """Write results as CSV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        rows = csv.DictWriter(file, [column.name for column in fields(BatchingResult)])
        rows.writeheader()
        rows.writerows(asdict(result) for result in results)


def print_table(results: Sequence[BatchingResult], console: Console) -> None:
    """Print results as a table."""
    table = Table()
    for column in fields(BatchingResult):
        table.add_column(column.name)
    previous = None
    for result in results:
        if previous is not None and (result.work, result.load) != previous:
            table.add_section()
        previous = (result.work, result.load)
        table.add_row(*(str(value) for value in asdict(result).values()))
    console.print(table)


def main() -> None:
    """Run the comparison, write the results as CSV, and print them."""
    options = _parse_arguments()
    images = {ACCELERATOR: options.images, "folio": options.images, "u2netp": options.heavy_images}
    results: list[BatchingResult] = []
    with local_serve(_LOGICAL_CPUS, port=free_port()):
        bench = serve.deployment(BatchingBenchmark).options(max_ongoing_requests=MAX_BATCH_SIZE)
        handle = serve.run(bench.bind(), name="batching", route_prefix=None)
        for kind in options.works:
            measured = handle.measure.remote(kind, images[kind], options.loads, options.repeats)
            results += measured.result()
            write_csv(options.out, results)
    print_table(results, Console(width=140))


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.benchmarks.batching",
        description="Compare serve.batch with Batcher.",
    )
    add = parser.add_argument
    add("--images", type=int, default=150, help="images of the cheap workloads, for each load")
    add("--heavy-images", type=int, default=24, help="images of u2netp, for each load")
    loads = "arrival rates, as shares of the capacity of Batcher"
    add("--loads", type=float, nargs="*", default=[0.5, 0.8], help=loads)
    add("--repeats", type=int, default=3, help="measurements of each contender under each load")
    works = (ACCELERATOR, "folio", "u2netp")
    add("--works", nargs="+", default=list(works), choices=works, help="kinds of work")
    add("--out", type=Path, default=_OUT, help="CSV file of the results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
