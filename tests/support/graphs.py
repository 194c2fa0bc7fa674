"""Small ONNX graphs for tests that need any model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from serve_app.models.facts import CUSTOM_MODEL_FACTS

SIDE_PX = CUSTOM_MODEL_FACTS.size_px


def brightness(path: Path, *, batch: int | str = "N", side_px: int = SIDE_PX) -> Path:
    """Write a graph whose output is the mean of the three channels, so that bright is subject."""
    weights = np.full((1, 3, 1, 1), 1 / 3, np.float32)
    return _write(path, weights, batch, side_px)


def channel(path: Path, index: int) -> Path:
    """Write a graph whose output is one channel of the input."""
    weights = np.zeros((1, 3, 1, 1), np.float32)
    weights[0, index] = 1
    return _write(path, weights, "N", SIDE_PX)


def constant(path: Path) -> Path:
    """Write a graph whose output is 0.7 everywhere."""
    weights = np.zeros((1, 3, 1, 1), np.float32)
    return _write(path, weights, "N", SIDE_PX, bias=0.7)


def _write(
    path: Path, weights: np.ndarray, batch: int | str, side_px: int, bias: float = 0.0
) -> Path:
    constants = [
        numpy_helper.from_array(weights, "weights"),
        numpy_helper.from_array(np.array([bias], np.float32), "bias"),
    ]
    node = helper.make_node("Conv", ["image", "weights", "bias"], ["answer"])
    graph = helper.make_graph(
        [node],
        "graph",
        [_tensor("image", [batch, 3, side_px, side_px])],
        [_tensor("answer", [batch, 1, side_px, side_px])],
        constants,
    )
    opset = helper.make_opsetid("", 17)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=8)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


def _tensor(name: str, shape: list[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
