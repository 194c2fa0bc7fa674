"""Metrics of masks, compared with values that were worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from loadtests.quality.metrics import (
    Bin,
    boundary_f_score,
    calibration_error,
    mean_absolute_error,
    rank_correlation,
    reliability,
    share_within,
)
from serve_app.imaging.pixels import Pixels
from serve_app.models.gate import intersection_over_union


def square(left: int, right: int, value: int = 255, side: int = 100) -> Pixels:
    """Return a mask with a square of columns and rows from ``left`` up to ``right``."""
    mask = np.zeros((side, side), np.uint8)
    mask[left:right, left:right] = value
    return mask


EMPTY = np.zeros((100, 100), np.uint8)


def test_intersection_over_union() -> None:
    # Squares of 40 and 20 pixels, one inside of the other: 400 of 1600.
    assert intersection_over_union(square(30, 70), square(40, 60)) == 0.25
    assert intersection_over_union(square(30, 70), EMPTY) == 0
    assert intersection_over_union(EMPTY, EMPTY) == 1
    # A pixel belongs to the subject from 128 on.
    assert intersection_over_union(square(30, 70, 127), square(30, 70)) == 0
    assert intersection_over_union(square(30, 70, 128), square(30, 70)) == 1


def test_mean_absolute_error() -> None:
    # 1600 of 10,000 pixels differ by 51 of 255.
    assert mean_absolute_error(square(30, 70, 204), square(30, 70)) == pytest.approx(0.16 * 0.2)
    assert mean_absolute_error(square(30, 70), square(30, 70)) == 0


def test_the_boundary_may_be_off_by_the_tolerance() -> None:
    # The diagonal is 141.4 pixels: the tolerance of 0.8 % is rounded up to 2 pixels.
    truth = square(30, 70)
    assert boundary_f_score(truth, truth) == 1
    assert boundary_f_score(square(29, 71), truth) == 1
    # Two pixels off, only the corners are farther than the tolerance.
    assert 0.95 < boundary_f_score(square(28, 72), truth) < 1
    assert boundary_f_score(square(20, 80), truth) == 0


def test_the_boundary_score_is_the_harmonic_mean_of_precision_and_recall() -> None:
    truth = square(30, 70)
    found = truth.copy()
    found[5:15, 5:15] = 255
    # A square of n x n has 4 n boundary pixels: 2 n - 1 on its right and lower edge, and 2 n + 1
    # outside of its left and upper edge.
    ours, wanted = 4 * 40 + 4 * 10, 4 * 40
    precision, recall = wanted / ours, 1.0
    expected = 2 * precision * recall / (precision + recall)
    assert boundary_f_score(found, truth) == pytest.approx(expected)
    # It is symmetric: precision and recall change places.
    assert boundary_f_score(truth, found) == pytest.approx(boundary_f_score(found, truth))


def test_a_mask_without_a_boundary_scores_only_if_there_is_none() -> None:
    assert boundary_f_score(EMPTY, square(30, 70)) == 0
    assert boundary_f_score(square(30, 70), EMPTY) == 0
    assert boundary_f_score(EMPTY, EMPTY) == 1


def test_share_within_levels() -> None:
    near, far = square(0, 50, 102), square(0, 50, 108)
    reference = square(0, 50, 100)
    assert share_within(near, reference, 2) == 1
    assert share_within(far, reference, 2) == 0.75
    assert share_within(far, reference, 8) == 1


def test_reliability_and_calibration_error() -> None:
    bins = reliability([0.05, 0.15, 0.18, 0.95, 1.0], [0.0, 0.5, 0.6, 0.9, 1.0])
    assert [(each.low, each.high, each.count) for each in bins] == [
        (0.0, 0.1, 1),
        (0.1, 0.2, 2),
        (0.9, 1.0, 2),
    ]
    assert [each.confidence for each in bins] == pytest.approx([0.05, 0.165, 0.975])
    assert [each.iou for each in bins] == pytest.approx([0.0, 0.55, 0.95])
    assert calibration_error(bins) == pytest.approx((0.05 + 2 * 0.385 + 2 * 0.025) / 5)
    assert calibration_error([Bin(0, 0.1, 4, 0.5, 0.5)]) == 0


def test_rank_correlation() -> None:
    assert rank_correlation([0.1, 0.5, 0.9], [1, 2, 30]) == pytest.approx(1)
    assert rank_correlation([0.1, 0.5, 0.9], [3, 2, 1]) == pytest.approx(-1)
    # Ranks 1, 2.5, 2.5, 4 and 1, 2, 3, 4: the covariance of 4.5 by the root of 4.5 x 5.
    assert rank_correlation([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(4.5 / (4.5 * 5) ** 0.5)
    assert rank_correlation([1, 1, 1], [1, 2, 3]) == 0
