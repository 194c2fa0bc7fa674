"""Records that the package ships count for exactly what was measured."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from serve_app.models.engines.network import GATED
from serve_app.models.engines.processor import Machine
from serve_app.models.engines.records import RECIPE_VERSION, GateRecord
from serve_app.models.engines.shipped import SHIPPED, find_shipped, shipped_records, write_shipped
from serve_app.models.facts import MODEL_FACTS
from serve_app.models.registry import Weights

BFLOAT16, FLOAT16 = GATED
RECORDS = [
    record for name in MODEL_FACTS for pair in GATED for record in shipped_records(name, pair)
]
[AMX] = [each for each in shipped_records("u2netp", BFLOAT16) if each.features == ("amx_bf16",)]
[FLOAT16_RECORD] = [
    each for each in shipped_records("u2netp", FLOAT16) if each.features == ("avx512_fp16",)
]
WEIGHTS = Weights("u2netp", Path("u2netp.onnx"), AMX.source_sha256, MODEL_FACTS["u2netp"])
INTEL = Machine("x86_64", frozenset({"amx_bf16", "avx512_bf16"}), AMX.engine_version)
AMD = Machine("x86_64", frozenset({"avx512_bf16"}), AMX.engine_version, vendor="AuthenticAMD")
ZEN4 = AMX.model_copy(update={"features": ("avx512_bf16",)})


def find(machine: Machine, folder: Path, **asked: bool) -> GateRecord | None:
    return find_shipped(WEIGHTS, BFLOAT16, AMX.derived_sha256, machine, folder=folder, **asked)


def test_the_default_model_ships_both_precisions() -> None:
    assert {each.precision for each in RECORDS if each.model == "u2netp"} == {
        pair.precision for pair in GATED
    }


@pytest.mark.parametrize("record", RECORDS, ids=lambda each: f"{each.model}-{each.precision}")
def test_every_record_says_what_it_is_of(record: GateRecord, tmp_path: Path) -> None:
    assert record.recipe_version == RECIPE_VERSION
    assert record.measures.images > 100
    assert record.measures.reached() is not None
    assert record.features
    # It is where it would be written again.
    again = write_shipped(record, tmp_path)
    assert (SHIPPED / again.name).read_bytes() == again.read_bytes()


def test_a_record_counts_for_its_graph_and_version_alone(tmp_path: Path) -> None:
    write_shipped(AMX, tmp_path)
    assert find(INTEL, tmp_path) == AMX
    other = dataclasses.replace(WEIGHTS, sha256="0" * 64)
    unknown = dataclasses.replace(WEIGHTS, name="mine")
    derived = AMX.derived_sha256
    assert find_shipped(WEIGHTS, BFLOAT16, "0" * 64, INTEL, folder=tmp_path) is None
    assert find_shipped(other, BFLOAT16, derived, INTEL, folder=tmp_path) is None
    assert find_shipped(unknown, BFLOAT16, derived, INTEL, folder=tmp_path) is None
    assert find_shipped(WEIGHTS, FLOAT16, derived, INTEL, folder=tmp_path) is None
    for version in ("2025.1.0", None):
        assert find(dataclasses.replace(INTEL, openvino=version), tmp_path) is None


def test_every_kind_of_processor_keeps_its_record(tmp_path: Path) -> None:
    for record in (AMX, ZEN4):
        write_shipped(record, tmp_path)
    assert (find(INTEL, tmp_path), find(AMD, tmp_path)) == (AMX, ZEN4)
    measured_again = ZEN4.model_copy(update={"image_set": "others"})
    write_shipped(measured_again, tmp_path)
    assert (find(INTEL, tmp_path), find(AMD, tmp_path)) == (AMX, measured_again)
    arm = [
        FLOAT16_RECORD.model_copy(update={"architecture": "aarch64", "features": features})
        for features in (("asimdhp",), ("asimdhp", "sve"))
    ]
    for record in arm:
        write_shipped(record, tmp_path)
    graviton = Machine("aarch64", frozenset({"asimdhp", "sve"}), AMX.engine_version)
    found = find_shipped(WEIGHTS, FLOAT16, FLOAT16_RECORD.derived_sha256, graviton, folder=tmp_path)
    assert found == arm[1]


@pytest.mark.parametrize("other", [Machine("x86_64", frozenset({"avx2"}), None), AMD])
def test_a_record_of_other_kernels_is_only_for_who_builds_an_image(
    other: Machine, tmp_path: Path
) -> None:
    builder = dataclasses.replace(other, openvino=AMX.engine_version)
    write_shipped(ZEN4, tmp_path)
    assert find(builder, tmp_path, any_processor=True) == ZEN4
    write_shipped(AMX, tmp_path)
    assert find(builder, tmp_path) == (ZEN4 if other == AMD else None)
    # Whoever builds it, the image is the same.
    assert find(builder, tmp_path, any_processor=True) == AMX
    arm = dataclasses.replace(builder, architecture="aarch64")
    assert find(arm, tmp_path, any_processor=True) is None
