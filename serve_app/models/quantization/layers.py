"""The layers of a graph that can run in int8: its convolutions, each with what is fused into it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from math import prod
from typing import Any

import onnx

from serve_app.models.known_shapes import known_shapes

PASSING = frozenset({"MaxPool", "Resize"})
"""Operators whose results are within the range of their input, and so keep its scale."""
_MIXING = frozenset({"Concat", "Add"})


@dataclass(frozen=True, slots=True)
class GraphLayer:
    """A convolution and the ``Relu`` after it, if nothing else reads the convolution."""

    name: str
    """Name of the value that it makes."""
    convolution: str
    """Name of the value that the convolution makes."""
    products: int
    """Number of products of one run."""


class LayeredGraph:
    """A graph with a fixed batch of one, seen as layers and as what is between them."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.graph: Any = model.graph
        self.constants = {item.name: item for item in self.graph.initializer}
        self.makers = {name: node for node in self.graph.node for name in node.output}
        self.readers: dict[str, list[Any]] = defaultdict(list)
        for node in self.graph.node:
            for name in node.input:
                self.readers[name].append(node)
        self._outputs = {value.name for value in self.graph.output}
        self.shapes = known_shapes(model)
        self.layers = [self._layer(node) for node in self.graph.node if self._is_layer(node)]
        self._layers_by_name = {each.name: each for each in self.layers}

    def layer_of(self, name: str) -> GraphLayer | None:
        """Return the layer that makes a value, or None."""
        return self._layers_by_name.get(name)

    def sources(self, node: Any) -> list[str]:
        """Return the values that a node reads, without its constants."""
        if node.op_type in PASSING:
            return [node.input[0]]
        return [name for name in node.input if name and name not in self.constants]

    def is_between(self, node: Any) -> bool:
        """Return whether a node can work on the integers of int8 layers."""
        if node.op_type in PASSING:
            return len(node.output) == 1 and self.is_map(node.output[0])
        # The sum with a constant stays in float, since that is a map of a border.
        return (
            node.op_type in _MIXING
            and len(self.sources(node)) == len(node.input) > 1
            and all(self.is_map(name) for name in node.input)
        )

    def integers(self, in_float: Collection[str]) -> set[str]:
        """Return the values that are made of integers, if some layers stay in float.

        What is between layers works on integers if any of its readers does.

        Args:
            in_float: Names of the layers that stay in float32.
        """
        found: set[str] = set()
        read: set[str] = set()
        for node in reversed(self.graph.node):
            name = node.output[0]
            layer = self.layer_of(name)
            if layer is not None:
                if name in in_float:
                    continue
                found.add(name)
                node = self.makers[layer.convolution]
            elif not (name in read and self.is_between(node)):
                continue
            else:
                found.add(name)
            read.update(self.sources(node))
        return found

    def is_map(self, name: str) -> bool:
        """Return whether a value is a feature map of known size."""
        return len(self.shapes.get(name, ())) == 4 and 0 not in self.shapes[name]

    def _is_layer(self, node: Any) -> bool:
        known = all(name in self.constants for name in node.input[1:] if name)
        return node.op_type == "Conv" and known and self.is_map(node.output[0])

    def _layer(self, node: Any) -> GraphLayer:
        output, readers = node.output[0], self.readers[node.output[0]]
        fused = len(readers) == 1 and readers[0].op_type == "Relu" and output not in self._outputs
        name = readers[0].output[0] if fused else output
        kernel = self.constants[node.input[1]].dims
        return GraphLayer(name, output, prod(kernel) * prod(self.shapes[output][2:]))
