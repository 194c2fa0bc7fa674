"""The interface of a loaded graph, and the pairs of engine and precision that there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from serve_app.contracts.precision import Engine, Precision

Tensor = npt.NDArray[np.float32]


class Network(Protocol):
    """A loaded graph, which threads may share."""

    input_shape: list[Any]
    """Shape of its input. An axis of any size has a name instead of a number."""

    def run(self, images: Tensor) -> Tensor:
        """Return the first channel of the graph's first output.

        Args:
            images: float32 [N, 3, S, S].

        Returns:
            float32 [N, S, S].

        Raises:
            Exception: The engine's own, which have no common class.
        """
        ...


@dataclass(frozen=True, slots=True)
class Pair:
    """An engine with a precision."""

    engine: Engine
    """Library that runs the graph."""
    precision: Precision
    """Precision of its sums."""

    def __str__(self) -> str:
        return f"{self.engine} {self.precision}"

    @property
    def changes_numbers(self) -> bool:
        """Whether its masks differ by more than the order of float32 sums."""
        return self.precision != "float32"


EXACT = Pair("onnxruntime", "float32")
"""The pair that serves if no other one may."""
GATED = (Pair("openvino", "bfloat16"), Pair("openvino", "float16"))
"""Pairs that change numbers, and so need a gate. Their graph is derived without calibration."""
INT8 = Pair("onnxruntime", "int8")
"""The pair whose graph is quantized. It needs images for its calibration, and the gate."""
OPENVINO_EXACT = Pair("openvino", "float32")
"""OpenVINO with the default's precision. Its masks are compared when it is loaded."""
EVERY_PAIR = (EXACT, OPENVINO_EXACT, *GATED, INT8)
"""All pairs that there are."""
