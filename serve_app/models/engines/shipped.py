"""Records that the package ships, so that a machine need not measure what was measured already.

``make quality`` writes them, one for each kind of processor that it is run on. One counts only for
exactly the graph, the engine and its version that it was measured with, and its file then serves
only on processors with the same kernels. ``NAME.ENGINE-PRECISION.FEATURES.json`` names them by the
features that choose the kernels.
"""

from __future__ import annotations

from pathlib import Path

from serve_app.models.engines.network import Pair
from serve_app.models.engines.processor import Machine
from serve_app.models.engines.records import GateRecord, derived_path, has_kernels_of
from serve_app.models.registry import Weights

SHIPPED = Path(__file__).parent / "records"
"""Folder of the records in the package."""
_FIRST = "amx_bf16"
"""Feature of the processors that an image is made for if there are records of several kinds: those
of Intel, on which bfloat16 gains most (docs/decisions/0025)."""


def write_shipped(record: GateRecord, folder: Path = SHIPPED) -> Path:
    """Write a record next to those of other processors, and return its place."""
    features = "-".join(record.features)
    path = folder / f"{_stem(record.model, Pair(record.engine, record.precision))}{features}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(record.model_dump_json(indent=2) + "\n", "utf-8")
    return path


def shipped_records(name: str, pair: Pair, folder: Path = SHIPPED) -> list[GateRecord]:
    """Return the records of a model and a pair on every kind of processor, by their names."""
    paths = sorted(folder.glob(f"{_stem(name, pair)}*.json"))
    return [GateRecord.model_validate_json(path.read_bytes()) for path in paths]


def find_shipped(
    weights: Weights,
    pair: Pair,
    derived_sha256: str,
    machine: Machine,
    *,
    any_processor: bool = False,
    folder: Path = SHIPPED,
) -> GateRecord | None:
    """Return the shipped record of a derived graph, if there is one.

    Args:
        weights: The model.
        pair: Engine and precision.
        derived_sha256: SHA-256 of the derived graph, as hexadecimal digits.
        machine: Machine that has the engine in the version that is to serve.
        any_processor: Whether another machine of the same architecture is to serve. A record of
            Intel's AMX is then preferred to others, whatever this machine has.
        folder: Folder of the records.
    """
    expected = (weights.sha256, derived_sha256, machine.openvino, machine.architecture)
    found = [
        record
        for record in shipped_records(weights.name, pair, folder)
        if (
            record.source_sha256,
            record.derived_sha256,
            record.engine_version,
            record.architecture,
        )
        == expected
    ]
    if any_processor:
        return min(found, key=lambda record: _FIRST not in record.features, default=None)
    return next((record for record in found if has_kernels_of(record, pair, machine)), None)


def _stem(name: str, pair: Pair) -> str:
    return f"{derived_path(Path(), name, pair).stem}."
