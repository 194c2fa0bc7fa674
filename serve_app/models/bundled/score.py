"""How good ``folio`` is: ``python -m serve_app.models.bundled.score``.

Draws photographs that no training has seen, runs the model as the application does, and compares
its masks with the true ones.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import typer
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

from serve_app.config import AppConfig, SegmenterConfig
from serve_app.imaging.mask import full_size, model_input, subject_pixels
from serve_app.models.bundled.synthetic import Kind, photograph
from serve_app.models.execution import Model, OnnxModel, load
from serve_app.models.registry import BUNDLED, FACTS, Weights

HELD_OUT_SEED = 500_000
"""Seeds of scores begin here; those of the training are from 1,000,000 on."""

# Not square, since rembg's squash to a square is a part of what is scored.
_WIDTH, _HEIGHT = 480, 360


@dataclass(frozen=True, slots=True)
class Score:
    """How one photograph went."""

    kind: Kind
    category: str
    iou: float
    """Of the pixels from 128 on; for an empty scene 1 where the mask is empty, else 0."""


def score(model: Model, kind: Kind, count: int, first_seed: int = HELD_OUT_SEED) -> list[Score]:
    """Return the scores of a model on fresh photographs of a kind."""
    return [_score_one(model, kind, seed) for seed in range(first_seed, first_seed + count)]


def mean_iou(scores: list[Score]) -> float:
    """Return the mean of the scores."""
    return float(np.mean([each.iou for each in scores]))


def iou(mask: npt.NDArray[np.uint8], truth: npt.NDArray[np.uint8]) -> float:
    """Return intersection over union of the subjects of two alphas, uint8 [H, W]."""
    found, wanted = subject_pixels(mask) > 0, subject_pixels(truth) > 0
    union = int(np.count_nonzero(found | wanted))
    return int(np.count_nonzero(found & wanted)) / union if union else 1.0


def _score_one(model: Model, kind: Kind, seed: int) -> Score:
    taken = photograph(seed, width=_WIDTH, height=_HEIGHT, kind=kind)
    seen = model_input(Image.fromarray(taken.image), model.size_px)
    mask = full_size(model.masks(seen[None])[0], _WIDTH, _HEIGHT)
    return Score(kind, taken.category, iou(mask, taken.mask))


def main(
    model: Annotated[Path | None, typer.Option(help="An ONNX file; else the bundled one.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Photographs of each kind.")] = 300,
    first_seed: Annotated[int, typer.Option(help="Of the photographs.")] = HELD_OUT_SEED,
) -> None:
    """Score folio on photographs that no training has seen."""
    console = Console()
    loaded: Model
    if model is None:
        loaded = load(BUNDLED, AppConfig.load())
    else:
        weights = Weights(BUNDLED, model, "", FACTS[BUNDLED])
        loaded = OnnxModel(weights, FACTS[BUNDLED], SegmenterConfig())
    kinds: tuple[Kind, ...] = ("book", "object", "empty")
    table = Table("", "photographs", "mean IoU", "median", "IoU < 0.8")
    for kind in kinds:
        seeds = range(first_seed, first_seed + count)
        scores = [
            _score_one(loaded, kind, seed)
            for seed in track(seeds, kind, console=console, transient=True)
        ]
        _add_row(table, kind, scores)
        categories: dict[str, list[Score]] = defaultdict(list)
        for each in scores:
            categories[each.category].append(each)
        if len(categories) > 1:
            for name, some in sorted(categories.items()):
                _add_row(table, f"  {name}", some)
    console.print(table)


def _add_row(table: Table, name: str, scores: list[Score]) -> None:
    values = np.array([each.iou for each in scores])
    poor = f"{(values < 0.8).mean():.1%}"
    table.add_row(name, str(len(values)), f"{values.mean():.3f}", f"{np.median(values):.3f}", poor)


if __name__ == "__main__":
    typer.run(main)
