"""Records that the package ships, so that a machine need not measure what was measured already.

``make quality`` writes them. One counts only for exactly the graph, the engine and its version that
it was measured with, and its file then serves only on processors with the same kernels.
"""

from __future__ import annotations

from pathlib import Path

from serve_app.models.engines.network import Pair
from serve_app.models.engines.processor import Machine
from serve_app.models.engines.records import (
    GateRecord,
    derived_path,
    has_kernels_of,
    record_path,
)
from serve_app.models.registry import Weights

_FOLDER = Path(__file__).parent / "records"


def shipped_path(name: str, pair: Pair) -> Path:
    """Return the place of the record of a model and a pair, which need not exist."""
    return record_path(derived_path(_FOLDER, name, pair))


def find_shipped(
    weights: Weights,
    pair: Pair,
    derived_sha256: str,
    machine: Machine,
    *,
    any_processor: bool = False,
) -> GateRecord | None:
    """Return the shipped record of a derived graph, if there is one.

    Args:
        weights: The model.
        pair: Engine and precision.
        derived_sha256: SHA-256 of the derived graph, as hexadecimal digits.
        machine: Machine that has the engine in the version that is to serve.
        any_processor: Whether a record of other kernels than those of this machine is returned
            too, since another machine is to serve.
    """
    path = shipped_path(weights.name, pair)
    if not path.is_file():
        return None
    record = GateRecord.model_validate_json(path.read_bytes())
    measured = (record.source_sha256, record.derived_sha256, record.engine_version)
    if measured != (weights.sha256, derived_sha256, machine.openvino):
        return None
    if any_processor or has_kernels_of(record, pair, machine):
        return record
    return None
