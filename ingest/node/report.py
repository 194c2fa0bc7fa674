"""The report of what was measured on a node, and its two files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import yaml
from pydantic import Field

from ingest.node.speed import CaseSpeed
from ingest.scaling.plan_inputs import Profile
from serve_app.contracts.base import Contract
from serve_app.contracts.precision import Accuracy, Engine, Precision
from serve_app.errors import InvalidConfig
from serve_app.models.engines.records import GateRecord

_MADE_BY = "by foreedge bench-node"
"""What the first line of a file of settings says, so that the next measurement may replace it."""
_FACTS = {"measured_at", "model", "cpu", "cores", "speeds"}
"""Names in a report of every version."""


class PairKernels(Contract):
    """The kernels of a model's convolutions with an engine and a precision."""

    engine: Engine
    """Library that runs them."""
    precision: Precision
    """Precision that they run in."""
    kernels: dict[str, int]
    """Number of convolutions by kernel, by the library's own names."""
    fast: bool
    """Whether none of these kernels is known to be slow."""


class NodeSettings(Contract):
    """The settings with which a model has most masks per second and an accuracy."""

    engine: Engine
    """``segmenter.engine``."""
    precision: Precision
    """``segmenter.precision``."""
    accuracy: Accuracy
    """``segmenter.accuracy``."""
    threads: int
    """``segmenter.threads``."""
    images_per_s: float
    """Masks per second."""


class NodeReport(Contract):
    """What was measured on a node."""

    measured_at: str
    """Time of the measurement, ISO 8601."""
    model: str
    """Name of the model."""
    cpu: str
    """Name of the processor."""
    architecture: str
    """Architecture of the machine."""
    cores: int
    """Number of cores that the process may use."""
    features: list[str]
    """Features of the processor that choose the kernels."""
    onnxruntime: str
    """Version of ONNX Runtime."""
    openvino: str | None
    """Version of OpenVINO, or None if it is not installed."""
    not_measured: dict[str, str]
    """Reasons by the pairs that this node cannot run."""
    speeds: list[CaseSpeed]
    """Speed of each pair, on one thread and on all cores. None if the processor was emulated."""
    kernels: list[PairKernels]
    """Kernels of each pair."""
    gates: list[GateRecord] = Field(default_factory=list)
    """Records of the pairs that change numbers, as they were written for the replicas."""
    settings: list[NodeSettings] = Field(default_factory=list)
    """Fastest settings for each accuracy. None if the processor was emulated."""
    profile: Profile | None = None
    """Profile for ``foreedge plan``. None if the processor was emulated."""
    emulated: bool = False
    """Whether the processor was emulated. Its times mean nothing, so that there are none."""


def check_report_path(path: Path) -> None:
    """Refuse a path at which a report cannot be written, or would replace a file of another kind.

    Raises:
        InvalidConfig: The path is a folder, is below a file, or has a file that bench-node did not
            make.
    """
    if path.is_dir():
        raise InvalidConfig(
            f"--out {path} is a folder. Give the path of a file, such as {path / 'node.json'}"
        )
    above = next(parent for parent in path.absolute().parents if parent.exists())
    if not above.is_dir():
        raise InvalidConfig(f"--out {path}: {above} is a file, so that nothing can be below it")
    if path.exists() and not _is_report(path):
        raise InvalidConfig(
            f"--out {path}: the report would replace a file that foreedge bench-node did not make. "
            "Choose another --out"
        )


def settings_path(report_path: Path) -> Path:
    """Return the path of the settings next to a report.

    Args:
        report_path: Path that ``check_report_path`` accepts.

    Raises:
        InvalidConfig: The settings would replace the report, or a file that bench-node did not
            make.
    """
    path = report_path.with_suffix(".yaml")
    if path == report_path:
        raise InvalidConfig(
            f"--out {report_path} is the path of the settings, which are written next to the "
            f"report. Choose another suffix, such as {report_path.with_suffix('.json')}"
        )
    if path.exists() and (path.is_dir() or _MADE_BY not in _first_line(path)):
        raise InvalidConfig(
            f"--out {report_path}: the settings would replace {path}, which foreedge bench-node "
            "did not make. Choose another --out"
        )
    return path


def _is_report(path: Path) -> bool:
    """Return whether a file is a report, perhaps of another version of Foreedge."""
    try:
        content = orjson.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.keys() >= _FACTS


def _first_line(path: Path) -> str:
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.readline()


def write_node_report(report: NodeReport, path: Path) -> None:
    """Write a report as one JSON file, which ``foreedge plan --profile`` reads."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(report.model_dump_json(indent=2) + "\n", "utf-8")


def write_node_settings(report: NodeReport, accuracy: Accuracy, path: Path) -> None:
    """Write the fastest settings for an accuracy, as a file for ``foreedge serve --config``.

    Raises:
        InvalidConfig: The processor was emulated, so that there are none.
    """
    best = next((each for each in report.settings if each.accuracy == accuracy), None)
    if best is None:
        raise InvalidConfig("no settings follow from the times of an emulated processor")
    segmenter = best.model_dump(exclude={"images_per_s"})
    settings: dict[str, Any] = {
        "models": [report.model],
        "segmenter": {**segmenter, "num_cpus": best.threads},
    }
    head = (
        f"# Measured on {report.cpu}, {report.cores} cores, {_MADE_BY}, "
        f"{report.measured_at}:\n# {best.images_per_s:g} masks/s.\n"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(head + yaml.safe_dump(settings, sort_keys=False), "utf-8")
