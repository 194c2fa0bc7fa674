"""The shapes of a graph's tensors."""

from __future__ import annotations

from typing import Any

import onnx

_MAX_SHAPE_BYTES = 1024
"""Largest size of a constant that may define a shape."""


def known_shapes(model: onnx.ModelProto) -> dict[str, list[int]]:
    """Return the shapes that are known by the names of the tensors, with 0 for an unknown axis.

    Args:
        model: Model whose operators ONNX knows.
    """
    light = onnx.ModelProto()
    light.CopyFrom(model)
    for item in light.graph.initializer:
        if len(item.raw_data) > _MAX_SHAPE_BYTES:
            # Shapes depend on the content of small constants, but only on the shapes of large ones.
            item.ClearField("raw_data")
    graph: Any = onnx.shape_inference.infer_shapes(light).graph
    values = (*graph.value_info, *graph.input, *graph.output)
    return {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in values
    }
