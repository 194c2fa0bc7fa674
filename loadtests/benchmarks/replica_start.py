"""Start of a replica in parts: ``python -m loadtests.benchmarks.replica_start``.

Serve gives a replica two pickles, the class of its deployment and the arguments of its constructor.
The benchmark opens both in a fresh interpreter, constructs the replica, waits for its model, and
cuts out an image. The pipeline runs the model itself (``segmenter.placement: pipeline``), so that
one process does everything. Times are CPU times of the process with all its threads, which other
work on the machine changes little.
"""

from __future__ import annotations

import argparse
import json
import pickle
import statistics
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

from ray import cloudpickle
from ray.serve._private.build_app import build_app

from loadtests.harness.results import describe_measurement, write_between_markers, write_result
from serve_app.app import build

PARTS = ("Python and Ray Serve", "imports", "constructor and model", "first image", "second image")

_DOCUMENT = Path("docs/operations/scaling.md")
_IMAGE = "raccoon.jpg"
_START = """
import json, pickle, sys, time
from ray import cloudpickle, serve
times = [time.process_time()]
*blobs, image = pickle.load(sys.stdin.buffer)
make, arguments = map(cloudpickle.loads, blobs)
times.append(time.process_time())

async def run():
    from serve_app.contracts.recipe import Recipe
    replica = make(*arguments)
    await replica.models()
    times.append(time.process_time())
    for _ in range(2):
        await replica.cut_out(image, Recipe())
        times.append(time.process_time())

import asyncio
asyncio.run(run())
print(json.dumps(times))
"""


def measure(blobs: list[bytes], runs: int) -> list[float]:
    """Return the CPU seconds of each of ``PARTS``, medians of runs."""
    found = []
    for _ in range(runs):
        command = [sys.executable, "-c", _START]
        done = subprocess.run(
            command, input=pickle.dumps(blobs), stdout=subprocess.PIPE, check=True
        )
        times = json.loads(done.stdout.splitlines()[-1])
        found.append([after - before for before, after in zip([0, *times], times, strict=False)])
    return [statistics.median(values) for values in zip(*found, strict=True)]


def parts_of(model: str, runs: int) -> list[float]:
    """Return the CPU seconds of each part of the start of a pipeline with a model."""
    application = build({"models": [model], "segmenter": {"placement": "pipeline"}})
    [pipeline] = [
        each
        for each in build_app(application, name="default").deployments
        if each.name == "CutoutPipeline"
    ]
    pickles = [cloudpickle.dumps(part) for part in (pipeline.func_or_class, pipeline.init_args)]
    image = (files("ingest.local") / "real_photographs" / _IMAGE).read_bytes()
    return measure([*pickles, image], runs)


def main() -> None:
    """Measure each model, and print or write the table."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.benchmarks.replica_start",
        description="Measure the CPU time of each part of a replica's start.",
    )
    parser.add_argument("--runs", type=int, default=7, help="runs of each (default: 7)")
    parser.add_argument("--models", nargs="+", default=["folio", "u2netp"], metavar="MODEL")
    parser.add_argument("--write-docs", action="store_true", help=f"write into {_DOCUMENT}")
    options = parser.parse_args()
    found = {model: parts_of(model, options.runs) for model in options.models}
    lines = [f"| model | {' | '.join(PARTS)} | until the first image |"]
    lines.append("|---|" + "---:|" * (len(PARTS) + 1))
    for model, parts in found.items():
        cells = " | ".join(f"{seconds:.2f} s" for seconds in parts)
        lines.append(f"| `{model}` | {cells} | {sum(parts[:-1]):.2f} s |")
    table = "\n".join(lines)
    measurement = describe_measurement("loadtests.benchmarks.replica_start")
    print(table, write_result("replica_start.json", {**measurement, "parts": found}), sep="\n\n")
    if options.write_docs:
        write_between_markers(_DOCUMENT, "replica-start", table)


if __name__ == "__main__":
    main()
