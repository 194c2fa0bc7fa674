"""Composition: the result of a recipe, made of an image and its mask."""

from __future__ import annotations

import cv2
import numpy as np
from PIL import Image

from serve_app.contracts.outcome import Box
from serve_app.contracts.recipe import Recipe
from serve_app.imaging.mask import subject_pixels
from serve_app.imaging.pixels import Pixels
from serve_app.imaging.strips import strips

DARK_BELOW = 128
"""Mean brightness of a subject, 0 to 255, below which ``auto`` chooses a black background."""


def compose_cutout(rgb: Pixels, alpha: Pixels, crop: Box | None, recipe: Recipe) -> Pixels:
    """Return the pixels of the result that a recipe asks for.

    Args:
        rgb: Image, uint8 [H, W, 3].
        alpha: Transparency of the subject, uint8 [H, W].
        crop: Part of the image that the result shows, or None for all of it.
        recipe: Recipe that gives the background and ``mask_only``.

    Returns:
        uint8 [H, W] for a mask, [H, W, 4] for a transparent or translucent background, and
        [H, W, 3] for an opaque one. A transparent result has colour 0 wherever alpha is 0, so
        that the removed background cannot be recovered from the file.
    """
    if crop is not None:
        part = slice(crop.top, crop.bottom), slice(crop.left, crop.right)
        rgb, alpha = rgb[part], alpha[part]
    if recipe.mask_only:
        return alpha
    colour = recipe.background
    if recipe.has_alpha:
        cutout = _cut_out_transparent(rgb, alpha)
        return cutout if colour == "transparent" else _put_on_translucent(cutout, colour)
    if colour == "auto":
        colour = "black" if subject_brightness(rgb, alpha) < DARK_BELOW else "white"
    return _put_on_opaque(rgb, alpha, colour)


def subject_brightness(rgb: Pixels, alpha: Pixels) -> float:
    """Return the mean brightness of the subject, 0 to 255 (luma of ITU-R BT.601).

    Args:
        rgb: Image, uint8 [H, W, 3].
        alpha: Transparency of the subject, uint8 [H, W].
    """
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    return float(cv2.mean(grey, mask=subject_pixels(alpha))[0])


def _cut_out_transparent(rgb: Pixels, alpha: Pixels) -> Pixels:
    """Return uint8 [H, W, 4] that is 0 in all channels wherever alpha is 0."""
    left, top, width, height = cv2.boundingRect(alpha)
    rgba = np.zeros((*alpha.shape, 4), np.uint8)
    if width:
        columns = slice(left, left + width)
        for rows in strips(top, top + height, width):
            opaque = np.ascontiguousarray(alpha[rows, columns])
            coloured = cv2.cvtColor(rgb[rows, columns], cv2.COLOR_RGB2RGBA)
            cv2.insertChannel(opaque, coloured, 3)
            cv2.copyTo(coloured, opaque, rgba[rows, columns])
    return rgba


def _put_on_translucent(cutout: Pixels, colour: str) -> Pixels:
    """Return a cut-out, uint8 [H, W, 4], whose pixels are replaced by those on a background."""
    height, width = cutout.shape[:2]
    for rows in strips(0, height, width):
        above = Image.fromarray(cutout[rows])
        below = Image.new("RGBA", above.size, colour)
        cutout[rows] = np.asarray(Image.alpha_composite(below, above))
    return cutout


def _put_on_opaque(rgb: Pixels, alpha: Pixels, colour: str) -> Pixels:
    """Return a cut-out on a background, uint8 [H, W, 3]."""
    height, width = alpha.shape
    result = np.empty((height, width, 3), np.uint8)
    for rows in strips(0, height, width):
        above = Image.fromarray(rgb[rows])
        below = Image.new("RGB", above.size, colour)
        result[rows] = np.asarray(Image.composite(above, below, Image.fromarray(alpha[rows])))
    return result
