"""Measure a node: speed, masks and kernels of every engine and precision that it can run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from ingest.node.kernels import are_fast, convolution_kernels
from ingest.node.pixels import measure_pixels_s
from ingest.node.profile import describe_processors, profile_of
from ingest.node.report import NodeReport, NodeSettings, PairKernels
from ingest.node.speed import Case, CaseSpeed, measure_case
from ingest.scaling.plan_inputs import read_profile
from serve_app.config import AppConfig
from serve_app.contracts.precision import Accuracy
from serve_app.errors import ModelUnavailable
from serve_app.models.derive import DERIVED_FROM_EVERY, derive_graph, pass_gate
from serve_app.models.engines.choice import Choice
from serve_app.models.engines.cpuinfo import cpu_name
from serve_app.models.engines.network import EVERY_PAIR, EXACT, GATED, INT8, Pair
from serve_app.models.engines.onnx_runtime import runtime_version
from serve_app.models.engines.processor import (
    Machine,
    this_machine,
    usable_cores,
    why_not_runnable,
)
from serve_app.models.engines.records import (
    GateRecord,
    derived_folder,
    derived_path,
    read_current,
    why_not_accurate,
    write_derived,
)
from serve_app.models.gate import BOUNDS
from serve_app.models.gate_images import BUNDLED_SET, GateImage, SmallImage, shrink_images
from serve_app.models.graph_folding import read_folded
from serve_app.models.graph_rewrites import optimize_for_cpu
from serve_app.models.registry import Weights, locate_weights

_LOOSEST: Accuracy = "fast"
_PIXEL_RUNS = 15


def measure_node(
    model: str,
    config: AppConfig,
    images: Sequence[GateImage],
    *,
    seconds: float,
    emulated: bool = False,
    on_step: Callable[[str], None] = lambda _: None,
) -> NodeReport:
    """Measure a model with everything that this node can run, and write the files of the gates.

    Args:
        model: Name of a model whose weights are here.
        config: Settings, which say where the weights and the derived files are.
        images: Images of the gate.
        seconds: Time for each speed.
        emulated: Whether the processor is an emulated one, whose times mean nothing. Then only the
            kernels are reported, and nothing is written.
        on_step: Function that is called with the name of each step before it begins.

    Raises:
        ForeedgeError: The weights are missing, or ONNX Runtime cannot serve them in float32.
        OSError: The derived files cannot be written.
    """
    weights, folder = locate_weights(model, config), derived_folder(config)
    small = list(shrink_images(images, weights.facts.size_px))
    measurement = _Measurement(weights, small, folder, seconds, on_step)
    return measurement.kernels_alone() if emulated else measurement.on_this_node()


@dataclass(slots=True)
class _Measurement:
    """The measurement of one model."""

    weights: Weights
    images: Sequence[SmallImage]
    folder: Path
    """Folder for the derived files."""
    seconds: float
    on_step: Callable[[str], None]
    machine: Machine = field(default_factory=this_machine)
    not_measured: dict[Pair, str] = field(default_factory=dict)
    """Why a pair could not be measured."""

    def on_this_node(self) -> NodeReport:
        """Return the report with settings and a profile."""
        threads = sorted({1, usable_cores()})
        # First, since every other pair falls back to it: without it nothing serves the model.
        default = self._speeds(Choice(), threads)
        pairs = self._runnable_pairs()
        gates, graphs = self._pass_gates(pairs)
        report = self._report(pairs, graphs, threads, default)
        report = report.model_copy(update={"gates": gates})
        self.on_step("pixels")
        pixels_s = measure_pixels_s(self.weights.facts.size_px, _PIXEL_RUNS)
        processors = describe_processors(report.cores, report.cpu, report.architecture)
        profile = profile_of(
            report.model, report.speeds, pixels_s, processors, self.machine, read_profile(None)
        )
        settings = fastest_settings(report.speeds, gates)
        return report.model_copy(update={"settings": settings, "profile": profile})

    def kernels_alone(self) -> NodeReport:
        """Return the report of an emulated processor."""
        pairs = self._runnable_pairs()
        # Its nearly constant channels change no kernel, and to find them would take a minute.
        folded = read_folded(self.weights.path, batches=False)
        content = folded.SerializeToString() if folded else self.weights.path.read_bytes()
        _, graphs = self._quantized(pairs)
        graphs |= {pair: content for pair in pairs if pair in GATED}
        return self._report(pairs, graphs, [], []).model_copy(update={"emulated": True})

    def _runnable_pairs(self) -> list[Pair]:
        """Return the pairs that this machine runs."""
        return [pair for pair in EVERY_PAIR if self._is_runnable(pair)]

    def _report(
        self,
        pairs: Sequence[Pair],
        graphs: dict[Pair, bytes],
        threads: Sequence[int],
        default: Sequence[CaseSpeed],
    ) -> NodeReport:
        """Return the report without what follows from it.

        Args:
            pairs: Pairs to measure, unless ``not_measured`` has them.
            graphs: What the pairs that change numbers run.
            threads: Numbers of images at the same time that speeds are measured with.
            default: Speeds of the default pair.
        """
        speeds = list(default)
        for pair in [each for each in pairs if each not in {EXACT, *self.not_measured}]:
            derived = derived_path(self.folder, self.weights.name, pair)
            choice = Choice(pair, derived if pair in graphs else None)
            try:
                speeds += self._speeds(choice, threads)
            except ModelUnavailable as error:
                self.not_measured[pair] = error.message
        measured = [pair for pair in pairs if pair not in self.not_measured]
        return NodeReport(
            measured_at=datetime.now(UTC).isoformat(timespec="seconds"),
            model=self.weights.name,
            cpu=cpu_name(),
            architecture=self.machine.architecture,
            cores=usable_cores(),
            features=sorted(self.machine.features),
            onnxruntime=runtime_version(),
            openvino=self.machine.openvino,
            not_measured={str(pair): reason for pair, reason in self.not_measured.items()},
            speeds=speeds,
            kernels=self._kernels(measured, graphs),
        )

    def _is_runnable(self, pair: Pair) -> bool:
        reason = why_not_runnable(pair, self.machine)
        if reason is not None:
            self.not_measured[pair] = reason
        return reason is None

    def _pass_gates(self, pairs: Sequence[Pair]) -> tuple[list[GateRecord], dict[Pair, bytes]]:
        """Return the records of the pairs that need a gate, and what these pairs run.

        A record of other images than ours stays if it still counts: they are the user's own, or
        those of the record that the package ships.
        """
        records, graphs = self._quantized(pairs)
        gated = []
        for pair in [each for each in pairs if each in GATED]:
            path = derived_path(self.folder, self.weights.name, pair)
            found = read_current(path, self.weights, pair, self.machine)
            if isinstance(found, GateRecord) and found.image_set != BUNDLED_SET:
                records.append(found)
                graphs[pair] = path.read_bytes()
            else:
                gated.append(pair)
        if not gated:
            return records, graphs
        self.on_step("derived graph")
        few = self.images[::DERIVED_FROM_EVERY]
        graph = derive_graph(self.weights, [each.square for each in few])
        for pair in gated:
            self.on_step(f"masks of {pair}")
            try:
                record = pass_gate(
                    self.weights,
                    pair,
                    graph,
                    self.images,
                    image_set=BUNDLED_SET,
                    machine=self.machine,
                )
            except ModelUnavailable as error:
                self.not_measured[pair] = error.message
                continue
            path = derived_path(self.folder, self.weights.name, pair)
            write_derived(path, graph.content, record)
            records.append(record)
        return records, {**graphs, **dict.fromkeys(gated, graph.content)}

    def _quantized(self, pairs: Sequence[Pair]) -> tuple[list[GateRecord], dict[Pair, bytes]]:
        """Return the record and the graph in int8, if both are here: it needs a calibration."""
        if INT8 not in pairs:
            return [], {}
        path = derived_path(self.folder, self.weights.name, INT8)
        found = read_current(path, self.weights, INT8, self.machine)
        if isinstance(found, GateRecord):
            reason = why_not_accurate(found, _LOOSEST)
            if reason is None:
                return [found], {INT8: path.read_bytes()}
        else:
            reason = found.reason
        self.not_measured[INT8] = (
            f"{reason}. Make it with 'foreedge models quantize {self.weights.name} "
            "--calibration FOLDER'"
        )
        return [], {}

    def _speeds(self, choice: Choice, threads: Sequence[int]) -> list[CaseSpeed]:
        speeds = []
        for count in threads:
            self.on_step(f"speed of {choice.pair} on {count} thread{'s' * (count > 1)}")
            speeds.append(measure_case(Case(self.weights, choice, count, self.seconds)))
        return speeds

    def _kernels(self, pairs: Sequence[Pair], graphs: dict[Pair, bytes]) -> list[PairKernels]:
        self.on_step("kernels")
        exact = optimize_for_cpu(self.weights.path, batches=False)
        found = []
        for pair in pairs:
            kernels = convolution_kernels(pair, graphs.get(pair, exact))
            found.append(
                PairKernels(
                    engine=pair.engine,
                    precision=pair.precision,
                    kernels=kernels,
                    fast=are_fast(pair, kernels),
                )
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
