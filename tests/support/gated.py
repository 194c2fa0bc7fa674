"""A derived file that has passed the gate, and what was measured."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from serve_app.models.derive import DerivedGraph, record_of
from serve_app.models.engines.network import Pair
from serve_app.models.engines.processor import Machine
from serve_app.models.engines.records import GateRecord, derived_path, record_path, write_derived
from serve_app.models.facts import CUSTOM_MODEL_FACTS
from serve_app.models.gate import Measures
from serve_app.models.registry import Weights
from tests.support import graphs

BFLOAT16 = Pair("openvino", "bfloat16")
AMX = Machine("x86_64", frozenset({"avx512f", "amx_bf16", "avx512_fp16"}), "2026.4.1")
CLOSE = Measures(
    images=24,
    difference=0.2,
    iou=0.997,
    within_2=0.98,
    within_8=0.996,
    true_iou_loss=0.0,
    worst="cat",
    worst_within_8=0.95,
)


def gated(
    weights: Weights,
    folder: Path,
    *,
    pair: Pair = BFLOAT16,
    machine: Machine = AMX,
    measures: Measures = CLOSE,
    graph: bytes | None = None,
) -> Path:
    """Write the files of a pair that was measured on a machine, and return the derived one.

    Args:
        weights: The model.
        folder: Folder of derived files.
        pair: Engine and precision.
        machine: Machine of the record.
        measures: Measures of the record.
        graph: What the pair runs. Default: the file of the model.
    """
    graph = graph or weights.path.read_bytes()
    derived = DerivedGraph(graph, taken=())
    record = record_of(weights, pair, derived, machine, "two images", measures)
    path = derived_path(folder, weights.name, pair)
    write_derived(path, graph, record)
    return path


def own_weights(folder: Path) -> Weights:
    """Write a small model of a user's own, and return it."""
    path = graphs.brightness(folder / "own.onnx", batch=1)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Weights("own", path, digest, CUSTOM_MODEL_FACTS)


def cut(derived: Path) -> None:
    """Cut the last bytes off a derived file."""
    derived.write_bytes(derived.read_bytes()[:-9])


def change_record(**fields: Any) -> Callable[[Path], None]:
    """Return a function that changes fields in the record of a derived file."""

    def change(derived: Path) -> None:
        record = GateRecord.model_validate_json(record_path(derived).read_bytes())
        record_path(derived).write_text(record.model_copy(update=fields).model_dump_json())

    return change
