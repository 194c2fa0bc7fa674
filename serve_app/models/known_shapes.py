"""The shapes of a graph's tensors."""

from __future__ import annotations

from typing import Any

import onnx


def known_shapes(model: onnx.ModelProto) -> dict[str, list[int]]:
    """Return the shapes that are known by the names of the tensors, with 0 for an unknown axis.

    Args:
        model: Model whose operators ONNX knows.
    """
    graph: Any = onnx.shape_inference.infer_shapes(model).graph
    values = (*graph.value_info, *graph.input, *graph.output)
    return {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in values
    }
