"""A derived file that has passed the gate, and what was measured."""

from __future__ import annotations

import hashlib
from pathlib import Path

from serve_app.models.engines.network import Pair
from serve_app.models.engines.processor import Machine, kernel_features
from serve_app.models.engines.records import (
    RECIPE_VERSION,
    GateRecord,
    derived_path,
    write_derived,
)
from serve_app.models.gate import Measures
from serve_app.models.registry import Weights

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
) -> Path:
    """Write the files of a pair that was measured on a machine, and return the derived one."""
    graph = weights.path.read_bytes()
    record = GateRecord(
        model=weights.name,
        source_sha256=weights.sha256,
        derived_sha256=hashlib.sha256(graph).hexdigest(),
        recipe_version=RECIPE_VERSION,
        engine=pair.engine,
        engine_version=machine.version_of(pair.engine) or "",
        precision=pair.precision,
        architecture=machine.architecture,
        features=kernel_features(pair, machine),
        image_set="two images",
        measures=measures,
    )
    path = derived_path(folder, weights.name, pair)
    write_derived(path, graph, record)
    return path
