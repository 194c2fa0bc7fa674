"""OpenVINO runs the same models, and ONNX Runtime serves what it cannot."""

from __future__ import annotations

import hashlib
import logging
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import Distribution, PackageNotFoundError
from pathlib import Path

import numpy as np
import numpy.typing as npt
import openvino
import pytest

from serve_app.config import AppConfig, SegmenterConfig
from serve_app.contracts.precision import Precision
from serve_app.errors import InvalidConfig, ModelUnavailable
from serve_app.models.derive import DerivedGraph, pass_gate
from serve_app.models.engines.choice import Choice
from serve_app.models.engines.network import EXACT, INT8, Pair
from serve_app.models.engines.onnx_runtime import probe_image
from serve_app.models.engines.openvino_runtime import (
    PRECISION_NAMES,
    OpenVinoNetwork,
    openvino_version,
)
from serve_app.models.engines.processor import Machine, this_machine
from serve_app.models.facts import CUSTOM_MODEL_FACTS
from serve_app.models.folio.synthetic.photograph import draw_photograph
from serve_app.models.inference import OnnxModel, load_model
from serve_app.models.registry import Weights
from serve_app.segmenter.deployment import model_info
from tests.support import graphs

SIDE = 320


def folio(**segmenter: object) -> AppConfig:
    return AppConfig.load({"models": ["folio"], "segmenter": segmenter})


def images() -> npt.NDArray[np.uint8]:
    drawn = [draw_photograph(seed, kind="book").image for seed in range(3)]
    return np.stack([*drawn, probe_image(SIDE)[0]])


def weights_of(path: Path) -> Weights:
    return Weights("own", path, hashlib.sha256(path.read_bytes()).hexdigest(), CUSTOM_MODEL_FACTS)


def test_float32_masks_are_those_of_onnx_runtime() -> None:
    ours = load_model("folio", folio(engine="openvino"))
    theirs = load_model("folio", folio())
    assert ours.choice.pair == Pair("openvino", "float32")
    assert ours.choice.refused is None
    for image in images():
        difference = ours.masks(image[None]).astype(int) - theirs.masks(image[None])
        assert np.abs(difference).max() <= 1


def test_more_threads_than_streams_share_a_network() -> None:
    model = load_model("folio", folio(engine="openvino", threads=2))
    expected = [model.masks(image[None]) for image in images()]
    with ThreadPoolExecutor(6) as pool:
        found = list(
            pool.map(lambda image: model.masks(image[None]), np.tile(images(), (6, 1, 1, 1)))
        )
    for number, mask in enumerate(found):
        assert np.array_equal(mask, expected[number % len(expected)])


def test_the_facts_name_the_engine_and_results_depend_on_it() -> None:
    ours = model_info(load_model("folio", folio(engine="openvino")))
    theirs = model_info(load_model("folio", folio()))
    assert (ours.engine, ours.precision, ours.refused) == ("openvino", "float32", None)
    assert ours.sha256 == theirs.sha256
    assert theirs.result_digest == theirs.sha256
    assert ours.result_digest == f"{theirs.sha256} openvino float32"


