"""What the gate measures, and what it lets through."""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt
import pytest

from serve_app.errors import InvalidConfig
from serve_app.models.gate import BOUNDS, MaskPair, Measures, measure_masks
from serve_app.models.gate_images import distinct_images, draw_gate_images, halve, shrink_images

SIDE = 100


def disc(shift: int = 0) -> npt.NDArray[np.uint8]:
    rows, columns = np.mgrid[0:SIDE, 0:SIDE]
    inside = (rows - 50) ** 2 + (columns - 50 - shift) ** 2 < 900
    return np.where(inside, 255, 0).astype(np.uint8)


def changed(rows: int, by: int) -> npt.NDArray[np.uint8]:
    """Return the disc, darker in its last rows, of ``SIDE``, or brighter outside of it."""
    mask = disc().astype(int)
    mask[SIDE - rows :] += np.where(mask[SIDE - rows :] > 0, -by, by)
    return mask.astype(np.uint8)


def measured(*found: npt.NDArray[np.uint8], truth: bool = False) -> Measures:
    return measure_masks(
        MaskPair(f"image {number}", disc(), mask, disc() if truth else None)
        for number, mask in enumerate(found)
    )


def test_equal_masks_are_exact() -> None:
    found = measured(disc(), disc(), truth=True)
    assert (found.images, found.difference, found.iou, found.within_2) == (2, 0, 1, 1)
    assert found.true_iou_loss == 0
    assert found.reached() == "exact"


@pytest.mark.parametrize(
    ("rows", "by", "reached"),
    [
        (1, 2, "exact"),
        (1, 3, "close"),
        (3, 8, "close"),
        (4, 8, "fast"),
        (1, 9, "fast"),
        (2, 9, "fast"),
        (3, 9, None),
        (8, 8, None),
    ],
)
def test_the_strictest_accuracy_is_reached_that_allows_the_differences(
    rows: int, by: int, reached: str | None
) -> None:
    found = measured(changed(rows, by))
    assert found.difference == pytest.approx(rows * by / SIDE)
    assert found.within_8 == pytest.approx(1 if by <= 8 else 1 - rows / SIDE)
    assert found.reached() == reached


def test_masks_are_means_over_images_and_the_worst_is_named() -> None:
    found = measured(disc(), changed(2, 9), disc())
    assert found.within_8 == pytest.approx(1 - 0.02 / 3)
    assert found.worst == "image 1"
    assert found.worst_within_8 == pytest.approx(0.98)
    assert found.reached() == "fast"


def test_a_loss_against_true_masks_fails_every_accuracy() -> None:
    found = measured(*[disc()] * 3, truth=True).model_copy(update={"true_iou_loss": 0.0021})
    for accuracy in BOUNDS:
        assert found.failures(accuracy) == ["IoU with true masks lower by 0.0021 > 0.002"]


def test_the_loss_is_against_rembgs_own_score_of_the_true_mask() -> None:
    truth = disc(shift=4)
    pair = MaskPair("nearer to the truth", disc(), truth, truth)
    assert measure_masks([pair]).true_iou_loss < -0.1
    pair = MaskPair("farther from it", truth, disc(), truth)
    assert measure_masks([pair]).true_iou_loss > 0.1


def test_what_is_exact_suffices_for_every_accuracy() -> None:
    found = measured(changed(30, 1))
    assert found.failures("close") == ["mean difference 0.300 > 0.25 levels"]
    assert all(found.suffices_for(accuracy) for accuracy in BOUNDS)
    close = measured(changed(3, 8))
    assert [close.suffices_for(each) for each in BOUNDS] == [False, True, True]
    assert not any(measured(changed(3, 9)).suffices_for(accuracy) for accuracy in BOUNDS)


def test_a_moved_subject_fails_by_its_iou() -> None:
    found = measured(disc(shift=2))
    assert found.reached() is None
    assert any(text.startswith("IoU 0.9") for text in found.failures("fast"))


def test_masks_without_a_subject_agree() -> None:
    empty = np.zeros((SIDE, SIDE), np.uint8)
    assert measure_masks([MaskPair("empty", empty, empty, empty)]).reached() == "exact"


def test_a_gate_without_images_lets_nothing_through() -> None:
    with pytest.raises(ValueError, match="no image"):
        measure_masks([])


def test_a_set_is_halved_without_regard_to_its_order() -> None:
    images = list(shrink_images(draw_gate_images(9), SIDE))
    chooses, judges = halve(images)
    assert sorted(each.name for each in (*chooses, *judges)) == [each.name for each in images]
    assert (len(chooses), len(judges)) == (5, 4)
    again, _ = halve(images[::-1])
    assert [each.name for each in again] == [each.name for each in chooses]
    # Not every second image, which may be all of one kind.
    assert {each.name for each in chooses} != {each.name for each in images[::2]}
    with pytest.raises(InvalidConfig, match="two different images at least"):
        halve(images[:1])


def test_the_same_pixels_under_two_names_are_in_one_half_alone() -> None:
    images = list(shrink_images(draw_gate_images(6), SIDE))
    copies = [dataclasses.replace(each, name=f"copy of {each.name}") for each in images]
    chooses, judges = halve([*images, *copies])
    assert len({each.digest for each in (*chooses, *judges)}) == len(chooses) + len(judges) == 6
    assert distinct_images([*images, *copies]) == images
    again, _ = halve([*copies, *images])
    assert [each.name for each in again] == [each.name for each in chooses]
    with pytest.raises(InvalidConfig, match="two different images"):
        halve([images[0], copies[0]])
