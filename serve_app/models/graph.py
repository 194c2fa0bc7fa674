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
from collections.abc import Sequence
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
    uses = Counter(name for node in graph.node for name in node.input)
    # Of one use: what something else needs is made anyway.
    wholes = {
        node.output[0]: node
        for node in graph.node
        if node.op_type == "Concat" and uses[node.output[0]] == 1
    }
    channels = _channels(model)
    nodes = []
    for node in graph.node:
        whole = wholes.get(node.input[0]) if node.op_type == "Conv" else None
        if whole is not None and node.input[1] in weights:
            kernel = weights[node.input[1]]
            parts = [channels.get(name, 0) for name in whole.input]
            if _worth_apart(parts, kernel.dims):
                nodes += _sum_of_parts(graph, node, whole, parts, numpy_helper.to_array(kernel))
                continue
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def _worth_apart(parts: Sequence[int], kernel: Sequence[int]) -> bool:
    """Return whether parts of so many channels, 0 where unknown, are better convolved apart.

    A sum reads and writes the outputs once more, a copy reads and writes the inputs. Where the
    channels do not add up, the parts lie along another axis, or the convolution is grouped.
    """
    outputs, inputs = kernel[:2]
    return len(parts) > 1 and 0 not in parts and sum(parts) == inputs > outputs


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
    total = ""
    kernels = np.split(kernel, np.cumsum(channels)[:-1], axis=1)
    for number, (part, own) in enumerate(zip(whole.input, kernels, strict=True)):
        convolved, weights = f"{name}/part{number}", f"{name}/part{number}/weights"
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(own), weights))
        bias = node.input[2:] if number == 0 else []
        nodes.append(helper.make_node("Conv", [part, weights, *bias], [convolved]))
        nodes[-1].attribute.extend(node.attribute)
        if number == 0:
            total = convolved
            continue
        before, total = total, name if number == len(kernels) - 1 else f"{name}/sum{number}"
        nodes.append(helper.make_node("Add", [before, convolved], [total]))
    return nodes
