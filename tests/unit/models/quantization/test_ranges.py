"""The ranges of values, without their rare extremes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from serve_app.models.quantization.layers import LayeredGraph
from serve_app.models.quantization.ranges import ValueHistogram, measure_ranges
from tests.support.quantized import SIDE_PX, small_network


@pytest.mark.parametrize("share", [0.5, 0.9, 0.999])
def test_a_span_is_that_of_the_sorted_values(share: float) -> None:
    random = np.random.default_rng(1)
    parts = [random.exponential(scale, 50_000).astype(np.float32) for scale in (0.01, 1, 3)]
    histogram = ValueHistogram()
    for part in parts:
        histogram.add(part)
    low, high = histogram.span(share)
    whole = np.concatenate(parts)
    assert low == 0
    assert high == pytest.approx(np.quantile(whole, share), rel=0.02, abs=0.02)


def test_negative_values_are_cut_too() -> None:
    values = np.random.default_rng(2).normal(0, 1, 200_000).astype(np.float32)
    values[:10] = -1000
    histogram = ValueHistogram()
    histogram.add(values)
    low, high = histogram.span(0.999)
    # One bin of so large a range is a quarter wide.
    assert low == pytest.approx(np.quantile(values, 0.0005), abs=0.3)
    assert high == pytest.approx(np.quantile(values, 0.9995), abs=0.3)
    assert histogram.span(1.0) == (-1000, values.max())


def test_a_range_holds_zero() -> None:
    histogram = ValueHistogram()
    histogram.add(np.full(100, 5, np.float32))
    assert histogram.span(1.0) == (0, 5)
    negative = ValueHistogram()
    negative.add(np.full(100, -5, np.float32))
    assert negative.span(1.0) == (-5, 0)


def test_every_value_that_may_be_an_integer_has_a_range(tmp_path: Path) -> None:
    layered = LayeredGraph(onnx.load(small_network(tmp_path / "small.onnx")))
    image = np.random.default_rng(3).normal(0, 1, (1, 3, SIDE_PX, SIDE_PX)).astype(np.float32)
    *runs, found = measure_ranges(layered, [image], [1.0, 0.9])
    assert runs == [None] * len(runs)
    assert found is not None
    ranges = found[1.0]
    assert found[0.9].keys() == ranges.keys()
    assert found[0.9]["relu0"][1] < ranges["relu0"][1]
    assert ranges.keys() >= layered.integers(()) | {"image"}
    # What passes values on has the scale of its input, and needs no second rounding.
    assert ranges["pooled"] == ranges["relu0"]
    assert ranges["enlarged"] == ranges["sum"]
    assert ranges["image"] == (float(image.min()), float(image.max()))
