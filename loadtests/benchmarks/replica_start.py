"""Start of a replica in parts: ``python -m loadtests.benchmarks.replica_start``.

Serve gives a replica two pickles, the class of its deployment and the arguments of its constructor.
The benchmark opens both in a fresh interpreter, constructs the replica, waits for its model, and
cuts out an image. The pipeline runs the model itself (``segmenter.placement: pipeline``), so that
one process does everything. Times are CPU times of the process with all its threads, which other
work on the machine changes little. The models take turns. Each is loaded once more as a file of
one's own, whose rewritten graph the replica compares itself
(``serve_app.models.engines.compared``).
"""

from __future__ import annotations

import argparse
import json
import pickle
import statistics
import subprocess
import sys
from collections.abc import Mapping
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

from ray import cloudpickle
from ray.serve._private.build_app import build_app

from loadtests.harness.results import describe_measurement, write_between_markers, write_result
from serve_app.app import build
from serve_app.config import AppConfig
from serve_app.models.registry import locate_weights

PARTS = ("Python and Ray Serve", "imports", "constructor and model", "first image", "second image")

_DOCUMENT = Path("docs/operations/scaling.md")
_IMAGE = "raccoon.jpg"
_OWN = "own"
_OWN_LABEL = ", as a file of one's own"
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


def pickles_of(model: str, *, as_own_file: bool) -> list[bytes]:
    """Return the pickles of a pipeline with a model, and an image.

    Args:
        model: Name of the model.
        as_own_file: Whether the model is served as a file of a name that is not rembg's.
    """
    settings: dict[str, object] = {"models": [model]}
    if as_own_file:
        path = locate_weights(model, AppConfig.load(settings)).path
        settings = {"models": [_OWN], "model_files": {_OWN: str(path)}}
    application = build({**settings, "segmenter": {"placement": "pipeline"}})
    [pipeline] = [
        each
        for each in build_app(application, name="default").deployments
        if each.name == "CutoutPipeline"
    ]
    image = (files("ingest.local") / "real_photographs" / _IMAGE).read_bytes()
    parts = (pipeline.func_or_class, pipeline.init_args)
    return [*map(cloudpickle.dumps, parts), image]


def measure(starts: Mapping[str, list[bytes]], runs: int) -> dict[str, list[float]]:
    """Return the CPU seconds of each of ``PARTS`` for each start, medians of runs in turns.

    Args:
        starts: Pickles and image by the name of a start.
        runs: Number of runs of each.
    """
    found: dict[str, list[list[float]]] = {name: [] for name in starts}
    for _ in range(runs):
        for name, blobs in starts.items():
            done = subprocess.run(
                [sys.executable, "-c", _START],
                input=pickle.dumps(blobs),
                stdout=subprocess.PIPE,
                check=True,
            )
            times = json.loads(done.stdout.splitlines()[-1])
            parts = [after - before for before, after in pairwise([0.0, *times])]
            found[name].append(parts)
    return {
        name: [statistics.median(values) for values in zip(*rows, strict=True)]
        for name, rows in found.items()
    }


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
    starts = {
        f"`{model}`{_OWN_LABEL if own else ''}": pickles_of(model, as_own_file=own)
        for model in options.models
        for own in (False, True)
    }
    found = measure(starts, options.runs)
    lines = [f"| model | {' | '.join(PARTS)} | until the first image |"]
    lines.append("|---|" + "---:|" * (len(PARTS) + 1))
    for name, parts in found.items():
        cells = " | ".join(f"{seconds:.2f} s" for seconds in parts)
        lines.append(f"| {name} | {cells} | {sum(parts[:-1]):.2f} s |")
    table = "\n".join(lines)
    measurement = describe_measurement("loadtests.benchmarks.replica_start")
    print(table, write_result("replica_start.json", {**measurement, "parts": found}), sep="\n\n")
    if options.write_docs:
        write_between_markers(_DOCUMENT, "replica-start", table)


if __name__ == "__main__":
    main()
