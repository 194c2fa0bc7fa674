"""Masks: the picture that a model sees, and what its answer says of the photograph."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from serve_app.contracts.outcome import Box
from serve_app.contracts.recipe import Checks
from serve_app.errors import NoSubject, SubjectTooSmall
from serve_app.imaging import lanczos

SUBJECT_ALPHA_FROM = 128
"""Alpha from which a pixel counts as the subject's."""

_UNDECIDED_FROM = 26
_DECIDED_FROM = 230


def resize_for_model(rgb: npt.NDArray[np.uint8], size_px: int) -> npt.NDArray[np.uint8]:
    """Return a photograph squashed to a model's square, with rembg's filter (Lanczos).

    Args:
        rgb: uint8 [H, W, 3].
        size_px: Side of the model's input.

    Returns:
        uint8 [size_px, size_px, 3].
    """
    return lanczos.resize(rgb, size_px, size_px)


def resize_mask(mask: npt.NDArray[np.uint8], width: int, height: int) -> npt.NDArray[np.uint8]:
    """Return a model's mask at the size of its photograph, with rembg's filter (Lanczos).

    Args:
        mask: uint8 [S, S].
        width: Of the photograph, in pixels.
        height: Of the photograph, in pixels.

    Returns:
        uint8 [H, W].
    """
    resized = np.zeros((height, width), np.uint8)
    size = mask.shape[0]
    left, top, wide, tall = cv2.boundingRect(mask)
    if wide:
        # Where the mask is 0, so is its enlargement: only what is around the subject is computed.
        columns = lanczos.affected_lines(left, left + wide, size, width)
        rows = lanczos.affected_lines(top, top + tall, size, height)
        part = lanczos.resize(mask, width, height, columns=columns, rows=rows)
        resized[slice(*rows), slice(*columns)] = part
    return resized


def multiply_by_alpha(
    mask: npt.NDArray[np.uint8], alpha: npt.NDArray[np.uint8] | None
) -> npt.NDArray[np.uint8]:
    """Return a mask, multiplied by the transparency that its photograph has of its own.

    Args:
        mask: uint8 [H, W].
        alpha: uint8 [H, W]; None where the photograph has none.

    Returns:
        uint8 [H, W].
    """
    return mask if alpha is None else _as_uint8(cv2.multiply(mask, alpha, scale=1 / 255))


def post_process_mask(mask: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return a mask without specks and with a smooth, hard edge: rembg's ``post_process``.

    Args:
        mask: uint8 [H, W].

    Returns:
        uint8 [H, W], 0 or 255: opened by a cross of 3 x 3, smoothed by a Gaussian with a sigma of 2
        that is cut at four times that, and cut at half.
    """
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    opened = cv2.morphologyEx(mask, cv2.MORPH_OPEN, cross)
    smooth = cv2.GaussianBlur(
        np.asarray(opened, np.float64), (17, 17), 2, borderType=cv2.BORDER_REFLECT
    )
    return _as_uint8(np.where(np.asarray(smooth) < 127, 0, 255))


def subject_pixels(alpha: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return 255 where a pixel is the subject's, else 0.

    Args:
        alpha: uint8 [H, W].

    Returns:
        uint8 [H, W].
    """
    return _as_uint8(cv2.threshold(alpha, SUBJECT_ALPHA_FROM - 1, 255, cv2.THRESH_BINARY)[1])


def find_subject_box(alpha: npt.NDArray[np.uint8]) -> Box:
    """Return the smallest box around the subject; an empty one where there is none.

    Args:
        alpha: uint8 [H, W].
    """
    left, top, width, height = cv2.boundingRect(subject_pixels(alpha))
    return Box(left=left, top=top, right=left + width, bottom=top + height)


def check_subject(alpha: npt.NDArray[np.uint8], box: Box, checks: Checks) -> None:
    """Return if a mask is one that the recipe accepts.

    Args:
        alpha: uint8 [H, W].
        box: Of its subject.
        checks: What it must pass.

    Raises:
        NoSubject: There is none, and the recipe asks for one.
        SubjectTooSmall: It did not pass; says which check.
    """
    if not box.width:
        if not checks.min_subject_px:
            return
        raise NoSubject("the model found no subject in the image")
    shortest_px = min(box.width, box.height)
    if shortest_px < checks.min_subject_px:
        raise SubjectTooSmall(
            f"the subject is {box.width} x {box.height} pixels; the recipe asks for at least "
            f"{checks.min_subject_px} (checks.min_subject_px)"
        )
    height, width = alpha.shape
    if checks.min_subject_area is not None:
        area = cv2.countNonZero(subject_pixels(alpha)) / (width * height)
        if area < checks.min_subject_area:
            raise SubjectTooSmall(
                f"the subject covers {area:.4f} of the image; the recipe asks for at least "
                f"{checks.min_subject_area:g} (checks.min_subject_area)"
            )
    if checks.max_aspect_change is not None:
        change = (box.width / box.height) / (width / height)
        change = max(change, 1 / change)
        if change > checks.max_aspect_change:
            raise SubjectTooSmall(
                f"the subject's aspect differs from the image's by a factor of {change:.2f}; the "
                f"recipe allows {checks.max_aspect_change:g} (checks.max_aspect_change)"
            )


def mask_confidence(mask: npt.NDArray[np.uint8]) -> float:
    """Return how sure a model was: the pixels that it is sure of, among those it considered.

    A pixel is considered from 10 % (26 of 255) and sure from 90 % (230). A crisp mask of a book
    is at 0.95 and above, since only its edge is soft; a guess spread over the picture is near 0.

    Args:
        mask: uint8 [S, S], as the model gave it.

    Returns:
        0 to 1; 0 for an empty mask.
    """
    considered = int(np.count_nonzero(mask >= _UNDECIDED_FROM))
    sure = int(np.count_nonzero(mask >= _DECIDED_FROM))
    return sure / considered if considered else 0.0


def _as_uint8(array: object) -> npt.NDArray[np.uint8]:
    return np.asarray(array, dtype=np.uint8)