def test_a_derived_file_that_openvino_cannot_load_leaves_float32(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = graphs.brightness(tmp_path / "own.onnx", batch=1)
    broken = tmp_path / "derived.onnx"
    broken.write_bytes(b"no graph")
    choice = Choice(Pair("openvino", "bfloat16"), broken, because="It is configured.")
    with caplog.at_level(logging.WARNING):
        model = OnnxModel(weights_of(path), SegmenterConfig(), choice)
    assert model.choice.pair == EXACT
    assert "openvino bfloat16 does not serve: " in str(model.choice.refused)
    assert "own: openvino bfloat16 does not serve" in caplog.text
    assert model.masks(probe_image(SIDE)).any()


def test_a_file_that_is_no_model_is_refused_with_every_engine(tmp_path: Path) -> None:
    path = tmp_path / "own.onnx"
    path.write_bytes(b"no graph")
    for pair in (EXACT, Pair("openvino", "float32")):
        with pytest.raises(InvalidConfig, match="cannot be loaded"):
            OnnxModel(weights_of(path), SegmenterConfig(), Choice(pair))


def test_another_size_is_refused_with_every_engine(tmp_path: Path) -> None:
    weights = weights_of(graphs.brightness(tmp_path / "own.onnx", batch=1, side_px=64))
    for pair in (EXACT, Pair("openvino", "float32")):
        with pytest.raises(InvalidConfig, match="must be"):
            OnnxModel(weights, SegmenterConfig(), Choice(pair))


@pytest.mark.parametrize("rewrite_graph", [True, False])
def test_an_open_batch_axis_is_fixed_at_one_image(tmp_path: Path, rewrite_graph: bool) -> None:
    weights = weights_of(graphs.brightness(tmp_path / "own.onnx", batch="N"))
    config = SegmenterConfig(rewrite_graph=rewrite_graph)
    model = OnnxModel(weights, config, Choice(Pair("openvino", "float32")))
    assert (model.choice.pair, model.choice.refused) == (Pair("openvino", "float32"), None)
    assert not model.batches
    bundled = load_model("folio", folio(engine="openvino", rewrite_graph=rewrite_graph))
    assert bundled.choice.refused is None


def test_the_next_image_leaves_an_answer_alone(tmp_path: Path) -> None:
    path = graphs.brightness(tmp_path / "own.onnx", batch=1)
    network = OpenVinoNetwork(path, "float32", threads=1)
    first = network.run(np.zeros((1, 3, SIDE, SIDE), np.float32))
    second = network.run(np.ones((1, 3, SIDE, SIDE), np.float32))
    assert not first.any()
    assert second.min() > 0.9


@pytest.mark.parametrize("precision", PRECISION_NAMES)
def test_a_network_computes_in_the_precision_that_was_asked_for_or_is_refused(
    precision: Precision, tmp_path: Path
) -> None:
    """OpenVINO takes another precision on some processors without a word."""
    path = graphs.brightness(tmp_path / "own.onnx", batch=1)
    asked = {"INFERENCE_PRECISION_HINT": PRECISION_NAMES[precision]}
    taken = openvino.Core().compile_model(path, "CPU", asked).get_property(*asked).get_type_name()
    if taken == PRECISION_NAMES[precision]:
        OpenVinoNetwork(path, precision, threads=1)
        return
    with pytest.raises(ValueError, match=f"computes in {taken} here"):
        OpenVinoNetwork(path, precision, threads=1)


def test_the_version_is_that_of_the_package() -> None:
    assert openvino_version() is not None


def test_a_module_of_that_name_without_a_package_is_no_openvino(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A folder of that name on the path is enough for such a module."""

    def find_none(name: str) -> Distribution:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(Distribution, "from_name", find_none)
    assert this_machine().openvino is None


def test_a_graph_that_openvino_cannot_load_is_no_traceback(tmp_path: Path) -> None:
    weights = weights_of(graphs.brightness(tmp_path / "own.onnx", batch=1))
    machine = Machine("x86_64", frozenset({"avx512_fp16"}), openvino_version())
    with pytest.raises(ModelUnavailable, match="openvino float16 cannot run own here"):
        pass_gate(
            weights,
            Pair("openvino", "float16"),
            DerivedGraph(b"no graph", ()),
            [],
            image_set="none",
            machine=machine,
        )
    with pytest.raises(InvalidConfig, match="OpenVINO is not installed"):
        pass_gate(
            weights,
            Pair("openvino", "float16"),
            DerivedGraph(b"no graph", ()),
            [],
            image_set="none",
            machine=Machine("x86_64", machine.features, None),
        )


@pytest.mark.parametrize("pair", [EXACT, INT8])
def test_the_gate_of_derived_graphs_measures_no_other_pair(tmp_path: Path, pair: Pair) -> None:
    """An int8 record of a graph in float32 would let it serve under the name of int8."""
    path = graphs.brightness(tmp_path / "own.onnx", batch=1)
    with pytest.raises(InvalidConfig, match=f"{pair} cannot be measured so"):
        pass_gate(
            weights_of(path),
            pair,
            DerivedGraph(path.read_bytes(), ()),
            [],
            image_set="none",
            machine=Machine("x86_64", frozenset({"avx512_vnni"}), openvino_version()),
        )
