"""Masks: the model's input, the subject in its answer, and the checks of a recipe."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from serve_app.contracts.outcome import Box
from serve_app.contracts.recipe import Checks
from serve_app.errors import NoSubject, SubjectTooSmall
from serve_app.imaging.mask import (
    check_subject,
    find_subject_box,
    is_sure_enough,
    mask_confidence,
    multiply_by_alpha,
    post_process_mask,
    resize_for_model,
    resize_mask,
)
from tests.support.fuzzing import examples
from tests.support.images import noise, rectangle_mask

ALL_PASS = Checks(min_subject_px=1)


def test_the_model_gets_the_whole_image_as_a_square() -> None:
    rgb = noise(300, 200, 3)
    expected = np.asarray(Image.fromarray(rgb).resize((64, 64), Image.Resampling.LANCZOS))
    assert np.array_equal(resize_for_model(rgb, 64), expected)


@settings(max_examples=examples(20), deadline=None)
@given(
    st.tuples(st.integers(0, 319), st.integers(0, 319)),
    st.tuples(st.integers(2, 200), st.integers(2, 200)),
    st.integers(0, 4),
    st.tuples(st.integers(100, 700), st.integers(100, 700)),
)
def test_a_resized_mask_is_pillows(
    centre: tuple[int, int], axes: tuple[int, int], softness: int, size: tuple[int, int]
) -> None:
    mask = np.zeros((320, 320), np.uint8)
    cv2.ellipse(mask, (centre, axes, 30), 255, -1, cv2.LINE_AA)
    mask = np.asarray(cv2.blur(mask, (1 + 2 * softness,) * 2), np.uint8)
    expected = np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.LANCZOS))
    assert np.array_equal(resize_mask(mask, *size), expected)


def test_a_resized_empty_mask_is_empty() -> None:
    assert not resize_mask(np.zeros((32, 32), np.uint8), 50, 70).any()


def test_a_mask_is_multiplied_by_the_alpha_of_its_image() -> None:
    mask = np.full((30, 40), 200, np.uint8)
    alpha = rectangle_mask((0, 0, 10, 30), value=128)
    assert multiply_by_alpha(mask, None) is mask
    found = multiply_by_alpha(mask, alpha)
    assert np.all(found[:, :10] == round(200 * 128 / 255))
    assert not found[:, 10:].any()


def test_subject_box_has_exclusive_ends() -> None:
    assert find_subject_box(rectangle_mask((5, 7, 20, 25))) == Box(
        left=5, top=7, right=20, bottom=25
    )


def test_pixels_below_128_are_not_the_subject() -> None:
    assert find_subject_box(rectangle_mask((5, 7, 20, 25), value=128)).width == 15
    empty = rectangle_mask((5, 7, 20, 25), value=127)
    box = find_subject_box(empty)
    assert box.width == box.height == 0
    with pytest.raises(NoSubject):
        check_subject(empty, box, Checks(min_subject_px=1))
    check_subject(empty, box, Checks(min_subject_px=0, max_aspect_change=2))


def test_a_subject_is_100_pixels_a_side_unless_the_recipe_says_otherwise() -> None:
    narrow = rectangle_mask((0, 0, 99, 200), 300, 400)
    with pytest.raises(SubjectTooSmall, match="at least 100"):
        check_subject(narrow, find_subject_box(narrow), Checks())
    alpha = rectangle_mask((0, 0, 100, 100), 300, 400)
    check_subject(alpha, find_subject_box(alpha), Checks())


@pytest.mark.parametrize(
    ("name", "passes", "fails"),
    [
        ("min_subject_px", 3, 4),
        ("min_subject_area", 0.0074, 0.0076),
        ("max_aspect_change", 1.34, 1.3),
    ],
)
def test_checks_say_which_of_them_failed(name: str, passes: float, fails: float) -> None:
    alpha = rectangle_mask((0, 0, 3, 3))
    box = find_subject_box(alpha)
    check_subject(alpha, box, ALL_PASS.model_copy(update={name: passes}))
    with pytest.raises(SubjectTooSmall, match=name):
        check_subject(alpha, box, ALL_PASS.model_copy(update={name: fails}))


def test_aspect_change_is_the_same_both_ways() -> None:
    wide, tall = rectangle_mask((0, 0, 40, 10)), rectangle_mask((0, 0, 10, 30))
    checks = Checks(min_subject_px=1, max_aspect_change=2)
    for alpha, factor in ((wide, "3.00"), (tall, "4.00")):
        with pytest.raises(SubjectTooSmall, match=f"factor of {factor}"):
            check_subject(alpha, find_subject_box(alpha), checks)


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0, 0, 0, 0], 0.0), ([255, 255, 0, 25], 1.0), ([255, 26, 100, 229], 0.25), ([230, 25], 1.0)],
)
def test_confidence(values: list[int], expected: float) -> None:
    assert mask_confidence(np.array([values], np.uint8)) == expected


def test_post_process_is_rembgs() -> None:
    # This is rembg.bg.post_process, with the libraries that it uses.
    from scipy.ndimage import gaussian_filter
    from skimage.morphology import disk, opening

    for seed, size in enumerate([(60, 80), (5, 7), (1, 1), (2, 40)]):
        noise = np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)
        mask = np.asarray(Image.fromarray(noise).resize((size[1] * 5, size[0] * 5)))
        smooth = gaussian_filter(opening(mask, disk(1)).astype(np.float64), sigma=2)
        expected = np.where(smooth < 127, 0, 255)
        assert np.array_equal(post_process_mask(mask), expected), size


def test_the_confidence_that_is_reported_is_the_one_that_is_checked() -> None:
    # Two thirds, reported as 0.6667, which is more than two thirds.
    mask = np.array([[255, 255, 100]], np.uint8)
    assert mask_confidence(mask) == 0.6667
    assert is_sure_enough(mask, Checks(min_confidence=mask_confidence(mask)))
    assert not is_sure_enough(mask, Checks(min_confidence=0.6668))
