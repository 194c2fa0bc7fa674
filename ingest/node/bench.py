"""Measure a node: speed, masks and kernels of every engine and precision that it can run."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from ingest.node.kernels import are_fast, convolution_kernels
from ingest.node.speed import Case, CaseSpeed, measure_case
from serve_app.config import AppConfig
from serve_app.contracts.base import Contract
from serve_app.contracts.precision import Accuracy, Engine, Precision
from serve_app.errors import ModelUnavailable
from serve_app.models.derive import DERIVED_FROM_EVERY, DerivedGraph, derive_graph, pass_gate
from serve_app.models.engines.choice import Choice
from serve_app.models.engines.network import EXACT, GATED, Pair
from serve_app.models.engines.onnx_runtime import runtime_version
from serve_app.models.engines.processor import (
    Machine,
    cpu_name,
    this_machine,
    why_not_runnable,
)
from serve_app.models.engines.records import (
    GateRecord,
    derived_folder,
    derived_path,
    write_derived,
)
from serve_app.models.gate import BOUNDS
from serve_app.models.gate_images import GateImage
from serve_app.models.graph_rewrites import optimize_for_cpu
from serve_app.models.registry import Weights, locate_weights

_OPENVINO_EXACT = Pair("openvino", "float32")


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
    """Speed of each pair, on one thread and on all cores."""
    kernels: list[PairKernels]
    """Kernels of each pair."""
    gates: list[GateRecord]
    """Records of the pairs that change numbers, as they were written for the replicas."""
    settings: list[NodeSettings]
    """Fastest settings for each accuracy."""


def measure_node(
    model: str,
    config: AppConfig,
    images: Sequence[GateImage],
    *,
    seconds: float,
    on_step: Callable[[str], None] = lambda _: None,
) -> NodeReport:
    """Measure a model with everything that this node can run, and write the files of the gates.

    Args:
        model: Name of a model whose weights are here.
        config: Settings, which say where the weights and the derived files are.
        images: Images of the gate.
        seconds: Time for each speed.
        on_step: Function that is called with the name of each step before it begins.

    Raises:
        ForeedgeError: The weights are missing.
        OSError: The derived files cannot be written.
    """
    weights, machine = locate_weights(model, config), this_machine()
    refused = {pair: why_not_runnable(pair, machine) for pair in (EXACT, _OPENVINO_EXACT, *GATED)}
    not_measured = {pair: reason for pair, reason in refused.items() if reason}
    pairs = [pair for pair in refused if pair not in not_measured]
    gates, graphs = _pass_gates(weights, pairs, config, images, machine, on_step, not_measured)
    speeds = []
    cores = _usable_cores()
    for pair in [each for each in pairs if each not in not_measured]:
        derived = derived_path(derived_folder(config), model, pair) if pair in graphs else None
        try:
            for threads in sorted({1, cores}):
                on_step(f"speed of {pair} on {threads} thread{'s' * (threads > 1)}")
                speeds.append(measure_case(Case(weights, Choice(pair, derived), threads, seconds)))
        except ModelUnavailable as error:
            not_measured[pair] = error.message
    measured = [pair for pair in pairs if pair not in not_measured]
    return NodeReport(
        measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
        model=model,
        cpu=cpu_name(),
        architecture=machine.architecture,
        cores=cores,
        features=sorted(machine.features),
        onnxruntime=runtime_version(),
        openvino=machine.openvino,
        not_measured={str(pair): reason for pair, reason in not_measured.items()},
        speeds=speeds,
        kernels=_kernels(weights, measured, graphs, on_step),
        gates=gates,
        settings=fastest_settings(speeds, gates),
    )


def _pass_gates(
    weights: Weights,
    pairs: Sequence[Pair],
    config: AppConfig,
    images: Sequence[GateImage],
    machine: Machine,
    on_step: Callable[[str], None],
    not_measured: dict[Pair, str],
) -> tuple[list[GateRecord], dict[Pair, DerivedGraph]]:
    """Return the records of the pairs that need a gate, and what these pairs run.

    Why a pair could not be measured is added to ``not_measured``.
    """
    gated = [pair for pair in pairs if pair.changes_numbers]
    if not gated:
        return [], {}
    on_step("derived graph")
    graph = derive_graph(weights, images[::DERIVED_FROM_EVERY])
    records = []
    for pair in gated:
        on_step(f"masks of {pair}")
        try:
            record = pass_gate(
                weights, pair, graph, images, image_set="the bundled images", machine=machine
            )
        except ModelUnavailable as error:
            not_measured[pair] = error.message
            continue
        path = derived_path(derived_folder(config), weights.name, pair)
        write_derived(path, graph.content, record)
        records.append(record)
    return records, dict.fromkeys(gated, graph)


def _usable_cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _kernels(
    weights: Weights,
    pairs: Sequence[Pair],
    graphs: dict[Pair, DerivedGraph],
    on_step: Callable[[str], None],
) -> list[PairKernels]:
    on_step("kernels")
    exact = optimize_for_cpu(weights.path, batches=False)
    found = []
    for pair in pairs:
        graph = graphs[pair].content if pair in graphs else exact
        kernels = convolution_kernels(pair, graph)
        fast = are_fast(pair, kernels)
        found.append(
            PairKernels(engine=pair.engine, precision=pair.precision, kernels=kernels, fast=fast)
        )
    return found


def fastest_settings(
    speeds: Sequence[CaseSpeed], gates: Sequence[GateRecord]
) -> list[NodeSettings]:
    """Return the fastest settings for each accuracy. In float32 every accuracy is reached."""
    measures = {(gate.engine, gate.precision): gate.measures for gate in gates}
    found = []
    for accuracy in BOUNDS:
        allowed = [
            each
            for each in speeds
            if each.precision == "float32"
            or (
                (each.engine, each.precision) in measures
                and measures[each.engine, each.precision].suffices_for(accuracy)
            )
        ]
        best = max(allowed, key=lambda each: each.images_per_s)
        found.append(
            NodeSettings(
                engine=best.engine,
                precision=best.precision,
                accuracy=accuracy,
                threads=best.threads,
                images_per_s=best.images_per_s,
            )
        )
    return found


def write_node_report(report: NodeReport, path: Path) -> None:
    """Write a report as one JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(report.model_dump_json(indent=2) + "\n", "utf-8")
