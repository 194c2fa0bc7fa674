"""From a photograph and its mask to the picture that the recipe asks for."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from serve_app.contracts.outcome import Box
from serve_app.contracts.recipe import Recipe
from serve_app.imaging.mask import subject_pixels

DARK_BELOW = 128
"""Mean brightness of a subject below which ``auto`` puts it on black."""


def compose_cutout(
    rgb: npt.NDArray[np.uint8], alpha: npt.NDArray[np.uint8], box: Box, recipe: Recipe
) -> npt.NDArray[np.uint8]:
    """Return the picture that a recipe asks for.

    Args:
        rgb: uint8 [H, W, 3].
        alpha: uint8 [H, W].
        box: Of the subject.
        recipe: Its background, ``mask_only`` and ``crop_to_subject`` count.

    Returns:
        uint8, [H, W] for a mask, [H, W, 4] for a transparent background or one with an alpha, else
        [H, W, 3]. Where alpha is 0 the transparent picture's colours are 0 too: what was cut away
        is gone, not only hidden.
    """
    if recipe.crop_to_subject and box.width:
        part = slice(box.top, box.bottom), slice(box.left, box.right)
        rgb, alpha = rgb[part], alpha[part]
    if recipe.mask_only:
        return alpha
    colour = recipe.background
    if recipe.has_alpha:
        cut = _transparent(rgb, alpha)
        if colour == "transparent":
            return cut
        above = Image.fromarray(cut)
        return np.asarray(Image.alpha_composite(Image.new("RGBA", above.size, colour), above))
    if colour == "auto":
        colour = "black" if subject_brightness(rgb, alpha) < DARK_BELOW else "white"
    above = Image.fromarray(rgb)
    below = Image.new("RGB", above.size, colour)
    return np.asarray(Image.composite(above, below, Image.fromarray(alpha)))


def _transparent(rgb: npt.NDArray[np.uint8], alpha: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    left, top, width, height = cv2.boundingRect(alpha)
    rgba = np.zeros((*alpha.shape, 4), np.uint8)
    if width:
        part = slice(top, top + height), slice(left, left + width)
        opaque = np.ascontiguousarray(alpha[part])
        coloured = cv2.cvtColor(rgb[part], cv2.COLOR_RGB2RGBA)
        cv2.insertChannel(opaque, coloured, 3)
        cv2.copyTo(coloured, opaque, rgba[part])
    return rgba


def subject_brightness(rgb: npt.NDArray[np.uint8], alpha: npt.NDArray[np.uint8]) -> float:
    """Return the mean brightness of the subject, 0 to 255 (luma of ITU-R BT.601).

    Args:
        rgb: uint8 [H, W, 3].
        alpha: uint8 [H, W].
    """
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    return float(cv2.mean(grey, mask=subject_pixels(alpha))[0])
