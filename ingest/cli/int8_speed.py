"""How much faster int8 is than float32 on this machine, measured in rounds.

One measurement of each would let other work on the machine decide, and a file is removed if int8 is
not faster.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ingest.node.speed import Case, CaseSpeed, measure_case
from serve_app.models.engines.choice import Choice
from serve_app.models.engines.network import INT8
from serve_app.models.registry import Weights

ROUNDS = 5
"""Number of rounds. It is odd, so that most of them agree."""
_SPEED_S = 0.8
"""Seconds for which each speed of a round is measured."""


@dataclass(frozen=True, slots=True)
class Int8Speed:
    """The CPU seconds of a mask in both precisions, by round."""

    float32_s: tuple[float, ...]
    """CPU seconds in float32."""
    int8_s: tuple[float, ...]
    """CPU seconds in int8, each measured right after that in float32."""

    @property
    def ratios(self) -> list[float]:
        """How many times as fast int8 was in each round."""
        return [a / b for a, b in zip(self.float32_s, self.int8_s, strict=True)]

    @property
    def ratio(self) -> float:
        """Median of these ratios."""
        return statistics.median(self.ratios)

    @property
    def is_faster(self) -> bool:
        """Whether int8 was faster in most rounds."""
        return 2 * sum(ratio > 1 for ratio in self.ratios) > len(self.ratios)

    def medians(self) -> dict[str, float]:
        """Return the median CPU seconds by precision."""
        return {
            "float32": statistics.median(self.float32_s),
            "int8": statistics.median(self.int8_s),
        }


def measure_int8_speed(
    weights: Weights, graph: bytes, measure: Callable[[Case], CaseSpeed] = measure_case
) -> Int8Speed:
    """Return the speed of a model and of its graph in int8, in turns, on one thread.

    Args:
        weights: The model.
        graph: Graph of the model in int8.
        measure: Function that measures a case.
    """
    with tempfile.TemporaryDirectory(prefix="foreedge-") as folder:
        derived = Path(folder, "int8.onnx")
        derived.write_bytes(graph)
        cases = [Case(weights, choice, 1, _SPEED_S) for choice in (Choice(), Choice(INT8, derived))]
        rounds = [[measure(case).cpu_s_per_image for case in cases] for _ in range(ROUNDS)]
    float32_s, int8_s = zip(*rounds, strict=True)
    return Int8Speed(float32_s, int8_s)
