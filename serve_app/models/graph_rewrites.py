"""A model's graph, made cheaper for CPUs without a change of what it computes.

rembg's networks give out seven masks, of which one is used. More in them is dear
(docs/performance.md has what each change saves). ONNX Runtime keeps feature maps in blocks of 16
channels on CPUs, and so a single channel costs it as much as 16:

- Many channels are squeezed into one by 3 x 3 convolutions at full size. The sum over the channels
  can be taken first, at each of the 9 places of the kernel (a convolution of 1 x 1 into 9
  channels), and the sum over the places after that, by a transposed convolution. ONNX Runtime has
  no blocks for that one, so that its single channel, enlarged to full size, is a single one too.
- Single channels are put side by side and mixed into the mask by a convolution of 1 x 1: a sum of
  products, and cheaper where the products are taken before the channels are enlarged.

And two things cost memory traffic. Feature maps are put side by side for a convolution to read,
which copies all of both; the sum of a convolution of each is the same. Where the batch axis is
open, ONNX Runtime cannot tell that two maps have the same shape, and adds them in a pass of its
own instead of inside of the convolution that makes one.
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

from serve_app.models.graph_folding import fold_constants, make_weights_constant

Weights = npt.NDArray[Any]

_MIN_CHANNELS = 16
"""ONNX Runtime's block. With fewer there is nothing to win."""
_SMALL_BYTES = 1024
"""A constant up to this size may say what a shape is."""


def optimize_for_cpu(path: Path, *, batches: bool) -> bytes:
    """Return a graph with its first output alone, and with cheaper convolutions.

    Args:
        path: An ONNX file.
        batches: Whether it takes several images at a time, where the file does; else one.

    Returns:
        An ONNX model. Its answers differ from the file's by float32 rounding.

    Raises:
        Exception: The file is no ONNX model; of many classes, as ``onnx`` has it.
    """
    model = onnx.load(path)
    # Nodes with graphs of their own use values by name from outside: those are left alone.
    attributes = [item for node in model.graph.node for item in node.attribute]
    if not any(item.type == onnx.AttributeProto.GRAPH for item in attributes):
        make_weights_constant(model.graph)
        del model.graph.output[1:]
        if not batches:
            _fix_batch(model.graph)
        model = fold_constants(model)
        _drop_unused(model.graph)
        _split_convolutions(model.graph)
        _mix_channels(model.graph)
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


def _fix_batch(graph: onnx.GraphProto) -> None:
    """Let a graph whose batch axis is open take one image at a time."""
    # What it says of the values in between may have the open axis, and follows from the input.
    del graph.value_info[:]
    for value in (graph.input[0], graph.output[0]):
        dims = value.type.tensor_type.shape.dim
        if dims and not dims[0].HasField("dim_value"):
            dims[0].dim_value = 1


def _split_convolutions(graph: onnx.GraphProto) -> None:
    weights = {item.name: item for item in graph.initializer}
    nodes = []
    for node in graph.node:
        kernel = _kernel_into_one(node, weights)
        pads = None if kernel is None else _transposed_pads(node, kernel)
        if kernel is None or pads is None:
            nodes.append(node)
        else:
            nodes += _split(graph, node, kernel, pads)
    del graph.node[:]
    graph.node.extend(nodes)


def _kernel_into_one(node: onnx.NodeProto, weights: dict[str, onnx.TensorProto]) -> Weights | None:
    """Return the weights, float32 [1, C, H, W], of a convolution that is worth being split."""
    if node.op_type != "Conv" or node.input[1] not in weights:
        return None
    outputs, channels, *size = weights[node.input[1]].dims
    grouped = _attributes(node).get("group", 1) != 1
    if outputs != 1 or channels < _MIN_CHANNELS or len(size) != 2 or size == [1, 1] or grouped:
        return None
    kernel: Weights = numpy_helper.to_array(weights[node.input[1]])
    return kernel


def _transposed_pads(node: onnx.NodeProto, kernel: Weights) -> list[int] | None:
    """Return the pads with which the transposed convolution has the same output.

    None where there are none: for strides, and for more padding than the kernel reaches.
    """
    found = _attributes(node)
    if found.get("auto_pad", b"NOTSET") != b"NOTSET" or set(found.get("strides", [1])) != {1}:
        return None
    dilations = found.get("dilations", [1, 1])
    reach = [(size - 1) * step for size, step in zip(kernel.shape[2:], dilations, strict=True)]
    pads = [by - pad for by, pad in zip(reach * 2, found.get("pads", [0] * 4), strict=True)]
    return pads if min(pads) >= 0 else None


def _split(
    graph: onnx.GraphProto, node: onnx.NodeProto, kernel: Weights, pads: list[int]
) -> list[onnx.NodeProto]:
    """Return two convolutions, over the channels and over the places, instead of one."""
    _, channels, height, width = kernel.shape
    places = height * width
    name = node.output[0]
    over_channels = kernel[0].transpose(1, 2, 0).reshape(places, channels, 1, 1)
    # A transposed convolution writes where the other one reads: its kernel is turned round.
    over_places = np.eye(places, dtype=kernel.dtype)[::-1].reshape(places, 1, height, width)
    graph.initializer.extend(
        [
            numpy_helper.from_array(np.ascontiguousarray(over_channels), f"{name}/channels"),
            numpy_helper.from_array(np.ascontiguousarray(over_places), f"{name}/places"),
        ]
    )
    dilations = _attributes(node).get("dilations", [1, 1])
    first = helper.make_node("Conv", [node.input[0], f"{name}/channels"], [f"{name}/at_places"])
    second = helper.make_node(
        "ConvTranspose",
        [f"{name}/at_places", f"{name}/places", *node.input[2:]],
        [name],
        pads=pads,
        dilations=dilations,
    )
    return [first, second]


