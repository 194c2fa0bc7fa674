"""The attributes of a graph's node."""

from __future__ import annotations

from typing import Any

import onnx
from onnx import helper


def read_attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """Return the values of a node's attributes by their names. Texts are bytes."""
    return {item.name: helper.get_attribute_value(item) for item in node.attribute}
