"""Scale the logits of ``folio``: ``python -m serve_app.models.folio.training.calibrate``.

The confidence of a mask is the share of its pixels of which the model is sure (``imaging.mask``).
A network that hesitates at every edge is sure of no small subject, however right it is. A scale of
the logits (a temperature, arXiv:1706.04599) moves no pixel across one half, and so leaves the
subject as it is, but makes the edges crisper. The smallest scale that is enough keeps the edges as
soft as possible.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import typer
from onnx import numpy_helper
from rich.console import Console
from rich.progress import track

from serve_app.imaging.mask import mask_confidence
from serve_app.models.facts import MODEL_FACTS
from serve_app.models.folio.synthetic.surfaces import Pixels
from serve_app.models.folio.training.pairs import find_pairs, read_pair
from serve_app.models.gate import intersection_over_union
from serve_app.models.inference import normalize_images, stretch_to_masks
from serve_app.models.registry import BUNDLED_MODEL

Answers = npt.NDArray[np.float32]

SURE_FROM = 0.95
"""Confidence from which a mask counts as sure."""
RIGHT_FROM = 0.9
"""IoU from which a mask counts as right."""
LEAST_RIGHT = 0.95
"""Share of the sure masks that must be right."""
SCALES = (1.0, 1.15, 1.3, 1.5, 1.75, 2.0, 2.5, 3.0)
"""Scales to choose from. Above 3, edges are black and white."""

_HEAD = ("head.weight", "head.bias")


@dataclass(frozen=True, slots=True)
class Calibration:
    """What a scale of the logits gives."""

    scale: float
    sure: float
    """Share of the masks that are sure."""
    right: float
    """Share of the sure masks that are right, 0 to 1. It is 1 if no mask is sure."""


def scale_answers(answers: Answers, scale: float) -> Answers:
    """Return the answers, 0 to 1, that a network with scaled logits would give."""
    odds = np.clip(answers, 1e-6, 1 - 1e-6)
    odds = odds / (1 - odds)
    return np.asarray(1 / (1 + odds**-scale), np.float32)


def measure(answers: Answers, truths: Sequence[Pixels], scale: float) -> Calibration:
    """Return what a scale gives.

    Args:
        answers: Answers of the network, float32 [N, S, S], 0 to 1.
        truths: True masks, uint8 [S, S] each.
        scale: Factor of the logits.
    """
    masks = stretch_to_masks(scale_answers(answers, scale), MODEL_FACTS[BUNDLED_MODEL])
    right = [
        intersection_over_union(mask, truth) >= RIGHT_FROM
        for mask, truth in zip(masks, truths, strict=True)
        if mask_confidence(mask) >= SURE_FROM
    ]
    return Calibration(scale, len(right) / len(masks), float(np.mean(right)) if right else 1.0)


def choose(measured: Sequence[Calibration], least_sure: float) -> Calibration:
    """Return the smallest scale with enough sure masks, of which enough are right.

    Args:
        measured: What each scale gives, from small to large.
        least_sure: Share of the masks that should be sure.

    Returns:
        The one with the most sure masks, if no scale has enough of them. The first, if at every
        scale too many sure masks are wrong.
    """
    allowed = [each for each in measured if each.right >= LEAST_RIGHT]
    enough = [each for each in allowed if each.sure >= least_sure]
    if enough:
        return enough[0]
    return max(allowed, key=lambda each: each.sure) if allowed else measured[0]


def scale_logits(model: onnx.ModelProto, scale: float) -> None:
    """Scale the logits of an exported network, in place.

    Args:
        model: Model that ``network.export`` wrote.
        scale: Factor.

    Raises:
        ValueError: The model has no head of folio's.
    """
    found = {each.name: each for each in model.graph.initializer if each.name in _HEAD}
    if set(found) != set(_HEAD):
        raise ValueError(f"the model lacks {' or '.join(_HEAD)}: it is no export of folio")
    for name, weights in found.items():
        scaled = numpy_helper.to_array(weights) * np.float32(scale)
        weights.CopyFrom(numpy_helper.from_array(scaled, name))


def calibrate(
    model: Annotated[Path, typer.Option(help="ONNX file that the training wrote.")],
    pairs: Annotated[list[Path], typer.Option(help="Folder of pairs; may be repeated.")],
    out: Annotated[Path, typer.Option(help="ONNX file to write.")],
    least_sure: Annotated[float, typer.Option(help="Share of the masks to be sure of.")] = 0.4,
) -> None:
    """Choose a scale of the logits on some pairs, and write the model with it."""
    console = Console()
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    taken = session.get_inputs()[0].name
    answers: list[Answers] = []
    truths: list[Pixels] = []
    paths = [path for folder in pairs for path in find_pairs(folder)]
    for path in track(paths, "Running", console=console):
        image, truth = read_pair(path)
        tensor = normalize_images(image[None], MODEL_FACTS[BUNDLED_MODEL])
        answers.append(np.asarray(session.run(None, {taken: tensor})[0])[0, 0])
        truths.append(truth)
    measured = [measure(np.stack(answers), truths, scale) for scale in SCALES]
    for each in measured:
        console.print(f"scale {each.scale:4.2f}: {each.sure:.0%} sure, {each.right:.1%} right")
    chosen = choose(measured, least_sure)
    scaled = onnx.load(model)
    scale_logits(scaled, chosen.scale)
    onnx.save(scaled, out)
    console.print(f"wrote {out} with scale {chosen.scale}")


if __name__ == "__main__":
    typer.run(calibrate)
