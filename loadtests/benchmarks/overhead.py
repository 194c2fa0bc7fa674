"""What the application costs beside the work itself: ``python -m loadtests.benchmarks.overhead``.

The same photographs, on the same cores, in turns: a bare loop in one process (``bare_loop``),
the application over HTTP, and the application through the queue. Medians over the rounds go to
the terminal and into ``out/bench/overhead.json``, which is also the profile of a machine: seconds
for each image, by model, size and stage.
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
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from loadtests.benchmarks.bare_loop import STAGES
from loadtests.harness.application import Foreedge, Round, on_one_machine, running
from loadtests.harness.corpus import corpus
from loadtests.harness.metering import NOT_OURS, REPLICAS, Meter, ray_part
from loadtests.harness.results import (
    DOCS,
    between_markers,
    busy_elsewhere,
    machine,
    median_of,
    write,
)
from loadtests.harness.shaped_models import ARCHITECTURES, BenchmarkModel, benchmark_model
from serve_app.models.registry import BUNDLED_MODEL

_IDLE_S = 5.0
_ROUND_S = 10
_MODELS = (BUNDLED_MODEL, "u2netp")
_FEW_IMAGES = 24
_MOST_IMAGES = 96
"""Of a round. The application does no photograph of a run twice, so that each must be another."""


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.benchmarks.overhead")
    known = (BUNDLED_MODEL, *ARCHITECTURES)
    parser.add_argument("--models", nargs="+", default=list(_MODELS), choices=known)
    parser.add_argument("--photographs", default="1600x1200", help="set or folder")
    parser.add_argument("--count", type=int, help=f"of images in a round, up to {_MOST_IMAGES}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of the bare loop")
    parser.add_argument("--write-docs", action="store_true", help=f"write tables into {DOCS}")
    options = parser.parse_args()
    console = Console()
    results = []
    for name in options.models:
        results.append(measure(benchmark_model(name), options, console))
        show(results[-1], console)
    content = {
        "machine": machine(),
        "measured_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": " ".join(["python -m loadtests.benchmarks.overhead", *sys.argv[1:]]),
        "results": results,
    }
    console.print(f"Written to {write('overhead.json', content)}", highlight=False)
    if options.write_docs:
        DOCS.write_text(between_markers(DOCS.read_text(), "overhead", markdown(content)))
        console.print(f"Written into {DOCS}", highlight=False)


def measure(model: BenchmarkModel, options: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Return everything that is measured with one model."""
    busy = busy_elsewhere()
    threads = options.threads
    few = corpus(options.photographs, _FEW_IMAGES)
    one = _bare(model, few, 1)
    # While the application is up, one thread has the rest of the cores for itself, and all of them
    # have not: what threads are worth is measured before.
    alone = [_bare(model, few, threads, "--scaling") for _ in range(options.rounds)]
    fastest = max(found["images_per_s"] for found in alone)
    count = options.count or max(4 * threads, round(_ROUND_S * fastest))
    paths = corpus(options.photographs, min(count, _MOST_IMAGES))
    count = len(paths)
    console.print(
        f"{model.label}: {count} images a round, {options.rounds} rounds; {busy} cores busy"
    )
    bare, http, queue = [], [], []
    with running({**model.settings, **on_one_machine(threads)}) as app:
        app.over_http(paths[: 2 * threads], threads)
        app.through_queue(paths[: 2 * threads])
        idle = _idle(app)
        for _ in range(options.rounds):
            bare.append(_bare(model, paths, threads))
            http.append(_round(app.over_http(paths, 2 * threads), idle))
            queue.append(_round(app.through_queue(paths), idle))
    return {
        "model": model.name,
        "weights": model.weights,
        "photographs": options.photographs,
        "images_per_round": count,
        "rounds": options.rounds,
        "threads": threads,
        "cores_busy_before": busy,
        "stages_ms": one["stages_ms"],
        "segmenter_scaling": statistics.median(found["segmenter_scaling"] for found in alone),
        "idle_cpu_s_per_s": idle,
        "bare": median_of([_numbers(r) for r in bare]),
        "http": median_of(http),
        "queue": median_of(queue),
    }


def _numbers(found: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in found.items() if isinstance(value, float)}


def _bare(
    model: BenchmarkModel, paths: Sequence[Path], threads: int, *options: str
) -> dict[str, Any]:
    command = [
        sys.executable,
        "-m",
        "loadtests.benchmarks.bare_loop",
        *options,
        model.name,
        str(threads),
    ]
    done = subprocess.run([*command, *map(str, paths)], check=True, stdout=subprocess.PIPE)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _idle(app: Foreedge) -> dict[str, float]:
    """Return CPU seconds in each second of what does nothing, by part."""
    meter = Meter(os.getpid(), ray_part)
    time.sleep(_IDLE_S)
    return {part: seconds / _IDLE_S for part, seconds in meter.cpu_s().items()}


def _round(found: Round, idle: dict[str, float]) -> dict[str, float]:
    """Return a round's numbers, with the CPU seconds of each part for each image."""
    numbers = found.numbers(leave_out=NOT_OURS)
    for part, seconds in found.cpu_s.items():
        numbers[f"cpu of {part}"] = seconds / found.images
    replicas = sum(seconds for part, seconds in found.cpu_s.items() if part in REPLICAS)
    numbers["replicas_cpu_s_per_image"] = replicas / found.images
    numbers["idle_cpu_s_per_image"] = (
        sum(rate for part, rate in idle.items() if part not in NOT_OURS)
        * found.wall_s
        / found.images
    )
    return numbers


def show(result: dict[str, Any], console: Console) -> None:
    """Print tables of a result."""
    console.print(stage_table(result))
    console.print(system_table(result))
    console.print(
        f"Segmenter, 1 thread to {result['threads']}: {result['segmenter_scaling']:.2f} x the "
        "images/s, with nothing else on the cores",
        highlight=False,
    )


def stage_table(result: dict[str, Any]) -> Table:
    """Return where the time of one image goes."""
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
    """Return the cells of the bare loop and of the application, side by side."""
    bare_s = result["bare"]["cpu_s_per_image"]
    found = []
    for name, label in (("bare", "bare loop"), ("http", "over HTTP"), ("queue", "by the queue")):
        numbers = result[name]
        cells = [form.format(numbers[k]) if k in numbers else "" for k, form in _COLUMNS.values()]
        found.append([label, *cells, f"{numbers['cpu_s_per_image'] / bare_s:.2f}"])
    return found


def system_table(result: dict[str, Any]) -> Table:
    """Return a table for the terminal."""
    title = f"{result['model']} ({result['weights']}), {result['threads']} threads"
    table = Table(title=title, box=None, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    for name in (*_COLUMNS, "x bare"):
        table.add_column(name, justify="right")
    for row in rows(result):
        table.add_row(*row)
    return table


def markdown(content: dict[str, Any]) -> str:
    """Return the tables of a document."""
    about = content["machine"]
    lines = [
        f"`{content['command']}`, {content['measured_at'][:10]}; {about['cpu']}, "
        f"{about['cores']} cores, {about['memory_gb']:g} GB."
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
            f"The Segmenter's own code on {result['threads']} threads does "
            f"{result['segmenter_scaling']:.2f} x the images/s of 1 thread, before the application "
            "starts.",
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
