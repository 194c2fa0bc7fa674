"""Rewritten graphs compute the same as the original ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from serve_app.models.graph_rewrites import optimize_for_cpu

SIDE = 12


def conv(
    name: str, source: str, channels: int, outputs: int = 1, size: int = 3, **attributes: Any
) -> tuple[onnx.NodeProto, list[onnx.TensorProto]]:
    rng = np.random.default_rng(len(name))
    bias = attributes.pop("bias", True)
    shape = (outputs, channels // attributes.get("group", 1), size, size)
    constants = [numpy_helper.from_array(rng.standard_normal(shape, np.float32), f"{name}.weights")]
    if bias:
        bias_of = rng.standard_normal(outputs).astype(np.float32)
        constants.append(numpy_helper.from_array(bias_of, f"{name}.bias"))
    names = [source, *(item.name for item in constants)]
    return helper.make_node("Conv", names, [name], name, **attributes), constants


def write(
    folder: Path, parts: list[tuple[onnx.NodeProto, list[onnx.TensorProto]]], outputs: list[str]
) -> Path:
    def values(names: list[str], shape: list[Any] | None) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n in names]

    graph = helper.make_graph(
        [node for node, _ in parts],
        "graph",
        values(["image"], ["N", 3, SIDE, SIDE]),
        values(outputs, None),
        [item for _, items in parts for item in items],
    )
    opset = helper.make_opsetid("", 17)
    path = folder / "graph.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), path)
    return path


def answer(model: str | bytes, images: Any) -> Any:
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run([session.get_outputs()[0].name], {"image": images})[0]


@pytest.mark.parametrize(
    ("attributes", "split"),
    [
        ({"pads": [1] * 4}, True),
        ({"pads": [1] * 4, "bias": False}, True),
        ({"pads": [2] * 4, "dilations": [2, 2]}, True),
        ({"pads": [0, 1, 2, 0]}, True),
        ({}, True),
        ({"size": 5, "pads": [2] * 4}, True),
        ({"pads": [1, 1, 3, 1]}, False),
        ({"pads": [1] * 4, "strides": [2, 1]}, False),
        ({"auto_pad": "SAME_UPPER"}, False),
        ({"outputs": 2, "pads": [1] * 4}, False),
        ({"channels": 15, "pads": [1] * 4}, False),
        ({"size": 1}, False),
    ],
)
def test_a_convolution_into_one_channel_is_split(
    tmp_path: Path, attributes: dict[str, Any], split: bool
) -> None:
    channels = attributes.pop("channels", 20)
    parts = [
        conv("first", "image", 3, channels, pads=[1] * 4),
        conv("second", "first", channels, **attributes),
    ]
    path = write(tmp_path, parts, ["second"])
    cheaper = optimize_for_cpu(path, batches=True)
    assert len(onnx.load_from_string(cheaper).graph.node) == (3 if split else 2)
    images = np.random.default_rng(0).standard_normal((2, 3, SIDE, SIDE), np.float32)
    expected = answer(str(path), images)
    found = answer(cheaper, images)
    assert found.shape == expected.shape
    assert np.allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_only_what_the_first_output_needs_is_kept(tmp_path: Path) -> None:
    parts = [
        conv("first", "image", 3, 4),
        conv("wanted", "first", 4),
        conv("unwanted", "first", 4, 2),
    ]
    path = write(tmp_path, parts, ["wanted", "unwanted"])
    graph = onnx.load_from_string(optimize_for_cpu(path, batches=True)).graph
    assert [node.name for node in graph.node] == ["first", "wanted"]
    assert [item.name for item in graph.output] == ["wanted"]
    assert not [item.name for item in graph.initializer if item.name.startswith("unwanted")]


def test_a_graph_with_graphs_inside_is_left_alone(tmp_path: Path) -> None:
    inner = helper.make_graph(
        [helper.make_node("Identity", ["first"], ["kept"])],
        "inner",
        [],
        [helper.make_tensor_value_info("kept", TensorProto.FLOAT, None)],
    )
    yes = numpy_helper.from_array(np.array(True), "yes")
    choice = helper.make_node("If", ["yes"], ["chosen"], then_branch=inner, else_branch=inner)
    path = write(tmp_path, [conv("first", "image", 3, 2), (choice, [yes])], ["chosen", "first"])
    assert optimize_for_cpu(path, batches=True) == onnx.load(path).SerializeToString()


@pytest.mark.parametrize(
    ("parts", "attributes", "apart"),
    [
        ((8, 8), {}, True),
        ((8, 3, 5), {}, True),
        ((8, 8), {"bias": False}, True),
        ((8, 8), {"dilations": [2, 2], "pads": [2] * 4}, True),
        ((4, 2), {}, False),
        ((8, 8), {"group": 2}, False),
    ],
)
def test_feature_maps_side_by_side_are_convolved_apart(
    tmp_path: Path, parts: tuple[int, ...], attributes: dict[str, Any], apart: bool
) -> None:
    maps = [conv(f"map{n}", "image", 3, size, pads=[1] * 4) for n, size in enumerate(parts)]
    names = [f"map{n}" for n in range(len(parts))]
    whole = helper.make_node("Concat", names, ["whole"], "whole", axis=1)
    last = conv("last", "whole", sum(parts), 6, **{"pads": [1] * 4, **attributes})
    path = write(tmp_path, [*maps, (whole, []), last], ["last"])
    cheaper = optimize_for_cpu(path, batches=True)
    graph = onnx.load_from_string(cheaper).graph
    kinds = [node.op_type for node in graph.node]
    assert ("Concat" in kinds) is not apart
    assert kinds.count("Add") == (len(parts) - 1 if apart else 0)
    assert ("last.weights" in {item.name for item in graph.initializer}) is not apart
    images = np.random.default_rng(1).standard_normal((2, 3, SIDE, SIDE), np.float32)
    assert np.allclose(answer(cheaper, images), answer(str(path), images), rtol=1e-4, atol=1e-4)


def test_a_concatenation_with_another_use_or_along_another_axis_stays(tmp_path: Path) -> None:
    maps = [conv(name, "image", 3, 8, pads=[1] * 4) for name in ("one", "other")]
    whole = helper.make_node("Concat", ["one", "other"], ["whole"], axis=1)
    along_rows = helper.make_node("Concat", ["one", "other"], ["along_rows"], axis=3)
    convolved = [conv("first", "whole", 16, 4), conv("second", "along_rows", 8, 4)]
    both = helper.make_node("Concat", ["first", "second", "again"], ["all"], axis=3)
    again = conv("again", "whole", 16, 4, size=3)
    nodes = [*maps, (whole, []), (along_rows, []), *convolved, again, (both, [])]
    path = write(tmp_path, nodes, ["all"])
    kinds = [
        node.op_type
        for node in onnx.load_from_string(optimize_for_cpu(path, batches=True)).graph.node
    ]
    assert (kinds.count("Concat"), kinds.count("Add")) == (3, 0)
    images = np.random.default_rng(2).standard_normal((1, 3, SIDE, SIDE), np.float32)
    assert np.allclose(
        answer(optimize_for_cpu(path, batches=True), images), answer(str(path), images), atol=1e-4
    )


def single_channels(
    folder: Path, *, axis: int = 1, sides: int = 1, bias: bool = True, **attributes: Any
) -> Path:
    """Write a graph that mixes three feature maps, of which two are enlarged."""
    scales = {"near": 1.0, "middle": 2.0, "far": 4.0}
    nodes: list[tuple[onnx.NodeProto, list[onnx.TensorProto]]] = []
    for name, scale in scales.items():
        strides = [int(scale)] * 2
        nodes.append(conv(name, "image", 3, sides, strides=strides, pads=[1] * 4))
        if scale > 1:
            constant = np.array([1, 1, scale, scale], np.float32)
            scaled = numpy_helper.from_array(constant, f"{name}.scales")
            inputs = [name, "", f"{name}.scales"]
            resize = helper.make_node("Resize", inputs, [f"{name}.resized"], mode="linear")
            nodes.append((resize, [scaled]))
    names = ["near", "middle.resized", "far.resized"]
    nodes.append((helper.make_node("Concat", names, ["whole"], axis=axis), []))
    channels = sides * (3 if axis == 1 else 1)
    nodes.append(conv("mixed", "whole", channels, size=1, bias=bias, **attributes))
    nodes.append((helper.make_node("Sigmoid", ["mixed"], ["mask"]), []))
    return write(folder, nodes, ["mask"])


@pytest.mark.parametrize(
    ("options", "mixed"),
    [
        ({}, True),
        ({"bias": False}, True),
        ({"axis": 3, "sides": 3}, False),
        ({"pads": [1, 0, 0, 1]}, False),
        ({"strides": [2, 2]}, False),
    ],
)
def test_single_channels_are_mixed_by_products(
    tmp_path: Path, options: dict[str, Any], mixed: bool
) -> None:
    path = single_channels(tmp_path, **options)
    cheaper = optimize_for_cpu(path, batches=True)
    nodes = onnx.load_from_string(cheaper).graph.node
    assert sum(node.op_type == "Mul" for node in nodes) == (3 if mixed else 0)
    # A channel that is enlarged is multiplied before, while it is small.
    products = {node.output[0] for node in nodes if node.op_type == "Mul"}
    assert sum(node.op_type == "Resize" and node.input[0] in products for node in nodes) == (
        2 if mixed else 0
    )
    images = np.random.default_rng(3).standard_normal((2, 3, SIDE, SIDE), np.float32)
    assert np.allclose(answer(cheaper, images), answer(str(path), images), rtol=1e-4, atol=1e-5)


def test_a_concatenation_of_one_channel_stays(tmp_path: Path) -> None:
    whole = helper.make_node("Concat", ["only"], ["whole"], axis=1)
    nodes = [conv("only", "image", 3), (whole, []), conv("last", "whole", 1, size=1, bias=False)]
    path = write(tmp_path, nodes, ["last"])
    images = np.random.default_rng(5).standard_normal((2, 3, SIDE, SIDE), np.float32)
    assert np.allclose(
        answer(optimize_for_cpu(path, batches=True), images), answer(str(path), images)
    )


def test_a_graph_for_one_image_says_so_and_answers_the_same(tmp_path: Path) -> None:
    path = single_channels(tmp_path)
    graph = optimize_for_cpu(path, batches=False)
    session = ort.InferenceSession(graph, providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == [1, 3, SIDE, SIDE]
    image = np.random.default_rng(4).standard_normal((1, 3, SIDE, SIDE), np.float32)
    assert np.allclose(answer(graph, image), answer(str(path), image), rtol=1e-4, atol=1e-5)
