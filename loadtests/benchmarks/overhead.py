"""Cost of the application compared with the bare work: ``python -m loadtests.benchmarks.overhead``.

The same images go, on the same cores and in turns, through a bare loop in one process
(``bare_loop``), the application over HTTP, and the application through the queue. Medians over the
rounds go to the terminal and into ``out/bench/overhead.json``, which also holds the seconds that
each stage takes for an image. ``plan_profile`` reads that file.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from loadtests.benchmarks.bare_loop import STAGES
from loadtests.harness.application import Round, running_application, single_machine_settings
from loadtests.harness.corpus import corpus
from loadtests.harness.metering import NOT_IN_PRODUCTION, REPLICA_PARTS, Meter, ray_part
from loadtests.harness.networks import ARCHITECTURES
from loadtests.harness.results import (
    DOCS,
    describe_measurement,
    measure_busy_cores,
    median_of,
    write_between_markers,
    write_result,
)
from loadtests.harness.shaped_models import BenchmarkModel, benchmark_model
from serve_app.models.registry import BUNDLED_MODEL

_IDLE_S = 5.0
_ROUND_S = 10
_MODELS = (BUNDLED_MODEL, "u2netp")
_FEW_IMAGES = 24
_MAX_IMAGES = 96
"""Most images of a round. They all differ, because the application does no image of a run twice."""


def main() -> None:
    """Measure every model, print the results, and write them."""
    options = _parse_arguments()
    console = Console()
    results = []
    for name in options.models:
        results.append(measure(benchmark_model(name), options, console))
        print_result(results[-1], console)
    content = {**describe_measurement("loadtests.benchmarks.overhead"), "results": results}
    console.print(f"Written to {write_result('overhead.json', content)}", highlight=False)
    if options.write_docs:
        write_between_markers(DOCS, "overhead", markdown(content))
        console.print(f"Written into {DOCS}", highlight=False)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.benchmarks.overhead",
        description="Measure the cost of the application compared with a bare loop.",
    )
    add = parser.add_argument
    known = (BUNDLED_MODEL, *ARCHITECTURES)
    add("--models", nargs="+", default=list(_MODELS), choices=known, help="models to measure")
    add("--photographs", default="1600x1200", help="set of images, or folder")
    add("--count", type=int, help=f"images of a round, at most {_MAX_IMAGES}")
    add("--rounds", type=int, default=3, help="number of rounds")
    add("--threads", type=int, default=os.cpu_count(), help="threads of the bare loop")
    add("--write-docs", action="store_true", help=f"write the tables into {DOCS}")
    return parser.parse_args()


def measure(model: BenchmarkModel, options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Measure one model with the bare loop and the application."""
    busy = measure_busy_cores()
    threads = options.threads
    run_bare_loop = partial(_run_bare_loop, model)
    few = corpus(options.photographs, _FEW_IMAGES)
    single_thread = run_bare_loop(few, 1)
    # Measured while no application runs. Next to an idle one, a single thread has the other cores
    # to itself and all threads together do not, so that threads would seem to be worth less.
    alone = [run_bare_loop(few, threads, "--scaling") for _ in range(options.rounds)]
    fastest = max(found["images_per_s"] for found in alone)
    count = options.count or max(4 * threads, round(_ROUND_S * fastest))
    paths = corpus(options.photographs, min(count, _MAX_IMAGES))
    console.print(
        f"{model.label}: {len(paths)} images a round, {options.rounds} rounds, {busy} cores busy"
    )
    bare, http, queue = [], [], []
    settings = {**model.settings, **single_machine_settings(threads)}
    with running_application(settings) as app:
        app.over_http(paths[: 2 * threads], threads)
        app.through_queue(paths[: 2 * threads])
        idle = _measure_idle()
        for _ in range(options.rounds):
            bare.append(_floats(run_bare_loop(paths, threads)))
            http.append(_round_numbers(app.over_http(paths, 2 * threads), idle))
            queue.append(_round_numbers(app.through_queue(paths), idle))
    return {
        "model": model.name,
        "weights": model.weights,
        "photographs": options.photographs,
        "images_per_round": len(paths),
        "rounds": options.rounds,
        "threads": threads,
        "cores_busy_before": busy,
        "stages_ms": single_thread["stages_ms"],
        "segmenter_scaling": statistics.median(found["segmenter_scaling"] for found in alone),
        "idle_cpu_s_per_s": idle,
        "bare": median_of(bare),
        "http": median_of(http),
        "queue": median_of(queue),
    }


