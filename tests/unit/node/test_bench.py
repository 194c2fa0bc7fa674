"""The settings that the measurement of a node recommends, and the kernels that it reports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ingest.node.bench import fastest_settings
from ingest.node.kernels import are_fast, convolution_kernels
from ingest.node.profile import profile_of
from ingest.node.report import NodeReport, settings_path, write_node_report, write_node_settings
from ingest.node.speed import CaseSpeed
from ingest.scaling.plan_inputs import read_profile
from serve_app.config import AppConfig, SegmenterConfig
from serve_app.contracts.precision import Engine, Precision
from serve_app.errors import InvalidConfig
from serve_app.models.engines.network import EXACT, Pair
from serve_app.models.engines.processor import Machine
from serve_app.models.engines.records import RECIPE_VERSION, GateRecord
from serve_app.models.gate import Measures
from tests.support import graphs


def speed(engine: Engine, precision: Precision, images_per_s: float, threads: int = 2) -> CaseSpeed:
    return CaseSpeed(
        engine=engine,
        precision=precision,
        threads=threads,
        images_per_s=images_per_s,
        cpu_s_per_image=threads / images_per_s,
        peak_mb=300,
    )


def gate(precision: Precision, difference: float) -> GateRecord:
    return GateRecord(
        model="own",
        source_sha256="0" * 64,
        derived_sha256="1" * 64,
        recipe_version=RECIPE_VERSION,
        engine="openvino",
        engine_version="2026.4.1",
        precision=precision,
        architecture="x86_64",
        features=(),
        image_set="few",
        measures=Measures(
            images=3,
            difference=difference,
            iou=0.999,
            within_2=0.9,
            within_8=0.999,
            true_iou_loss=0,
            worst="cat",
            worst_within_8=0.99,
        ),
    )


NCHWC = "com.microsoft.nchwc:Conv"
BFLOAT16 = Pair("openvino", "bfloat16")
AMD = Machine("x86_64", frozenset({"avx2", "avx512_bf16"}), "1", vendor="AuthenticAMD")
SPEEDS = [
    speed("onnxruntime", "float32", 5),
    speed("onnxruntime", "float32", 3, threads=1),
    speed("openvino", "float32", 6),
    speed("openvino", "bfloat16", 20),
    speed("openvino", "float16", 30),
]


@pytest.mark.parametrize(
    ("bfloat16", "float16", "expected"),
    [
        (0.1, 0.5, {"exact": 6, "close": 20, "fast": 30}),
        (0.5, 0.9, {"exact": 6, "close": 6, "fast": 20}),
        (0.9, 0.9, {"exact": 6, "close": 6, "fast": 6}),
        (0.1, 0.1, {"exact": 6, "close": 30, "fast": 30}),
    ],
)
def test_the_fastest_settings_have_reached_the_accuracy(
    bfloat16: float, float16: float, expected: dict[str, float]
) -> None:
    found = fastest_settings(SPEEDS, [gate("bfloat16", bfloat16), gate("float16", float16)])
    assert {each.accuracy: each.images_per_s for each in found} == expected
    for each in found:
        # What is recommended is accepted as settings.
        options = SegmenterConfig(**each.model_dump(exclude={"images_per_s"}))
        assert options.required_accuracy == each.accuracy


def test_a_profile_has_the_times_of_one_thread_and_says_what_is_not_measured() -> None:
    speeds = [
        *SPEEDS,
        speed("openvino", "bfloat16", 12, threads=1),
    ]
    base = read_profile(None)
    profile = profile_of("own", speeds, 0.03, "2 vCPUs of a test (x86_64)", AMD, base)
    assert profile.segment("own") == pytest.approx(1 / 3)
    assert profile.pairs() == [EXACT, BFLOAT16]
    assert profile.architecture == "x86_64"
    # A plan on instances with other kernels refuses these seconds.
    assert profile.kernels(BFLOAT16) == ("avx512_bf16",)
    assert profile.segment("own", BFLOAT16) == pytest.approx(1 / 12)
    assert (profile.pixels_s, profile.overhead_s) == (0.03, base.overhead_s)
    assert set(profile.from_elsewhere) == {"overhead_s", "control_plane", "replica_start_s"}
    assert base.machine in profile.from_elsewhere["overhead_s"]


def test_a_profile_needs_the_default_pair_and_says_so() -> None:
    others = [speed("openvino", "bfloat16", 12, threads=1)]
    with pytest.raises(InvalidConfig, match="own was not measured with onnxruntime float32"):
        profile_of("own", others, 0.03, "a test", AMD, read_profile(None))


def report(**fields: Any) -> NodeReport:
    """Return a report of a node."""
    return NodeReport(
        measured_at="2026-01-01T00:00:00+00:00",
        model="own",
        cpu="a test",
        architecture="x86_64",
        cores=2,
        features=[],
        onnxruntime="1",
        openvino=None,
        not_measured={},
        speeds=SPEEDS,
        kernels=[],
        gates=[],
        **fields,
    )


def test_the_settings_of_an_accuracy_are_a_file_that_serves(tmp_path: Path) -> None:
    settings = fastest_settings(SPEEDS, [gate("bfloat16", 0.1)])
    path = tmp_path / "new" / "node.yaml"
    write_node_settings(report(settings=settings), "close", path)
    found = AppConfig.load(yaml.safe_load(path.read_text("utf-8")) | {"models": ["folio"]})
    assert (found.segmenter.engine, found.segmenter.precision) == ("openvino", "bfloat16")
    assert found.segmenter.accuracy == "close"
    assert "20 masks/s" in path.read_text("utf-8")
    # The next measurement may replace its own settings.
    assert settings_path(path.with_suffix(".json")) == path


def test_no_settings_and_no_profile_follow_from_an_emulated_processor(tmp_path: Path) -> None:
    emulated = report(emulated=True)
    with pytest.raises(InvalidConfig, match="emulated"):
        write_node_settings(emulated, "exact", tmp_path / "node.yaml")
    write_node_report(emulated, tmp_path / "node.json")
    with pytest.raises(InvalidConfig, match="emulated"):
        read_profile(tmp_path / "node.json")


def test_a_pair_without_a_gate_is_never_recommended() -> None:
    assert {each.precision for each in fastest_settings(SPEEDS, [])} == {"float32"}


@pytest.mark.parametrize("pair", [EXACT, Pair("openvino", "float32")])
def test_the_kernels_are_those_that_the_engine_reports(pair: Pair, tmp_path: Path) -> None:
    graph = graphs.brightness(tmp_path / "own.onnx", batch=1).read_bytes()
    kernels = convolution_kernels(pair, graph)
    assert sum(kernels.values()) == 1


@pytest.mark.parametrize(
    ("pair", "kernels", "fast"),
    [
        (EXACT, {"com.microsoft.nchwc:Conv": 119}, True),
        (EXACT, {"com.microsoft:FusedConv": 113}, False),
        (EXACT, {"com.microsoft.nchwc:Conv": 118, "onnx:Conv": 1}, False),
        (Pair("onnxruntime", "int8"), {"onnx:QLinearConv": 111, NCHWC: 8}, True),
        (Pair("onnxruntime", "int8"), {"onnx:QLinearConv": 111, "onnx:Conv": 8}, False),
        (EXACT, {"onnx:QLinearConv": 111}, False),
        (Pair("openvino", "bfloat16"), {"brgconv_avx512_amx_bf16": 118}, True),
        (Pair("openvino", "bfloat16"), {"brgconv_avx512_bf16": 117, "jit_avx512_f32": 1}, False),
        (Pair("openvino", "float32"), {"brgconv_avx512_f32": 118}, True),
        (Pair("openvino", "float16"), {"brgconv_avx512_bf16": 118}, False),
        (Pair("openvino", "float16"), {"gemm_acl_f16": 109, "winograd_acl_f16": 10}, True),
        (Pair("openvino", "float16"), {"gemm_acl_f16": 109, "ref_any_f16": 10}, False),
    ],
)
def test_a_kernel_that_is_known_to_be_slow_is_named(
    pair: Pair, kernels: dict[str, int], fast: bool
) -> None:
    assert are_fast(pair, kernels) == fast
