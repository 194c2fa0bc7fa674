"""Speed of engines and precisions: ``python -m loadtests.benchmarks.engines``.

A model runs with each engine and precision that this machine has, in turns, on one thread and on
the same image. The command prints the CPU time of one image, and the median of its ratios to that
of ONNX Runtime on the file as it is, which is how rembg runs it. CPU time of the whole process and
turns make the ratio hold on a busy machine too: OpenVINO computes in threads of its own.

int8 is the file that ``foreedge models quantize`` has made. Of a model with random weights, whose
masks nobody judges, all layers run in int8.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass

from loadtests.harness.engine_networks import open_networks, open_rembg_network
from loadtests.harness.networks import ARCHITECTURES
from loadtests.harness.results import (
    DOCS,
    describe_machine,
    measure_busy_cores,
    replace_between_markers,
    write_between_markers,
)
from loadtests.harness.shaped_models import BenchmarkModel, benchmark_model
from serve_app.config import AppConfig, SegmenterConfig
from serve_app.models.engines.network import EXACT, INT8, Network, Tensor
from serve_app.models.engines.onnx_runtime import probe_image
from serve_app.models.engines.opening import open_derived
from serve_app.models.engines.processor import Machine, this_machine, why_not_runnable
from serve_app.models.engines.records import derived_folder, derived_path
from serve_app.models.gate_images import draw_gate_images
from serve_app.models.inference import normalize_images
from serve_app.models.quantization.quantize import calibrate_graph
from serve_app.models.registry import BUNDLED_MODEL, locate_weights

_RUNS = {BUNDLED_MODEL: 60, "u2netp": 15, "u2net": 7, "isnet-general-use": 5}
"""Runs of each pair, by model."""
_DERIVED_FROM = 4
"""Drawn images that show which channels are nearly constant."""
_CALIBRATED_WITH = 2
"""Drawn images that int8 is calibrated with, if only its time is measured."""
_ONE_THREAD = SegmenterConfig(threads=1)


@dataclass(frozen=True, slots=True)
class Speed:
    """CPU time of a model with an engine and a precision."""

    title: str
    """Engine and precision."""
    image_ms: float
    """Median CPU time of an image, in milliseconds."""
    ratio: float
    """Median of how many times that of the file as it is was, in neighbouring runs."""


def measure(model: BenchmarkModel, runs: int, machine: Machine) -> list[Speed]:
    """Return the speed of a model with everything that runs on a machine."""
    config = AppConfig.load(model.settings)
    weights = locate_weights(model.name, config)
    image = normalize_images(probe_image(weights.facts.size_px), weights.facts)
    drawn = list(draw_gate_images(_DERIVED_FROM))
    pairs = open_networks(weights, machine, drawn)
    networks = {
        f"{EXACT}, the file as it is": open_rembg_network(weights),
        **{str(pair): network for pair, network in pairs.items()},
    }
    if why_not_runnable(INT8, machine) is None:
        if model.has_true_weights:
            path = derived_path(derived_folder(config), weights.name, INT8)
            if path.is_file():
                networks[f"{INT8}, as it is served"] = open_derived(path, INT8, _ONE_THREAD)
        else:
            graph = calibrate_graph(weights, drawn[:_CALIBRATED_WITH]).graph()
            networks[f"{INT8}, all layers"] = open_derived(graph.content, INT8, _ONE_THREAD)
    rounds = [
        [_cpu_s(network, image) for network in networks.values()]
        # The first run takes memory from the system.
        for _ in range(runs + 1)
    ][1:]
    return [
        Speed(
            title,
            1000 * statistics.median(each[place] for each in rounds),
            statistics.median(each[0] / each[place] for each in rounds),
        )
        for place, title in enumerate(networks)
    ]


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
    marker = "engines" if options.model == "u2netp" else f"engines-{options.model}"
    if options.write_docs:
        try:
            # Minutes before the table is written.
            replace_between_markers(DOCS.read_text("utf-8"), marker, "")
        except ValueError as error:
            parser.error(f"{DOCS}: {error}")
    busy, machine = measure_busy_cores(), this_machine()
    model = benchmark_model(options.model)
    speeds = measure(model, options.runs or _RUNS[options.model], machine)
    text = markdown(model.label, speeds, machine, busy)
    print(text)
    if options.write_docs:
        write_between_markers(DOCS, marker, text)


if __name__ == "__main__":
    main()
