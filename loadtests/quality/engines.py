"""The masks of every engine and precision: ``python -m loadtests.quality.engines``.

The gate's own code measures them on the sets of ``make quality``. With ``--write-docs`` it also
writes the records that the package ships: what was measured of a model on one kind of processor
need not be measured again on each of them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ingest.cli.gate import bundled_images, derive_bundled
from ingest.cli.quantize import DRAWN_TO_HALVE
from loadtests.harness.engine_networks import open_networks
from loadtests.harness.results import describe_machine, write_between_markers
from loadtests.quality.cutouts import fetch_packages
from loadtests.quality.int8_graphs import int8_graph
from loadtests.quality.naive import minmax_int8, plain_bfloat16
from loadtests.quality.sets import read_set, write_book_set, write_cutout_set
from serve_app.config import AppConfig, ImageLimits, SegmenterConfig
from serve_app.errors import ForeedgeError
from serve_app.imaging.decode import decode_image
from serve_app.models.derive import (
    DerivedGraph,
    compare_with_rembg,
    record_of,
)
from serve_app.models.engines.network import GATED, INT8, Network, Pair
from serve_app.models.engines.opening import open_derived
from serve_app.models.engines.processor import (
    Machine,
    kernel_features,
    this_machine,
    usable_cores,
    why_not_runnable,
)
from serve_app.models.engines.records import GateRecord
from serve_app.models.engines.shipped import write_shipped
from serve_app.models.gate import Measures
from serve_app.models.gate_images import GateImage, SmallImage, halve, known_truth, shrink_images
from serve_app.models.registry import BUNDLED_MODEL, Weights, locate_weights

DOCS = Path("docs/quality.md")
IMAGE_SET = "the cut-outs and books of make quality"
BFLOAT16, _ = GATED
_NAIVE = {BFLOAT16: "plain", INT8: "all layers, MinMax"}
"""How plain conversions are named. The gate judges them by their numbers alone."""
_CUTOUTS, _BOOKS, _CALIBRATION = 98, 36, 24


@dataclass(frozen=True, slots=True)
class PairMeasures:
    """The measures of a model with an engine and a precision."""

    model: str
    """Name of the model."""
    pair: Pair
    """Engine and precision."""
    measures: Measures
    """Distance of its masks from rembg's in float32."""
    note: str = ""
    """How many of its layers are in float32, or which plain conversion made it."""

    @property
    def is_naive(self) -> bool:
        """Whether a plain conversion made it, which nothing serves."""
        return self.note in _NAIVE.values()


def measure_pairs(
    weights: Weights,
    graph: DerivedGraph,
    folders: Sequence[Path],
    calibration: Path,
    machine: Machine,
) -> list[PairMeasures]:
    """Measure a model with everything that a machine can serve it with, and with plain conversions.

    Args:
        weights: The model.
        graph: What the pairs run that need a gate and no calibration.
        folders: Folders of the sets of images.
        calibration: Folder of other images, which int8 is calibrated with.
        machine: This machine.
    """
    size_px = weights.facts.size_px
    served = open_networks(weights, machine, graph)
    networks: dict[tuple[Pair, str], Network] = {(pair, ""): each for pair, each in served.items()}
    if BFLOAT16 in served:
        networks[BFLOAT16, _NAIVE[BFLOAT16]] = plain_bfloat16(weights)
    if why_not_runnable(INT8, machine) is None:
        fitting = list(_images([calibration], size_px))
        choosing, _ = halve(list(shrink_images(bundled_images(DRAWN_TO_HALVE), size_px)))
        made = int8_graph(weights, fitting, choosing, machine, on_step=_say)
        note = f"{made.in_float} of {made.layers} layers float32"
        networks[INT8, note] = open_derived(made.path, INT8, SegmenterConfig(threads=1))
        networks[INT8, _NAIVE[INT8]] = minmax_int8(weights, fitting)
    found = compare_with_rembg(
        weights, list(networks.values()), _images(folders, size_px), threads=usable_cores()
    )
    return [
        PairMeasures(weights.name, pair, measures, note)
        for (pair, note), measures in zip(networks, found, strict=True)
    ]


def _say(step: str) -> None:
    print(step, file=sys.stderr, flush=True)


