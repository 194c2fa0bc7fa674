"""The masks that two cut-outs show, from pixels whose masks are known."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from ingest.catalog.result_difference import (
    draw_difference,
    find_background,
    mask_difference,
    shown_mask,
)
from serve_app.imaging.decode import DecodedImage

SIDE = 64
CHANCE = np.random.default_rng(7)
PHOTOGRAPH = CHANCE.integers(60, 200, (SIDE, SIDE, 3), dtype=np.uint8)


def square(left: int, right: int) -> npt.NDArray[np.float64]:
    """Return a mask of some columns, whose edge is soft."""
    mask = np.zeros((SIDE, SIDE))
    mask[16:48, left:right] = 1
    mask[16:48, left] = 0.5
    return mask


def laid_over(mask: npt.NDArray[np.float64], level: int) -> DecodedImage:
    share = mask[..., None]
    pixels = np.rint(share * PHOTOGRAPH + (1 - share) * level).astype(np.uint8)
    return DecodedImage(pixels, None)


IMAGE = DecodedImage(PHOTOGRAPH, None)


@pytest.mark.parametrize(("level", "name"), [(0, "black"), (255, "white")])
def test_the_mask_of_a_cut_out_is_found_again(level: int, name: str) -> None:
    mask = square(10, 40)
    shown = shown_mask(IMAGE, laid_over(mask, level))
    assert shown is not None
    assert shown.background == name
    assert np.nanmax(np.abs(shown.alpha - mask)) < 0.02
    assert not np.isnan(shown.alpha).any()


def test_the_background_makes_no_difference() -> None:
    mask = square(10, 40)
    shown = [shown_mask(IMAGE, laid_over(mask, level)) for level in (0, 255)]
    assert shown[0] is not None
    assert shown[1] is not None
    assert mask_difference(shown[0].alpha, shown[1].alpha) < 0.01


def test_a_difference_is_one_less_intersection_over_union() -> None:
    first, second = (shown_mask(IMAGE, laid_over(square(10, end), 0)) for end in (30, 40))
    assert first is not None
    assert second is not None
    # 19.5 columns of 29.5.
    assert mask_difference(first.alpha, second.alpha) == pytest.approx(1 - 19.5 / 29.5, abs=0.01)
    nothing = np.zeros((SIDE, SIDE), np.float32)
    assert mask_difference(first.alpha, nothing) == 1
    assert mask_difference(nothing, nothing) == 0


def test_pixels_of_the_colour_of_the_background_do_not_count() -> None:
    """A black cover on black looks the same with every mask."""
    dark = PHOTOGRAPH.copy()
    dark[:, 32:] = 4
    image = DecodedImage(dark, None)
    results = []
    for end in (40, 60):
        share = square(10, end)[..., None]
        results.append(DecodedImage(np.rint(share * dark).astype(np.uint8), None))
    first, second = (shown_mask(image, each) for each in results)
    assert first is not None
    assert second is not None
    assert np.isnan(first.alpha[:, 32:]).all()
    assert mask_difference(first.alpha, second.alpha) == 0


def test_other_kinds_of_results() -> None:
    alpha = (square(10, 40) * 255).astype(np.uint8)
    transparent = DecodedImage(PHOTOGRAPH, alpha)
    shown = shown_mask(IMAGE, transparent)
    assert shown is not None
    assert shown.background == "transparent"
    assert np.allclose(shown.alpha, alpha / 255)
    full = shown_mask(IMAGE, IMAGE)
    assert full is not None
    assert (full.background, full.alpha.min()) == ("none", 1)
    assert shown_mask(IMAGE, DecodedImage(PHOTOGRAPH[:, :-1], None)) is None
    assert find_background(laid_over(square(2, 62), 255)) == "white"


def test_large_images_are_compared_at_a_smaller_size() -> None:
    large = DecodedImage(np.repeat(np.repeat(PHOTOGRAPH, 40, 0), 40, 1), None)
    cut = laid_over(square(10, 40), 0)
    result = DecodedImage(np.repeat(np.repeat(cut.rgb, 40, 0), 40, 1), None)
    shown = shown_mask(large, result)
    assert shown is not None
    assert shown.alpha.shape == (1024, 1024)
    repeated = np.repeat(np.repeat(square(10, 40), 16, 0), 16, 1)
    assert np.nanmean(np.abs(shown.alpha - repeated)) < 0.02


def test_the_picture_has_a_colour_for_each_mask() -> None:
    first, second = np.zeros((1, 4), np.float32), np.zeros((1, 4), np.float32)
    first[0, 1], second[0, 2], first[0, 3], second[0, 3] = 1, 1, 1, 1
    nothing, blue, red, grey = draw_difference(first, second)[0].astype(int)
    assert list(nothing) == [0, 0, 0]
    assert blue[2] > 2 * blue[0]
    assert red[0] > 2 * red[2]
    assert len(set(grey)) == 1
