"""int8 graphs for the measurements, made once for each model, calibration and way of making them.

A graph takes minutes to make. It is kept in a folder under a digest of everything that it depends
on, so that it is made again if the weights, the images, the code or ONNX Runtime have changed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from serve_app import imaging, models
from serve_app.contracts.base import Contract
from serve_app.models.engines.network import INT8
from serve_app.models.engines.onnx_runtime import runtime_version
from serve_app.models.engines.processor import Machine, kernel_features, usable_cores
from serve_app.models.gate import Measures
from serve_app.models.gate_images import SmallImage
from serve_app.models.quantization.quantize import quantize_model
from serve_app.models.registry import Weights

FOLDER = Path("out/quality/int8")


class Int8Graph(Contract):
    """The place of an int8 graph, and the number of its layers that stayed in float32."""

    path: Path
    """ONNX file."""
    in_float: int
    """Number of layers in float32."""
    layers: int
    """Number of all layers."""
    measures: Measures
    """What was measured on the images that chose the layers."""


def int8_graph(
    weights: Weights,
    calibration: Sequence[SmallImage],
    choosing: Sequence[SmallImage],
    machine: Machine,
    *,
    folder: Path = FOLDER,
    on_step: Callable[[str], None] = lambda _: None,
) -> Int8Graph:
    """Return the int8 graph of a model for ``fast``, which is made if it is not there.

    Args:
        weights: The model.
        calibration: Images of the calibration.
        choosing: Images that choose how many layers stay in float32. See ``quantize_model``.
        machine: This machine.
        folder: Folder that keeps the graphs.
        on_step: Function that is called with a description of each step.
    """
    digest = _digest(weights, calibration, choosing, machine)
    path = folder / f"{weights.name}-{digest[:16]}.onnx"
    facts = path.with_suffix(".json")
    if facts.is_file() and path.is_file():
        return Int8Graph.model_validate({"path": path, **json.loads(facts.read_bytes())})
    made = quantize_model(
        weights, calibration, choosing, "fast", threads=usable_cores(), on_step=on_step
    )
    found = Int8Graph(
        path=path,
        in_float=len(made.found.in_float),
        layers=made.layers,
        measures=made.found.measures,
    )
    folder.mkdir(parents=True, exist_ok=True)
    path.write_bytes(made.derived.content)
    # Last, since it says that the graph is whole.
    facts.write_text(found.model_dump_json(exclude={"path"}), "utf-8")
    return found


def _digest(
    weights: Weights,
    calibration: Sequence[SmallImage],
    choosing: Sequence[SmallImage],
    machine: Machine,
) -> str:
    found = hashlib.sha256(weights.sha256.encode())
    found.update(f"{runtime_version()} {kernel_features(INT8, machine)}".encode())
    for package in (models, imaging):
        for path in sorted(Path(str(package.__file__)).parent.rglob("*.py")):
            found.update(path.read_bytes())
    for images in (calibration, choosing):
        for image in images:
            found.update(image.digest)
            truth = image.read_truth()
            if truth is not None:
                found.update(truth.tobytes())
    return found.hexdigest()
