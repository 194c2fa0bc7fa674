"""Write scenes without a subject: ``python -m serve_app.models.folio.training.empty``.

A network that only ever sees scenes with a subject finds one everywhere. Every other scene is a
drawn one with stains and shadows, and the others are parts of photographs that show no subject.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import typer
from rich.console import Console
from rich.progress import track

from serve_app.models.folio.synthetic.photograph import draw_photograph, take_with_camera
from serve_app.models.folio.synthetic.surfaces import Pixels
from serve_app.models.folio.training.composites import crop_background, load_backgrounds
from serve_app.models.folio.training.dataset import TRAINING_SEED
from serve_app.models.folio.training.pairs import SIDE_PX, write_pair


def draw_empty(number: int, seed: int, photographs: Sequence[Pixels]) -> Pixels:
    """Return a scene without a subject, uint8 [320, 320, 3], RGB.

    Args:
        number: Number of the scene. Those with an even number are drawn.
        seed: Seed of the parts of photographs.
        photographs: Photographs that show no subject, uint8 [H, W, 3], RGB.
    """
    if number % 2 == 0:
        drawn = draw_photograph(TRAINING_SEED + number, width=SIDE_PX, height=SIDE_PX, kind="empty")
        return drawn.image
    rng = np.random.default_rng([seed, number])
    photograph = photographs[int(rng.integers(len(photographs)))]
    part = crop_background(rng, photograph, SIDE_PX, float(rng.uniform(0.7, 1.4)))
    return take_with_camera(rng, part)


def write_empty_scenes(
    backgrounds: Annotated[list[Path], typer.Option(help="Folder of photographs of no subject.")],
    out: Annotated[Path, typer.Option(help="Folder of the pairs to write.")],
    count: Annotated[int, typer.Option(min=1, help="Number of scenes.")] = 1600,
    seed: Annotated[int, typer.Option(help="Seed of the parts of photographs.")] = 0,
) -> None:
    """Write scenes without a subject, with empty masks, as samples of the training."""
    cv2.setNumThreads(1)
    photographs = [each for folder in backgrounds for each in load_backgrounds(folder)]
    out.mkdir(parents=True, exist_ok=True)
    nothing = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
    for number in track(range(count), "Drawing", console=Console()):
        write_pair(out / f"{number:05d}.jpg", draw_empty(number, seed, photographs), nothing)


if __name__ == "__main__":
    typer.run(write_empty_scenes)
