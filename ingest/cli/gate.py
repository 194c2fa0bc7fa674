"""What ``foreedge models gate`` does: derive a graph, measure it, and report the numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from ingest.cli.progress import progress_bar
from ingest.cli.terminal import open_terminal, print_json, print_line
from serve_app.config import AppConfig
from serve_app.errors import InvalidConfig, ModelUnavailable
from serve_app.models.derive import DERIVED_FROM_EVERY, DerivedGraph, derive_graph, pass_gate
from serve_app.models.engines.network import GATED, INT8, Pair
from serve_app.models.engines.processor import Machine, pairs_by_speed, this_machine
from serve_app.models.engines.records import (
    GateRecord,
    derived_folder,
    derived_path,
    read_current,
    record_path,
    remove_derived,
    write_derived,
)
from serve_app.models.engines.shipped import find_shipped, shipped_records
from serve_app.models.gate import BOUNDS
from serve_app.models.gate_images import (
    BUNDLED_SET,
    GateImage,
    SmallImage,
    draw_gate_images,
    read_gate_images,
    shrink_images,
)
from serve_app.models.registry import Weights, locate_weights

_DRAWN = 18
"""Number of drawn images, next to the six real ones of the demonstration."""


def measure_and_write(
    name: str, precision: str | None, images: Path | None, *, as_json: bool
) -> bool:
    """Measure a model in another precision, write both files, and report the numbers.

    Args:
        name: Name of the model.
        precision: Precision, or None for the one that this processor runs well.
        images: Folder of images, or None for the bundled ones.
        as_json: Whether the report is one line of JSON.

    Returns:
        Whether any accuracy was reached.

    Raises:
        InvalidConfig: Nothing can be measured here.
        ModelUnavailable: The weights are not here, or the files cannot be written.
    """
    config, machine = AppConfig.load(), this_machine()
    weights, pair = locate_weights(name, config), _pair(precision, machine)
    whole = read_gate_images(images) if images else bundled_images()
    used = list(shrink_images(whole, weights.facts.size_px))
    graph = derive_graph(weights, [each.square for each in used[::DERIVED_FROM_EVERY]])
    record = None if images else find_shipped(weights, pair, graph.sha256, machine)
    if record is None:
        with progress_bar(open_terminal(as_json=True)) as bar:
            task = bar.add_task(f"{name}, {pair}", total=len(used), detail="")

            def counted() -> Iterator[SmallImage]:
                for image in used:
                    yield image
                    bar.advance(task)

            record = pass_gate(
                weights, pair, graph, counted(), image_set=name_of(images), machine=machine
            )
    path = derived_path(derived_folder(config), name, pair)
    before = read_current(path, weights, pair, machine)
    replace_derived(path, graph.content, record)
    other_set = isinstance(before, GateRecord) and before.image_set != record.image_set
    replaced = before.image_set if isinstance(before, GateRecord) and other_set else None
    report_gate(graph, record, path, print_json if as_json else None, {"replaced": replaced})
    if replaced and not as_json:
        print_line(f"  in place of the record of           {replaced}")
    return record.measures.reached() is not None


def name_of(images: Path | None) -> str:
    """Return what a record calls the images of the gate.

    Args:
        images: Folder of images, or None for the bundled ones.
    """
    return f"the images of {images}" if images else BUNDLED_SET


def replace_derived(path: Path, graph: bytes | None, record: GateRecord) -> bool:
    """Write a derived file with its record, or remove what an earlier run has written.

    Args:
        path: Place of the derived file.
        graph: What is written. None if there is nothing worth serving: an older file would serve
            on, although this machine gains nothing from it.
        record: Record of the graph.

    Returns:
        Whether an older file was removed.

    Raises:
        ModelUnavailable: The folder cannot be written to.
    """
    try:
        if graph is None:
            return remove_derived(path)
        write_derived(path, graph, record)
    except OSError as error:
        raise ModelUnavailable(
            f"{path} cannot be written: {error}. Check the permissions and the free space, or name "
            "another folder with U2NET_HOME."
        ) from error
    return False


def write_shipped_gates(name: str, config: AppConfig, machine: Machine) -> list[Path]:
    """Write the files of the pairs that the package ships a record of, and return the derived ones.

    Nothing is measured, and nothing is written if OpenVINO is not installed. Of a pair that was
    measured on several kinds of processors, the record of Intel's AMX is written. On others,
    ``foreedge models gate`` replaces it.

    Args:
        name: Name of a model whose weights are here.
        config: Settings, which say where the weights are.
        machine: This machine, whose processor need not run the pairs.
    """
    shipped = [pair for pair in GATED if shipped_records(name, pair)]
    if machine.openvino is None or not shipped:
        return []
    weights = locate_weights(name, config)
    graph = derive_bundled(weights)
    written = []
    for pair in shipped:
        record = find_shipped(weights, pair, graph.sha256, machine, any_processor=True)
        if record is not None:
            path = derived_path(derived_folder(config), name, pair)
            write_derived(path, graph.content, record)
            written.append(path)
    return written


def _pair(precision: str | None, machine: Machine) -> Pair:
    if precision == INT8.precision:
        raise InvalidConfig(
            "int8 is made and measured by 'foreedge models quantize NAME --calibration FOLDER'."
        )
    if precision is not None:
        for pair in GATED:
            if pair.precision == precision:
                return pair
        choices = " and ".join(pair.precision for pair in GATED)
        raise InvalidConfig(f"--precision {precision!r} is unknown. Only {choices} need a gate.")
    fastest = [pair for pair in pairs_by_speed(machine) if pair in GATED]
    if not fastest:
        raise InvalidConfig(
            "On this processor nothing that OpenVINO computes is faster than ONNX Runtime in "
            "float32. Name a --precision to measure it nevertheless, or try int8: 'foreedge models "
            "quantize NAME --calibration FOLDER'."
        )
    return fastest[0]


def derive_bundled(weights: Weights) -> DerivedGraph:
    """Return the graph that a model's shipped records are of: it is derived by bundled images.

    Args:
        weights: The model.
    """
    images = bundled_images()[::DERIVED_FROM_EVERY]
    small = shrink_images(images, weights.facts.size_px)
    return derive_graph(weights, [each.square for each in small])


def bundled_images(drawn: int = _DRAWN) -> list[GateImage]:
    """Return the images of the gate that are part of the packages: drawn ones and six real ones.

    Args:
        drawn: Number of drawn images.
    """
    with as_file(files("ingest.local") / "real_photographs") as folder:
        return [*draw_gate_images(drawn), *read_gate_images(folder)]


def report_gate(
    graph: DerivedGraph,
    record: GateRecord,
    path: Path | None,
    write_json: Callable[[dict[str, Any]], None] | None,
    more: Mapping[str, Any] | None = None,
) -> None:
    """Print what was measured, and the places of the files.

    Args:
        graph: What the pair runs.
        record: Record of its gate.
        path: Place of the graph, or None if it was not written.
        write_json: Function that prints a line of JSON. None stands for text.
        more: Other facts for the line of JSON.
    """
    measures, reached = record.measures, record.measures.reached()
    if write_json is not None:
        record_fields = record.model_dump(mode="json")
        write_json(
            {**record_fields, "reached": reached, "path": path and str(path), **(more or {})}
        )
        return
    print_line(f"{record.model}, {record.engine} {record.precision}, {record.image_set}:")
    print_line(f"  nearly constant channels taken out  {len(graph.taken)}")
    print_line(f"  mean difference                     {measures.difference:.3f} grey levels")
    print_line(f"  IoU with float32                    {measures.iou:.4f}")
    print_line(
        f"  within 2 and 8 levels               {measures.within_2:.2%}, {measures.within_8:.2%}"
    )
    print_line(f"  IoU lost against true masks         {measures.true_iou_loss:.4f}")
    print_line(
        f"  worst image                         {measures.worst} ({measures.worst_within_8:.2%})"
    )
    for accuracy in BOUNDS:
        failures = measures.failures(accuracy)
        print_line(
            f"  {accuracy:5}  {'passed' if not failures else 'failed: ' + ', '.join(failures)}"
        )
    if path is None:
        return
    print_line(f"  written                             {path}")
    print_line(f"                                      {record_path(path)}")
