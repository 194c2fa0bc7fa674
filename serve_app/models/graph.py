"""A model's graph, made cheaper for CPUs without a change of what it computes.

rembg's networks give out seven masks, of which one is used, and squeeze many channels into one by
3 x 3 convolutions at full size. ONNX Runtime computes 16 channels at a time on CPUs, so that such a
convolution costs as much as one into 16. Its sum over the channels can be taken first, at each of
the 9 places of the kernel (a convolution of 1 x 1 into 9 channels), and the sum over the places
after that, at a quarter of the cost. With a u2netp-shaped model both together save 7 to 9 % of the
time (docs/performance.md).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

Weights = npt.NDArray[Any]

_MIN_CHANNELS = 16
"""ONNX Runtime's block. With fewer there is nothing to win."""


def for_cpu(path: Path) -> bytes:
    """Return a graph with its first output alone, and with cheap convolutions into one channel.

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
        _keep_first_output(model.graph)
        _split_convolutions(model.graph)
    content: bytes = model.SerializeToString()
    return content


def _keep_first_output(graph: onnx.GraphProto) -> None:
    del graph.output[1:]
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
