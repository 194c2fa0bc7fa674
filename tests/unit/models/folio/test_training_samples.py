"""Samples of folio's training: pairs on disk, composites, and their mixture."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from serve_app.models.folio.synthetic.photograph import draw_photograph
from serve_app.models.folio.training.composites import (
    CutOut,
    compose,
    crop_background,
    load_backgrounds,
    load_cut_outs,
    over,
)
from serve_app.models.folio.training.dataset import BLOCK
from serve_app.models.folio.training.mixture import Mixture, samples
from serve_app.models.folio.training.pairs import SIDE_PX, find_pairs, read_pair, write_pair

Pixels = npt.NDArray[np.uint8]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def flat(height: int, width: int, colour: tuple[int, int, int]) -> Pixels:
    return np.full((height, width, 3), colour, np.uint8)


def red_disc(side_px: int = 120) -> CutOut:
    """Return a red disc, whose transparent corners are black."""
    alpha = np.zeros((side_px, side_px), np.uint8)
    cv2.circle(alpha, (side_px // 2, side_px // 2), side_px // 2 - 1, 255, -1, cv2.LINE_AA)
    pixels = np.zeros((side_px, side_px, 3), np.uint8)
    pixels[..., 0] = alpha
    return CutOut(pixels, alpha)


def write_rgba(path: Path, pixels: Pixels, alpha: Pixels) -> None:
    assert cv2.imwrite(str(path), cv2.merge([cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), alpha]))


# --- pairs ---


def test_a_pair_is_read_as_it_was_written(tmp_path: Path) -> None:
    taken = draw_photograph(3, width=SIDE_PX, height=SIDE_PX, kind="book")
    write_pair(tmp_path / "a.jpg", taken.image, taken.mask)
    assert find_pairs(tmp_path) == [tmp_path / "a.jpg"]
    image, mask = read_pair(tmp_path / "a.jpg")
    assert np.array_equal(mask, taken.mask)
    assert np.abs(image.astype(int) - taken.image).mean() < 4


def test_a_pair_of_another_size_is_squashed_to_the_square(tmp_path: Path) -> None:
    image, mask = flat(480, 640, (200, 30, 30)), np.zeros((480, 640), np.uint8)
    mask[:, :320] = 255
    write_pair(tmp_path / "a.jpg", image, mask)
    pixels, squashed = read_pair(tmp_path / "a.jpg")
    assert pixels.shape == (SIDE_PX, SIDE_PX, 3)
    assert (pixels.mean((0, 1)).round() - (200, 30, 30)).max() <= 2
    assert np.array_equal(squashed[0] > 127, np.arange(SIDE_PX) < SIDE_PX / 2)


def test_an_image_without_a_mask_is_named(tmp_path: Path) -> None:
    write_pair(tmp_path / "a.jpg", flat(8, 8, (1, 2, 3)), np.zeros((8, 8), np.uint8))
    (tmp_path / "a.mask.png").unlink()
    with pytest.raises(ValueError, match=r"a\.jpg has no mask: a\.mask\.png is missing"):
        find_pairs(tmp_path)


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no image NAME\.jpg"):
        find_pairs(tmp_path)


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    write_pair(tmp_path / "a.jpg", flat(8, 8, (1, 2, 3)), np.zeros((8, 9), np.uint8))
    with pytest.raises(ValueError, match="of the same size"):
        read_pair(tmp_path / "a.jpg")


# --- cut-outs and backgrounds ---


def test_a_cut_out_is_premultiplied_and_as_small_as_its_subject(tmp_path: Path) -> None:
    alpha = np.zeros((400, 400), np.uint8)
    alpha[100:300, 150:250] = 128
    write_rgba(tmp_path / "a.png", flat(400, 400, (200, 100, 0)), alpha)
    [cut_out] = load_cut_outs([tmp_path])
    assert cut_out.alpha.shape == (200, 100)
    assert (cut_out.alpha == 128).all()
    assert np.abs(cut_out.pixels.astype(int) - (100, 50, 0)).max() <= 1


def test_a_large_cut_out_is_reduced(tmp_path: Path) -> None:
    write_rgba(tmp_path / "a.png", flat(900, 600, (9, 9, 9)), np.full((900, 600), 255, np.uint8))
    assert load_cut_outs([tmp_path])[0].alpha.shape == (360, 240)


def test_a_cut_out_needs_an_alpha_channel_with_something_in_it(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), flat(9, 9, (1, 2, 3)))
    with pytest.raises(ValueError, match=r"a\.png is not an 8-bit RGBA image"):
        load_cut_outs([tmp_path])
    write_rgba(tmp_path / "a.png", flat(9, 9, (1, 2, 3)), np.zeros((9, 9), np.uint8))
    with pytest.raises(ValueError, match=r"a\.png is transparent everywhere"):
        load_cut_outs([tmp_path])


@pytest.mark.parametrize("load", [lambda folder: load_cut_outs([folder]), load_backgrounds])
def test_an_empty_folder_is_refused(tmp_path: Path, load: object) -> None:
    assert callable(load)
    with pytest.raises(ValueError, match=f"in {tmp_path}"):
        load(tmp_path)


def test_a_background_is_rgb_with_a_short_side_of_640_pixels(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), flat(1280, 1920, (0, 0, 250)))
    [background] = load_backgrounds(tmp_path)
    assert background.shape == (640, 960, 3)
    assert tuple(background[0, 0]) == (250, 0, 0)


@pytest.mark.parametrize("size", [(30, 400), (400, 30), (1, 1)])
def test_a_part_of_any_background_fills_the_square(
    rng: np.random.Generator, size: tuple[int, int]
) -> None:
    background = flat(*size, (10, 20, 30))
    for squash in (0.6, 1.0, 1.7):
        part = crop_background(rng, background, 64, squash)
        assert np.array_equal(part, flat(64, 64, (10, 20, 30)))


# --- composites ---


def test_colours_lie_over_a_scene_by_their_alpha() -> None:
    half = np.full((1, 1), 128, np.uint8)
    mixed = over(flat(1, 1, (0, 200, 100)), flat(1, 1, (128, 0, 0)), half)
    assert np.abs(mixed[0, 0].astype(int) - (128, 100, 50)).max() <= 1


def test_the_mask_of_a_composite_is_where_its_subject_is(rng: np.random.Generator) -> None:
    """The cut-out is red and the backgrounds are blue, and so the red pixels are the subject."""
    backgrounds = [[flat(200, 300, (20, 40, 220))]]
    agreement = []
    for _ in range(60):
        image, mask = compose(rng, [red_disc()], backgrounds, 96)
        assert image.shape == (96, 96, 3)
        assert mask.shape == (96, 96)
        assert mask.mean() >= 0.01 * 255
        red = image[..., 0].astype(int) > image[..., 2]
        agreement.append(float((red == (mask > 127)).mean()))
    # A quarter of the samples has a drawn subject or surface, in which red means nothing.
    assert np.median(agreement) > 0.97


def test_composites_depend_on_the_seed_alone() -> None:
    backgrounds = [[flat(200, 300, (20, 40, 220))]]
    first, second = (
        compose(np.random.default_rng(5), [red_disc()], backgrounds, 64) for _ in range(2)
    )
    assert np.array_equal(first[0], second[0])
    assert np.array_equal(first[1], second[1])


# --- mixture ---


def mixture(tmp_path: Path, shares: tuple[float, ...]) -> Mixture:
    """Return drawn samples of grey 50, composites, and a folder with one pair of grey 200."""
    write_pair(tmp_path / "a.jpg", flat(320, 320, (200,) * 3), np.full((320, 320), 255, np.uint8))
    drawn = np.full((BLOCK, 320, 320, 3), 50, np.uint8), np.zeros((BLOCK, 320, 320), np.uint8)
    background = flat(320, 320, (0, 0, 250))
    return Mixture(drawn, (tmp_path,), [red_disc()], [[background]], shares)


@pytest.mark.parametrize(
    ("shares", "share_of_drawn", "share_of_pairs"),
    [((1, 0, 0), 1, 0), ((0, 0, 1), 0, 1), ((1, 0, 3), 0.25, 0.75)],
)
def test_samples_have_the_shares_of_their_sources(
    tmp_path: Path, shares: tuple[float, ...], share_of_drawn: float, share_of_pairs: float
) -> None:
    source = samples(mixture(tmp_path, shares), np.random.default_rng(0), 32)
    # The mask of the drawn samples is empty, and that of the pair is full.
    means = [float(mask.mean()) for _, mask in islice(source, 150)]
    assert np.mean(np.equal(means, 0)) == pytest.approx(share_of_drawn, abs=0.08)
    assert np.mean(np.equal(means, 255)) == pytest.approx(share_of_pairs, abs=0.08)


def test_composites_are_a_source(tmp_path: Path) -> None:
    source = samples(mixture(tmp_path, (0, 1, 0)), np.random.default_rng(0), 32)
    assert all(0 < mask.mean() < 255 for _, mask in islice(source, 20))


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ((1, 1), "3 sources have 2 shares"),
        ((1, -1, 1), "not be negative"),
        ((0, 0, 0), "must be positive"),
    ],
)
def test_shares_that_fit_no_sources_are_refused(
    tmp_path: Path, shares: tuple[float, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        mixture(tmp_path, shares)


def test_a_share_of_an_empty_source_is_refused(tmp_path: Path) -> None:
    full = mixture(tmp_path, (1, 1, 1))
    with pytest.raises(ValueError, match=r"source 2 has a share of 0\.5 and no samples"):
        Mixture(full.drawn, full.pairs, [], [], (1, 0.5, 1))
