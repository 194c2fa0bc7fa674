"""Write a graph with some of its layers in int8: U8S8, per channel, as pairs of Q and DQ."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from serve_app.models.quantization.layers import GraphLayer, LayeredGraph
from serve_app.models.quantization.ranges import Range

_MOST_BIAS = 2.0**30
"""Largest integer of a bias. A sum of products is added to it in 32 bits."""


def write_int8(
    layered: LayeredGraph, ranges: Mapping[str, Range], in_float: Collection[str]
) -> onnx.ModelProto:
    """Return a graph whose layers run in int8, but for some.

    Args:
        layered: Graph of operator set 13 or later.
        ranges: Range of every value that may become integers.
        in_float: Names of the layers that stay in float32.
    """
    writer = _Writer(layered, ranges, in_float)
    for node in layered.graph.node:
        writer.add(node)
    return writer.model()


class _Writer:
    def __init__(
        self, layered: LayeredGraph, ranges: Mapping[str, Range], in_float: Collection[str]
    ) -> None:
        self._layered, self._ranges = layered, ranges
        self._integers = layered.integers(in_float)
        self._of_layer = {
            each.convolution: each for each in layered.layers if each.name in self._integers
        }
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}
        self._rounded: set[str] = set()

    def model(self) -> onnx.ModelProto:
        """Return the whole graph."""
        found = onnx.ModelProto()
        found.CopyFrom(self._layered.model)
        del found.graph.node[:]
        del found.graph.value_info[:]
        found.graph.node.extend(self._nodes)
        used = {name for node in self._nodes for name in node.input}
        del found.graph.initializer[:]
        found.graph.initializer.extend(
            item
            for item in (*self._layered.constants.values(), *self._constants.values())
            if item.name in used
        )
        return found

    def add(self, node: Any) -> None:
        """Add a node in its own precision."""
        output = node.output[0]
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        layer = self._of_layer.get(output)
        if layer is not None:
            copy.input[0] = self._dequantized(node.input[0])
            self._quantize_weights(copy, self._scale(node.input[0])[0], layer)
        elif output in self._integers and self._layered.layer_of(output) is None:
            for position, name in enumerate(node.input):
                if name in self._layered.sources(node):
                    copy.input[position] = self._dequantized(name)
        else:
            for position, name in enumerate(node.input):
                # A float reader of integers reads them as floats.
                if name in self._integers:
                    copy.input[position] = self._dequantized(name)
        self._nodes.append(copy)

    def _dequantized(self, name: str) -> str:
        """Return the name of a value after Q and DQ, which are added if they are not there."""
        result = f"{name}/dq"
        if name not in self._rounded:
            self._rounded.add(name)
            scale, zero = self._scale(name)
            parts = [
                self._constant(f"{name}/scale", np.array(scale, np.float32)),
                self._constant(f"{name}/zero", np.array(zero, np.uint8)),
            ]
            self._nodes.append(helper.make_node("QuantizeLinear", [name, *parts], [f"{name}/q"]))
            self._nodes.append(
                helper.make_node("DequantizeLinear", [f"{name}/q", *parts], [result])
            )
        return result

    def _scale(self, name: str) -> tuple[float, int]:
        low, high = self._ranges[name]
        scale = float(np.float32(max(high - low, 1e-6) / 255))
        return scale, int(np.clip(round(-low / scale), 0, 255))

    def _quantize_weights(self, node: Any, input_scale: float, layer: GraphLayer) -> None:
        constants, name = self._layered.constants, layer.name
        kernel = numpy_helper.to_array(constants[node.input[1]])
        has_bias = len(node.input) > 2 and node.input[2]
        bias = numpy_helper.to_array(constants[node.input[2]]) if has_bias else None
        scales = _weight_scales(kernel, bias, input_scale)
        integers = np.rint(kernel / scales[:, None, None, None])
        node.input[1] = self._per_channel(f"{name}/weights", integers, np.int8, scales)
        if bias is not None:
            of_bias = (np.float32(input_scale) * scales).astype(np.float32)
            rounded = np.rint(bias.astype(np.float64) / of_bias)
            node.input[2] = self._per_channel(f"{name}/bias", rounded, np.int32, of_bias)

    def _per_channel(
        self, name: str, integers: npt.NDArray[Any], kind: type, scales: npt.NDArray[np.float32]
    ) -> str:
        parts = [
            self._constant(f"{name}/q", integers.astype(kind)),
            self._constant(f"{name}/scale", scales),
            self._constant(f"{name}/zero", np.zeros(len(scales), kind)),
        ]
        self._nodes.append(helper.make_node("DequantizeLinear", parts, [f"{name}/dq"], axis=0))
        return f"{name}/dq"

    def _constant(self, name: str, values: npt.NDArray[Any]) -> str:
        self._constants[name] = numpy_helper.from_array(values, name)
        return name


def _weight_scales(
    kernel: npt.NDArray[np.float32], bias: npt.NDArray[np.float32] | None, input_scale: float
) -> npt.NDArray[np.float32]:
    """Return the scale of each output channel, [O].

    Weights that are tiny compared with their bias get a larger scale. Otherwise their bias would
    not fit into 32 bits.
    """
    scales = np.abs(kernel).reshape(len(kernel), -1).max(1) / 127
    if bias is not None:
        scales = np.maximum(scales, np.abs(bias) / (_MOST_BIAS * input_scale))
    return np.asarray(np.maximum(scales, np.finfo(np.float32).tiny * 2**24), np.float32)