def _run_bare_loop(
    model: BenchmarkModel, paths: Sequence[Path], threads: int, *options: str
) -> dict[str, Any]:
    module = "loadtests.benchmarks.bare_loop"
    command = [sys.executable, "-m", module, *options, model.name, str(threads)]
    done = subprocess.run([*command, *map(str, paths)], check=True, stdout=subprocess.PIPE)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _floats(found: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in found.items() if isinstance(value, float)}


def _measure_idle() -> dict[str, float]:
    """Return the CPU seconds that the idle application uses each second, by part."""
    meter = Meter(os.getpid(), ray_part)
    time.sleep(_IDLE_S)
    return {part: seconds / _IDLE_S for part, seconds in meter.cpu_s().items()}


def _round_numbers(found: Round, idle: dict[str, float]) -> dict[str, float]:
    """Return a round's numbers, with the CPU seconds for each image that each part used."""
    numbers = found.numbers(leave_out=NOT_IN_PRODUCTION) | found.cpu_of_parts()
    replicas = sum(seconds for part, seconds in found.cpu_s.items() if part in REPLICA_PARTS)
    numbers["replicas_cpu_s_per_image"] = replicas / found.images
    numbers["idle_cpu_s_per_image"] = (
        sum(rate for part, rate in idle.items() if part not in NOT_IN_PRODUCTION)
        * found.wall_s
        / found.images
    )
    return numbers


def print_result(result: dict[str, Any], console: Console) -> None:
    """Print the tables of a result."""
    console.print(stage_table(result))
    console.print(system_table(result))
    console.print(
        f"Segmenter with {result['threads']} threads: {result['segmenter_scaling']:.2f} x the "
        "images/s of 1 thread, with nothing else on the cores",
        highlight=False,
    )


def stage_table(result: dict[str, Any]) -> Table:
    """Return a table of the CPU time that each stage takes for one image."""
    table = Table(title=f"CPU time of one image, {result['model']}, {result['photographs']}")
    for stage in STAGES:
        table.add_column(stage, justify="right")
    table.add_column("together", justify="right")
    stages = result["stages_ms"]
    cells = [f"{stages[stage]:.1f}" for stage in STAGES]
    table.add_row(*cells, f"{sum(stages.values()):.1f} ms")
    return table


_COLUMNS = {
    "images/s": ("images_per_s", "{:.2f}"),
    "CPU s/image": ("cpu_s_per_image", "{:.3f}"),
    "of it, replicas": ("replicas_cpu_s_per_image", "{:.3f}"),
    "of it, idle": ("idle_cpu_s_per_image", "{:.3f}"),
    "p50 s": ("p50_s", "{:.2f}"),
    "p95 s": ("p95_s", "{:.2f}"),
}


def rows(result: dict[str, Any]) -> list[list[str]]:
    """Return the cells of the bare loop and of the application, one row for each."""
    bare_s = result["bare"]["cpu_s_per_image"]
    found = []
    for name, label in (("bare", "bare loop"), ("http", "over HTTP"), ("queue", "by the queue")):
        numbers = result[name]
        cells = [form.format(numbers[k]) if k in numbers else "" for k, form in _COLUMNS.values()]
        found.append([label, *cells, f"{numbers['cpu_s_per_image'] / bare_s:.2f}"])
    return found


def system_table(result: dict[str, Any]) -> Table:
    """Return a table of the bare loop and the application, for the terminal."""
    title = f"{result['model']} ({result['weights']}), {result['threads']} threads"
    table = Table(title=title, box=None, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    for name in (*_COLUMNS, "x bare"):
        table.add_column(name, justify="right")
    for row in rows(result):
        table.add_row(*row)
    return table


def markdown(content: dict[str, Any]) -> str:
    """Return the tables for a document."""
    machine = content["machine"]
    lines = [
        f"`{content['command']}`, {content['measured_at'][:10]}, {machine['cpu']}, "
        f"{machine['cores']} cores, {machine['memory_gb']:g} GB."
    ]
    for result in content["results"]:
        busy = result["cores_busy_before"]
        lines += [
            "",
            f"**{result['model']}** ({result['weights']}), {result['photographs']}, medians of "
            f"{result['rounds']} rounds of {result['images_per_round']} images, {busy:g} cores "
            "busy with other work before:",
            "",
            f"| | {' | '.join(_COLUMNS)} | x bare |",
            "|---|" + "---:|" * (len(_COLUMNS) + 1),
            *(f"| {' | '.join(row)} |" for row in rows(result)),
            "",
            f"The Segmenter's code reaches {result['segmenter_scaling']:.2f} x the images/s of "
            f"1 thread on {result['threads']} threads, measured before the application starts.",
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
