"""Composition: backgrounds, transparency and crops."""

from __future__ import annotations

import numpy as np
import pytest

from serve_app.contracts.outcome import Box
from serve_app.contracts.recipe import Recipe
from serve_app.imaging.compose import compose_cutout, subject_brightness
from serve_app.imaging.mask import find_crop
from tests.support.images import noise, rectangle_mask

BOX = Box(left=5, top=7, right=20, bottom=25)


def test_transparent_keeps_colours_of_the_subject_and_drops_all_others() -> None:
    pixels, alpha = noise(30, 40, 3), rectangle_mask((5, 7, 20, 25), value=90)
    found = compose_cutout(pixels, alpha, None, Recipe())
    assert np.array_equal(found[..., 3], alpha)
    assert np.array_equal(found[7:25, 5:20, :3], pixels[7:25, 5:20])
    assert not found[alpha == 0].any()


@pytest.mark.parametrize(
    ("background", "colour"),
    [("white", (255, 255, 255)), ("black", (0, 0, 0)), ("#1a2B3c", (26, 43, 60))],
)
def test_backgrounds(background: str, colour: tuple[int, int, int]) -> None:
    pixels, alpha = noise(30, 40, 3), rectangle_mask((5, 7, 20, 25))
    recipe = Recipe(background=background)
    found = compose_cutout(pixels, alpha, None, recipe)
    assert found.shape == (30, 40, 3)
    assert tuple(found[0, 0]) == colour
    assert np.array_equal(found[7:25, 5:20], pixels[7:25, 5:20])


def test_a_background_with_an_alpha_keeps_the_channel() -> None:
    pixels, alpha = noise(30, 40, 3), rectangle_mask((5, 7, 20, 25), value=128)
    for colour, expected in (("#1a2b3cff", 255), ("#1a2b3c80", 128)):
        found = compose_cutout(pixels, alpha, None, Recipe(background=colour))
        assert tuple(found[0, 0]) == (26, 43, 60, expected)
    with pytest.raises(ValueError, match="jpeg"):
        Recipe(background="#1a2b3cff", format="jpeg")


def test_half_transparent_pixels_are_mixed() -> None:
    rgb = np.full((4, 4, 3), 100, np.uint8)
    alpha = np.full((4, 4), 128, np.uint8)
    found = compose_cutout(rgb, alpha, None, Recipe(background="white"))
    assert found[1, 1] == pytest.approx([177, 177, 177], abs=1)


@pytest.mark.parametrize(("level", "expected"), [(127, 0), (128, 255)])
def test_auto_background_goes_by_the_subject_alone(level: int, expected: int) -> None:
    pixels = np.full((30, 40, 3), 255 - level, np.uint8)
    pixels[7:25, 5:20] = level
    alpha = rectangle_mask((5, 7, 20, 25))
    assert subject_brightness(pixels, alpha) == level
    found = compose_cutout(pixels, alpha, None, Recipe(background="auto"))
    assert tuple(found[0, 0]) == (expected,) * 3


def test_crop_and_mask_only() -> None:
    pixels, alpha = noise(30, 40, 3), rectangle_mask((5, 7, 20, 25))
    alpha[10, 10] = 200
    cropped = compose_cutout(pixels, alpha, BOX, Recipe(crop_to_subject=True))
    assert cropped.shape == (18, 15, 4)
    assert np.array_equal(cropped[..., :3], pixels[7:25, 5:20])
    only = compose_cutout(pixels, alpha, None, Recipe(mask_only=True))
    assert np.array_equal(only, alpha)


def test_a_crop_keeps_soft_edges_and_a_margin() -> None:
    alpha = rectangle_mask((5, 7, 20, 25))
    alpha[4, 10], alpha[12, 24] = 1, 127
    assert find_crop(alpha) == Box(left=4, top=3, right=26, bottom=26)
    alpha[0, 0] = alpha[29, 39] = 1
    assert find_crop(alpha) == Box(left=0, top=0, right=40, bottom=30)
    assert find_crop(np.zeros_like(alpha)) is None
    assert find_crop(rectangle_mask((5, 7, 20, 25), value=3)) == Box(
        left=4, top=6, right=21, bottom=26
    )
