"""Records that the package ships count for exactly what was measured."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from serve_app.models.engines.network import GATED
from serve_app.models.engines.processor import Machine
from serve_app.models.engines.records import RECIPE_VERSION, GateRecord
from serve_app.models.engines.shipped import find_shipped, shipped_path
from serve_app.models.facts import MODEL_FACTS
from serve_app.models.registry import Weights

SHIPPED = [
    (name, pair) for name in MODEL_FACTS for pair in GATED if shipped_path(name, pair).is_file()
]


def record_of(name: str, precision: str) -> GateRecord:
    (pair,) = [each for each in GATED if each.precision == precision]
    return GateRecord.model_validate_json(shipped_path(name, pair).read_bytes())


def test_the_default_model_ships_both_precisions() -> None:
    assert {pair for name, pair in SHIPPED if name == "u2netp"} == set(GATED)


@pytest.mark.parametrize(("name", "pair"), SHIPPED)
def test_every_record_says_what_it_is_of(name: str, pair: object) -> None:
    (precision,) = [each.precision for each in GATED if each == pair]
    record = record_of(name, precision)
    assert (record.model, record.recipe_version) == (name, RECIPE_VERSION)
    assert record.measures.images > 100
    assert record.measures.reached() is not None
    assert record.features


def test_a_record_counts_for_its_graph_and_version_alone() -> None:
    record = record_of("u2netp", "bfloat16")
    weights = Weights("u2netp", Path("u2netp.onnx"), record.source_sha256, MODEL_FACTS["u2netp"])
    machine = Machine("x86_64", frozenset({"amx_bf16"}), record.engine_version)
    pair, derived = GATED[0], record.derived_sha256
    assert find_shipped(weights, pair, derived, machine) == record
    assert find_shipped(weights, pair, "0" * 64, machine) is None
    other = dataclasses.replace(weights, sha256="0" * 64)
    assert find_shipped(other, pair, derived, machine) is None
    for version in ("2025.1.0", None):
        older = dataclasses.replace(machine, openvino=version)
        assert find_shipped(weights, pair, derived, older) is None
    unknown = dataclasses.replace(weights, name="mine")
    assert find_shipped(unknown, pair, derived, machine) is None


@pytest.mark.parametrize(
    ("precision", "other"),
    [
        ("bfloat16", Machine("x86_64", frozenset({"avx2"}), None)),
        ("bfloat16", Machine("x86_64", frozenset({"avx512_bf16"}), None, vendor="AuthenticAMD")),
        ("float16", Machine("aarch64", frozenset({"asimdhp", "sve"}), None)),
        ("float16", Machine("aarch64", frozenset({"avx512_fp16"}), None)),
    ],
)
def test_a_record_of_other_kernels_is_only_for_who_builds_an_image(
    precision: str, other: Machine
) -> None:
    record = record_of("u2netp", precision)
    weights = Weights("u2netp", Path("u2netp.onnx"), record.source_sha256, MODEL_FACTS["u2netp"])
    machine = dataclasses.replace(other, openvino=record.engine_version)
    (pair,) = [each for each in GATED if each.precision == precision]
    derived = record.derived_sha256
    assert find_shipped(weights, pair, derived, machine) is None
    assert find_shipped(weights, pair, derived, machine, any_processor=True) == record
