"""Rewritten graphs whose masks were compared with those of their file ahead of time.

A replica that loads a model runs its file and the rewritten graph once each, and compares the masks
(``onnx_runtime``). That is half of what the load costs. For the graphs of the records that the
package ships it was done before, on more images. A record counts for exactly the file, the
rewritten graph, the version of ONNX Runtime and the kernels that it was made with. Whatever else a
replica loads, it compares itself.

``python -m loadtests.quality.rewritten --write-records`` makes the records.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import TypeAdapter

from serve_app.contracts.base import Contract
from serve_app.models.engines.processor import Machine
from serve_app.models.registry import Weights

RECORDS = Path(__file__).parent / "records" / "rewritten.json"
"""File of the records."""
_KERNELS = {"avx2", "avx512f", "sve", "sve2"}
"""Features that choose ONNX Runtime's kernels of float32, and the size of its blocks of channels.

Source: ``MLAS_PLATFORM`` in ONNX Runtime's mlas/lib/platform.cpp."""


class ComparedGraph(Contract):
    """A rewritten graph that was compared with its file."""

    model: str
    """Name of the model, which decides how images become inputs and outputs masks."""
    source_sha256: str
    """SHA-256 of the model file, as hexadecimal digits."""
    batches: bool
    """Whether the rewritten graph takes several images at a time."""
    rewritten_sha256: str
    """SHA-256 of the rewritten graph."""
    onnxruntime: str
    """Version of ONNX Runtime that ran both."""
    architecture: str
    """Architecture of the machine."""
    kernels: tuple[str, ...]
    """Features of its processor that choose the kernels."""
    images: int
    """Number of images."""
    levels: int
    """Largest difference of two masks, in grey levels."""


_RECORDS = TypeAdapter(tuple[ComparedGraph, ...])


def read_records() -> tuple[ComparedGraph, ...]:
    """Return the records that the package ships."""
    return _RECORDS.validate_json(RECORDS.read_bytes())


def write_records(records: tuple[ComparedGraph, ...]) -> None:
    """Replace the records that the package ships."""
    RECORDS.write_bytes(_RECORDS.dump_json(records, indent=2) + b"\n")


def float32_kernels(machine: Machine) -> tuple[str, ...]:
    """Return the features that choose the kernels of float32, sorted."""
    return tuple(sorted(machine.features & _KERNELS))


def compared_graphs(weights: Weights, machine: Machine) -> frozenset[str]:
    """Return the SHA-256 of the rewritten graphs that need no comparison on a machine.

    Args:
        weights: The model.
        machine: Machine that is to serve it.
    """
    here = (
        weights.name,
        weights.sha256,
        machine.onnxruntime,
        machine.architecture,
        float32_kernels(machine),
    )
    return frozenset(
        one.rewritten_sha256
        for one in read_records()
        if (one.model, one.source_sha256, one.onnxruntime, one.architecture, one.kernels) == here
    )
