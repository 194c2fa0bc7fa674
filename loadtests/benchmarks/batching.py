"""``serve.batch`` against our own ``Batcher``: the same arrivals, the same work, one replica.

``python -m loadtests.benchmarks.batching`` writes ``out/bench/batching.csv`` and prints a table.
Three kinds of work: a model that costs much (the shape of u2netp) and one that costs little
(folio), both fanned out over threads as on a CPU, and a declared stand-in for an accelerator, which
sleeps for as long as a batch would take. Arrivals are Poisson's, at shares of what our Batcher
achieves when everything comes at once.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt

# Here, before its environment is set: with that, a handle needs an event loop in this process.
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
"""A run's own time and what each image adds: of the order of a U²-Net on a GPU."""

ACCELERATOR = "accelerator"

_SEED = 11
_LOGICAL_CPUS = 4
_OUT = Path("out/bench/batching.csv")

Image = npt.NDArray[np.uint8]
Run = Callable[[Sequence[Image]], Sequence[object]]
Submit = Callable[[Image], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Work:
    """What is batched."""

    name: str
    run: Run
    """Blocks, with one batch."""
    run_s: float
    """Of a batch of one, about: what the wait of serve.batch is set near to."""
    image: Image
    fan_out: bool
    images: int


@dataclass(frozen=True, slots=True)
class Result:
    """What one contender made of one load."""

    work: str
    load: str
    contender: str
    images_per_s: float
    p50_ms: float
    p95_ms: float
    mean_batch: float


class Counted:
    """A run that counts its batches."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.sizes: list[int] = []

    def __call__(self, images: Sequence[Image]) -> Sequence[object]:
        """Run a batch."""
        self.sizes.append(len(images))
        return self._run(images)


def ours(run: Run, work: Work) -> Submit:
    """Return the Batcher as Segmenter has it."""
    if work.fan_out:
        return Batcher(run, slots=THREADS, max_batch_size=1).submit
    return Batcher(run, slots=1, max_batch_size=MAX_BATCH_SIZE).submit


def serve_batch(run: Run, work: Work, *, size: int, wait_s: float, concurrent: int = 1) -> Submit:
    """Return a method under ``serve.batch``."""
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


def contenders(work: Work) -> dict[str, Callable[[Run], Submit]]:
    """Return every way to batch, by name."""

    def batched(size: int, wait_s: float, concurrent: int = 1) -> Callable[[Run], Submit]:
        return lambda run: serve_batch(run, work, size=size, wait_s=wait_s, concurrent=concurrent)

    found: dict[str, Callable[[Run], Submit]] = {"Batcher": lambda run: ours(run, work)}
    found[f"serve.batch({MAX_BATCH_SIZE}, 10 ms)"] = batched(MAX_BATCH_SIZE, 0.01)
    found[f"serve.batch({MAX_BATCH_SIZE}, run time)"] = batched(MAX_BATCH_SIZE, work.run_s)
    if work.fan_out:
        found[f"serve.batch({THREADS}, 10 ms)"] = batched(THREADS, 0.01)
        found[f"serve.batch(1), {THREADS} at once"] = batched(1, 0, THREADS)
    else:
        found[f"serve.batch({MAX_BATCH_SIZE}, 0 ms)"] = batched(MAX_BATCH_SIZE, 0)
    return found


async def drive(submit: Submit, work: Work, per_s: float | None) -> tuple[float, list[float]]:
    """Return the images a second, and the latencies, of a load.

    Args:
        submit: Takes an image.
        work: Its images.
        per_s: Arrivals; None: all at once.
    """
    arrivals = random.Random(_SEED)
    latencies: list[float] = []

    async def one() -> None:
        started_at = time.perf_counter()
        await submit(work.image)
        latencies.append(time.perf_counter() - started_at)

    began = time.perf_counter()
    due = began
    tasks = []
    for _ in range(work.images):
        if per_s is not None:
            due += arrivals.expovariate(per_s)
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(one()))
    await asyncio.gather(*tasks)
    return work.images / (time.perf_counter() - began), latencies


async def measure(work: Work, loads: Sequence[float], repeats: int) -> list[Result]:
    """Return what every contender made of every load; contenders take turns."""
    capacity, _ = await drive(ours(work.run, work), work, None)
    results = []
    for share in [None, *loads]:
        per_s = None if share is None else share * capacity
        rates: dict[str, list[float]] = {}
        latencies: dict[str, list[float]] = {}
        sizes: dict[str, list[int]] = {}
        for _ in range(repeats):
            for name, contender in contenders(work).items():
                counted = Counted(work.run)
                rate, took = await drive(contender(counted), work, per_s)
                rates.setdefault(name, []).append(rate)
                latencies.setdefault(name, []).extend(took)
                sizes.setdefault(name, []).extend(counted.sizes)
        for name, found in rates.items():
            p50_s, p95_s = np.percentile(latencies[name], [50, 95])
            results.append(
                Result(
                    work.name,
                    "all at once" if share is None else f"{share:.0%} ({per_s:.1f}/s)",
                    name,
                    round(float(np.median(found)), 2),
                    round(float(p50_s) * 1000, 1),
                    round(float(p95_s) * 1000, 1),
                    # Fanned out, a batch becomes runs of one image: its size is not seen here.
                    1.0 if work.fan_out else round(float(np.mean(sizes[name])), 2),
                )
            )
    return results


def model_work(name: str, images: int) -> Work:
    """Return the work of a real model, fanned out."""
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
    return Work(
        found.label, run, time.perf_counter() - started_at, image, fan_out=True, images=images
    )


def accelerator_work(images: int) -> Work:
    """Return the work of the stand-in for an accelerator."""

    def run(batch: Sequence[Image]) -> Sequence[object]:
        time.sleep(ACCELERATOR_RUN_S + ACCELERATOR_ITEM_S * len(batch))
        return batch

    name = (
        f"stand-in accelerator ({ACCELERATOR_RUN_S * 1000:.0f} ms "
        f"+ {ACCELERATOR_ITEM_S * 1000:.0f} ms an image)"
    )
    pixel = np.zeros((1, 1, 3), np.uint8)
    return Work(name, run, ACCELERATOR_RUN_S, pixel, fan_out=False, images=images)


class Bench:
    """A deployment that measures within itself: ``serve.batch`` works in a replica alone."""

    async def measure(
        self, kind: str, images: int, loads: Sequence[float], repeats: int
    ) -> list[Result]:
        """Return the results of one kind of work."""
        work = accelerator_work(images) if kind == ACCELERATOR else model_work(kind, images)
        return await measure(work, loads, repeats)


def write(path: Path, results: Sequence[Result]) -> None:
    """Write results as CSV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        rows = csv.DictWriter(file, [column.name for column in fields(Result)])
        rows.writeheader()
        rows.writerows(asdict(result) for result in results)


def show(results: Sequence[Result], console: Console) -> None:
    """Print results as a table."""
    table = Table()
    for column in fields(Result):
        table.add_column(column.name)
    previous = None
    for result in results:
        if previous is not None and (result.work, result.load) != previous:
            table.add_section()
        previous = (result.work, result.load)
        table.add_row(*(str(value) for value in asdict(result).values()))
    console.print(table)


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", type=int, default=150, help="of the light model, for each load")
    parser.add_argument("--heavy-images", type=int, default=24, help="of the heavy one")
    parser.add_argument("--loads", type=float, nargs="*", default=[0.5, 0.8])
    parser.add_argument("--repeats", type=int, default=3, help="in which contenders take turns")
    works = (ACCELERATOR, "folio", "u2netp")
    parser.add_argument("--works", nargs="+", default=list(works), choices=works)
    parser.add_argument("--out", type=Path, default=_OUT)
    options = parser.parse_args()
    images = {ACCELERATOR: options.images, "folio": options.images, "u2netp": options.heavy_images}
    results: list[Result] = []
    with local_serve(_LOGICAL_CPUS, port=free_port()):
        bench = serve.deployment(Bench).options(max_ongoing_requests=MAX_BATCH_SIZE)
        handle = serve.run(bench.bind(), name="batching", route_prefix=None)
        for kind in options.works:
            measured = handle.measure.remote(kind, images[kind], options.loads, options.repeats)
            results += measured.result()
            write(options.out, results)
    show(results, Console(width=140))


if __name__ == "__main__":
    main()
