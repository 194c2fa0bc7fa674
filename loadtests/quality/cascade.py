"""The confidence from which a cascade takes the first model's mask, and what the cascade costs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from loadtests.quality.evaluation import Score

MAX_LOSS = 0.005
"""Mean intersection over union that a cascade may lose against its last model alone."""

_THRESHOLDS = tuple(round(0.5 + 0.01 * step, 2) for step in range(50))


@dataclass(frozen=True, slots=True)
class Choice:
    """What a cascade would do with a least confidence."""

    answered: float
    """Share of the images that the first model answers."""
    loss: float
    """Mean intersection over union that the cascade loses against the last model alone."""


def simulate(first: Sequence[Score], last: Sequence[Score], min_confidence: float) -> Choice:
    """Return what a cascade of two models would do, from their scores on the same images.

    Args:
        first: Scores of the model that is asked first.
        last: Scores of the other model, in the same order.
        min_confidence: Least confidence with which the first model answers.
    """
    sure = np.array([score.confidence >= min_confidence for score in first])
    mine, alone = np.array([s.iou for s in first]), np.array([s.iou for s in last])
    return Choice(float(sure.mean()), float(np.where(sure, alone - mine, 0).mean()))


def choose_confidence(first: Sequence[Score], last: Sequence[Score]) -> float:
    """Return the least confidence with which the first model answers most, and little is lost.

    From it up to 0.99, every cascade loses less than ``MAX_LOSS``. If even that of 0.99 loses more,
    it is 0.99.

    Args:
        first: Scores of the model that is asked first.
        last: Scores of the other model, in the same order.
    """
    chosen = _THRESHOLDS[-1]
    for least in reversed(_THRESHOLDS):
        if simulate(first, last, least).loss >= MAX_LOSS:
            break
        chosen = least
    return chosen


@dataclass(frozen=True, slots=True)
class CrossFit:
    """Confidences that were chosen on one half of the subjects, and measured on the other."""

    chosen: tuple[float, float]
    """Least confidence that each half chose."""
    answered: float
    """Share of the images that the first model answers, with the choice of the other half."""
    loss: float
    """Mean intersection over union that is lost, with the choice of the other half."""

    @property
    def min_confidence(self) -> float:
        """The more careful of both choices."""
        return max(self.chosen)


def cross_fit(first: Sequence[Score], last: Sequence[Score]) -> CrossFit:
    """Choose a least confidence on each half of the subjects, and measure it on the other half.

    The training of the first model may have seen every other part of the set, on which it is surer
    than it should be. So the choice is made on the test part, but never on what it is measured on.

    Args:
        first: Scores of the model that is asked first.
        last: Scores of the other model, in the same order.
    """
    halves: tuple[list[int], list[int]] = ([], [])
    for place, score in enumerate(first):
        halves[_half(score.name)].append(place)
    scores = [([first[i] for i in half], [last[i] for i in half]) for half in halves]
    chosen = choose_confidence(*scores[0]), choose_confidence(*scores[1])
    measured = simulate(*scores[0], chosen[1]), simulate(*scores[1], chosen[0])
    shares = [len(half) / len(first) for half in halves]
    return CrossFit(
        chosen,
        sum(share * choice.answered for share, choice in zip(shares, measured, strict=True)),
        sum(share * choice.loss for share, choice in zip(shares, measured, strict=True)),
    )


def _half(name: str) -> int:
    """Return the half, 0 or 1, of an image. Images of one kind of subject are in the same."""
    kind = name.split("-", 2)[2]
    return hashlib.sha256(kind.encode()).digest()[-1] & 1
