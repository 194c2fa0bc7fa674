"""Rewritten graphs that were compared ahead of time, and the records of them."""

from __future__ import annotations

import dataclasses
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from loadtests.quality.rewritten import compare, merged
from serve_app.config import AppConfig, SegmenterConfig
from serve_app.imaging.pixels import Pixels
from serve_app.models.engines.compared import ComparedGraph, compared_graphs, read_records
from serve_app.models.engines.network import Network
from serve_app.models.engines.onnx_runtime import MAX_LEVELS_APART, open_onnx_runtime, probe_image
from serve_app.models.engines.processor import Machine, this_machine
from serve_app.models.facts import MODEL_FACTS
from serve_app.models.graph_rewrites import optimize_for_cpu
from serve_app.models.inference import normalize_images, stretch_to_masks
from serve_app.models.registry import BUNDLED_MODEL, Weights, locate_weights
from tests.support import graphs

RECORDS = read_records()
COMMAND = "run 'python -m loadtests.quality.rewritten --write-records'"


class CountedProbe:
    """A probe that counts how many networks it runs."""

    def __init__(self) -> None:
        self.runs = 0
        self._facts = MODEL_FACTS["u2netp"]

    def __call__(self, network: Network) -> Pixels:
        self.runs += 1
        tensor = normalize_images(probe_image(self._facts.size_px), self._facts)
        return stretch_to_masks(network.run(tensor), self._facts)


def machine_of(record: ComparedGraph) -> Machine:
    return Machine(record.architecture, frozenset(record.kernels), None, record.onnxruntime)


def weights_of(record: ComparedGraph) -> Weights:
    path, facts = Path(f"{record.model}.onnx"), MODEL_FACTS[record.model]
    return Weights(record.model, path, record.source_sha256, facts)


@pytest.mark.parametrize(
    ("known", "rewrite", "runs"),
    [(True, True, 0), (False, True, 2), (True, False, 1)],
    ids=["compared before", "another graph", "not rewritten"],
)
def test_a_graph_that_was_compared_needs_no_probe(
    tmp_path: Path, known: bool, rewrite: bool, runs: int
) -> None:
    path, probe = graphs.brightness(tmp_path / "own.onnx"), CountedProbe()
    rewritten = optimize_for_cpu(path, batches=False)
    digest = sha256(rewritten if known else b"another graph").hexdigest()
    config = SegmenterConfig(rewrite_graph=rewrite)
    network = open_onnx_runtime(path, config, probe, {digest})
    assert probe.runs == runs
    assert np.array_equal(probe(network), probe(open_onnx_runtime(path, config, probe)))


def test_a_file_that_is_no_model_is_refused_whatever_was_compared(tmp_path: Path) -> None:
    path = tmp_path / "own.onnx"
    path.write_text("no graph")
    with pytest.raises(Exception, match=str(path)):
        open_onnx_runtime(path, SegmenterConfig(), CountedProbe(), {"0" * 64})


def test_the_record_of_the_bundled_model_is_of_its_present_graph() -> None:
    weights = locate_weights(BUNDLED_MODEL, AppConfig.load())
    recorded = {
        (one.source_sha256, one.batches, one.rewritten_sha256, one.onnxruntime)
        for one in RECORDS
        if one.model == BUNDLED_MODEL
    }
    present = {
        (weights.sha256, batches, sha256(graph).hexdigest(), this_machine().onnxruntime)
        for batches in (False, True)
        for graph in [optimize_for_cpu(weights.path, batches=batches)]
    }
    assert present <= recorded, COMMAND


def test_every_record_has_masks_that_are_alike() -> None:
    assert {(one.model, one.batches) for one in RECORDS} == {
        (name, batches) for name in (BUNDLED_MODEL, "u2netp") for batches in (False, True)
    }
    assert all(one.levels <= MAX_LEVELS_APART and one.images > 10 for one in RECORDS)


@pytest.mark.parametrize("number", range(len(RECORDS)))
def test_a_record_counts_for_its_file_version_and_kernels_alone(number: int) -> None:
    record = RECORDS[number]
    weights, machine = weights_of(record), machine_of(record)
    assert record.rewritten_sha256 in compared_graphs(weights, machine)
    for other in (
        dataclasses.replace(weights, sha256="0" * 64),
        dataclasses.replace(weights, name="mine"),
    ):
        assert record.rewritten_sha256 not in compared_graphs(other, machine)
    for elsewhere in (
        dataclasses.replace(machine, onnxruntime="1.0.0"),
        dataclasses.replace(machine, architecture="riscv64"),
        dataclasses.replace(machine, features=frozenset({"avx2"})),
    ):
        assert record.rewritten_sha256 not in compared_graphs(weights, elsewhere)


def test_a_comparison_is_of_both_graphs_that_a_replica_may_serve(tmp_path: Path) -> None:
    path = graphs.brightness(tmp_path / "own.onnx")
    weights = Weights("own", path, "0" * 64, MODEL_FACTS["u2netp"])
    found = compare(weights, [probe_image(320)], this_machine())
    assert [(one.batches, one.images, one.levels) for one in found] == [(False, 1, 0), (True, 1, 0)]
    assert [one.rewritten_sha256 for one in found] == [
        sha256(optimize_for_cpu(path, batches=batches)).hexdigest() for batches in (False, True)
    ]


def test_new_records_replace_those_of_the_same_kind_and_of_other_versions() -> None:
    [first, *_] = RECORDS
    again = first.model_copy(update={"images": 99})
    other_cpu = first.model_copy(update={"architecture": "aarch64", "kernels": ("sve",)})
    outdated = other_cpu.model_copy(update={"onnxruntime": "1.0.0", "kernels": ("sve2",)})
    assert set(merged([again], [first, other_cpu, outdated])) == {again, other_cpu}
