"""int8 is judged by the speed of several rounds, so that a busy moment removes no file."""

from __future__ import annotations

from pathlib import Path

import pytest

from ingest.cli.int8_speed import ROUNDS, Int8Speed, measure_int8_speed
from ingest.node.speed import Case, CaseSpeed
from serve_app.models.facts import CUSTOM_MODEL_FACTS
from serve_app.models.registry import Weights

WEIGHTS = Weights("own", Path("own.onnx"), "0" * 64, CUSTOM_MODEL_FACTS)


@pytest.mark.parametrize(
    ("int8_s", "ratio", "faster"),
    [
        ((0.5, 0.5, 0.5, 0.5, 0.5), 2.0, True),
        # Something else was busy in two of the rounds.
        ((0.5, 4.0, 0.5, 4.0, 0.5), 2.0, True),
        ((0.5, 1.25, 0.5, 1.25, 1.25), 0.8, False),
        ((1.0, 1.0, 1.0, 1.0, 1.0), 1.0, False),
    ],
)
def test_most_rounds_decide(int8_s: tuple[float, ...], ratio: float, faster: bool) -> None:
    speed = Int8Speed((1.0,) * ROUNDS, int8_s)
    assert (speed.ratio, speed.is_faster) == (ratio, faster)


def test_both_precisions_are_measured_in_turns() -> None:
    seconds = iter([1.0, 0.5, 8.0, 4.0, 1.0, 0.5, 1.0, 0.25, 1.0, 2.0])
    asked: list[str] = []

    def measure(case: Case) -> CaseSpeed:
        asked.append(case.choice.pair.precision)
        if case.choice.derived is not None:
            assert case.choice.derived.read_bytes() == b"graph"
        return CaseSpeed(
            engine=case.choice.pair.engine,
            precision=case.choice.pair.precision,
            threads=case.threads,
            images_per_s=1,
            cpu_s_per_image=next(seconds),
            peak_mb=1,
        )

    found = measure_int8_speed(WEIGHTS, b"graph", measure)
    assert asked == ["float32", "int8"] * ROUNDS
    # A slow round is slow for both, and so says the same of int8.
    assert found.ratios == [2, 2, 2, 4, 0.5]
    assert (found.ratio, found.is_faster) == (2, True)
    assert found.medians() == {"float32": 1.0, "int8": 0.5}
