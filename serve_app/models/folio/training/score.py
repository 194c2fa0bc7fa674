"""Score ``folio`` on new photographs: ``python -m serve_app.models.folio.training.score``.

It draws photographs that no training has seen, runs the model as the application does, and compares
its masks with the true ones. It also reports how well the confidence of a mask predicts its score,
compared with other signals.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from serve_app.config import AppConfig, ImageLimits, SegmenterConfig
from serve_app.imaging.decode import decode_image
from serve_app.imaging.mask import mask_confidence, resize_for_model, resize_mask, subject_pixels
from serve_app.models.facts import MODEL_FACTS
from serve_app.models.folio.synthetic.photograph import Kind, draw_photograph
from serve_app.models.gate import intersection_over_union
from serve_app.models.inference import Model, OnnxModel, load_model
from serve_app.models.registry import BUNDLED_MODEL, Weights

HELD_OUT_SEED = 500_000
"""First seed of scored photographs. Those of the training begin at 1,000,000."""

# The photographs are not square, so that the squash to the model's square is scored as well.
_WIDTH, _HEIGHT = 480, 360
_POOR_BELOW = 0.8
_DOUBTED_SHARE = 0.1


def subject_share(mask: npt.NDArray[np.uint8]) -> float:
    """Return the share of a mask, uint8 [S, S], that belongs to the subject."""
    return float((subject_pixels(mask) > 0).mean())


def border_outside_subject(mask: npt.NDArray[np.uint8]) -> float:
    """Return the share of the border of a mask, uint8 [S, S], outside of the subject."""
    subject = subject_pixels(mask) > 0
    edges = np.concatenate([subject[0], subject[-1], subject[:, 0], subject[:, -1]])
    return 1 - float(edges.mean())


SIGNALS: dict[str, Callable[[npt.NDArray[np.uint8]], float]] = {
    "confidence": mask_confidence,
    "subject's share": subject_share,
    "border without subject": border_outside_subject,
    "confidence x border": lambda mask: mask_confidence(mask) * border_outside_subject(mask),
}
"""Signals that might predict the quality of a mask. Each should be higher for a better mask."""


@dataclass(frozen=True, slots=True)
class Score:
    """The score of one photograph."""

    kind: Kind
    category: str
    iou: float
    """Intersection over union of the pixels from 128 on. An empty scene scores 1 if its mask is
    empty, and 0 otherwise."""
    signals: dict[str, float]
    """Values of ``SIGNALS`` for the mask, or no values if the mask is empty."""


def score_photographs(
    model: Model, kind: Kind, count: int, first_seed: int = HELD_OUT_SEED
) -> list[Score]:
    """Return the scores of a model on new photographs.

    Args:
        model: Model to score.
        kind: Kind of the subjects.
        count: Number of photographs.
        first_seed: Seed of the first photograph. The others follow it.
    """
    return [_score_photograph(model, kind, seed) for seed in range(first_seed, first_seed + count)]


def mean_iou(scores: list[Score]) -> float:
    """Return the mean intersection over union of scores."""
    return float(np.mean([each.iou for each in scores]))


def _score_photograph(model: Model, kind: Kind, seed: int) -> Score:
    taken = draw_photograph(seed, width=_WIDTH, height=_HEIGHT, kind=kind)
    seen = resize_for_model(taken.image, model.size_px)
    mask = model.masks(seen[None])[0]
    signals = {name: signal(mask) for name, signal in SIGNALS.items()} if mask.any() else {}
    alpha = resize_mask(mask, _WIDTH, _HEIGHT)
    return Score(kind, taken.category, intersection_over_union(alpha, taken.mask), signals)


def rank_correlation(first: list[float], second: list[float]) -> float:
    """Return Spearman's rank correlation of two lists of the same length, -1 to 1."""
    ranks = [np.argsort(np.argsort(values)) for values in (first, second)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def print_scores(
    model: Annotated[
        Path | None, typer.Option(help="ONNX file to score instead of the bundled one.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Number of photographs of each kind.")] = 300,
    first_seed: Annotated[
        int, typer.Option(help="Seed of the first photograph of each kind.")
    ] = HELD_OUT_SEED,
    references: Annotated[
        Path | None,
        typer.Option(help="Folder of NAME.jpg and cut-outs NAME.out.png to score instead."),
    ] = None,
) -> None:
    """Score folio on photographs that no training has seen."""
    console = Console()
    loaded: Model
    if model is None:
        loaded = load_model(BUNDLED_MODEL, AppConfig.load())
    else:
        weights = Weights(BUNDLED_MODEL, model, "", MODEL_FACTS[BUNDLED_MODEL])
        loaded = OnnxModel(weights, SegmenterConfig())
    if references is not None:
        console.print(_reference_table(loaded, references))
        return
    kinds: tuple[Kind, ...] = ("book", "object", "empty")
    everything: list[Score] = []
    table = Table("", "photographs", "mean IoU", "median", f"IoU < {_POOR_BELOW}")
    for kind in kinds:
        seeds = range(first_seed, first_seed + count)
        scores = [
            _score_photograph(loaded, kind, seed)
            for seed in track(seeds, kind, console=console, transient=True)
        ]
        everything += scores
        _add_row(table, kind, scores)
        categories: dict[str, list[Score]] = defaultdict(list)
        for each in scores:
            categories[each.category].append(each)
        if len(categories) > 1:
            for name, some in sorted(categories.items()):
                _add_row(table, f"  {name}", some)
    console.print(table)
    console.print(_signal_table([each for each in everything if each.signals]))


def _reference_table(model: Model, folder: Path) -> Table:
    """Return the scores of photographs with reference cut-outs."""
    table = Table("photograph", "IoU", "mask confidence")
    for path in sorted(folder.glob("*.jpg")):
        taken = decode_image(path.read_bytes(), ImageLimits())
        wanted = decode_image(path.with_suffix(".out.png").read_bytes(), ImageLimits()).alpha
        mask = model.masks(resize_for_model(taken.rgb, model.size_px)[None])[0]
        found = resize_mask(mask, taken.width, taken.height)
        value = "no alpha" if wanted is None else f"{intersection_over_union(found, wanted):.2f}"
        table.add_row(path.stem, value, f"{mask_confidence(mask):.2f}")
    return table


def _signal_table(scores: list[Score]) -> Table:
    """Return how well each signal predicts the scores of masks that are not empty."""
    doubted = max(1, round(_DOUBTED_SHARE * len(scores)))
    poor = sum(each.iou < _POOR_BELOW for each in scores)
    first = f"poor masks in the first {_DOUBTED_SHARE:.0%}"
    table = Table("signal", "rank correlation with IoU", first)
    for name in SIGNALS:
        values = [each.signals[name] for each in scores]
        correlation = rank_correlation(values, [each.iou for each in scores])
        lowest = [scores[i] for i in np.argsort(values)[:doubted]]
        found = sum(each.iou < _POOR_BELOW for each in lowest)
        table.add_row(name, f"{correlation:.2f}", f"{found} of {poor}")
    return table


def _add_row(table: Table, name: str, scores: list[Score]) -> None:
    values = np.array([each.iou for each in scores])
    poor = f"{(values < _POOR_BELOW).mean():.1%}"
    table.add_row(name, str(len(values)), f"{values.mean():.3f}", f"{np.median(values):.3f}", poor)


if __name__ == "__main__":
    typer.run(print_scores)
