"""How two cut-outs of one image differ, measured on their pixels.

A cut-out of the catalog has no transparency: its image was laid over black or white. What of each
pixel belongs to the subject follows from the image, the cut-out and the background, since
``cut-out = alpha · image + (1 - alpha) · background`` [docs/catalog.md].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from serve_app.imaging.decode import DecodedImage
from serve_app.imaging.pixels import Pixels

Background = Literal["black", "white", "transparent", "none"]
Alpha = npt.NDArray[np.float32]
"""Share of each pixel that belongs to the subject, 0 to 1, [H, W]. NaN if it cannot be known."""

SIDE_PX = 1_024
"""Longest side, in pixels, at which masks are compared."""
_LEVELS: dict[Background, float] = {"black": 0.0, "white": 255.0}
_LEAST_SHARE = 0.001
"""Share of an image that must have exactly the colour of a background. A subject has some pixels
of pure black or white too."""
_LEAST_CONTRAST = 24.0
"""Distance in levels, over the three colours, from which on an image differs enough from the
background for the subject to be known. Below it both cut-outs look the same anyway."""


@dataclass(frozen=True, slots=True)
class ResultMask:
    """The mask that a cut-out shows."""

    background: Background
    """Background of the cut-out. ``none`` if the subject fills all of it."""
    alpha: Alpha
    """The mask, at most ``SIDE_PX`` wide and high."""


def find_background(result: DecodedImage) -> Background:
    """Return the background of a cut-out."""
    if result.alpha is not None:
        return "transparent"
    black = float(np.mean(np.all(result.rgb == 0, axis=2)))
    white = float(np.mean(np.all(result.rgb == 255, axis=2)))
    if max(black, white) < _LEAST_SHARE:
        return "none"
    return "black" if black > white else "white"


def shown_mask(image: DecodedImage, result: DecodedImage) -> ResultMask | None:
    """Return the mask that a cut-out shows, or None if it has another size than its image.

    Args:
        image: The image that was cut out.
        result: The cut-out.
    """
    if image.rgb.shape != result.rgb.shape:
        return None
    background = find_background(result)
    if result.alpha is not None:
        return ResultMask(background, _reduced(result.alpha) / 255)
    pixels = _reduced(result.rgb)
    if background == "none":
        return ResultMask(background, np.ones(pixels.shape[:2], np.float32))
    level = _LEVELS[background]
    towards_image = _reduced(image.rgb) - level
    contrast = np.sum(towards_image**2, axis=2)
    # The least squares of the equation above, over the three colours.
    share = np.sum((pixels - level) * towards_image, axis=2) / np.maximum(contrast, 1)
    known = np.where(contrast >= _LEAST_CONTRAST**2, np.clip(share, 0, 1), np.nan)
    return ResultMask(background, known.astype(np.float32))


def mask_difference(one: Alpha, other: Alpha) -> float:
    """Return how different two masks are: 1 less their intersection over their union.

    Pixels that are unknown in either mask do not count.

    Args:
        one: A mask.
        other: Another mask, of the same size.

    Returns:
        0 for equal masks, 1 for masks that have nothing in common.
    """
    known = ~(np.isnan(one) | np.isnan(other))
    union = float(np.sum(np.maximum(one, other), where=known))
    if union == 0:
        return 0.0
    return 1 - float(np.sum(np.minimum(one, other), where=known)) / union


def draw_difference(one: Alpha, other: Alpha) -> Pixels:
    """Draw two masks: grey in both, blue in the first only, red in the second only.

    Args:
        one: A mask.
        other: Another mask, of the same size.

    Returns:
        Colours, [H, W, 3].
    """
    first, second = np.nan_to_num(one), np.nan_to_num(other)
    unknown = np.isnan(one) | np.isnan(other)
    first, second = np.where(unknown, 0, first), np.where(unknown, 0, second)
    both = 150 * np.minimum(first, second)
    only_first, only_second = np.maximum(first - second, 0), np.maximum(second - first, 0)
    red = both + 235 * only_second + 60 * only_first
    green = both + 70 * only_second + 120 * only_first
    blue = both + 50 * only_second + 245 * only_first
    drawn: Pixels = np.clip(np.stack([red, green, blue], axis=2), 0, 255).astype(np.uint8)
    return drawn


def _reduced(pixels: Pixels) -> Any:
    """Return pixels at a size of at most ``SIDE_PX``. Means of areas keep the equation true."""
    height, width = pixels.shape[:2]
    scale = SIDE_PX / max(height, width)
    if scale >= 1:
        return pixels.astype(np.float32)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).astype(np.float32)
