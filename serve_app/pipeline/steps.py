"""The steps from a model's mask to the file of the result, as pure functions."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from serve_app.contracts.outcome import Box, Cutout
from serve_app.contracts.recipe import Recipe
from serve_app.contracts.rendered import Rendered
from serve_app.errors import NoSubject
from serve_app.imaging.compose import compose_cutout
from serve_app.imaging.decode import DecodedImage
from serve_app.imaging.encode import encode_image, encode_thumbnail
from serve_app.imaging.mask import (
    check_subject,
    find_crop,
    find_subject_box,
    mask_confidence,
    multiply_by_alpha,
    post_process_mask,
    resize_mask,
)
from serve_app.imaging.matting import matte
from serve_app.imaging.metadata import ImageMetadata
from serve_app.imaging.pixels import Pixels
from serve_app.serving.metrics import STAGE_SECONDS, UNRECORDED, Metrics


@dataclass(slots=True)
class StageTimer:
    """Measures the stages of one image."""

    ms: dict[str, float] = field(default_factory=dict)
    """Milliseconds of each stage, in the order in which the stages began."""
    metrics: Metrics = UNRECORDED
    """What each run of a stage is recorded to, in the thread that runs it."""

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Add the duration of the context to a stage, which may be measured more than once."""
        started_at = time.perf_counter()
        try:
            yield
        finally:
            elapsed_s = time.perf_counter() - started_at
            self.ms[stage] = round(self.ms.get(stage, 0.0) + elapsed_s * 1000, 2)
            self.metrics.observe(STAGE_SECONDS, elapsed_s, stage)


@dataclass(frozen=True, slots=True)
class Subject:
    """The subject that a model found in an image."""

    model: str
    """Name of the model."""
    rgb: Pixels
    """Colours, [H, W, 3]."""
    mask: Pixels
    """Mask of the model, [H, W]."""
    alpha: Pixels
    """Mask multiplied by the image's own transparency, [H, W]."""
    box: Box
    """Box around the subject."""
    confidence: float
    """Confidence of the mask, 0 to 1 (``mask_confidence``)."""
    metadata: ImageMetadata
    """What the result may say of the image."""


def find_subject(
    image: DecodedImage, mask: Pixels, recipe: Recipe, model: str, stages: StageTimer
) -> Subject:
    """Return the subject of an image, given a model's mask.

    Args:
        image: Image at full size.
        mask: Mask of the model, uint8 [S, S].
        recipe: Recipe with the checks and the option to post-process the mask.
        model: Name of the model.
        stages: Timer of the stages.

    Raises:
        CheckFailed: The mask does not pass the recipe's checks.
    """
    if recipe.checks.min_subject_px and not mask.any():
        raise NoSubject(f"{model} found no subject in the image")
    with stages.measure("mask"):
        full = resize_mask(mask, image.width, image.height)
        if recipe.post_process_mask:
            full = post_process_mask(full)
        alpha = multiply_by_alpha(full, image.alpha)
        box = find_subject_box(alpha)
        check_subject(alpha, box, recipe.checks)
        confidence = mask_confidence(mask)
    return Subject(model, image.rgb, full, alpha, box, confidence, image.metadata)


def apply_matting(
    subject: Subject, image: DecodedImage, recipe: Recipe, max_pixels: int, stages: StageTimer
) -> Subject:
    """Return a subject with the soft edges of the recipe's matting.

    Args:
        subject: Subject with the mask of the model.
        image: Image that the subject was found in.
        recipe: Recipe with the matting settings and the checks.
        max_pixels: Most pixels to matte at full size.
        stages: Timer of the stages.

    Raises:
        CheckFailed: The matted subject does not pass the recipe's checks.
    """
    with stages.measure("matting"):
        found = matte(image.rgb, subject.mask, recipe.matting, max_pixels)
        alpha = multiply_by_alpha(found.alpha, image.alpha)
        box = find_subject_box(alpha)
        check_subject(alpha, box, recipe.checks)
    return replace(subject, rgb=found.rgb, alpha=alpha, box=box)


def render_cutout(subject: Subject, recipe: Recipe, stages: StageTimer) -> Rendered:
    """Return the files and the facts of a subject's cut-out.

    Args:
        subject: Subject of an image.
        recipe: Recipe with the background, the format and the thumbnail.
        stages: Timer of the stages.

    Raises:
        ImageTooLarge: The recipe's format cannot store an image of this size.
    """
    with stages.measure("compose"):
        crop = find_crop(subject.alpha) if recipe.crop_to_subject else None
        result = compose_cutout(subject.rgb, subject.alpha, crop, recipe)
    with stages.measure("encode"):
        data = encode_image(result, recipe, subject.metadata)
        small = encode_thumbnail(result, recipe.thumbnail) if recipe.thumbnail else None
    cutout = Cutout(
        model=subject.model,
        width=result.shape[1],
        height=result.shape[0],
        subject=subject.box,
        crop=crop,
        mask_confidence=subject.confidence,
        stages_ms=stages.ms,
    )
    return Rendered(data, recipe.media_type, small, cutout)
