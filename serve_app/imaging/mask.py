"""Masks: a model's input and output sizes, and the subject that a mask shows."""

from __future__ import annotations

import cv2
import numpy as np

from serve_app.contracts.outcome import Box
from serve_app.contracts.recipe import Checks
from serve_app.errors import NoSubject, SubjectTooSmall
from serve_app.imaging import lanczos
from serve_app.imaging.lanczos_filter import affected_lines
from serve_app.imaging.pixels import SUBJECT_ALPHA_FROM, Pixels
from serve_app.imaging.strips import strips

_CROP_MARGIN_PX = 1
"""Pixels around a cropped subject, so that programs that smooth edges find them complete."""
_CONSIDERED_FROM = 26
"""Lowest mask value of a pixel that the model considered to be the subject: 10 % of 255."""
_SIGMA_PX, _REACH_PX = 2, 8
"""Standard deviation of rembg's smoothing of masks, and the distance at which it is cut off."""
_SMOOTH_FROM = 127
"""Lowest value of a smooth mask that belongs to the subject."""
_SURE_FROM = 230
"""Lowest mask value of a pixel that the model was sure of: 90 % of 255."""


def resize_for_model(rgb: Pixels, size_px: int) -> Pixels:
    """Return an image squashed to a model's square input, by rembg's filter (Lanczos).

    Args:
        rgb: Image, uint8 [H, W, 3].
        size_px: Side of the model's input, in pixels.

    Returns:
        uint8 [size_px, size_px, 3].
    """
    return lanczos.resize(rgb, size_px, size_px)


def resize_mask(mask: Pixels, width: int, height: int) -> Pixels:
    """Return a model's mask at the size of its image, by rembg's filter (Lanczos).

    Args:
        mask: Mask of the model, uint8 [S, S].
        width: Width of the image, in pixels.
        height: Height of the image, in pixels.

    Returns:
        uint8 [H, W].
    """
    resized = np.zeros((height, width), np.uint8)
    size = mask.shape[0]
    left, top, wide, tall = cv2.boundingRect(mask)
    if wide:
        # A part of the mask that is 0 stays 0, so only the part around the subject is computed.
        columns = affected_lines(left, left + wide, size, width)
        rows = affected_lines(top, top + tall, size, height)
        part = lanczos.resize(mask, width, height, columns=columns, rows=rows)
        resized[slice(*rows), slice(*columns)] = part
    return resized


def multiply_by_alpha(mask: Pixels, alpha: Pixels | None) -> Pixels:
    """Return a mask multiplied by the transparency that the image already has.

    Args:
        mask: Mask, uint8 [H, W].
        alpha: Transparency of the image, uint8 [H, W], or None if it has none.

    Returns:
        uint8 [H, W].
    """
    return mask if alpha is None else _as_uint8(cv2.multiply(mask, alpha, scale=1 / 255))


def post_process_mask(mask: Pixels) -> Pixels:
    """Return a mask without specks and with a smooth, hard edge, as rembg's ``post_process``.

    The mask is opened by a cross of 3 x 3, smoothed by a Gaussian with a sigma of 2 pixels that is
    cut off at four sigmas, and cut at half.

    Args:
        mask: Mask, uint8 [H, W].

    Returns:
        uint8 [H, W], with values of 0 and 255.
    """
    height, width = mask.shape
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    opened = cv2.morphologyEx(mask, cv2.MORPH_OPEN, cross)
    # The filter's border, so that strips of rows can be filtered one after the other.
    framed = cv2.copyMakeBorder(opened, _REACH_PX, _REACH_PX, 0, 0, cv2.BORDER_REFLECT)
    result = np.empty((height, width), np.uint8)
    side_px = 2 * _REACH_PX + 1
    for rows in strips(0, height, width):
        strip = np.asarray(framed[rows.start : rows.stop + 2 * _REACH_PX], np.float64)
        smooth = np.asarray(
            cv2.GaussianBlur(strip, (side_px, side_px), _SIGMA_PX, borderType=cv2.BORDER_REFLECT)
        )
        result[rows] = (smooth[_REACH_PX:-_REACH_PX] >= _SMOOTH_FROM) * np.uint8(255)
    return result