def _mix_channels(graph: onnx.GraphProto) -> None:
    """Sum up single channels, each times its weight, where a convolution of 1 x 1 does that."""
    weights = {item.name: item for item in graph.initializer}
    makers = _made_for_one(graph)
    nodes = []
    for node in graph.node:
        whole = _concatenated(node, makers, weights)
        if whole is not None and _mixes_channels(node, whole, weights):
            factors = numpy_helper.to_array(weights[node.input[1]]).reshape(-1, 1)
            nodes += _sum_of_products(graph, node, whole, factors, makers)
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def _mixes_channels(
    node: onnx.NodeProto, whole: onnx.NodeProto, weights: dict[str, onnx.TensorProto]
) -> bool:
    """Return whether a convolution of 1 x 1 turns a concatenation of single channels into one."""
    found = _attributes(node)
    moved = any(found.get("pads", [])) or set(found.get("strides", [1])) != {1}
    # As many channels as parts, side by side: each has one.
    single = list(weights[node.input[1]].dims) == [1, len(whole.input), 1, 1]
    return single and len(whole.input) > 1 and _attributes(whole)["axis"] == 1 and not moved


def _sum_of_products(
    graph: onnx.GraphProto,
    node: onnx.NodeProto,
    whole: onnx.NodeProto,
    factors: Weights,
    makers: dict[str, onnx.NodeProto],
) -> list[onnx.NodeProto]:
    """Return the sum of single channels, each times its factor, instead of a convolution."""
    name = node.output[0]
    nodes, terms = [], []
    for number, (part, factor) in enumerate(zip(whole.input, factors, strict=True)):
        by, product, term = (f"{name}/{what}{number}" for what in ("factor", "product", "term"))
        graph.initializer.append(numpy_helper.from_array(factor, by))
        maker = makers.get(part)
        # What is enlarged is multiplied while it is small.
        enlarged = maker if maker is not None and _enlarges(maker) else None
        source = part if enlarged is None else enlarged.input[0]
        nodes.append(helper.make_node("Mul", [source, by], [product]))
        if enlarged is None:
            terms.append(product)
        else:
            nodes.append(onnx.NodeProto())
            nodes[-1].CopyFrom(enlarged)
            nodes[-1].input[0], nodes[-1].output[0] = product, term
            terms.append(term)
    return nodes + _added_up(name, [*terms, *node.input[2:]])


def _enlarges(node: onnx.NodeProto) -> bool:
    """Return whether a product may be taken before a node instead of after it."""
    return node.op_type == "Resize" and "extrapolation_value" not in _attributes(node)


def _take_concatenations_apart(model: onnx.ModelProto) -> None:
    """Convolve each part of a concatenation, and add them up, where that moves less memory."""
    graph = model.graph
    weights = {item.name: item for item in graph.initializer}
    makers = _made_for_one(graph)
    channels = _channels(model)
    nodes = []
    for node in graph.node:
        whole = _concatenated(node, makers, weights)
        if whole is not None:
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
    nodes, terms = [], []
    kernels = np.split(kernel, np.cumsum(channels)[:-1], axis=1)
    for number, (part, own) in enumerate(zip(whole.input, kernels, strict=True)):
        convolved, weights = f"{name}/part{number}", f"{name}/part{number}/weights"
        graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(own), weights))
        bias = node.input[2:] if number == 0 else []
        nodes.append(helper.make_node("Conv", [part, weights, *bias], [convolved]))
        nodes[-1].attribute.extend(node.attribute)
        terms.append(convolved)
    return nodes + _added_up(name, terms)


def _added_up(name: str, terms: Sequence[str]) -> list[onnx.NodeProto]:
    """Return the additions that make a value, called ``name``, of two terms or more."""
    nodes = []
    total = terms[0]
    for number, term in enumerate(terms[1:], 1):
        before, total = total, name if number == len(terms) - 1 else f"{name}/sum{number}"
        nodes.append(helper.make_node("Add", [before, term], [total]))
    return nodes


def _concatenated(
    node: onnx.NodeProto,
    makers: dict[str, onnx.NodeProto],
    weights: dict[str, onnx.TensorProto],
) -> onnx.NodeProto | None:
    """Return the concatenation that a convolution of known weights reads, and nothing else does."""
    if node.op_type != "Conv" or node.input[1] not in weights:
        return None
    maker = makers.get(node.input[0])
    return maker if maker is not None and maker.op_type == "Concat" else None


def _made_for_one(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    """Return the nodes whose first output has one use; what has more is made anyway."""
    uses = Counter(name for node in graph.node for name in node.input)
    return {node.output[0]: node for node in graph.node if uses[node.output[0]] == 1}


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {item.name: helper.get_attribute_value(item) for item in node.attribute}
