"""Precisions as a plain conversion makes them, which the gate judges by their numbers alone."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from serve_app.config import SegmenterConfig
from serve_app.models.engines.network import Network, Tensor
from serve_app.models.engines.onnx_runtime import open_as_written
from serve_app.models.engines.openvino_runtime import OpenVinoNetwork
from serve_app.models.gate_images import SmallImage
from serve_app.models.graph_folding import read_folded
from serve_app.models.inference import normalize_images
from serve_app.models.quantization.quantize import convert_operator_set
from serve_app.models.registry import Weights


def plain_bfloat16(weights: Weights) -> Network:
    """Return a model in bfloat16 with its nearly constant channels, loaded for one thread."""
    return OpenVinoNetwork(_folded(weights), "bfloat16", threads=1)


def minmax_int8(weights: Weights, images: Sequence[SmallImage]) -> Network:
    """Return a model with all layers in int8, by ONNX Runtime's quantizer, loaded for one thread.

    The range of each feature map is that of all its values.

    Args:
        weights: The model.
        images: Images for the calibration, at least one.
    """
    with tempfile.TemporaryDirectory(prefix="foreedge-") as folder:
        source, quantized = Path(folder, "float32.onnx"), Path(folder, "int8.onnx")
        # Of operator set 11 the quantizer writes an invalid file without a word.
        model = convert_operator_set(_folded(weights), weights)
        onnx.save(model, source)
        quantize_static(
            source,
            quantized,
            _Inputs(model.graph.input[0].name, weights, images),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            calibrate_method=CalibrationMethod.MinMax,
        )
        return open_as_written(quantized.read_bytes(), SegmenterConfig(threads=1))


class _Inputs(CalibrationDataReader):  # type: ignore[misc]
    """The inputs of images, as ONNX Runtime's quantizer takes them."""

    def __init__(self, name: str, weights: Weights, images: Sequence[SmallImage]) -> None:
        squares = (image.square[None] for image in images)
        self._inputs = ({name: normalize_images(each, weights.facts)} for each in squares)

    def get_next(self) -> dict[str, Tensor] | None:
        """Return the next input, or None after the last one."""
        return next(self._inputs, None)


def _folded(weights: Weights) -> bytes:
    folded = read_folded(weights.path, batches=False)
    if folded is None:
        raise ValueError(f"{weights.path} has nodes that contain graphs")
    content: bytes = folded.SerializeToString()
    return content
