"""Speed of engines and precisions: ``python -m loadtests.benchmarks.engines``.

A model runs with each engine and precision that this machine has, in turns, on one thread and on
the same image. The command prints the CPU time of one image, and the median of its ratios to that
of ONNX Runtime on the file as it is, which is how rembg runs it. CPU time of the whole process and
turns make the ratio hold on a busy machine too: OpenVINO computes in threads of its own.

int8 is the file that ``foreedge models quantize`` has made, if the application would serve it. If
not, the command says why. Of a model with random weights, whose masks nobody judges, all layers run
in int8.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from dataclasses import dataclass

from loadtests.harness.engine_networks import open_networks, open_rembg_network
from loadtests.harness.networks import ARCHITECTURES
from loadtests.harness.results import (
    DOCS,
    describe_machine,
    measure_busy_cores,
    processor_marker,
    replace_between_markers,
    write_between_markers,
)
from loadtests.harness.shaped_models import BenchmarkModel, benchmark_model
from serve_app.config import AppConfig, SegmenterConfig
from serve_app.models.derive import derive_graph
from serve_app.models.engines.choice import choose_pair
from serve_app.models.engines.network import EXACT, INT8, Network, Tensor
from serve_app.models.engines.onnx_runtime import probe_image
from serve_app.models.engines.opening import open_derived
from serve_app.models.engines.processor import Machine, this_machine, why_not_runnable
from serve_app.models.engines.records import derived_folder
from serve_app.models.gate_images import draw_gate_images, shrink_images
from serve_app.models.inference import normalize_images
from serve_app.models.quantization.quantize import calibrate_graph
from serve_app.models.registry import BUNDLED_MODEL, locate_weights

_RUNS = {BUNDLED_MODEL: 60, "u2netp": 15, "u2net": 5, "isnet-general-use": 3}
"""Runs of each pair, by model."""
_DERIVED_FROM = 4
"""Drawn images that show which channels are nearly constant."""
_CALIBRATED_WITH = 2
"""Drawn images that int8 is calibrated with, if only its time is measured."""
_ONE_THREAD = SegmenterConfig(threads=1)
_AS_INT8 = SegmenterConfig(precision="int8")


@dataclass(frozen=True, slots=True)
class Speed:
    """CPU time of a model with an engine and a precision."""

    title: str
    """Engine and precision."""
    image_ms: float
    """Median CPU time of an image, in milliseconds."""
    ratio: float
    """Median of how many times that of the file as it is was, in neighbouring runs."""


def measure(model: BenchmarkModel, runs: int, machine: Machine) -> tuple[list[Speed], str | None]:
    """Return the speed of a model with everything that runs here, and why int8 is left out."""
    config = AppConfig.load(model.settings)
    weights = locate_weights(model.name, config)
    image = normalize_images(probe_image(weights.facts.size_px), weights.facts)
    drawn = [
        image.square
        for image in shrink_images(draw_gate_images(_DERIVED_FROM), weights.facts.size_px)
    ]
    pairs = open_networks(weights, machine, derive_graph(weights, drawn))
    networks = {
        f"{EXACT}, the file as it is": open_rembg_network(weights),
        **{str(pair): network for pair, network in pairs.items()},
    }
    if model.has_true_weights:
        # What the application serves if it is asked for int8.
        choice = choose_pair(weights, _AS_INT8, derived_folder(config), machine)
        left_out = choice.refused
        if choice.derived is not None:
            served = open_derived(choice.derived, INT8, _ONE_THREAD)
            networks[f"{INT8}, as it is served"] = served
    else:
        left_out = why_not_runnable(INT8, machine)
        if left_out is None:
            graph = calibrate_graph(weights, drawn[:_CALIBRATED_WITH]).graph()
            networks[f"{INT8}, all layers"] = open_derived(graph.content, INT8, _ONE_THREAD)
    rounds = [
        [_cpu_s(network, image) for network in networks.values()]
        # The first run takes memory from the system.
        for _ in range(runs + 1)
    ][1:]
    speeds = [
        Speed(
            title,
            1000 * statistics.median(each[place] for each in rounds),
            statistics.median(each[0] / each[place] for each in rounds),
        )
        for place, title in enumerate(networks)
    ]
    return speeds, left_out


def _cpu_s(network: Network, image: Tensor) -> float:
    started_s = time.process_time()
    network.run(image)
    return time.process_time() - started_s


def markdown(label: str, speeds: list[Speed], machine: Machine, busy: float) -> str:
    """Return the table for a document."""
    found = describe_machine()
    features = ", ".join(sorted(machine.features)) or "no known features"
    return "\n".join(
        [
            f"| {label} | CPU time of an image | times as fast as the file as it is |",
            "|---|---:|---:|",
            *(f"| {each.title} | {each.image_ms:.0f} ms | {each.ratio:.2f} |" for each in speeds),
            "",
            f"One thread, medians of runs in turns, on {found['cpu']} ({features}), "
            f"{found['cores']} cores, {busy:g} of them busy with other work before. ONNX Runtime "
            f"{found['versions']['onnxruntime']}, OpenVINO {machine.openvino}.",
        ]
    )


def main() -> None:
    """Measure the model that the command line names, and print a table."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.benchmarks.engines",
        description="Measure a model with every engine and precision that this machine has.",
    )
    known = (BUNDLED_MODEL, *ARCHITECTURES)
    parser.add_argument("--model", default="u2netp", choices=known, help="model")
    parser.add_argument("--runs", type=int, help="runs of each pair (default: by model)")
    parser.add_argument("--write-docs", action="store_true", help=f"write the table into {DOCS}")
    options = parser.parse_args()
    machine = this_machine()
    marker = "engines" if options.model == "u2netp" else f"engines-{options.model}"
    marker = processor_marker(marker, machine)
    if options.write_docs:
        try:
            # Minutes before the table is written.
            replace_between_markers(DOCS.read_text("utf-8"), marker, "")
        except ValueError as error:
            parser.error(f"{DOCS}: {error}")
    busy = measure_busy_cores()
    model = benchmark_model(options.model)
    speeds, left_out = measure(model, options.runs or _RUNS[options.model], machine)
    text = markdown(model.label, speeds, machine, busy)
    if left_out is not None:
        print(f"Not measured: {left_out}", file=sys.stderr)
    print(text)
    if options.write_docs:
        write_between_markers(DOCS, marker, text)


if __name__ == "__main__":
    main()
