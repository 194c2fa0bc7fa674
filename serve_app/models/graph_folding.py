"""Fold a graph's constants, so that the rewrites and ONNX Runtime see its true shapes.

PyTorch's older exporter computes the size of each enlargement at run time, by chains of ``Shape``,
``Slice`` and ``Concat``. Behind them shape inference knows no channel count, and ``Resize`` by
sizes keeps ONNX Runtime off its kernel for blocked feature maps. Folding changes no result:

- Weights that are listed as inputs, as exporters did before IR version 4, become constants.
- ONNX Runtime's own ``BASIC`` level computes what depends on constants alone.
- A linear ``Resize`` to sizes that are whole multiples of its input becomes one by scales.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

from serve_app.models.known_shapes import known_shapes
from serve_app.models.node_attributes import read_attributes

_NO_REGION = "foreedge/no_region"
_ROI_IS_OPTIONAL_FROM = 13
"""Operator set from which ``Resize`` may go without a region of interest.

Source: ONNX's change log of operators, Resize-11 and Resize-13.
"""
_SAME_BUT_FOR_ONE_PIXEL = {b"half_pixel", b"pytorch_half_pixel"}
"""Coordinate modes that differ only if the result has a side of one pixel (ONNX, Resize)."""
_SIZES = 3
"""Position of the sizes among the inputs of ``Resize``."""


def read_folded(path: Path, *, batches: bool) -> onnx.ModelProto | None:
    """Return the graph of a file with only its first output, and with folded constants.

    Args:
        path: ONNX file.
        batches: Whether the graph takes several images at a time, if the file allows it. Otherwise
            it takes one.

    Returns:
        The graph. None if one of its nodes contains a graph, since that uses values of the outer
        one by name, and nothing may change then.

    Raises:
        Exception: The file is not an ONNX model, or ONNX Runtime cannot load it. Neither library
            has a common class for this.
    """
    model = onnx.load(path)
    attributes = [item for node in model.graph.node for item in node.attribute]
    if any(item.type == onnx.AttributeProto.GRAPH for item in attributes):
        return None
    make_weights_constant(model.graph)
    del model.graph.output[1:]
    if not batches:
        _fix_batch_size(model.graph)
    folded = fold_constants(model)
    drop_unused(folded.graph)
    return folded


def drop_unused(graph: onnx.GraphProto) -> None:
    """Remove the nodes and weights that the first output does not need."""
    needed = {graph.output[0].name}
    kept = []
    # The nodes of a graph are in topological order, so all consumers of a value come first here.
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    weights = [item for item in graph.initializer if item.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(weights)


def _fix_batch_size(graph: onnx.GraphProto) -> None:
    """Fix an open batch axis at one image."""
    # Stored shapes of inner values may have the open axis. They are inferred from the input again.
    del graph.value_info[:]
    for value in (graph.input[0], graph.output[0]):
        dims = value.type.tensor_type.shape.dim
        if dims and not dims[0].HasField("dim_value"):
            dims[0].dim_value = 1


def fold_constants(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a graph that computes the same, with everything folded that is constant.

    Args:
        model: Graph whose weights are not inputs (``make_weights_constant``). Its batch axis should
            be fixed, since the shapes that follow from an open axis are not constant.

    Raises:
        Exception: ONNX Runtime cannot load the graph. It has many classes without a common base.
    """
    folded = _fold_with_onnx_runtime(model)
    _resize_by_scales(folded)
    return folded


def make_weights_constant(graph: onnx.GraphProto) -> None:
    """Drop weights from the inputs of a graph, so that nothing can replace them."""
    weights = {item.name for item in graph.initializer}
    inputs = [item for item in graph.input if item.name not in weights]
    del graph.input[:]
    graph.input.extend(inputs)


def _fold_with_onnx_runtime(model: onnx.ModelProto) -> onnx.ModelProto:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory(prefix="foreedge-") as folder:
        path = Path(folder, "folded.onnx")
        options.optimized_model_filepath = str(path)
        ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return onnx.load(path)


def _resize_by_scales(model: onnx.ModelProto) -> None:
    graph = model.graph
    shapes = known_shapes(model)
    constants = {item.name: item for item in graph.initializer}
    version = next(item.version for item in model.opset_import if item.domain in {"", "ai.onnx"})
    region = "" if version >= _ROI_IS_OPTIONAL_FROM else _NO_REGION
    changed = False
    for node in graph.node:
        sizes = _target_sizes(node, constants)
        scales = None if sizes is None else _whole_scales(shapes.get(node.input[0]), sizes)
        if scales is None:
            continue
        name = f"{node.output[0]}/scales"
        graph.initializer.append(numpy_helper.from_array(np.array(scales, np.float32), name))
        source = node.input[0]
        del node.input[:]
        node.input.extend([source, region, name])
        del node.attribute[:]
        node.attribute.extend(
            [
                helper.make_attribute("mode", "linear"),
                helper.make_attribute("coordinate_transformation_mode", "half_pixel"),
            ]
        )
        changed = True
    if changed and region:
        graph.initializer.append(numpy_helper.from_array(np.zeros(0, np.float32), region))


def _target_sizes(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> list[int] | None:
    """Return the constant sizes that a plain linear ``Resize`` enlarges to, if it is one."""
    if node.op_type != "Resize" or len(node.input) <= _SIZES:
        return None
    found = read_attributes(node)
    plain = (
        found.get("mode") == b"linear"
        and found.get("coordinate_transformation_mode", b"half_pixel") in _SAME_BUT_FOR_ONE_PIXEL
        and found.get("keep_aspect_ratio_policy", b"stretch") == b"stretch"
        and not found.get("antialias", 0)
        and not found.get("exclude_outside", 0)
        and "axes" not in found
    )
    sizes = constants.get(node.input[_SIZES])
    if not plain or sizes is None:
        return None
    values: list[int] = numpy_helper.to_array(sizes).tolist()
    return values


def _whole_scales(shape: Sequence[int] | None, sizes: list[int]) -> list[int] | None:
    """Return how many times each axis grows, or None if that is not known or not exact."""
    if shape is None or len(shape) != len(sizes) or 0 in shape or min(sizes[2:]) == 1:
        return None
    if any(size % side for size, side in zip(sizes, shape, strict=True)):
        return None
    return [size // side for size, side in zip(sizes, shape, strict=True)]
