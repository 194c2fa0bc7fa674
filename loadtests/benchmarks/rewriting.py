"""Gain of the graph rewriting: ``python -m loadtests.benchmarks.rewriting`` (``make bench-graph``).

A model's file runs as it is and rewritten (``serve_app.models.graph_rewrites``), in turns, on one
thread and on the same image. The command prints the CPU time of one run of each, the median of the
ratios of neighbouring runs, and by how much the answers differ. CPU time and turns make the ratio
hold on a busy machine too.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from loadtests.harness.networks import ARCHITECTURES
from loadtests.harness.results import (
    DOCS,
    describe_machine,
    measure_busy_cores,
    write_between_markers,
)
from loadtests.harness.shaped_models import BenchmarkModel, benchmark_model
from serve_app.config import SegmenterConfig
from serve_app.models.engines.onnx_runtime import probe_image, session_options
from serve_app.models.facts import MODEL_FACTS
from serve_app.models.graph_rewrites import optimize_for_cpu
from serve_app.models.inference import normalize_images
from serve_app.models.registry import BUNDLED_MODEL

_RUNS = {BUNDLED_MODEL: 60, "u2netp": 15, "u2net": 7, "isnet-general-use": 5}
"""Runs of each graph, by model."""


@dataclass(frozen=True, slots=True)
class Gain:
    """CPU time of a model's file and of its rewritten graph."""

    model: str
    """Model, with the origin of its weights."""
    file_ms: float
    """Median CPU time of a run of the file, in milliseconds."""
    rewritten_ms: float
    """Median CPU time of a run of the rewritten graph, in milliseconds."""
    ratio: float
    """Median of the ratios of the two times in neighbouring runs."""
    difference: float
    """Largest difference of the answers, which are between 0 and 1."""


def measure(model: BenchmarkModel, runs: int) -> Gain:
    """Return what the rewriting gains for a model."""
    options = session_options(SegmenterConfig(execution="fan_out"))
    size_px = MODEL_FACTS[model.name].size_px
    image = normalize_images(probe_image(size_px), MODEL_FACTS[model.name])
    graphs = (model.path.read_bytes(), optimize_for_cpu(model.path, batches=False))
    run_file, run_rewritten = (
        _runner(ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"]), image)
        for graph in graphs
    )
    # The first run takes memory from the system.
    difference = float(np.abs(run_file()[1] - run_rewritten()[1]).max())
    pairs = [(run_file()[0], run_rewritten()[0]) for _ in range(runs)]
    return Gain(
        model.label,
        1000 * statistics.median(file_s for file_s, _ in pairs),
        1000 * statistics.median(rewritten_s for _, rewritten_s in pairs),
        statistics.median(file_s / rewritten_s for file_s, rewritten_s in pairs),
        difference,
    )


def _runner(
    session: ort.InferenceSession, image: npt.NDArray[np.float32]
) -> Callable[[], tuple[float, npt.NDArray[Any]]]:
    """Return a function that runs a session and returns its CPU seconds and its first output."""
    output, source = session.get_outputs()[0].name, session.get_inputs()[0].name

    def run() -> tuple[float, npt.NDArray[Any]]:
        started_s = time.thread_time()
        (answer,) = session.run([output], {source: image})
        return time.thread_time() - started_s, answer

    return run


def markdown(gains: list[Gain], busy: float) -> str:
    """Return the table for a document."""
    machine = describe_machine()
    return "\n".join(
        [
            "| model | as it is | rewritten | times as fast | largest difference |",
            "|---|---:|---:|---:|---:|",
            *(
                f"| {gain.model} | {gain.file_ms:.0f} ms | {gain.rewritten_ms:.0f} ms | "
                f"{gain.ratio:.2f} | {gain.difference:.0e} |"
                for gain in gains
            ),
            "",
            f"CPU time of one thread, medians of runs in turns, on {machine['cpu']}, "
            f"{machine['cores']} cores, {busy:g} of them busy with other work before.",
        ]
    )


def main() -> None:
    """Measure the models that the command line names, and print a table."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.benchmarks.rewriting",
        description="Measure what the rewriting of a model's graph gains on a CPU.",
    )
    known = (BUNDLED_MODEL, *ARCHITECTURES)
    default = [BUNDLED_MODEL, "u2netp"]
    parser.add_argument("--models", nargs="+", default=default, choices=known, help="models")
    parser.add_argument("--runs", type=int, help="runs of each graph (default: by model)")
    parser.add_argument("--write-docs", action="store_true", help=f"write the table into {DOCS}")
    options = parser.parse_args()
    busy = measure_busy_cores()
    gains = [measure(benchmark_model(name), options.runs or _RUNS[name]) for name in options.models]
    text = markdown(gains, busy)
    print(text)
    if options.write_docs:
        write_between_markers(DOCS, "rewriting", text)


if __name__ == "__main__":
    main()
