"""The numbers of ``make quality`` as the tables of docs/quality.md and docs/recipes.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from loadtests.quality.cascade import MAX_LOSS, CrossFit
from loadtests.quality.evaluation import LEVELS, Score, System
from loadtests.quality.metrics import GOOD_IOU, calibration_error, rank_correlation, reliability
from loadtests.quality.packages import Package

SURE_FROM = 0.95
"""Confidence from which a mask counts as sure."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The scores of a system on a set."""

    images: str
    """Name of the set."""
    system: System
    scores: list[Score]

    def mean(self, field: str) -> float:
        """Return the mean of a field of the scores."""
        return float(np.mean([getattr(score, field) for score in self.scores]))


@dataclass(frozen=True, slots=True)
class Weights:
    """The weights of a measured model."""

    model: str
    precision: str
    sha256: str


@dataclass(frozen=True, slots=True)
class CascadeResult:
    """A cascade on the test part, next to its last model alone."""

    fit: CrossFit
    """How the least confidence was chosen, and what that is worth."""
    cascade: Evaluation
    """The cascade with the chosen confidence, in the product's pipeline."""
    last: Evaluation

    @property
    def loss(self) -> float:
        """Mean intersection over union that it loses against the last model alone."""
        return self.last.mean("iou") - self.cascade.mean("iou")

    @property
    def answered(self) -> float:
        """Share of the images that the first model answered."""
        first = self.cascade.system.models[0]
        return sum(s.model == first for s in self.cascade.scores) / len(self.cascade.scores)

    @property
    def speed(self) -> float:
        """CPU seconds of the last model alone, as a multiple of the cascade's."""
        return self.last.mean("cpu_s") / self.cascade.mean("cpu_s")

    @property
    def recommended(self) -> bool:
        """Whether it loses little enough, also on subjects that did not choose the confidence."""
        return max(self.loss, self.fit.loss) < MAX_LOSS


def masks_table(evaluations: Sequence[Evaluation], weights: Sequence[Weights]) -> str:
    """Return the table of a set: one row for each model, precision and recipe."""
    precisions = {each.model: each.precision for each in weights}
    near = [f"within {levels} of rembg" for levels in LEVELS]
    heads = [
        "model", "precision", "recipe", "IoU", "median", f"≥ {GOOD_IOU}", "error", "boundary F",
        *near, "CPU s",
    ]  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", "|---|---|---|" + "---:|" * (len(heads) - 3)]
    for each in evaluations:
        models = each.system.models
        ious = np.array([score.iou for score in each.scores])
        cells = [
            ", ".join(models),
            ", ".join(sorted({precisions[name] for name in models})),
            each.system.name,
            f"{ious.mean():.3f}",
            f"{np.median(ious):.3f}",
            f"{(ious >= GOOD_IOU).mean():.0%}",
            f"{each.mean('error'):.4f}",
            f"{each.mean('boundary'):.3f}",
            *_near_cells(each.scores),
            f"{each.mean('cpu_s'):.3f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _near_cells(scores: Sequence[Score]) -> list[str]:
    compared = [score.within for score in scores if score.within is not None]
    if not compared:
        return [""] * len(LEVELS)
    means = np.mean(compared, axis=0)
    return [f"{share:.3%} of {len(compared)}" for share in means]


def confidence_table(evaluations: Sequence[Evaluation]) -> str:
    """Return the table of what the confidence of each model is worth."""
    heads = [
        "model", "set", f"sure (≥ {SURE_FROM})", f"of these, IoU ≥ {GOOD_IOU}",
        "rank correlation", "calibration error",
    ]  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", "|---|---|---:|---:|---:|---:|"]
    for each in evaluations:
        confidences = [score.confidence for score in each.scores]
        ious = [score.iou for score in each.scores]
        sure = [iou for iou, value in zip(ious, confidences, strict=True) if value >= SURE_FROM]
        good = f"{np.mean(np.array(sure) >= GOOD_IOU):.0%}" if sure else ""
        error = calibration_error(reliability(confidences, ious))
        cells = [
            each.system.models[0], each.images, f"{len(sure) / len(ious):.0%}", good,
            f"{rank_correlation(confidences, ious):.2f}", f"{error:.3f}",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def cascade_text(result: CascadeResult) -> str:
    """Return what came out for the cascade, in sentences."""
    first, last = result.cascade.system.models
    least = result.fit.min_confidence
    limit = f"{MAX_LOSS:g}"
    halves = " and ".join(f"{each:g}" for each in result.fit.chosen)
    verdict = (
        f"Both losses are below {limit}, so `checks.min_confidence: {least:g}` is the recommended "
        "setting where speed counts."
        if result.recommended
        else f"Not both losses are below {limit}, so the cascade is not recommended: use {last} "
        "alone."
    )
    return (
        f"Each half of the test part's subjects chose the lowest confidence from which less than "
        f"{limit} of mean IoU is lost ({halves}). Measured on the other half, {first} answers "
        f"{result.fit.answered:.0%} of the images, and the cascade loses {result.fit.loss:.4f} "
        f"against {last} alone. With the more careful one, {least:g}, {first} answers "
        f"{result.answered:.0%}. The mean IoU is {result.cascade.mean('iou'):.4f}, that of {last} "
        f"alone {result.last.mean('iou'):.4f}: a loss of {result.loss:.4f}. An image takes "
        f"{result.cascade.mean('cpu_s'):.3f} CPU seconds instead of "
        f"{result.last.mean('cpu_s'):.3f}, so {result.speed:.2f} times as many images are done in "
        f"the same time. {verdict}"
    )


def material_text(packages: Sequence[Package], weights: Sequence[Weights]) -> str:
    """Return the versions and digests of what was measured with."""
    lines = ["| what | version | SHA-256 |", "|---|---|---|"]
    lines += [f"| {each.name} | {each.version} | `{each.sha256}` |" for each in packages]
    lines += [
        f"| weights of {each.model} | {each.precision} | `{each.sha256}` |" for each in weights
    ]
    return "\n".join(lines)


def as_json(
    evaluations: Sequence[Evaluation], packages: Sequence[Package], weights: Sequence[Weights]
) -> dict[str, Any]:
    """Return all scores and what they were measured with, for a file."""
    return {
        "packages": {p.name: {"version": p.version, "sha256": p.sha256} for p in packages},
        "weights": {w.model: {"precision": w.precision, "sha256": w.sha256} for w in weights},
        "evaluations": [
            {
                "set": each.images,
                "models": each.system.models,
                "recipe": each.system.recipe,
                "scores": [
                    {name: getattr(score, name) for name in Score.__dataclass_fields__}
                    for score in each.scores
                ],
            }
            for each in evaluations
        ],
    }
