"""The steps of a cut-out, as pure functions: from a model's mask to the file of the result."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from serve_app.contracts.outcome import Box, Cutout
from serve_app.contracts.recipe import Recipe
from serve_app.contracts.rendered import Rendered
from serve_app.errors import NoSubject
from serve_app.imaging.compose import compose_cutout
from serve_app.imaging.decode import DecodedImage
from serve_app.imaging.encode import encode_image, encode_thumbnail
from serve_app.imaging.mask import (
    check_subject,
    find_subject_box,
    mask_confidence,
    multiply_by_alpha,
    post_process_mask,
    resize_mask,
)
from serve_app.imaging.matting import matte


@dataclass(slots=True)
class StageTimer:
    """Milliseconds of each stage, in the order in which they began."""

    ms: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Add the time until the context ends to a stage; a stage may run more than once."""
        started_at = time.perf_counter()
        try:
            yield
        finally:
            elapsed_ms = (time.perf_counter() - started_at) * 1000
            self.ms[stage] = round(self.ms.get(stage, 0.0) + elapsed_ms, 2)


@dataclass(frozen=True, slots=True)
class Subject:
    """What was found in a photograph."""

    model: str
    rgb: npt.NDArray[np.uint8]
    """[H, W, 3]."""
    mask: npt.NDArray[np.uint8]
    """[H, W], as the model sees it."""
    alpha: npt.NDArray[np.uint8]
    """[H, W]; the photograph's own transparency counts."""
    box: Box
    confidence: float


def find_subject(
    photograph: DecodedImage,
    mask: npt.NDArray[np.uint8],
    recipe: Recipe,
    model: str,
    stages: StageTimer,
) -> Subject:
    """Return the subject of a photograph, given a model's mask.

    Args:
        photograph: At full size.
        mask: uint8 [S, S].
        recipe: Its checks, and whether the mask is post-processed.
        model: Name of the model that gave the mask.
        stages: Where the times go.

    Raises:
        CheckFailed: The mask is not one that the recipe accepts.
    """
    if recipe.checks.min_subject_px and not mask.any():
        raise NoSubject(f"{model} found no subject in the image")
    with stages.measure("mask"):
        full = resize_mask(mask, photograph.width, photograph.height)
        if recipe.post_process_mask:
            full = post_process_mask(full)
        alpha = multiply_by_alpha(full, photograph.alpha)
        box = find_subject_box(alpha)
        check_subject(alpha, box, recipe.checks)
        sure = round(mask_confidence(mask), 4)
    return Subject(model, photograph.rgb, full, alpha, box, sure)


def apply_matting(
    subject: Subject, photograph: DecodedImage, recipe: Recipe, max_pixels: int, stages: StageTimer
) -> Subject:
    """Return a subject with the edges that the recipe's matting gives it.

    Args:
        subject: With the mask as it is.
        photograph: That it was found in.
        recipe: Its matting and its checks.
        max_pixels: That are worked on at full size.
        stages: Where the time goes.

    Raises:
        CheckFailed: What is left is not what the recipe accepts.
    """
    with stages.measure("matting"):
        found = matte(photograph.rgb, subject.mask, recipe.matting, max_pixels)
        alpha = multiply_by_alpha(found.alpha, photograph.alpha)
        box = find_subject_box(alpha)
        check_subject(alpha, box, recipe.checks)
    return replace(subject, rgb=found.rgb, alpha=alpha, box=box)


def render_cutout(subject: Subject, recipe: Recipe, stages: StageTimer) -> Rendered:
    """Return the cut-out of a subject.

    Args:
        subject: In its photograph.
        recipe: What is made of it.
        stages: Where the times go.

    Raises:
        ImageTooLarge: The recipe's format cannot hold the result.
    """
    with stages.measure("compose"):
        picture = compose_cutout(subject.rgb, subject.alpha, subject.box, recipe)
    with stages.measure("encode"):
        data = encode_image(picture, recipe)
        small = encode_thumbnail(picture, recipe.thumbnail) if recipe.thumbnail else None
    cutout = Cutout(
        model=subject.model,
        width=picture.shape[1],
        height=picture.shape[0],
        subject=subject.box,
        mask_confidence=subject.confidence,
        stages_ms=stages.ms,
    )
    return Rendered(data, recipe.media_type, small, cutout)
