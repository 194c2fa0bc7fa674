"""Rewrites that make a model's graph cheaper on CPUs and keep what it computes.

rembg's networks have seven masks as outputs, of which one is used. The other six are removed, and
so is what only they need. Three more things make the graphs slow (docs/performance.md has what
each rewrite saves).

ONNX Runtime keeps feature maps in blocks of 16 channels on CPUs. A feature map of a single channel
therefore costs as much as one of 16:

- Convolutions of 3 x 3 at full size reduce many channels to one. The sum over the channels can be
  taken first, for each of the 9 places of the kernel (a convolution of 1 x 1 into 9 channels). A
  transposed convolution then takes the sum over the places. ONNX Runtime does not use blocks for
  it, so that its single channel, enlarged to full size, is a single channel.
- A convolution of 1 x 1 mixes concatenated single channels into the mask. That is a sum of
  products, and it is cheaper if the products are taken before the channels are enlarged.

A concatenation of feature maps for a convolution copies all of them. The sum of one convolution for
each feature map is the same.

With an open batch axis, ONNX Runtime cannot know that two feature maps have the same shape. It then
adds them in a pass of its own, instead of in the convolution that makes one of them.
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

from serve_app.models.graph_folding import drop_unused, read_folded
from serve_app.models.known_shapes import known_shapes
from serve_app.models.node_attributes import read_attributes

Array = npt.NDArray[Any]

_MIN_CHANNELS = 16
"""Fewest channels for which a split saves time: the size of ONNX Runtime's blocks."""


def optimize_for_cpu(path: Path, *, batches: bool) -> bytes:
    """Return a graph with only the first output, and with cheaper convolutions.

    Args:
        path: ONNX file.
        batches: Whether the graph takes several images at a time, if the file allows it. Otherwise
            it takes one.

    Returns:
        An ONNX model. Its outputs differ from those of the file by float32 rounding.

    Raises:
        Exception: The file is not an ONNX model. onnx has no common class for this.
    """
    model = read_folded(path, batches=batches)
    if model is None:
        model = onnx.load(path)
    else:
        _split_convolutions(model.graph)
        _mix_channels(model.graph)
        _take_concatenations_apart(model)
        drop_unused(model.graph)
    content: bytes = model.SerializeToString()
    return content


def _split_convolutions(graph: onnx.GraphProto) -> None:
    """Split the convolutions that reduce many channels to one."""
    weights = {item.name: item for item in graph.initializer}
    nodes = []
    for node in graph.node:
        kernel = _kernel_to_split(node, weights)
        pads = None if kernel is None else _transposed_pads(node, kernel)
        if kernel is None or pads is None:
            nodes.append(node)
        else:
            nodes += _split_convolution(graph, node, kernel, pads)
    del graph.node[:]
    graph.node.extend(nodes)


def _kernel_to_split(node: onnx.NodeProto, weights: dict[str, onnx.TensorProto]) -> Array | None:
    """Return the weights, float32 [1, C, H, W], of a convolution to split, or None to keep it."""
    if node.op_type != "Conv" or node.input[1] not in weights:
        return None
    outputs, channels, *size = weights[node.input[1]].dims
    grouped = read_attributes(node).get("group", 1) != 1
    if outputs != 1 or channels < _MIN_CHANNELS or len(size) != 2 or size == [1, 1] or grouped:
        return None
    kernel: Array = numpy_helper.to_array(weights[node.input[1]])
    return kernel


def _transposed_pads(node: onnx.NodeProto, kernel: Array) -> list[int] | None:
    """Return the pads that give the transposed convolution the same output.

    There are none, and None is returned, for strides and for pads beyond the reach of the kernel.
    """
    found = read_attributes(node)
    if found.get("auto_pad", b"NOTSET") != b"NOTSET" or set(found.get("strides", [1])) != {1}:
        return None
    dilations = found.get("dilations", [1, 1])
    reach = [(size - 1) * step for size, step in zip(kernel.shape[2:], dilations, strict=True)]
    pads = [by - pad for by, pad in zip(reach * 2, found.get("pads", [0] * 4), strict=True)]
    return pads if min(pads) >= 0 else None


def _split_convolution(
    graph: onnx.GraphProto, node: onnx.NodeProto, kernel: Array, pads: list[int]
) -> list[onnx.NodeProto]:
    """Return a convolution over the channels and one over the places that replace the given one."""
    _, channels, height, width = kernel.shape
    places = height * width
    name = node.output[0]
    over_channels = kernel[0].transpose(1, 2, 0).reshape(places, channels, 1, 1)
    # A transposed convolution writes to the places that the given one reads, so it needs the
    # reversed kernel.
    over_places = np.eye(places, dtype=kernel.dtype)[::-1].reshape(places, 1, height, width)
    graph.initializer.extend(
        [
            numpy_helper.from_array(np.ascontiguousarray(over_channels), f"{name}/channels"),
            numpy_helper.from_array(np.ascontiguousarray(over_places), f"{name}/places"),
        ]
    )
    dilations = read_attributes(node).get("dilations", [1, 1])
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
    """Replace convolutions of 1 x 1 that mix single channels by sums of products."""
    weights = {item.name: item for item in graph.initializer}
    makers = _producers_with_one_consumer(graph)
    nodes = []
    for node in graph.node:
        whole = _concatenation_before(node, makers, weights)
        if whole is not None and _mixes_single_channels(node, whole, weights):
            factors = numpy_helper.to_array(weights[node.input[1]]).reshape(-1, 1)
            nodes += _sum_of_products(graph, node, whole, factors, makers)
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def _mixes_single_channels(
    node: onnx.NodeProto, whole: onnx.NodeProto, weights: dict[str, onnx.TensorProto]
) -> bool:
    """Return whether a convolution of 1 x 1 mixes concatenated single channels into one."""
    found = read_attributes(node)
    moved = any(found.get("pads", [])) or set(found.get("strides", [1])) != {1}
    # There are as many channels as parts, so each part has one.
    single = list(weights[node.input[1]].dims) == [1, len(whole.input), 1, 1]
    return single and len(whole.input) > 1 and read_attributes(whole)["axis"] == 1 and not moved


