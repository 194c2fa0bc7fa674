"""Derived files of a model and the records of their gate, which are checked before they serve.

``NAME.ENGINE-PRECISION.onnx`` is what a pair runs, and the ``.json`` next to it says what it was
made of and what was measured. They are in the folder ``derived`` of the models.
"""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from serve_app.config import AppConfig
from serve_app.contracts.base import Contract, describe_validation_error
from serve_app.contracts.precision import Accuracy, Engine, Precision
from serve_app.models.engines.network import Pair
from serve_app.models.engines.processor import Machine, kernel_features
from serve_app.models.gate import Measures
from serve_app.models.registry import Weights, file_digest, models_home

RECIPE_VERSION = 1
"""Version of the way in which files are derived. It is raised when the same source begins to give
another graph, since the numbers in a record are those of the graph."""

_FOLDER = "derived"


class GateRecord(Contract):
    """Origin of a derived file, the machine that measured it, and the result."""

    model: str
    """Name of the model."""
    source_sha256: str
    """SHA-256 of the model file, as hexadecimal digits."""
    derived_sha256: str
    """SHA-256 of the derived file."""
    recipe_version: int
    """``RECIPE_VERSION`` of the derived file."""
    engine: Engine
    """Library that ran it."""
    engine_version: str
    """Version of that library."""
    precision: Precision
    """Precision that it ran in."""
    architecture: str
    """Architecture of the machine that measured."""
    features: tuple[str, ...]
    """Features of its processor that choose the kernels."""
    image_set: str
    """Images that the masks are of."""
    measures: Measures
    """What was measured."""


@dataclass(frozen=True, slots=True)
class Uncounted:
    """A derived file that must not serve, whatever its numbers are."""

    reason: str
    """Why it does not count."""
    has_record: bool = True
    """Whether there is a record, so that somebody expects it to serve."""


def derived_folder(config: AppConfig) -> Path:
    """Return the folder of derived files, which need not exist."""
    return models_home(config) / _FOLDER


def derived_path(folder: Path, name: str, pair: Pair) -> Path:
    """Return the place of the derived file of a model. A model's name may hold any character."""
    return folder / f"{re.sub(r'[^A-Za-z0-9._-]', '_', name)}.{pair.engine}-{pair.precision}.onnx"


def record_path(derived: Path) -> Path:
    """Return the place of the record of a derived file."""
    return derived.with_suffix(".json")


def write_derived(derived: Path, graph: bytes, record: GateRecord) -> None:
    """Write a derived file and its record. Each gets its name once it is whole.

    Raises:
        OSError: The folder cannot be written to.
    """
    derived.parent.mkdir(parents=True, exist_ok=True)
    text = record.model_dump_json(indent=2) + "\n"
    for path, content in ((derived, graph), (record_path(derived), text.encode())):
        with tempfile.TemporaryDirectory(dir=derived.parent, prefix=".making-") as folder:
            part = Path(folder, path.name)
            part.write_bytes(content)
            part.replace(path)


def remove_derived(derived: Path) -> bool:
    """Remove a derived file and its record, and return whether there was one of them.

    Raises:
        OSError: The folder cannot be written to.
    """
    found = [path for path in (record_path(derived), derived) if path.exists()]
    for path in found:
        path.unlink()
    return bool(found)


def has_kernels_of(record: GateRecord, pair: Pair, machine: Machine) -> bool:
    """Return whether a machine computes a pair with the kernels that a record was measured with."""
    kernels = (machine.architecture, kernel_features(pair, machine))
    return (record.architecture, record.features) == kernels


def read_current(
    derived: Path, weights: Weights, pair: Pair, machine: Machine
) -> GateRecord | Uncounted:
    """Return the record of a derived file, whatever its numbers are, or why it does not count.

    Args:
        derived: The file.
        weights: Model that is to be served.
        pair: Engine and precision.
        machine: Machine that is to serve it.
    """
    path = record_path(derived)
    try:
        record = GateRecord.model_validate_json(path.read_bytes())
        digest = file_digest(derived, "sha256")
    except FileNotFoundError as error:
        reason = f"it has not passed the gate: there is no {error.filename}"
        return Uncounted(reason, has_record=error.filename != str(path))
    except OSError as error:
        return Uncounted(f"{error.filename} cannot be read: {error.strerror}")
    except ValidationError as error:
        return Uncounted(f"{path} is damaged: {describe_validation_error(error)}")
    expected = {
        "another source": (record.source_sha256, weights.sha256),
        "another model": (record.model, weights.name),
        "another way of deriving": (record.recipe_version, RECIPE_VERSION),
        "another pair": (f"{record.engine} {record.precision}", str(pair)),
        "another architecture": (record.architecture, machine.architecture),
        "other processor features": (record.features, kernel_features(pair, machine)),
        f"another version of {pair.engine}": (
            record.engine_version,
            machine.version_of(pair.engine),
        ),
    }
    for what, (recorded, needed) in expected.items():
        if recorded != needed:
            return Uncounted(f"{path} is of {what}: {recorded!r} instead of {needed!r}")
    if digest != record.derived_sha256:
        return Uncounted(f"{derived} is damaged: its sha256 is not that of its record")
    return record


def why_not_accurate(record: GateRecord, accuracy: Accuracy) -> str | None:
    """Return why the numbers of a record do not suffice for an accuracy, or None if they do."""
    if record.measures.suffices_for(accuracy):
        return None
    return (
        f"it has failed the gate for {accuracy!r}: {', '.join(record.measures.failures(accuracy))}"
    )
