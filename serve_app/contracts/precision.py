"""Names of engines, precisions and accuracies, as settings and reports have them."""

from __future__ import annotations

from typing import Literal

Engine = Literal["onnxruntime", "openvino"]
"""Library that runs a model."""
EngineSetting = Literal["onnxruntime", "openvino", "auto"]
"""Engine as a setting, which may leave the choice to the machine."""
Precision = Literal["float32", "bfloat16", "float16", "int8"]
"""Numbers that a model's sums are made of."""
Accuracy = Literal["exact", "close", "fast"]
"""How near masks must be to those of rembg in float32 (``serve_app/models/gate.py``)."""