def subject_pixels(alpha: Pixels) -> Pixels:
    """Return the pixels of the subject as 255 and all others as 0.

    Args:
        alpha: Mask or transparency, uint8 [H, W].

    Returns:
        uint8 [H, W].
    """
    return _as_uint8(cv2.threshold(alpha, SUBJECT_ALPHA_FROM - 1, 255, cv2.THRESH_BINARY)[1])


def find_subject_box(alpha: Pixels) -> Box:
    """Return the smallest box around the subject, or an empty box if there is no subject.

    Args:
        alpha: Mask or transparency, uint8 [H, W].
    """
    left, top, width, height = cv2.boundingRect(subject_pixels(alpha))
    return Box(left=left, top=top, right=left + width, bottom=top + height)


def find_crop(alpha: Pixels) -> Box | None:
    """Return the box around all that is visible, with a margin of one pixel within the image.

    It holds soft edges, which are outside of the box around the subject.

    Args:
        alpha: Mask or transparency, uint8 [H, W].

    Returns:
        The box, or None if nothing is visible.
    """
    left, top, width, height = cv2.boundingRect(alpha)
    if not width:
        return None
    return Box(
        left=max(left - _CROP_MARGIN_PX, 0),
        top=max(top - _CROP_MARGIN_PX, 0),
        right=min(left + width + _CROP_MARGIN_PX, alpha.shape[1]),
        bottom=min(top + height + _CROP_MARGIN_PX, alpha.shape[0]),
    )


def check_subject(alpha: Pixels, box: Box, checks: Checks) -> None:
    """Check that a subject is one that the recipe accepts.

    Args:
        alpha: Mask or transparency, uint8 [H, W].
        box: Box around the subject.
        checks: Checks of the recipe.

    Raises:
        NoSubject: There is no subject, and the recipe requires one.
        SubjectTooSmall: A check failed. The message names it.
    """
    if not box.width:
        if not checks.min_subject_px:
            return
        raise NoSubject("the model found no subject in the image")
    shortest_px = min(box.width, box.height)
    if shortest_px < checks.min_subject_px:
        raise SubjectTooSmall(
            f"the subject is {box.width} x {box.height} pixels. The recipe requires at least "
            f"{checks.min_subject_px} (checks.min_subject_px)"
        )
    height, width = alpha.shape
    if checks.min_subject_area is not None:
        area = cv2.countNonZero(subject_pixels(alpha)) / (width * height)
        if area < checks.min_subject_area:
            raise SubjectTooSmall(
                f"the subject covers {area:.4f} of the image. The recipe requires at least "
                f"{checks.min_subject_area:g} (checks.min_subject_area)"
            )
    if checks.max_aspect_change is not None:
        change = (box.width / box.height) / (width / height)
        change = max(change, 1 / change)
        if change > checks.max_aspect_change:
            raise SubjectTooSmall(
                f"the aspect ratios of subject and image differ by a factor of {change:.2f}. The "
                f"recipe allows {checks.max_aspect_change:g} (checks.max_aspect_change)"
            )


def mask_confidence(mask: Pixels) -> float:
    """Return the share of the considered pixels that the model was sure of.

    The model considered a pixel if its mask is at least 10 % (26 of 255), and was sure of it from
    90 % (230 of 255). A crisp mask of a book is at 0.95 and above, since only its edge is soft. A
    guess that is spread over the image is near 0.

    Args:
        mask: Mask of the model, uint8 [S, S].

    Returns:
        A share, 0 to 1, rounded to four digits, so that checks and reports see the same number. It
        is 0 for an empty mask.
    """
    considered = int(np.count_nonzero(mask >= _CONSIDERED_FROM))
    sure = int(np.count_nonzero(mask >= _SURE_FROM))
    return round(sure / considered, 4) if considered else 0.0


def is_sure_enough(mask: Pixels, checks: Checks) -> bool:
    """Return whether the confidence of a mask reaches that of a recipe's checks.

    It is not one of ``check_subject``'s conditions, since a mask below it is no failure: another
    model is asked, and the last one's mask is taken as it is.

    Args:
        mask: Mask of the model, uint8 [S, S].
        checks: Checks of the recipe.
    """
    return checks.min_confidence is None or mask_confidence(mask) >= checks.min_confidence


def _as_uint8(array: object) -> Pixels:
    return np.asarray(array, dtype=np.uint8)