def _sum_of_products(
    graph: onnx.GraphProto,
    node: onnx.NodeProto,
    whole: onnx.NodeProto,
    factors: Array,
    makers: dict[str, onnx.NodeProto],
) -> list[onnx.NodeProto]:
    """Return the nodes of a sum of single channels, each times its factor."""
    name = node.output[0]
    nodes, terms = [], []
    for number, (part, factor) in enumerate(zip(whole.input, factors, strict=True)):
        by, product, term = (f"{name}/{what}{number}" for what in ("factor", "product", "term"))
        graph.initializer.append(numpy_helper.from_array(factor, by))
        maker = makers.get(part)
        # A channel that is enlarged is multiplied before, while it is small.
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
    return nodes + _additions(name, [*terms, *node.input[2:]])


def _enlarges(node: onnx.NodeProto) -> bool:
    """Return whether a node enlarges its input so that a product may be taken before it."""
    return node.op_type == "Resize" and "extrapolation_value" not in read_attributes(node)


def _take_concatenations_apart(model: onnx.ModelProto) -> None:
    """Convolve the parts of concatenations separately if that moves less memory."""
    graph = model.graph
    weights = {item.name: item for item in graph.initializer}
    makers = _producers_with_one_consumer(graph)
    channels = _channel_counts(model)
    nodes = []
    for node in graph.node:
        whole = _concatenation_before(node, makers, weights)
        if whole is not None:
            kernel = weights[node.input[1]]
            parts = [channels.get(name, 0) for name in whole.input]
            if _is_cheaper_apart(parts, kernel.dims):
                nodes += _sum_of_parts(graph, node, whole, parts, numpy_helper.to_array(kernel))
                continue
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def _is_cheaper_apart(parts: Sequence[int], kernel: Sequence[int]) -> bool:
    """Return whether the parts of a concatenation are cheaper to convolve separately.

    A sum reads and writes the outputs once more, and a copy reads and writes the inputs. If the
    channels do not add up to the kernel's inputs, the concatenation is along another axis or the
    convolution is grouped, and so the answer is no.

    Args:
        parts: Number of channels of each part, or 0 if it is unknown.
        kernel: Dimensions of the weights, [outputs, inputs, ...].
    """
    outputs, inputs = kernel[:2]
    return len(parts) > 1 and 0 not in parts and sum(parts) == inputs > outputs


def _channel_counts(model: onnx.ModelProto) -> dict[str, int]:
    """Return the known numbers of channels, by the names of values with four dimensions."""
    return {name: shape[1] for name, shape in known_shapes(model).items() if len(shape) == 4}


def _sum_of_parts(
    graph: onnx.GraphProto,
    node: onnx.NodeProto,
    whole: onnx.NodeProto,
    channels: list[int],
    kernel: Array,
) -> list[onnx.NodeProto]:
    """Return a convolution for each part of a concatenation, and the additions of their outputs."""
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
    return nodes + _additions(name, terms)


def _additions(name: str, terms: Sequence[str]) -> list[onnx.NodeProto]:
    """Return the nodes that add two or more terms to the value ``name``."""
    nodes = []
    total = terms[0]
    for number, term in enumerate(terms[1:], 1):
        before, total = total, name if number == len(terms) - 1 else f"{name}/sum{number}"
        nodes.append(helper.make_node("Add", [before, term], [total]))
    return nodes


def _concatenation_before(
    node: onnx.NodeProto,
    makers: dict[str, onnx.NodeProto],
    weights: dict[str, onnx.TensorProto],
) -> onnx.NodeProto | None:
    """Return the concatenation that a convolution with known weights is the only one to read."""
    if node.op_type != "Conv" or node.input[1] not in weights:
        return None
    maker = makers.get(node.input[0])
    return maker if maker is not None and maker.op_type == "Concat" else None


def _producers_with_one_consumer(graph: onnx.GraphProto) -> dict[str, onnx.NodeProto]:
    """Return the nodes whose first output is read once, by the name of that output.

    A value that is read more than once is needed even if one of its readers is rewritten.
    """
    uses = Counter(name for node in graph.node for name in node.input)
    return {node.output[0]: node for node in graph.node if uses[node.output[0]] == 1}
