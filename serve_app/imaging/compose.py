"""From a photograph and its mask to the picture that the recipe asks for."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from serve_app.contracts import Box, Recipe
from serve_app.imaging.mask import subject_pixels

DARK_BELOW = 128
"""Mean brightness of a subject below which ``auto`` puts it on black."""


def compose(
    rgb: Image.Image, alpha: npt.NDArray[np.uint8], box: Box, recipe: Recipe
) -> Image.Image:
    """Return the picture that a recipe asks for.

    Args:
        rgb: Mode RGB, [H, W].
        alpha: uint8 [H, W].
        box: Of the subject.
        recipe: Its background, ``mask_only`` and ``crop_to_subject`` count.

    Returns:
        Mode L for a mask, RGBA for a transparent background or one with an alpha, else RGB. Where
        alpha is 0 the transparent picture's colours are 0 too: what was cut away is gone, not only
        hidden.
    """
    if recipe.crop_to_subject and box.width:
        edges = (box.left, box.top, box.right, box.bottom)
        rgb = rgb.crop(edges)
        alpha = alpha[box.top : box.bottom, box.left : box.right]
    mask = Image.fromarray(alpha)
    if recipe.mask_only:
        return mask
    colour = recipe.background
    if recipe.has_alpha:
        cut = _transparent(rgb, alpha)
        if colour == "transparent":
            return cut
        return Image.alpha_composite(Image.new("RGBA", cut.size, colour), cut)
    if colour == "auto":
        colour = "black" if brightness(rgb, alpha) < DARK_BELOW else "white"
    return Image.composite(rgb, Image.new("RGB", rgb.size, colour), mask)


def _transparent(rgb: Image.Image, alpha: npt.NDArray[np.uint8]) -> Image.Image:
    left, top, width, height = cv2.boundingRect(alpha)
    rgba = np.zeros((*alpha.shape, 4), np.uint8)
    if width:
        right, bottom = left + width, top + height
        part = np.asarray(rgb.crop((left, top, right, bottom)))
        opaque = np.ascontiguousarray(alpha[top:bottom, left:right])
        coloured = cv2.cvtColor(part, cv2.COLOR_RGB2RGBA)
        cv2.insertChannel(opaque, coloured, 3)
        rgba[top:bottom, left:right] = cv2.copyTo(coloured, opaque)
    return Image.fromarray(rgba)


def brightness(rgb: Image.Image, alpha: npt.NDArray[np.uint8]) -> float:
    """Return the mean brightness of the subject, 0 to 255 (luma of ITU-R BT.601).

    Args:
        rgb: Mode RGB, [H, W].
        alpha: uint8 [H, W].
    """
    return float(cv2.mean(np.asarray(rgb.convert("L")), mask=subject_pixels(alpha))[0])
