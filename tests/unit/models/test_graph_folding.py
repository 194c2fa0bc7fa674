"""Folding: the exporter's shape chains go, and what a graph computes stays."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from serve_app.models.graph_folding import fold_constants, make_weights_constant

SIDE = 12
IMAGE = np.random.default_rng(7).standard_normal((1, 3, SIDE, SIDE), np.float32)


def constant(name: str, values: Any, dtype: Any = np.int64) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, dtype), name)


def exported(
    opset: int = 11, *, sizes: tuple[int, int] = (SIDE, SIDE), pool: int = 2, **attributes: Any
) -> onnx.ModelProto:
    """Return a graph as PyTorch's older exporter writes it: pooled, enlarged, concatenated.

    The sizes of the enlargement are put together at run time from the shape of another value.
    """
    form = {"mode": "linear", "coordinate_transformation_mode": "pytorch_half_pixel"}
    nodes = [
        helper.make_node("Conv", ["image", "weights"], ["map"], pads=[1, 1, 1, 1]),
        helper.make_node(
            "MaxPool", ["map"], ["small"], kernel_shape=[pool, pool], strides=[pool, pool]
        ),
        helper.make_node("Shape", ["small"], ["shape"]),
        helper.make_node("Slice", ["shape", "from0", "to2", "axis0"], ["outer"]),
        helper.make_node("Concat", ["outer", "inner"], ["sizes"], axis=0),
        helper.make_node(
            "Resize", ["small", "no_roi", "no_scales", "sizes"], ["large"], **form | attributes
        ),
        helper.make_node("Relu", ["large"], ["mask"]),
    ]
    kernel = np.random.default_rng(1).standard_normal((4, 3, 3, 3), np.float32)
    weights = [
        numpy_helper.from_array(kernel, "weights"),
        constant("from0", [0]),
        constant("to2", [2]),
        constant("axis0", [0]),
        constant("inner", sizes),
        constant("no_roi", [], np.float32),
        constant("no_scales", [], np.float32),
    ]
    graph = helper.make_graph(
        nodes,
        "exported",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("mask", TensorProto.FLOAT, [1, 4, *sizes])],
        weights,
    )
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def answer(model: onnx.ModelProto) -> npt.NDArray[np.float32]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    found: npt.NDArray[np.float32] = session.run(None, {"image": IMAGE})[0]
    return found


def resize_of(model: onnx.ModelProto) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.op_type == "Resize")


def is_by_scales(model: onnx.ModelProto) -> bool:
    return len(resize_of(model).input) == 3


@pytest.mark.parametrize("opset", [11, 13, 17, 18, 19, 21, 23])
def test_shape_chains_become_scales(opset: int) -> None:
    model = exported(opset)
    folded = fold_constants(model)
    assert {node.op_type for node in folded.graph.node} == {"Conv", "MaxPool", "Resize", "Relu"}
    names = {item.name: item for item in folded.graph.initializer}
    scales = numpy_helper.to_array(names[resize_of(folded).input[2]])
    assert scales.tolist() == [1, 1, 2, 2]
    assert np.allclose(answer(folded), answer(model), atol=1e-6)
    onnx.checker.check_model(folded)


def test_the_graph_that_is_given_stays_as_it_is() -> None:
    model = exported()
    before = model.SerializeToString()
    fold_constants(model)
    assert model.SerializeToString() == before


def test_weights_that_are_inputs_become_constants() -> None:
    model = exported()
    given = [
        helper.make_tensor_value_info(item.name, item.data_type, list(item.dims))
        for item in model.graph.initializer
    ]
    image = model.graph.input[0]
    del model.graph.input[:]
    # In front of the image: the first input is not the image then.
    model.graph.input.extend([*given, image])
    make_weights_constant(model.graph)
    folded = fold_constants(model)
    assert [item.name for item in folded.graph.input] == ["image"]
    assert is_by_scales(folded)
    assert np.allclose(answer(folded), answer(exported()), atol=1e-6)


def test_nodes_out_of_order_are_sorted() -> None:
    model = exported()
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(reversed(nodes))
    folded = fold_constants(model)
    known = {"image", "", *(item.name for item in folded.graph.initializer)}
    for node in folded.graph.node:
        assert set(node.input) <= known
        known.update(node.output)
    assert np.allclose(answer(folded), answer(exported()), atol=1e-6)


@pytest.mark.parametrize(
    ("opset", "options"),
    [
        (11, {"sizes": (SIDE + 3, SIDE)}),
        (11, {"coordinate_transformation_mode": "align_corners"}),
        (11, {"mode": "nearest"}),
        (11, {"exclude_outside": 1, "mode": "cubic"}),
        (18, {"antialias": 1, "sizes": (2 * SIDE, 2 * SIDE)}),
        (18, {"keep_aspect_ratio_policy": "not_larger"}),
        (11, {"sizes": (1, 1), "pool": SIDE}),
    ],
)
def test_other_enlargements_stay(opset: int, options: dict[str, Any]) -> None:
    model = exported(opset, **options)
    folded = fold_constants(model)
    assert not is_by_scales(folded)
    assert np.allclose(answer(folded), answer(model), atol=1e-6)
