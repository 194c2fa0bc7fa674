"""What ``foreedge models quantize`` does: make an int8 graph, measure it, and report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ingest.cli.gate import bundled_images, name_of, replace_derived, report_gate
from ingest.cli.int8_speed import Int8Speed, measure_int8_speed
from ingest.cli.progress import progress_bar
from ingest.cli.terminal import open_terminal, print_json, print_line
from ingest.node.kernels import convolution_kernels
from serve_app.config import AppConfig, SegmenterConfig
from serve_app.contracts.precision import Accuracy
from serve_app.errors import InvalidConfig
from serve_app.models.derive import compare_with_rembg, record_of
from serve_app.models.engines.network import INT8
from serve_app.models.engines.onnx_runtime import open_as_written
from serve_app.models.engines.processor import this_machine, usable_cores, why_not_runnable
from serve_app.models.engines.records import (
    GateRecord,
    derived_folder,
    derived_path,
)
from serve_app.models.gate import Measures
from serve_app.models.gate_images import (
    SmallImage,
    distinct_images,
    halve,
    read_gate_images,
    shared_images,
    shrink_images,
)
from serve_app.models.quantization.quantize import OnStep, QuantizedGraph, quantize_model
from serve_app.models.registry import Weights, locate_weights

DRAWN_TO_HALVE = 42
"""Number of drawn images, if no folder is given. Half of them and of the six real ones are as many
images as other pairs are measured with."""
_SHOWN_PARTS = 8
"""Number of the parts with the largest errors that are reported."""


def quantize_and_write(
    name: str, calibration: Path, accuracy: Accuracy, images: Path | None, *, as_json: bool
) -> bool:
    """Quantize a model, measure it, write both files, and report the numbers.

    Args:
        name: Name of the model.
        calibration: Folder of the images that choose ranges and layers.
        accuracy: Accuracy that the search aims at.
        images: Folder of the images of the gate, or None for the bundled ones and further drawn
            ones. One half of them chooses the number of layers in float32, the other one judges.
        as_json: Whether the report is one line of JSON.

    Returns:
        Whether any accuracy was reached and int8 is faster than float32 here.

    Raises:
        InvalidConfig: This processor, a folder or the graph is not fit for it.
        ModelUnavailable: The weights are not here, or the files cannot be written.
    """
    config, machine = AppConfig.load(), this_machine()
    reason = why_not_runnable(INT8, machine)
    if reason is not None:
        raise InvalidConfig(f"{INT8} cannot be measured here: {reason}.")
    weights = locate_weights(name, config)
    fitting, gate = read_both_sets(calibration, images, weights.facts.size_px)
    path = derived_path(derived_folder(config), name, INT8)
    with progress_bar(open_terminal(as_json=True)) as bar:
        task = bar.add_task(f"{name}, {INT8}", total=None, detail="")
        quantized, measures, speed = _quantize(
            weights, fitting, gate, accuracy, lambda step: bar.update(task, detail=step)
        )
    image_set = f"{name_of(images)} that did not choose its layers"
    record = record_of(weights, INT8, quantized.derived, machine, image_set, measures)
    faster = speed.is_faster
    removed = replace_derived(path, quantized.derived.content if faster else None, record)
    duplicates = len(gate) - len(distinct_images(gate))
    facts = {**_facts(quantized, speed), "removed": removed, "duplicates": duplicates}
    written = path if faster else None
    report_gate(quantized.derived, record, written, print_json if as_json else None, facts)
    if not as_json:
        _print_facts(facts, speed)
        _print_verdict(record, accuracy, facts, speed)
    return faster and measures.reached() is not None


def _quantize(
    weights: Weights,
    fitting: Sequence[SmallImage],
    gate: Sequence[SmallImage],
    accuracy: Accuracy,
    on_step: OnStep,
) -> tuple[QuantizedGraph, Measures, Int8Speed]:
    """Return the graph, what the gate measures on images that chose nothing, and the speed."""
    choosing, judged = halve(gate)
    quantized = quantize_model(
        weights, fitting, choosing, accuracy, threads=usable_cores(), on_step=on_step
    )
    on_step("masks of the gate")
    network = open_as_written(quantized.derived.content, SegmenterConfig(threads=1))
    (measures,) = compare_with_rembg(weights, [network], judged)
    on_step("speed")
    return quantized, measures, measure_int8_speed(weights, quantized.derived.content)


def read_both_sets(
    calibration: Path, images: Path | None, size_px: int
) -> tuple[list[SmallImage], list[SmallImage]]:
    """Return the images of the calibration and those of the gate, which must be others.

    Args:
        calibration: Folder of the images of the calibration.
        images: Folder of the images of the gate, or None for the bundled ones.
        size_px: Side of the model's input, in pixels.

    Raises:
        InvalidConfig: A folder has no image or a broken one, or an image is in both sets.
    """
    fitting = list(shrink_images(read_gate_images(calibration), size_px))
    whole = read_gate_images(images) if images else bundled_images(DRAWN_TO_HALVE)
    gate = list(shrink_images(whole, size_px))
    shared = shared_images(fitting, gate)
    if shared:
        name = images or "the bundled images"
        raise InvalidConfig(
            f"--calibration {calibration}: the gate has some of these images too, such as "
            f"{shared[0]} ({name}). On images that int8 was fitted to it proves nothing. Remove "
            "them from one of the two sets."
        )
    return fitting, gate


def _facts(quantized: QuantizedGraph, speed: Int8Speed) -> dict[str, Any]:
    found = quantized.found
    worst = sorted(found.parts, key=lambda part: part.difference, reverse=True)
    return {
        "layers": quantized.layers,
        "in_float": list(found.in_float),
        "chosen_by": found.measures.model_dump(mode="json"),
        "products_in_int8": round(found.in_int8, 4),
        "parts": [
            {
                "layers": list(part.layers),
                "products": round(part.products, 4),
                "difference": round(part.difference, 4),
            }
            for part in worst[:_SHOWN_PARTS]
        ],
        "kernels": convolution_kernels(INT8, quantized.derived.content),
        "cpu_s_per_image": speed.medians(),
        "times_as_fast": [round(ratio, 3) for ratio in speed.ratios],
        "faster": speed.is_faster,
    }


def _print_facts(facts: dict[str, Any], speed: Int8Speed) -> None:
    cpu_s = speed.medians()
    kernels = ", ".join(f"{count} {name}" for name, count in facts["kernels"].items())
    print_line(
        f"  layers in float32                   {len(facts['in_float'])} of {facts['layers']}"
    )
    print_line(f"  products in int8                    {facts['products_in_int8']:.1%}")
    for part in facts["parts"]:
        names = part["layers"]
        label = names[0] if len(names) == 1 else f"{names[0]} … {names[-1]}"
        print_line(
            f"    {label}: alone {part['difference']:.3f} levels, {part['products']:.1%} of the "
            "products"
        )
    if facts["duplicates"]:
        print_line(
            f"  left out                            {facts['duplicates']} images of the gate with "
            "the pixels of another one"
        )
    chosen_by = facts["chosen_by"]
    print_line(
        f"  chosen by                           {chosen_by['images']} other images, with a mean "
        f"difference of {chosen_by['difference']:.3f}"
    )
    print_line(f"  convolutions                        {kernels}")
    print_line(
        f"  CPU time of a mask                  {cpu_s['int8'] * 1e3:.0f} ms in int8, "
        f"{cpu_s['float32'] * 1e3:.0f} ms in float32: {speed.ratio:.2f} times as fast in the "
        f"median of {len(speed.ratios)} rounds"
    )


def _print_verdict(
    record: GateRecord, accuracy: Accuracy, facts: dict[str, Any], speed: Int8Speed
) -> None:
    """Print what follows for serving, if int8 does not serve as it was asked for."""
    measures = record.measures
    if not measures.suffices_for(accuracy):
        print_line(
            f"  {accuracy!r} is not reached. With {len(facts['in_float'])} of "
            f"{facts['layers']} layers in float32, {speed.ratio:.2f} times "
            f"as fast as float32, the masks miss it: {', '.join(measures.failures(accuracy))}."
        )
    if not speed.is_faster:
        gone = " The older int8 file was removed." if facts["removed"] else ""
        print_line(f"  int8 is not faster on this processor, so nothing was written.{gone}")
