"""The reliability diagram of each model, as an image for the documents."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from loadtests.quality.metrics import reliability
from loadtests.quality.tables import Evaluation

FIGURE = Path("docs/images/quality-confidence.png")
"""Diagram in the documents."""

_BINS = 10


def draw_reliability(evaluations: Sequence[Evaluation], path: Path) -> None:
    """Draw a diagram for each evaluation: the mean IoU of the masks of each tenth of confidence.

    Args:
        evaluations: Evaluations of models with the plain recipe.
        path: PNG file to write.
    """
    figure = Figure(figsize=(3.6 * len(evaluations), 3.7), dpi=110)
    axes: list[Axes] = list(figure.subplots(1, len(evaluations), sharey=True, squeeze=False)[0])
    for each, evaluation in zip(axes, evaluations, strict=True):
        confidences = [score.confidence for score in evaluation.scores]
        ious = [score.iou for score in evaluation.scores]
        each.plot([0, 1], [0, 1], color="#cfcac0", linewidth=1, zorder=1)
        each.scatter(confidences, ious, s=9, color="#8fb8a4", alpha=0.7, linewidths=0, zorder=2)
        for group in reliability(confidences, ious, _BINS):
            middle = (group.low + group.high) / 2
            each.bar(middle, group.iou, 0.9 / _BINS, color="#5b6b8c", alpha=0.35, zorder=0)
            each.text(middle, group.iou + 0.02, str(group.count), ha="center", fontsize=7)
        model = evaluation.system.models[0]
        each.set_title(f"{model}, {evaluation.images}", fontsize=10)
        each.set_xlabel("confidence of the mask", fontsize=9)
        each.set_xlim(0, 1)
        each.set_ylim(0, 1.08)
        each.tick_params(labelsize=8)
        each.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("IoU with the true mask", fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, bbox_inches="tight", metadata={"Software": None})
