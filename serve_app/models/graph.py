"""A model's graph, made cheaper for CPUs without a change of what it computes.

rembg's networks give out seven masks, of which one is used. Two more things in them are dear
(docs/performance.md has what each saves):

They squeeze many channels into one by 3 x 3 convolutions at full size. ONNX Runtime computes 16
channels at a time on CPUs, so that such a convolution costs as much as one into 16. Its sum over
the channels can be taken first, at each of the 9 places of the kernel (a convolution of 1 x 1 into
9 channels), and the sum over the places after that, at a quarter of the cost.

And they put feature maps side by side for a convolution to read, which copies all of both. The sum
of a convolution of each is the same; ONNX Runtime adds the second one to the first one in place.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

Weights = npt.NDArray[Any]

_MIN_CHANNELS = 16
"""ONNX Runtime's block. With fewer there is nothing to win."""
_SMALL_BYTES = 1024
"""A constant up to this size may say what a shape is."""


def for_cpu(path: Path) -> bytes:
    """Return a graph with its first output alone, and with cheaper convolutions.

    Args:
        path: An ONNX file.

    Returns:
        An ONNX model. Its answers differ from the file's by float32 rounding.

    Raises:
        Exception: The file is no ONNX model; of many classes, as ``onnx`` has it.
    """
    model = onnx.load(path)
    # Nodes with graphs of their own use values by name from outside: those are left alone.
    attributes = [item for node in model.graph.node for item in node.attribute]
    if not any(item.type == onnx.AttributeProto.GRAPH for item in attributes):
        del model.graph.output[1:]
        _drop_unused(model.graph)
        _split_convolutions(model.graph)
        _take_concatenations_apart(model)
        _drop_unused(model.graph)
    content: bytes = model.SerializeToString()
    return content


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Drop what the first output does not need."""
    needed = {graph.output[0].name}
    kept = []
    # The nodes of a graph are sorted: what a node needs comes before it.
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    weights = [item for item in graph.initializer if item.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(weights)


def _split_convolutions(graph: onnx.GraphProto) -> None:
    weights = {item.name: item for item in graph.initializer}
    nodes = []
    for node in graph.node:
        kernel = _kernel_into_one(node, weights)
        nodes += [node] if kernel is None else _split(graph, node, kernel)
    del graph.node[:]
    graph.node.extend(nodes)


def _kernel_into_one(node: onnx.NodeProto, weights: dict[str, onnx.TensorProto]) -> Weights | None:
    """Return the weights, float32 [1, C, H, W], of a convolution that is worth being split."""
    if node.op_type != "Conv" or node.input[1] not in weights:
        return None
    outputs, channels, *size = weights[node.input[1]].dims
    grouped = any(item.name == "group" and item.i != 1 for item in node.attribute)
    if outputs != 1 or channels < _MIN_CHANNELS or len(size) != 2 or size == [1, 1] or grouped:
        return None
    kernel: Weights = numpy_helper.to_array(weights[node.input[1]])
    return kernel


def _split(graph: onnx.GraphProto, node: onnx.NodeProto, kernel: Weights) -> list[onnx.NodeProto]:
    """Return two convolutions, over the channels and over the places, instead of one."""
    _, channels, height, width = kernel.shape
    places = height * width
    name = node.output[0]
    over_channels = kernel[0].transpose(1, 2, 0).reshape(places, channels, 1, 1)
    over_places = np.eye(places, dtype=kernel.dtype).reshape(1, places, height, width)
    graph.initializer.extend(
        [
            numpy_helper.from_array(np.ascontiguousarray(over_channels), f"{name}/channels"),
            numpy_helper.from_array(over_places, f"{name}/places"),
        ]
    )
    first = helper.make_node("Conv", [node.input[0], f"{name}/channels"], [f"{name}/at_places"])
    second = helper.make_node(
        "Conv", [f"{name}/at_places", f"{name}/places", *node.input[2:]], [name]
    )
    second.attribute.extend(node.attribute)
    return [first, second]


def _take_concatenations_apart(model: onnx.ModelProto) -> None:
    """Convolve each part of a concatenation, and add them up, where that moves less memory."""
    graph = model.graph
    weights = {item.name: item for item in graph.initializer}
    made_by = {node.output[0]: node for node in graph.node}
    uses = Counter(name for node in graph.node for name in node.input)
    channels = _channels(model)
    nodes = []
    for node in graph.node:
        whole = made_by.get(node.input[0]) if node.op_type == "Conv" else None
        kernel = weights.get(node.input[1]) if whole is not None else None
        if whole is None or kernel is None or whole.op_type != "Concat":
            nodes.append(node)
            continue
        parts = [channels.get(name, 0) for name in whole.input]
        outputs, all_channels = kernel.dims[:2]
        # A sum reads and writes the outputs once more; a copy reads and writes the inputs. Where
        # the parts do not add up, the axis is another one, the convolution grouped, or unknown.
        worth_it = uses[whole.output[0]] == 1 and all_channels > outputs
        if worth_it and 0 not in parts and sum(parts) == all_channels:
            nodes += _sum_of_parts(graph, node, whole, parts, numpy_helper.to_array(kernel))
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def _channels(model: onnx.ModelProto) -> dict[str, int]:
    """Return how many channels each value of four dimensions has, where that is known."""
    light = onnx.ModelProto()
    light.CopyFrom(model)
    for item in light.graph.initializer:
        if len(item.raw_data) > _SMALL_BYTES:
            # Shapes follow from small constants and from the sizes of large ones.
            item.ClearField("raw_data")
    graph = onnx.shape_inference.infer_shapes(light).graph
    shapes = {v.name: v.type.tensor_type.shape.dim for v in (*graph.value_info, *graph.input)}
    return {name: dims[1].dim_value for name, dims in shapes.items() if len(dims) == 4}


def _sum_of_parts(
    graph: onnx.GraphProto,
    node: onnx.NodeProto,
    whole: onnx.NodeProto,
    channels: list[int],
    kernel: Weights,
) -> list[onnx.NodeProto]:
    """Return a convolution of each part of a concatenation, and their sums, instead of one."""
    name = node.output[0]
    nodes: list[onnx.NodeProto] = []
    before = ""
    ends = np.cumsum(channels)
    for number, (part, own) in enumerate(
        zip(whole.input, np.split(kernel, ends[:-1], axis=1), strict=True)
    ):
        weights, convolved = f"{name}/part{number}/weights", f"{name}/part{number}"
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(own), weights))
        bias = node.input[2:] if number == 0 else []
        nodes.append(helper.make_node("Conv", [part, weights, *bias], [convolved]))
        nodes[-1].attribute.extend(node.attribute)
        if before:
            last = number == len(channels) - 1
            total = name if last else f"{name}/sum{number}"
            nodes.append(helper.make_node("Add", [before, convolved], [total]))
            convolved = total
        before = convolved
    return nodes
