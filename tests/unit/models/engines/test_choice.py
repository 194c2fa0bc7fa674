"""Which engine and precision serves a model, and what is refused."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import onnx
import pytest

from serve_app.config import SegmenterConfig
from serve_app.contracts.precision import Engine
from serve_app.models.engines.choice import Choice, choose_pair
from serve_app.models.engines.network import EXACT, INT8, Pair
from serve_app.models.engines.processor import Machine
from serve_app.models.engines.records import derived_path, record_path
from serve_app.models.gate import Measures
from serve_app.models.inference import OnnxModel
from serve_app.models.registry import Weights
from serve_app.segmenter.deployment import model_info
from tests.support.gated import AMX, BFLOAT16, CLOSE, change_record, cut, gated, own_weights

FLOAT16 = Pair("openvino", "float16")
AVX2 = Machine("x86_64", frozenset({"avx2"}), "2026.4.1")
GRAVITON = Machine("aarch64", frozenset({"asimdhp", "sve"}), "2026.4.1")
ICE_LAKE = Machine("x86_64", frozenset({"avx512f", "avx512_vnni"}), None)
ALDER_LAKE = Machine("x86_64", frozenset({"avx2", "avx_vnni"}), None)
ZEN4 = Machine(
    "x86_64",
    frozenset({"avx512f", "avx512_bf16", "avx512_vnni"}),
    "2026.4.1",
    vendor="AuthenticAMD",
)
COOPER_LAKE = dataclasses.replace(ZEN4, vendor="GenuineIntel")
GRAVITON3 = Machine("aarch64", frozenset({"asimdhp", "asimddp", "i8mm", "sve"}), "2026.4.1")
FAST = CLOSE.model_copy(update={"difference": 0.5})
NONE = CLOSE.model_copy(update={"difference": 1.5})


@pytest.fixture
def weights(tmp_path: Path) -> Weights:
    return own_weights(tmp_path)


def chosen(weights: Weights, folder: Path, machine: Machine = AMX, **segmenter: Any) -> Choice:
    return choose_pair(weights, SegmenterConfig(**segmenter), folder, machine)


def test_the_default_asks_for_nothing(weights: Weights, tmp_path: Path) -> None:
    gated(weights, tmp_path)
    assert chosen(weights, tmp_path) == Choice(EXACT)


def test_a_pair_that_has_passed_serves(weights: Weights, tmp_path: Path) -> None:
    path = gated(weights, tmp_path)
    found = chosen(weights, tmp_path, engine="openvino", precision="bfloat16")
    assert (found.pair, found.derived, found.refused) == (BFLOAT16, path, None)


@pytest.mark.parametrize(
    ("measures", "accuracy", "serves"),
    [
        (CLOSE, "exact", False),
        (CLOSE, "close", True),
        (CLOSE, "fast", True),
        (CLOSE, None, True),
        (FAST, "close", False),
        (FAST, None, True),
        (NONE, "fast", False),
        (NONE, None, False),
    ],
)
def test_the_accuracy_that_is_asked_for_must_have_been_reached(
    weights: Weights, tmp_path: Path, measures: Measures, accuracy: str | None, serves: bool
) -> None:
    gated(weights, tmp_path, measures=measures)
    options: dict[str, Any] = {"engine": "openvino", "precision": "bfloat16", "accuracy": accuracy}
    found = chosen(weights, tmp_path, **options)
    assert (found.pair == BFLOAT16) == serves
    assert (found.refused is None) == serves
    if not serves:
        assert "failed the gate" in str(found.refused)
        found = chosen(weights, tmp_path, engine="auto", accuracy=accuracy or "fast")
        assert found.pair == EXACT
        assert "failed the gate" in found.because


@pytest.mark.parametrize("pair", [BFLOAT16, FLOAT16, INT8])
def test_each_derived_file_has_results_of_its_own(
    weights: Weights, tmp_path: Path, pair: Pair
) -> None:
    machine = {BFLOAT16: AMX, FLOAT16: GRAVITON, INT8: ICE_LAKE}[pair]
    model = OnnxModel(weights, SegmenterConfig(threads=1))

    def digest(**options: Any) -> str:
        # Not every processor computes in these precisions.
        model.choice = chosen(weights, tmp_path, machine, **options)
        assert model.choice.pair == pair
        return model_info(model).result_digest

    first = weights.path.read_bytes()
    other = onnx.load_from_string(first)
    other.producer_name = "other images"
    digests = []
    for graph in (first, other.SerializeToString()):
        gated(weights, tmp_path, pair=pair, machine=machine, graph=graph)
        asked = digest(engine=pair.engine, precision=pair.precision)
        assert digest(engine="auto", accuracy="fast") == asked
        assert asked == f"{weights.sha256} {pair} {sha256(graph).hexdigest()}"
        digests.append(asked)
    assert len(set(digests)) == 2


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_results_in_float32_depend_on_no_derived_file(
    weights: Weights, tmp_path: Path, engine: Engine
) -> None:
    for pair in (BFLOAT16, INT8):
        gated(weights, tmp_path, pair=pair)
    found = chosen(weights, tmp_path, engine=engine)
    assert found.pair == Pair(engine, "float32")
    assert (found.derived, found.derived_sha256) == (None, None)


def remove_both(path: Path) -> None:
    path.unlink()
    record_path(path).unlink()


def cut_record(path: Path) -> None:
    record_path(path).write_bytes(record_path(path).read_bytes()[:100])


def add_to_record(path: Path) -> None:
    text = record_path(path).read_text("utf-8")
    record_path(path).write_text(text.replace('"model"', '"passed": true, "model"', 1))


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def replace_with_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


STALE: dict[str, tuple[Callable[[Path], None], str]] = {
    "absent": (remove_both, "has not passed the gate"),
    "without its record": (lambda path: record_path(path).unlink(), "has not passed the gate"),
    "without its file": (Path.unlink, "has not passed the gate"),
    "cut": (cut, "is damaged"),
    "with a flipped bit": (flip_a_bit, "is damaged"),
    "a folder": (replace_with_folder, "cannot be read"),
    "with a cut record": (cut_record, "is damaged"),
    "with an unknown field": (add_to_record, "is damaged"),
    "of another source": (change_record(source_sha256="0" * 64), "of another source"),
    "of another model": (change_record(model="other"), "of another model"),
    "of another recipe": (change_record(recipe_version=0), "another way of deriving"),
    "of another version": (change_record(engine_version="2025.1.0"), "another version of openvino"),
    "of another precision": (change_record(precision="float16"), "another pair"),
    "of another architecture": (change_record(architecture="aarch64"), "another architecture"),
    "of another processor": (change_record(features=()), "other processor features"),
}

NEVER_MEASURED = {"absent", "without its record"}
"""What ``auto`` does not miss."""


@pytest.mark.parametrize("how", STALE)
def test_what_is_absent_stale_or_damaged_is_refused_with_the_reason(
    weights: Weights, tmp_path: Path, how: str
) -> None:
    spoil, reason = STALE[how]
    spoil(gated(weights, tmp_path))
    found = chosen(weights, tmp_path, engine="openvino", precision="bfloat16")
    assert (found.pair, found.derived) == (EXACT, None)
    assert reason in str(found.refused)
    assert "'foreedge models gate own --precision bfloat16'" in str(found.refused)
    assert "openvino bfloat16 does not serve" in str(found.refused)
    automatic = chosen(weights, tmp_path, engine="auto", accuracy="fast")
    assert automatic.pair == EXACT
    assert reason in automatic.because
    assert automatic.refused == (None if how in NEVER_MEASURED else found.refused)


@pytest.mark.parametrize("how", STALE)
def test_what_int8_needs_is_checked_in_the_same_way(
    weights: Weights, tmp_path: Path, how: str
) -> None:
    spoil, reason = STALE[how]
    spoil(gated(weights, tmp_path, pair=INT8, machine=ICE_LAKE))
    found = chosen(weights, tmp_path, ICE_LAKE, engine="onnxruntime", precision="int8")
    assert (found.pair, found.derived) == (EXACT, None)
    assert reason.replace("openvino", "onnxruntime") in str(found.refused)
    assert "'foreedge models quantize own --calibration FOLDER'" in str(found.refused)
    automatic = chosen(weights, tmp_path, ICE_LAKE, engine="auto", accuracy="fast")
    assert automatic.pair == EXACT
    assert reason.replace("openvino", "onnxruntime") in automatic.because
    assert automatic.refused == (None if how in NEVER_MEASURED else found.refused)


def test_auto_says_which_file_does_not_count_although_another_pair_serves(
    weights: Weights, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cut(gated(weights, tmp_path, machine=ZEN4))
    derived = gated(weights, tmp_path, pair=INT8, machine=ZEN4)
    found = chosen(weights, tmp_path, ZEN4, engine="auto", accuracy="fast")
    assert (found.pair, found.because) == (INT8, "It is the fastest that has reached 'fast'.")
    assert "openvino bfloat16 does not serve: " in str(found.refused)
    # Its graph is no longer one when it is opened.
    derived.write_bytes(b"no graph")
    with caplog.at_level(logging.WARNING):
        model = OnnxModel(weights, SegmenterConfig(threads=1), found)
    assert model.choice.pair == EXACT
    for text in (str(model.choice.refused), caplog.text):
        assert "openvino bfloat16 does not serve: " in text
        assert "onnxruntime int8 does not serve: " in text


@pytest.mark.parametrize("pair", [BFLOAT16, INT8])
def test_a_file_that_is_replaced_after_its_check_does_not_serve(
    weights: Weights, tmp_path: Path, pair: Pair
) -> None:
    machine = {BFLOAT16: AMX, INT8: ICE_LAKE}[pair]
    derived = gated(weights, tmp_path, pair=pair, machine=machine)
    found = chosen(weights, tmp_path, machine, engine=pair.engine, precision=pair.precision)
    assert found.pair == pair
    other = onnx.load(derived)
    other.producer_name = "another file"
    derived.write_bytes(other.SerializeToString())
    model = OnnxModel(weights, SegmenterConfig(threads=1), found)
    assert model.choice.pair == EXACT
    assert f"{derived} was replaced while it was opened" in str(model.choice.refused)


def test_int8_of_another_version_of_onnx_runtime_is_refused(
    weights: Weights, tmp_path: Path
) -> None:
    gated(weights, tmp_path, pair=INT8, machine=dataclasses.replace(ICE_LAKE, onnxruntime="1.21.0"))
    found = chosen(weights, tmp_path, ICE_LAKE, precision="int8")
    assert found.pair == EXACT
    assert "another version of onnxruntime: '1.21.0'" in str(found.refused)


def test_another_file_of_the_same_name_is_another_source(weights: Weights, tmp_path: Path) -> None:
    gated(weights, tmp_path)
    other = dataclasses.replace(weights, sha256="f" * 64)
    found = chosen(other, tmp_path, engine="openvino", precision="bfloat16")
    assert "is of another source" in str(found.refused)


@pytest.mark.parametrize(
    ("machine", "pair", "serves"),
    [
        (AMX, BFLOAT16, True),
        (AVX2, BFLOAT16, False),
        (ZEN4, BFLOAT16, True),
        (COOPER_LAKE, BFLOAT16, False),
        (GRAVITON, BFLOAT16, False),
        (GRAVITON, FLOAT16, True),
        (AMX, FLOAT16, True),
        (AVX2, FLOAT16, False),
        (dataclasses.replace(AMX, openvino=None), BFLOAT16, False),
        (dataclasses.replace(AMX, openvino=None), Pair("openvino", "float32"), False),
        (AVX2, Pair("openvino", "float32"), True),
        # Without VNNI or i8mm, int8 is slower than float32, and on x86-64 its sums saturate.
        (ICE_LAKE, INT8, True),
        (ALDER_LAKE, INT8, True),
        (GRAVITON3, INT8, True),
        (AVX2, INT8, False),
        (GRAVITON, INT8, False),
        (AMX, INT8, False),
    ],
)
def test_a_precision_needs_a_processor_that_has_it(
    weights: Weights, tmp_path: Path, machine: Machine, pair: Pair, serves: bool
) -> None:
    if pair.changes_numbers:
        gated(weights, tmp_path, pair=pair, machine=machine)
    found = chosen(weights, tmp_path, machine, engine=pair.engine, precision=pair.precision)
    assert found.pair == (pair if serves else EXACT)
    assert (found.refused is None) == serves


@pytest.mark.parametrize(("measured", "serving"), [(AMX, ZEN4), (ZEN4, AMX)])
def test_other_bfloat16_kernels_need_a_measurement_of_their_own(
    weights: Weights, tmp_path: Path, measured: Machine, serving: Machine
) -> None:
    gated(weights, tmp_path, machine=measured)
    assert chosen(weights, tmp_path, measured, engine="auto", accuracy="close").pair == BFLOAT16
    found = chosen(weights, tmp_path, serving, engine="openvino", precision="bfloat16")
    assert found.pair == EXACT
    assert "is of other processor features: ('a" in str(found.refused)


@pytest.mark.parametrize("vectors", ["sve", "sve2"])
@pytest.mark.parametrize("pair", [FLOAT16, INT8])
def test_other_vectors_of_arm64_need_a_measurement_of_their_own(
    weights: Weights, tmp_path: Path, pair: Pair, vectors: str
) -> None:
    features = frozenset({"asimdhp", "i8mm"})
    without = Machine("aarch64", features, "2026.4.1")
    with_them = dataclasses.replace(without, features=features | {vectors})
    gated(weights, tmp_path, pair=pair, machine=with_them)
    asked: dict[str, Any] = {"engine": pair.engine, "precision": pair.precision}
    assert chosen(weights, tmp_path, with_them, **asked).pair == pair
    assert "other processor features" in str(chosen(weights, tmp_path, without, **asked).refused)


@pytest.mark.parametrize(
    ("machine", "expected"),
    [
        (AMX, BFLOAT16),
        (GRAVITON, FLOAT16),
        (AVX2, EXACT),
        (ICE_LAKE, INT8),
        (ALDER_LAKE, INT8),
        (GRAVITON3, FLOAT16),
        (ZEN4, BFLOAT16),
        (COOPER_LAKE, INT8),
        # On x86-64 float16 is slower than float32.
        (dataclasses.replace(AVX2, features=AVX2.features | {"avx512_fp16"}), EXACT),
        (dataclasses.replace(AMX, features=AMX.features | {"avx512_vnni"}), BFLOAT16),
        (dataclasses.replace(AMX, features=AMX.features | {"avx512_vnni"}, openvino=None), INT8),
    ],
)
def test_auto_takes_the_fastest_pair_that_the_processor_runs_well(
    weights: Weights, tmp_path: Path, machine: Machine, expected: Pair
) -> None:
    for pair in (BFLOAT16, FLOAT16, INT8):
        gated(weights, tmp_path, pair=pair, machine=machine)
    found = chosen(weights, tmp_path, machine, engine="auto", accuracy="close")
    assert (found.pair, found.refused) == (expected, None)
    assert "fast" in found.because
    # Its default accuracy is exact, which neither has reached.
    assert chosen(weights, tmp_path, machine, engine="auto").pair == EXACT


def test_a_name_of_any_characters_has_a_file(tmp_path: Path) -> None:
    path = derived_path(tmp_path, "../a/b c", BFLOAT16)
    assert path.parent == tmp_path
    assert path.name == ".._a_b_c.openvino-bfloat16.onnx"
