"""Graphs in int8: what ONNX Runtime needs to run them fast, and what would spoil them silently."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ingest.node.kernels import convolution_kernels
from serve_app.config import SegmenterConfig
from serve_app.models.engines.network import INT8, Tensor
from serve_app.models.engines.onnx_runtime import open_as_written
from serve_app.models.quantization.layers import LayeredGraph
from serve_app.models.quantization.ranges import Range, measure_ranges
from serve_app.models.quantization.writing import write_int8
from tests.support.quantized import SIDE_PX, small_network

IMAGE: Tensor = np.random.default_rng(7).normal(0, 1, (1, 3, SIDE_PX, SIDE_PX)).astype(np.float32)


@pytest.fixture(scope="module")
def layered(tmp_path_factory: pytest.TempPathFactory) -> LayeredGraph:
    return LayeredGraph(onnx.load(small_network(tmp_path_factory.mktemp("graph") / "small.onnx")))


@pytest.fixture(scope="module")
def ranges(layered: LayeredGraph) -> dict[str, Range]:
    *_, found = measure_ranges(layered, [IMAGE], [1.0])
    assert found is not None
    return found[1.0]


def run(model: onnx.ModelProto) -> Tensor:
    onnx.checker.check_model(model)
    return open_as_written(model.SerializeToString(), SegmenterConfig(threads=1)).run(IMAGE)


def constants(model: onnx.ModelProto) -> dict[str, Any]:
    return {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}


def dequantizers(model: onnx.ModelProto) -> list[Any]:
    return [node for node in model.graph.node if node.op_type == "DequantizeLinear"]


def test_every_layer_runs_as_one_integer_convolution(
    layered: LayeredGraph, ranges: dict[str, Range]
) -> None:
    model = write_int8(layered, ranges, ())
    # A Relu that is not fused would leave a convolution in float32, without a word.
    kernels = convolution_kernels(INT8, model.SerializeToString())
    assert {name.split(":")[1]: count for name, count in kernels.items()} == {"QLinearConv": 5}
    expected = run(layered.model)
    assert np.abs(run(model) - expected).max() < 0.05
    assert np.abs(run(model) - expected).mean() < 0.005


def test_activations_are_unsigned_and_weights_signed_and_symmetric(
    layered: LayeredGraph, ranges: dict[str, Range]
) -> None:
    model = write_int8(layered, ranges, ())
    values = constants(model)
    kinds = {
        (str(values[node.input[2]].dtype), int(np.abs(values[node.input[2]]).max()))
        for node in dequantizers(model)
        if node.input[0] in values
    }
    # U8U8 and S8S8 are slower than float32 on x86-64.
    assert kinds == {("int8", 0), ("int32", 0)}
    activations = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert {str(values[node.input[2]].dtype) for node in activations} == {"uint8"}


def test_weights_have_a_scale_for_each_output_channel(
    layered: LayeredGraph, ranges: dict[str, Range]
) -> None:
    model = write_int8(layered, ranges, ())
    values = constants(model)
    of_weights = [
        node
        for node in dequantizers(model)
        if node.input[0] in values and values[node.input[0]].dtype == np.int8
    ]
    assert len(of_weights) == 5
    for number, node in enumerate(of_weights):
        (axis,) = [item.i for item in node.attribute if item.name == "axis"]
        # Its default of 1 would be the inputs: as many in some layers, and then silently wrong.
        assert axis == 0
        integers, scales = values[node.input[0]], values[node.input[1]]
        assert scales.shape == (len(integers),)
        kernel = numpy_helper.to_array(layered.constants[f"kernel{number}"])
        error = np.abs(integers * scales[:, None, None, None] - kernel)
        assert (error <= 0.5001 * scales[:, None, None, None]).all()
        assert np.abs(integers).max() == 127


def test_layers_in_float_read_and_write_floats(
    layered: LayeredGraph, ranges: dict[str, Range]
) -> None:
    names = [each.name for each in layered.layers]
    assert np.array_equal(run(write_int8(layered, ranges, names)), run(layered.model))
    some = write_int8(layered, ranges, ["relu0", "logit"])
    kernels = convolution_kernels(INT8, some.SerializeToString())
    assert sum(count for name, count in kernels.items() if "QLinearConv" in name) == 3
    assert sum(kernels.values()) == 5


def test_a_large_bias_beside_tiny_weights_fits_into_32_bits() -> None:
    kernel = np.full((2, 1, 1, 1), 1e-9, np.float32)
    kernel[1] = 0.5
    items = [
        numpy_helper.from_array(kernel, "kernel"),
        numpy_helper.from_array(np.array([3, -2], np.float32), "bias"),
    ]
    shape = [1, 1, 4, 4]
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "kernel", "bias"], ["answer"])],
        "graph",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("answer", TensorProto.FLOAT, [1, 2, 4, 4])],
        items,
    )
    opset = helper.make_opsetid("", 17)
    layered = LayeredGraph(helper.make_model(graph, opset_imports=[opset], ir_version=8))
    model = write_int8(layered, {"image": (0.0, 1.0), "answer": (-2.0, 3.0)}, ())
    values = constants(model)
    answers = open_as_written(model.SerializeToString(), SegmenterConfig(threads=1))
    image = np.ones((1, 1, 4, 4), np.float32)
    assert answers.run(image) == pytest.approx(3, abs=0.02)
    assert np.abs(values["answer/bias/q"].astype(np.int64)).max() <= 2**30
    assert values["answer/weights/q"][1].max() == 127


def test_the_sum_with_a_map_of_the_border_stays_in_float() -> None:
    border = np.zeros((1, 1, 4, 4), np.float32)
    items = [
        numpy_helper.from_array(np.ones((1, 1, 1, 1), np.float32), "kernel"),
        numpy_helper.from_array(border, "border"),
    ]
    nodes = [
        helper.make_node("Conv", ["image", "kernel"], ["inner"]),
        helper.make_node("Add", ["inner", "border"], ["whole"]),
        helper.make_node("Conv", ["whole", "kernel"], ["answer"]),
    ]
    shape = [1, 1, 4, 4]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("answer", TensorProto.FLOAT, shape)],
        items,
    )
    opset = helper.make_opsetid("", 17)
    layered = LayeredGraph(helper.make_model(graph, opset_imports=[opset], ir_version=8))
    assert layered.integers(()) == {"inner", "answer"}
