"""The gate: how far masks of another engine or precision are from rembg's, and what may serve.

Two sets of images go through the same code: a small one that is part of the package
(``gate_images``), and the large one of ``make quality``. All masks have the size of their image.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from serve_app.contracts.base import Contract
from serve_app.contracts.precision import Accuracy
from serve_app.imaging.pixels import SUBJECT_ALPHA_FROM, Pixels

_TRUE_IOU_LOSS = 0.002
"""Most of the intersection over union with true masks that may be lost."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the masks of an accuracy must keep to, as means over all images."""

    difference: float
    """Largest mean difference from rembg's masks in float32, in grey levels."""
    iou: float
    """Least intersection over union with rembg's masks."""
    levels: int
    """Grey levels within which ``share`` of the pixels must lie."""
    share: float
    """Least share of the pixels, 0 to 1."""


BOUNDS: dict[Accuracy, Bounds] = {
    "exact": Bounds(difference=2, iou=0.994, levels=2, share=0.999),
    "close": Bounds(difference=0.25, iou=0.994, levels=8, share=0.995),
    "fast": Bounds(difference=0.6, iou=0.98, levels=8, share=0.98),
}
"""Bounds by accuracy, from the strictest to the loosest."""


@dataclass(frozen=True, slots=True)
class MaskPair:
    """The masks of one image, all uint8 [H, W]."""

    name: str
    """Name of the image."""
    reference: Pixels
    """Mask of the model in float32, as rembg computes it."""
    found: Pixels
    """Mask of what is measured."""
    truth: Pixels | None = None
    """True mask, if it is known."""


class Measures(Contract):
    """How far masks are from rembg's."""

    images: int
    """Number of images."""
    difference: float
    """Mean difference from rembg's masks, in grey levels."""
    iou: float
    """Mean intersection over union with rembg's masks."""
    within_2: float
    """Mean share of the pixels within 2 grey levels of rembg's."""
    within_8: float
    """Mean share of the pixels within 8 grey levels of rembg's."""
    true_iou_loss: float
    """What is lost of the mean intersection over union with the true masks, compared with rembg's
    masks. 0 if no true mask is known."""
    worst: str
    """Name of the image with the smallest share within 8 grey levels."""
    worst_within_8: float
    """Share of its pixels within 8 grey levels."""

    def failures(self, accuracy: Accuracy) -> list[str]:
        """Return which bounds of an accuracy are missed, each with its number."""
        bounds = BOUNDS[accuracy]
        share = self.within_2 if bounds.levels == 2 else self.within_8
        checks = [
            (
                self.difference <= bounds.difference,
                f"mean difference {self.difference:.3f} > {bounds.difference:g} levels",
            ),
            (self.iou >= bounds.iou, f"IoU {self.iou:.4f} < {bounds.iou:g}"),
            (
                share >= bounds.share,
                f"{share:.2%} < {bounds.share:.1%} of the pixels within {bounds.levels} levels",
            ),
            (
                self.true_iou_loss <= _TRUE_IOU_LOSS,
                f"IoU with true masks lower by {self.true_iou_loss:.4f} > {_TRUE_IOU_LOSS:g}",
            ),
        ]
        return [text for passed, text in checks if not passed]

    def reached(self) -> Accuracy | None:
        """Return the strictest accuracy whose bounds are kept, or None."""
        return next((each for each in BOUNDS if not self.failures(each)), None)

    def suffices_for(self, accuracy: Accuracy) -> bool:
        """Return whether an accuracy or a stricter one is reached.

        Masks may be exact, all pixels one level apart, and still have the larger mean difference.
        """
        strictness, reached = list(BOUNDS), self.reached()
        return reached is not None and strictness.index(reached) <= strictness.index(accuracy)


class MaskMeter:
    """Measures masks one image after the other, and keeps none of them."""

    def __init__(self) -> None:
        self._rows: list[list[float]] = []
        self._losses: list[float] = []
        self._names: list[str] = []

    def add(self, masks: MaskPair) -> None:
        """Measure the masks of one image."""
        found, reference, truth = masks.found, masks.reference, masks.truth
        levels = np.abs(found.astype(np.int16) - reference)
        shares = [float((levels <= limit).mean()) for limit in (2, 8)]
        self._rows.append(
            [float(levels.mean()), intersection_over_union(found, reference), *shares]
        )
        self._names.append(masks.name)
        if truth is not None:
            loss = intersection_over_union(reference, truth) - intersection_over_union(found, truth)
            self._losses.append(loss)

    def measures(self) -> Measures:
        """Return the means over all images, and the worst one.

        Raises:
            ValueError: No image was measured.
        """
        if not self._rows:
            raise ValueError("no image to measure masks on")
        difference, iou, within_2, within_8 = np.mean(self._rows, axis=0).tolist()
        worst = int(np.argmin([row[3] for row in self._rows]))
        return Measures(
            images=len(self._rows),
            difference=difference,
            iou=iou,
            within_2=within_2,
            within_8=within_8,
            true_iou_loss=float(np.mean(self._losses)) if self._losses else 0.0,
            worst=self._names[worst],
            worst_within_8=self._rows[worst][3],
        )


def measure_masks(pairs: Iterable[MaskPair]) -> Measures:
    """Return how far masks are from rembg's.

    Args:
        pairs: Masks of each image. At least one.

    Raises:
        ValueError: There is no image.
    """
    meter = MaskMeter()
    for each in pairs:
        meter.add(each)
    return meter.measures()


def intersection_over_union(found: Pixels, truth: Pixels) -> float:
    """Return the share of the pixels of either subject that belong to both, 0 to 1.

    A pixel belongs to a subject from 128 on. Two masks without a subject agree: 1.

    Args:
        found: Mask, uint8 [H, W].
        truth: True mask, uint8 [H, W].
    """
    ours, wanted = found >= SUBJECT_ALPHA_FROM, truth >= SUBJECT_ALPHA_FROM
    union = int(np.count_nonzero(ours | wanted))
    return int(np.count_nonzero(ours & wanted)) / union if union else 1.0
