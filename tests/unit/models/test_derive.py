"""A graph is derived without its nearly constant channels, if float32 stays what it was."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from serve_app.models.derive import derive_graph
from serve_app.models.facts import CUSTOM_MODEL_FACTS
from serve_app.models.registry import Weights

SIDE = CUSTOM_MODEL_FACTS.size_px


def with_a_constant(path: Path, level: float) -> Weights:
    """Write a model whose mask is one channel of the image, plus a channel of one value."""
    lift = np.zeros((2, 3, 1, 1), np.float32)
    lift[0, 0] = 1
    weights = {
        "lift": lift,
        "level": np.array([0, level], np.float32),
        "sum": np.ones((1, 2, 1, 1), np.float32),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", "lift", "level"], ["lifted"]),
            helper.make_node("Relu", ["lifted"], ["bright"]),
            helper.make_node("Conv", ["bright", "sum"], ["mask"]),
        ],
        "graph",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("mask", TensorProto.FLOAT, [1, 1, SIDE, SIDE])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Weights("own", path, digest, CUSTOM_MODEL_FACTS)


@pytest.mark.parametrize(
    ("level", "taken"),
    [
        (200, 1),
        # float32 has steps of 1 there, so that the mask has few levels with it and all without it.
        (1e7, 0),
    ],
)
def test_a_channel_is_taken_out_if_the_masks_in_float32_stay(
    tmp_path: Path, level: float, taken: int
) -> None:
    derived = derive_graph(with_a_constant(tmp_path / "own.onnx", level), [])
    assert len(derived.taken) == taken
    weights = onnx.load_from_string(derived.content).graph.initializer
    assert max(float(numpy_helper.to_array(each).max()) for each in weights) >= level / 2