def _images(folders: Sequence[Path], size_px: int) -> Iterator[SmallImage]:
    whole = (
        GateImage(each.name, decode_image(each.data, ImageLimits()).rgb, known_truth(each.mask))
        for folder in folders
        for each in read_set(folder)
    )
    return shrink_images(whole, size_px)


def ship(
    weights: Weights, graph: DerivedGraph, found: Sequence[PairMeasures], machine: Machine
) -> list[GateRecord]:
    """Write the records of the pairs that need a gate and no calibration, and return them.

    Args:
        weights: The model.
        graph: Graph that ``measure_pairs`` has measured.
        found: What was measured.
        machine: This machine.
    """
    records = []
    for each in found:
        if each.pair in GATED and not each.is_naive:
            record = record_of(weights, each.pair, graph, machine, IMAGE_SET, each.measures)
            write_shipped(record)
            records.append(record)
    return records


def write_table(machine: Machine, text: str, document: Path = DOCS) -> None:
    """Write the table of a machine next to those of machines with other kernels.

    Args:
        machine: Machine that was measured.
        text: The table.
        document: Document with the tables.
    """
    features = {each for pair in GATED for each in kernel_features(pair, machine)}
    name = f"engines-{'-'.join(sorted(features)) or machine.architecture}"
    before = document.read_text("utf-8")
    if f"<!-- {name}: begin -->" not in before:
        end = "<!-- engines: end -->"
        place = f"\n<!-- {name}: begin -->\n<!-- {name}: end -->\n{end}"
        document.write_text(before.replace(end, place), "utf-8")
    write_between_markers(document, name, text)


def pairs_table(found: Sequence[PairMeasures]) -> str:
    """Return the table of models, engines and precisions."""
    heads = [
        "model", "engine", "precision", "mean difference", "IoU with rembg", "within 2",
        "within 8", "IoU lost", "worst within 8", "reached",
    ]  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", "|---|---|---|" + "---:|" * 6 + "---|"]
    for each in found:
        measures = each.measures
        cells = [
            each.model,
            each.pair.engine,
            f"{each.pair.precision}, {each.note}" if each.note else each.pair.precision,
            f"{measures.difference:.3f}",
            f"{measures.iou:.4f}",
            f"{measures.within_2:.2%}",
            f"{measures.within_8:.2%}",
            f"{measures.true_iou_loss:+.4f}",
            f"{measures.worst_within_8:.1%} ({measures.worst})",
            measures.reached() or "nothing",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure the models that the command line names, and print a table."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.quality.engines",
        description="Compare the masks of every engine and precision with rembg's in float32.",
    )
    default = [BUNDLED_MODEL, "u2netp"]
    parser.add_argument("--models", nargs="+", default=default, help="names of models")
    parser.add_argument("--count", type=int, help="images of each set, fewer for a quick look")
    parser.add_argument(
        "--write-docs", action="store_true", help=f"write {DOCS} and the records that are shipped"
    )
    options = parser.parse_args()
    if options.write_docs and options.count:
        parser.error("--write-docs needs all images: leave out --count")
    machine, packages = this_machine(), fetch_packages()
    folders = [
        write_cutout_set(packages, "test", options.count or _CUTOUTS),
        write_book_set(options.count or _BOOKS),
    ]
    calibration = write_cutout_set(packages, "calibration", options.count or _CALIBRATION)
    found = []
    for name in options.models:
        weights = locate_weights(name, AppConfig.load())
        graph = derive_bundled(weights)
        measured = measure_pairs(weights, graph, folders, calibration, machine)
        found += measured
        if options.write_docs:
            ship(weights, graph, measured, machine)
    described = describe_machine()
    text = (
        f"{pairs_table(found)}\n\n{found[0].measures.images} images with true masks, on "
        f"{described['cpu']} ({', '.join(sorted(machine.features))}). ONNX Runtime "
        f"{described['versions']['onnxruntime']}, OpenVINO {machine.openvino}."
    )
    print(text)
    if options.write_docs:
        write_table(machine, text)


if __name__ == "__main__":
    try:
        main()
    except ForeedgeError as error:
        sys.exit(f"error: {error.code}: {error.message}")
