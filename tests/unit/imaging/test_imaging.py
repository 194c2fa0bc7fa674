"""Masks, composition and encoding."""

from __future__ import annotations

import io

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from serve_app.contracts.outcome import Box
from serve_app.contracts.recipe import Checks, Recipe, Thumbnail
from serve_app.errors import ImageTooLarge, NoSubject, SubjectTooSmall
from serve_app.imaging import lanczos
from serve_app.imaging.compose import brightness, compose
from serve_app.imaging.encode import encode, thumbnail
from serve_app.imaging.mask import (
    check,
    combine,
    confidence,
    full_size,
    model_input,
    post_process,
    subject_box,
)

Pixels = npt.NDArray[np.uint8]


def picture(height: int = 30, width: int = 40, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def rectangle(
    box: tuple[int, int, int, int], height: int = 30, width: int = 40, value: int = 255
) -> Pixels:
    alpha = np.zeros((height, width), np.uint8)
    left, top, right, bottom = box
    alpha[top:bottom, left:right] = value
    return alpha


# --- masks ---


def test_model_input_is_the_whole_photograph_as_a_square() -> None:
    rgb = picture(300, 200)
    expected = Image.fromarray(rgb).resize((64, 64), Image.Resampling.LANCZOS)
    assert_nearly_equal(model_input(rgb, 64), expected)


def test_full_size_is_pillows_lanczos() -> None:
    mask = picture(32, 32)[..., 0]
    expected = np.asarray(Image.fromarray(mask).resize((50, 70), Image.Resampling.LANCZOS))
    assert np.array_equal(full_size(mask, 50, 70), expected)


def assert_nearly_equal(found: Pixels, expected: Image.Image) -> None:
    difference = np.abs(found.astype(int) - np.asarray(expected))
    assert difference.max(initial=0) <= 2
    # The smallest pictures are a few values, each a sum of many.
    assert np.count_nonzero(difference) <= max(8, 0.002 * difference.size)


sides = st.integers(1, 700)


@given(st.integers(0, 99), sides, sides, sides, sides, st.sampled_from([(), (3,)]))
@example(0, 400, 300, 64, 64, (3,))
@example(0, 900, 301, 64, 64, (3,))
def test_resize_is_pillows_lanczos(
    seed: int, height: int, width: int, new_height: int, new_width: int, channels: tuple[int, ...]
) -> None:
    """Noise: what rounds in another place would show. Examples: each pass first."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (height, width, *channels), dtype=np.uint8)
    expected = Image.fromarray(pixels).resize((new_width, new_height), Image.Resampling.LANCZOS)
    assert_nearly_equal(lanczos.resize(pixels, new_width, new_height), expected)


@given(sides, sides, st.data())
def test_a_part_is_that_of_the_whole(height: int, width: int, data: st.DataObject) -> None:
    pixels = picture(96, 64)
    columns, rows = [
        sorted(data.draw(st.tuples(*[st.integers(0, side)] * 2).filter(lambda p: p[0] != p[1])))
        for side in (width, height)
    ]
    part = lanczos.resize(pixels, width, height, columns=tuple(columns), rows=tuple(rows))
    whole = lanczos.resize(pixels, width, height)
    assert np.array_equal(part, whole[slice(*rows), slice(*columns)])


@given(
    st.tuples(st.integers(0, 319), st.integers(0, 319)),
    st.tuples(st.integers(2, 200), st.integers(2, 200)),
    st.integers(0, 4),
    st.tuples(st.integers(100, 700), st.integers(100, 700)),
)
def test_full_size_of_a_part_is_that_of_the_whole(
    centre: tuple[int, int], axes: tuple[int, int], softness: int, size: tuple[int, int]
) -> None:
    mask = np.zeros((320, 320), np.uint8)
    cv2.ellipse(mask, (centre, axes, 30), 255, -1, cv2.LINE_AA)
    mask = np.asarray(cv2.blur(mask, (1 + 2 * softness,) * 2), np.uint8)
    expected = Image.fromarray(mask).resize(size, Image.Resampling.LANCZOS)
    assert_nearly_equal(full_size(mask, *size), expected)


def test_full_size_of_an_empty_mask_is_empty() -> None:
    assert not full_size(np.zeros((32, 32), np.uint8), 50, 70).any()


def test_the_alpha_that_a_picture_has_is_multiplied() -> None:
    mask = np.full((30, 40), 200, np.uint8)
    alpha = rectangle((0, 0, 10, 30), value=128)
    assert combine(mask, None) is mask
    found = combine(mask, alpha)
    assert np.all(found[:, :10] == round(200 * 128 / 255))
    assert not found[:, 10:].any()


def test_subject_box_has_exclusive_ends() -> None:
    assert subject_box(rectangle((5, 7, 20, 25))) == Box(left=5, top=7, right=20, bottom=25)


def test_what_is_below_128_is_no_subject() -> None:
    assert subject_box(rectangle((5, 7, 20, 25), value=128)).width == 15
    empty = rectangle((5, 7, 20, 25), value=127)
    box = subject_box(empty)
    assert box.width == box.height == 0
    with pytest.raises(NoSubject):
        check(empty, box, Checks(min_subject_px=1))
    check(empty, box, Checks(min_subject_px=0, max_aspect_change=2))


ALL_PASS = Checks(min_subject_px=1)


def test_a_subject_is_100_pixels_a_side_unless_the_recipe_says_otherwise() -> None:
    with pytest.raises(SubjectTooSmall, match="at least 100"):
        check(
            rectangle((0, 0, 99, 200), 300, 400), Box(left=0, top=0, right=99, bottom=200), Checks()
        )
    alpha = rectangle((0, 0, 100, 100), 300, 400)
    check(alpha, subject_box(alpha), Checks())


@pytest.mark.parametrize(
    ("name", "passes", "fails"),
    [
        ("min_subject_px", 3, 4),
        ("min_subject_area", 0.0074, 0.0076),
        ("max_aspect_change", 1.34, 1.3),
    ],
)
def test_checks_say_which_of_them_failed(name: str, passes: float, fails: float) -> None:
    alpha = rectangle((0, 0, 3, 3))
    box = subject_box(alpha)
    check(alpha, box, ALL_PASS.model_copy(update={name: passes}))
    with pytest.raises(SubjectTooSmall, match=name):
        check(alpha, box, ALL_PASS.model_copy(update={name: fails}))


def test_aspect_change_is_the_same_both_ways() -> None:
    wide, tall = rectangle((0, 0, 40, 10)), rectangle((0, 0, 10, 30))
    checks = Checks(min_subject_px=1, max_aspect_change=2)
    for alpha, factor in ((wide, "3.00"), (tall, "4.00")):
        with pytest.raises(SubjectTooSmall, match=f"factor of {factor}"):
            check(alpha, subject_box(alpha), checks)


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0, 0, 0, 0], 0.0), ([255, 255, 0, 25], 1.0), ([255, 26, 100, 229], 0.25), ([230, 25], 1.0)],
)
def test_confidence(values: list[int], expected: float) -> None:
    assert confidence(np.array([values], np.uint8)) == expected


def test_post_process_is_rembgs() -> None:
    # As rembg.bg.post_process has it, with the libraries that it uses.
    from scipy.ndimage import gaussian_filter
    from skimage.morphology import disk, opening

    for seed, size in enumerate([(60, 80), (5, 7), (1, 1), (2, 40)]):
        noise = np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)
        mask = np.asarray(Image.fromarray(noise).resize((size[1] * 5, size[0] * 5)))
        smooth = gaussian_filter(opening(mask, disk(1)).astype(np.float64), sigma=2)
        expected = np.where(smooth < 127, 0, 255)
        assert np.array_equal(post_process(mask), expected), size


# --- composition ---

BOX = Box(left=5, top=7, right=20, bottom=25)


def test_transparent_keeps_colours_of_the_subject_and_drops_all_others() -> None:
    pixels, alpha = picture(), rectangle((5, 7, 20, 25), value=90)
    found = compose(pixels, alpha, BOX, Recipe())
    assert np.array_equal(found[..., 3], alpha)
    assert np.array_equal(found[7:25, 5:20, :3], pixels[7:25, 5:20])
    assert not found[alpha == 0].any()


@pytest.mark.parametrize(
    ("background", "colour"),
    [("white", (255, 255, 255)), ("black", (0, 0, 0)), ("#1a2B3c", (26, 43, 60))],
)
def test_backgrounds(background: str, colour: tuple[int, int, int]) -> None:
    pixels, alpha = picture(), rectangle((5, 7, 20, 25))
    recipe = Recipe(background=background)
    found = compose(pixels, alpha, BOX, recipe)
    assert found.shape == (30, 40, 3)
    assert tuple(found[0, 0]) == colour
    assert np.array_equal(found[7:25, 5:20], pixels[7:25, 5:20])


def test_a_background_with_an_alpha_keeps_the_channel() -> None:
    pixels, alpha = picture(), rectangle((5, 7, 20, 25), value=128)
    for colour, expected in (("#1a2b3cff", 255), ("#1a2b3c80", 128)):
        found = compose(pixels, alpha, BOX, Recipe(background=colour))
        assert tuple(found[0, 0]) == (26, 43, 60, expected)
    with pytest.raises(ValueError, match="jpeg"):
        Recipe(background="#1a2b3cff", format="jpeg")


def test_half_transparent_pixels_are_mixed() -> None:
    rgb = np.full((4, 4, 3), 100, np.uint8)
    alpha = np.full((4, 4), 128, np.uint8)
    box = Box(left=0, top=0, right=4, bottom=4)
    found = compose(rgb, alpha, box, Recipe(background="white"))
    assert found[1, 1] == pytest.approx([177, 177, 177], abs=1)


@pytest.mark.parametrize(("level", "expected"), [(127, 0), (128, 255)])
def test_auto_background_goes_by_the_subject_alone(level: int, expected: int) -> None:
    pixels = np.full((30, 40, 3), 255 - level, np.uint8)
    pixels[7:25, 5:20] = level
    alpha = rectangle((5, 7, 20, 25))
    assert brightness(pixels, alpha) == level
    found = compose(pixels, alpha, BOX, Recipe(background="auto"))
    assert tuple(found[0, 0]) == (expected,) * 3


def test_crop_and_mask_only() -> None:
    pixels, alpha = picture(), rectangle((5, 7, 20, 25))
    alpha[10, 10] = 200
    cropped = compose(pixels, alpha, BOX, Recipe(crop_to_subject=True))
    assert cropped.shape == (18, 15, 4)
    assert np.array_equal(cropped[..., :3], pixels[7:25, 5:20])
    none = Box(left=0, top=0, right=0, bottom=0)
    empty = compose(pixels, np.zeros_like(alpha), none, Recipe(crop_to_subject=True))
    assert empty.shape == (30, 40, 4)
    assert not empty.any()
    only = compose(pixels, alpha, BOX, Recipe(mask_only=True))
    assert np.array_equal(only, alpha)


# --- encoding ---


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 40), st.integers(1, 40), st.sampled_from(["L", "RGB", "RGBA"]), st.integers(0, 9)
)
def test_png_is_lossless(height: int, width: int, mode: str, level: int) -> None:
    image = Image.fromarray(np.dstack([picture(height, width), picture(height, width, 1)[..., 0]]))
    pixels = np.asarray(image.convert(mode))
    data = encode(pixels, Recipe(png_compression=level))
    decoded = Image.open(io.BytesIO(data))
    assert decoded.mode == mode
    assert np.array_equal(np.asarray(decoded), pixels)


def test_webp_keeps_alpha_exactly() -> None:
    alpha = picture()[..., 0]
    pixels = np.dstack([picture(), alpha])
    decoded = Image.open(io.BytesIO(encode(pixels, Recipe(format="webp", quality=50))))
    assert np.array_equal(np.asarray(decoded)[..., 3], alpha)


def test_quality_counts() -> None:
    for name in ("jpeg", "webp"):
        low, high = (
            encode(
                picture(200, 200),
                Recipe.model_validate({"format": name, "background": "white", "quality": quality}),
            )
            for quality in (10, 95)
        )
        assert len(low) < len(high) / 2


def test_a_side_that_a_format_cannot_hold() -> None:
    strip = np.zeros((1, 16_384), np.uint8)
    with pytest.raises(ImageTooLarge, match="choose png"):
        encode(strip, Recipe(format="webp", mask_only=True))
    assert Image.open(io.BytesIO(encode(strip, Recipe(mask_only=True)))).size == (16_384, 1)


def test_thumbnail_is_a_jpeg_on_white() -> None:
    pixels = np.full((300, 600, 4), (255, 0, 0, 0), np.uint8)
    decoded = Image.open(io.BytesIO(thumbnail(pixels, Thumbnail(size_px=100, quality=85))))
    assert decoded.format == "JPEG"
    assert decoded.size == (100, 50)
    assert np.asarray(decoded)[25, 50].min() > 250


def test_thumbnail_never_enlarges() -> None:
    small = np.full((20, 10, 3), (255, 0, 0), np.uint8)
    decoded = Image.open(io.BytesIO(thumbnail(small, Thumbnail(size_px=300, quality=85))))
    assert decoded.size == (10, 20)
