"""How far a mask is from the true one, and how well its confidence says so."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from serve_app.imaging.mask import subject_pixels
from serve_app.imaging.pixels import Pixels

GOOD_IOU = 0.9
"""Intersection over union from which a mask counts as good."""

_BOUNDARY_TOLERANCE = 0.008


def mean_absolute_error(found: Pixels, truth: Pixels) -> float:
    """Return the mean difference of two masks, uint8 [H, W], on a scale from 0 to 1."""
    return float(cv2.absdiff(found, truth).mean()) / 255


def boundary_f_score(found: Pixels, truth: Pixels) -> float:
    """Return the boundary F-score of two masks, 0 to 1.

    It is F of DAVIS (Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video
    Object Segmentation", CVPR 2016), after Martin et al. (2004): the harmonic mean of the share of
    the found boundary that lies near the true one, and of the share of the true boundary that lies
    near the found one. Near means within 0.8 % of the diagonal, rounded up to pixels.

    Args:
        found: Mask, uint8 [H, W].
        truth: True mask, uint8 [H, W].
    """
    ours, wanted = _boundary(found), _boundary(truth)
    if not ours.any() or not wanted.any():
        return float(ours.any() == wanted.any())
    radius_px = math.ceil(_BOUNDARY_TOLERANCE * math.hypot(*truth.shape))
    precision = float(_near(wanted, radius_px)[ours > 0].mean())
    recall = float(_near(ours, radius_px)[wanted > 0].mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _boundary(mask: Pixels) -> Pixels:
    """Return the pixels, uint8 [H, W], 0 or 1, that differ from one to the right or below."""
    subject = subject_pixels(mask) > 0
    padded = np.pad(subject, ((0, 1), (0, 1)), mode="edge")
    east, south, diagonal = padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    return np.asarray((subject != east) | (subject != south) | (subject != diagonal), np.uint8)


def _near(boundary: Pixels, radius_px: int) -> Pixels:
    """Return the pixels within a radius of a boundary, uint8 [H, W], 0 or 1."""
    y, x = np.mgrid[-radius_px : radius_px + 1, -radius_px : radius_px + 1]
    disc = np.asarray(x**2 + y**2 <= radius_px**2, np.uint8)
    return np.asarray(cv2.dilate(boundary, disc), np.uint8)


def share_within(found: Pixels, reference: Pixels, levels: int) -> float:
    """Return the share of pixels that differ by at most so many grey levels, 0 to 1."""
    return float((cv2.absdiff(found, reference) <= levels).mean())


@dataclass(frozen=True, slots=True)
class Bin:
    """The masks whose confidence lies in an interval."""

    low: float
    """Lower end of the interval."""
    high: float
    """Upper end of the interval, which belongs to the last one only."""
    count: int
    """Number of masks."""
    confidence: float
    """Mean confidence."""
    iou: float
    """Mean intersection over union."""


def reliability(confidences: Sequence[float], ious: Sequence[float], bins: int = 10) -> list[Bin]:
    """Return the bins of a reliability diagram that are not empty.

    It is that of DeGroot and Fienberg (1983), with the intersection over union in place of the
    share of right answers.

    Args:
        confidences: Confidence of each mask, 0 to 1.
        ious: Intersection over union of each mask, in the same order.
        bins: Number of equal intervals from 0 to 1.
    """
    confidence, iou = np.asarray(confidences), np.asarray(ious)
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    found = []
    for number in range(bins):
        inside = place == number
        if count := int(inside.sum()):
            means = float(confidence[inside].mean()), float(iou[inside].mean())
            found.append(Bin(number / bins, (number + 1) / bins, count, *means))
    return found


def calibration_error(bins: Sequence[Bin]) -> float:
    """Return the mean distance of confidence and intersection over union over the masks of bins.

    It is the expected calibration error of Naeini et al. (AAAI 2015).
    """
    total = sum(each.count for each in bins)
    return sum(each.count * abs(each.confidence - each.iou) for each in bins) / total


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Return Spearman's rank correlation, -1 to 1. Equal values share their mean rank.

    It is 0 if all values of a sequence are equal.
    """
    ranks = [_ranks(np.asarray(values)) for values in (first, second)]
    if any(np.ptp(rank) == 0 for rank in ranks):
        return 0.0
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean = last - (counts - 1) / 2
    return np.asarray(mean[place])
