"""A small network with every kind of node that an int8 graph has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE_PX = 320
_SEED = 5


def small_network(path: Path, *, opset: int = 17) -> Path:
    """Write a network of five convolutions with pooling, enlargement, a sum and a concatenation.

    Args:
        path: File to write.
        opset: Operator set, 11 or later.
    """
    random = np.random.default_rng(_SEED)
    constants: list[onnx.TensorProto] = []

    def constant(name: str, values: np.ndarray) -> str:
        constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def convolution(number: int, source: str, inputs: int, outputs: int) -> list[onnx.NodeProto]:
        kernel = random.normal(0, (2 / (9 * inputs)) ** 0.5, (outputs, inputs, 3, 3))
        names = [
            constant(f"kernel{number}", kernel.astype(np.float32)),
            constant(f"bias{number}", random.normal(0, 0.1, outputs).astype(np.float32)),
        ]
        node = helper.make_node("Conv", [source, *names], [f"conv{number}"], pads=[1, 1, 1, 1])
        return [node, helper.make_node("Relu", [f"conv{number}"], [f"relu{number}"])]

    region = "" if opset >= 13 else constant("region", np.zeros(0, np.float32))
    scales = constant("scales", np.array([1, 1, 2, 2], np.float32))
    nodes = [
        *convolution(0, "image", 3, 16),
        helper.make_node("MaxPool", ["relu0"], ["pooled"], kernel_shape=[2, 2], strides=[2, 2]),
        *convolution(1, "pooled", 16, 16),
        *convolution(2, "relu1", 16, 16),
        helper.make_node("Add", ["relu2", "relu1"], ["sum"]),
        helper.make_node(
            "Resize",
            ["sum", region, scales],
            ["enlarged"],
            mode="linear",
            coordinate_transformation_mode="half_pixel",
        ),
        helper.make_node("Concat", ["enlarged", "relu0"], ["both"], axis=1),
        *convolution(3, "both", 32, 16),
        helper.make_node(
            "Conv",
            ["relu3", constant("kernel4", np.full((1, 16, 1, 1), 0.1, np.float32))],
            ["logit"],
        ),
        helper.make_node("Sigmoid", ["logit"], ["answer"]),
    ]
    shape = [1, 3, SIDE_PX, SIDE_PX]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("answer", TensorProto.FLOAT, [1, 1, *shape[2:]])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path
