"""The spread that the benchmark of the metrics reports."""

from __future__ import annotations

import random

import pytest

from loadtests.benchmarks.metrics import median_interval


@pytest.mark.parametrize("pairs", [15, 60, 200])
def test_the_interval_holds_the_true_median_in_19_of_20_cases(pairs: int) -> None:
    drawn = random.Random(pairs)
    held = 0
    for _ in range(2000):
        low, high = median_interval([drawn.expovariate(1) for _ in range(pairs)])
        held += low <= 0.6931 <= high
    assert 0.93 < held / 2000 < 0.985


def test_one_value_is_its_own_interval() -> None:
    assert median_interval([0.02]) == (0.02, 0.02)
