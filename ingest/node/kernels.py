"""The kernels that an engine runs a model's convolutions with, by the engine's own report."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort

from serve_app.config import SegmenterConfig
from serve_app.models.engines.network import Pair
from serve_app.models.engines.onnx_runtime import session_options
from serve_app.models.engines.openvino_runtime import PRECISION_NAMES, OpenVinoNetwork

_CONVOLUTIONS = {"Conv", "FusedConv", "NhwcFusedConv", "QLinearConv"}
_BLOCKED_DOMAIN = "com.microsoft.nchwc"
"""Domain of ONNX Runtime's convolutions on blocked feature maps, its fast ones in float32."""
_QUANTIZED = ":QLinearConv"
_REFERENCE = "ref"
"""Beginning of the names of OpenVINO's kernels that are not made for any processor."""


def convolution_kernels(pair: Pair, graph: bytes) -> dict[str, int]:
    """Return how many convolutions of a graph run with each kernel.

    Args:
        pair: Engine and precision.
        graph: ONNX model with a fixed batch of one.

    Raises:
        Exception: The engine cannot load the graph. There is no common class for this.
    """
    if pair.engine == "openvino":
        names = OpenVinoNetwork(graph, pair.precision, threads=1).convolution_kernels()
    else:
        names = _onnx_runtime_kernels(graph)
    return dict(sorted(Counter(names).items()))


def are_fast(pair: Pair, kernels: dict[str, int]) -> bool:
    """Return whether no convolution runs with a kernel that is slow or of another precision."""
    if pair.engine == "openvino":
        suffix = f"_{PRECISION_NAMES[pair.precision]}"
        return all(name.endswith(suffix) and not name.startswith(_REFERENCE) for name in kernels)
    # In int8 some layers stay in float32.
    quantized = pair.precision == "int8"
    return all(
        name.startswith(_BLOCKED_DOMAIN) or (quantized and name.endswith(_QUANTIZED))
        for name in kernels
    )


def _onnx_runtime_kernels(graph: bytes) -> list[str]:
    options = session_options(SegmenterConfig(threads=1))
    with tempfile.TemporaryDirectory(prefix="foreedge-") as folder:
        path = Path(folder, "optimized.onnx")
        options.optimized_model_filepath = str(path)
        # It warns that the file fits this processor only, which is why it is written.
        options.log_severity_level = 4
        ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        nodes: Any = onnx.load(path).graph.node
    return [
        f"{node.domain or 'onnx'}:{node.op_type}" for node in nodes if node.op_type in _CONVOLUTIONS
    ]
