"""A rewritten graph serves only if it gives the masks of its file."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from serve_app.config import AppConfig, SegmenterConfig
from serve_app.models.engines.onnx_runtime import open_as_written, probe_image
from serve_app.models.inference import Model, load_model

SIDE = 320
CHANNELS = 16


def saved(path: Path, *, scale: float) -> Path:
    """Write a graph that adds up two groups of feature maps, each times ``scale``, which cancel.

    The rewriting adds up the groups one after the other instead of all at once. With a large scale
    the float32 rounding of that is larger than what is left of the sum.
    """
    rng = np.random.default_rng(5)
    lift = rng.uniform(0.2, 1, (CHANNELS, 3, 1, 1)).astype(np.float32)
    mix = rng.uniform(0.5, 1, (1, CHANNELS, 1, 1)).astype(np.float32) * np.float32(scale)
    small = rng.uniform(0, 1, (1, CHANNELS, 1, 1)).astype(np.float32)
    weights = {"lift": lift, "mix": np.concatenate([mix, small - mix], axis=1)}
    nodes = [
        helper.make_node("Conv", ["image", "lift"], ["first"]),
        helper.make_node("Relu", ["first"], ["left"]),
        helper.make_node("Conv", ["image", "lift"], ["second"]),
        helper.make_node("Relu", ["second"], ["right"]),
        helper.make_node("Concat", ["left", "right"], ["both"], axis=1),
        helper.make_node("Conv", ["both", "mix"], ["mask"]),
    ]
    graph = helper.make_graph(
        nodes,
        "cancelling",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("mask", TensorProto.FLOAT, [1, 1, SIDE, SIDE])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    opsets = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def loaded(path: Path, **options: bool) -> Model:
    config = AppConfig(
        models=("mine",), model_files={"mine": path}, segmenter=SegmenterConfig(**options)
    )
    return load_model("mine", config)


def test_a_session_does_not_keep_the_graph_that_it_was_made_of(tmp_path: Path) -> None:
    graph = saved(tmp_path / "mine.onnx", scale=1).read_bytes()
    before = sys.getrefcount(graph)
    network = open_as_written(graph, SegmenterConfig(threads=1))
    assert sys.getrefcount(graph) == before
    assert network.run(np.zeros((1, 3, SIDE, SIDE), np.float32)).shape == (1, SIDE, SIDE)


def masks(model: Model) -> npt.NDArray[np.uint8]:
    return model.masks(probe_image(SIDE))


def test_a_graph_that_rounds_alike_is_rewritten(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = saved(tmp_path / "close.onnx", scale=1)
    with caplog.at_level(logging.WARNING):
        rewritten = masks(loaded(path)).astype(int)
    assert not caplog.records
    assert np.abs(rewritten - masks(loaded(path, rewrite_graph=False))).max() <= 1


def test_a_graph_that_rounds_otherwise_serves_as_it_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = saved(tmp_path / "far.onnx", scale=1e6)
    with caplog.at_level(logging.WARNING):
        as_it_is = masks(loaded(path))
    assert "grey levels" in caplog.text
    assert str(path) in caplog.text
    assert np.array_equal(as_it_is, masks(loaded(path, rewrite_graph=False)))


def test_without_rewriting_nothing_is_compared(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        loaded(saved(tmp_path / "far.onnx", scale=1e6), rewrite_graph=False)
    assert not caplog.records


def test_the_probe_has_a_subject_and_is_always_the_same() -> None:
    image = probe_image(SIDE)
    assert image.shape == (1, SIDE, SIDE, 3)
    assert image.std() > 30
    assert np.array_equal(image, probe_image(SIDE))
