"""Latency of one image with each execution: ``python -m loadtests.benchmarks.execution``.

Nothing else waits, so that ``fan_out`` keeps one thread busy and ``stack`` all of them. Both run
the same images in turns. Other work on the machine takes the gain away.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from dataclasses import dataclass
from functools import partial

from loadtests.harness.networks import ARCHITECTURES
from loadtests.harness.results import (
    DOCS,
    describe_machine,
    measure_busy_cores,
    write_between_markers,
)
from loadtests.harness.shaped_models import BenchmarkModel, benchmark_model
from serve_app.config import AppConfig
from serve_app.imaging.pixels import Pixels
from serve_app.models.engines.onnx_runtime import probe_image
from serve_app.models.inference import Model, load_model
from serve_app.models.registry import BUNDLED_MODEL

_EXECUTIONS = ("fan_out", "stack")


@dataclass(frozen=True, slots=True)
class RunTime:
    """What one image takes with one execution."""

    wall_s: float
    """Median seconds from the image to its mask."""
    cpu_s: float
    """Median CPU seconds of all threads."""


def measure(model: BenchmarkModel, threads: int, runs: int) -> dict[str, RunTime]:
    """Return what one image takes with each execution."""
    runners = {}
    for execution in _EXECUTIONS:
        segmenter = {"execution": execution, "threads": threads}
        loaded = load_model(model.name, AppConfig.load({**model.settings, "segmenter": segmenter}))
        runners[execution] = partial(_run, loaded, probe_image(loaded.size_px))
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in runners}
    for turn in range(runs + 1):
        for name, run in runners.items():
            found = run()
            # The first run takes memory from the system.
            if turn:
                times[name].append(found)
    return {
        name: RunTime(
            statistics.median(wall_s for wall_s, _ in found),
            statistics.median(cpu_s for _, cpu_s in found),
        )
        for name, found in times.items()
    }


def _run(model: Model, image: Pixels) -> tuple[float, float]:
    """Run a model, and return its wall and CPU seconds."""
    started_s, cpu_s = time.perf_counter(), time.process_time()
    model.masks(image)
    return time.perf_counter() - started_s, time.process_time() - cpu_s


def main() -> None:
    """Measure the models that the command line names, and print a table."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.benchmarks.execution",
        description="Measure the latency of one image with each execution.",
    )
    known = (BUNDLED_MODEL, *ARCHITECTURES)
    parser.add_argument("--models", nargs="+", default=["u2netp"], choices=known, help="models")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of stack")
    parser.add_argument("--runs", type=int, default=15, help="runs of each execution")
    parser.add_argument("--write-docs", action="store_true", help=f"write the table into {DOCS}")
    options = parser.parse_args()
    busy, machine = measure_busy_cores(), describe_machine()
    lines = [
        "| one image at a time | `fan_out` | `stack` | times as fast | times the CPU time |",
        "|---|---:|---:|---:|---:|",
    ]
    for name in options.models:
        model = benchmark_model(name)
        found = measure(model, options.threads, options.runs)
        single, shared = found["fan_out"], found["stack"]
        lines.append(
            f"| {model.label} | {1000 * single.wall_s:.0f} ms | {1000 * shared.wall_s:.0f} ms | "
            f"{single.wall_s / shared.wall_s:.2f} | {shared.cpu_s / single.cpu_s:.2f} |"
        )
    lines += [
        "",
        f"{options.threads} threads, medians of {options.runs} runs in turns, on {machine['cpu']}, "
        f"{machine['cores']} cores, {busy:g} of them busy with other work before.",
    ]
    text = "\n".join(lines)
    print(text)
    if options.write_docs:
        write_between_markers(DOCS, "execution", text)


if __name__ == "__main__":
    main()
