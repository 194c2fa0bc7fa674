"""Images that are made of a cut-out and a background, with the true mask of the cut-out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from serve_app.imaging.pixels import Pixels

FloatArray = npt.NDArray[np.floating]

_SEEN_FROM = 26
_SHORTEST_SIDE_PX = 64
_LONGEST_SIDES_PX = (400, 901)
_ASPECT_RATIOS = (0.66, 1.5)
_SUBJECT_SIDES = (0.4, 0.95)
_LARGEST_ENLARGEMENT = 1.6
_CUT_OFF_CHANCE = 0.12
_LARGEST_CUT_OFF = 0.3


@dataclass(frozen=True, slots=True)
class Composite:
    """An image with the true mask of its subject."""

    image: Pixels
    """Image, uint8 [H, W, 3], RGB."""
    mask: Pixels
    """True alpha of the subject, uint8 [H, W]."""


def compose_image(rng: np.random.Generator, subject: Pixels, background: Pixels) -> Composite:
    """Return a cut-out on a background, scaled, placed and blurred at random.

    Args:
        rng: Random numbers, which all choices come from.
        subject: Cut-out, uint8 [h, w, 4], RGBA.
        background: Background, uint8 [H, W, 3], RGB, of which a part is taken.
    """
    width, height = _choose_size(rng)
    box = cv2.boundingRect(np.asarray(subject[..., 3] >= _SEEN_FROM, np.uint8))
    turn = _turn(rng)
    scale = rng.uniform(*_SUBJECT_SIDES) * float(np.min([width, height] / _turned_sides(box, turn)))
    if scale > _LARGEST_ENLARGEMENT:
        # The image becomes smaller, so that the subject keeps its share of it.
        width = max(_SHORTEST_SIDE_PX, round(width * _LARGEST_ENLARGEMENT / scale))
        height = max(_SHORTEST_SIDE_PX, round(height * _LARGEST_ENLARGEMENT / scale))
        scale = _LARGEST_ENLARGEMENT
    scene = _cut_background(rng, background, width, height)
    matrix = _placement(rng, box, turn, scale, (width, height))
    alpha, colours = _warp(rng, subject, matrix, (width, height))
    if rng.random() < 0.5:
        scene = _add_shadow(rng, scene, alpha)
    # Colours are premultiplied, so that transparent pixels of the stamp leave no fringe.
    image = colours + scene.astype(np.float32) * (1 - alpha[..., None])
    mask = np.clip(np.rint(alpha * 255), 0, 255).astype(np.uint8)
    return Composite(_take_with_camera(rng, image), mask)


def draw_background(rng: np.random.Generator, background: Pixels) -> Pixels:
    """Return a random part of a background, as subjects are put over.

    Args:
        rng: Random numbers, which all choices come from.
        background: Background, uint8 [H, W, 3], RGB.

    Returns:
        uint8 [H, W, 3], with a longer side of 400 to 900 pixels.
    """
    scene = _cut_background(rng, background, *_choose_size(rng))
    return _take_with_camera(rng, scene.astype(np.float32))


def _choose_size(rng: np.random.Generator) -> tuple[int, int]:
    """Return the width and height of an image."""
    longest_px = int(rng.integers(*_LONGEST_SIDES_PX))
    ratio = float(np.exp(rng.uniform(*np.log(_ASPECT_RATIOS))))
    width, height = min(1.0, ratio), min(1.0, 1 / ratio)
    return round(longest_px * width), round(longest_px * height)


def _cut_background(
    rng: np.random.Generator, background: Pixels, width: int, height: int
) -> Pixels:
    """Return a part of a background, uint8 [H, W, 3], mirrored, blurred and exposed at random."""
    full_height, full_width = background.shape[:2]
    share = rng.uniform(0.5, 1) * min(full_width / width, full_height / height)
    part_width, part_height = max(1, int(width * share)), max(1, int(height * share))
    left = int(rng.integers(full_width - part_width + 1))
    top = int(rng.integers(full_height - part_height + 1))
    part = background[top : top + part_height, left : left + part_width]
    method = cv2.INTER_AREA if share > 1 else cv2.INTER_CUBIC
    scene = np.asarray(cv2.resize(part, (width, height), interpolation=method), np.uint8)
    if rng.random() < 0.5:
        scene = np.ascontiguousarray(scene[:, ::-1])
    if rng.random() < 0.35:
        sigma_px = rng.uniform(0.5, 4) * max(width, height) / 640
        scene = np.asarray(cv2.GaussianBlur(scene, (0, 0), sigma_px), np.uint8)
    gain, lift = rng.uniform(0.75, 1.2), rng.uniform(-12, 20)
    return np.asarray(cv2.convertScaleAbs(scene, alpha=gain, beta=lift), np.uint8)


def _turn(rng: np.random.Generator) -> FloatArray:
    """Return a small turn, mirrored or not, as a matrix [2, 2]."""
    angle = np.deg2rad(rng.normal(0, 8))
    flip = rng.choice([-1.0, 1.0])
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos * flip, -sin], [sin * flip, cos]])


def _turned_sides(box: Sequence[int], turn: FloatArray) -> FloatArray:
    """Return the width and height, [2], of a turned box of left, top, width and height."""
    return np.asarray(np.abs(turn) @ np.array(box[2:], np.float64))


def _placement(
    rng: np.random.Generator,
    box: Sequence[int],
    turn: FloatArray,
    scale: float,
    size: tuple[int, int],
) -> FloatArray:
    """Return the affine matrix, [2, 3], from a stamp with this box to an image."""
    seen = scale * _turned_sides(box, turn)
    rest = (np.array(size) - seen) / 2
    shift = np.clip(rng.normal(0, 0.4, 2), -1, 1) * rest
    if rng.random() < _CUT_OFF_CHANCE:
        shift[0] = rng.choice([-1, 1]) * (rest[0] + rng.uniform(0, _LARGEST_CUT_OFF) * seen[0])
    centre = np.array(box[:2]) + np.array(box[2:]) / 2
    offset = np.array(size) / 2 + shift - scale * turn @ centre
    return np.concatenate([scale * turn, offset[:, None]], axis=1)


def _warp(
    rng: np.random.Generator, subject: Pixels, matrix: FloatArray, size: tuple[int, int]
) -> tuple[FloatArray, FloatArray]:
    """Return alpha, float32 [H, W], and premultiplied colours, float32 [H, W, 3], of a subject."""
    alpha = subject[..., 3:].astype(np.float32) / 255
    pixels = np.concatenate([subject[..., :3].astype(np.float32) * alpha, alpha], axis=2)
    scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    if scale < 1:
        # The bilinear sampling below would alias.
        pixels = np.asarray(cv2.GaussianBlur(pixels, (0, 0), 0.45 / scale))
    seen = np.asarray(cv2.warpAffine(pixels, matrix, size))
    feather_px = rng.uniform(0.3, 1.3) * max(size) / 640
    seen = np.asarray(cv2.GaussianBlur(seen, (0, 0), feather_px), np.float32)
    exposure = np.float32(rng.uniform(0.8, 1.15))
    opacity = np.asarray(np.clip(seen[..., 3], 0, 1), np.float32)
    return opacity, np.minimum(seen[..., :3] * exposure, 255 * opacity[..., None])


def _add_shadow(rng: np.random.Generator, scene: Pixels, alpha: FloatArray) -> Pixels:
    """Return a scene with the soft shadow of a subject, which the true mask leaves out."""
    height, width = alpha.shape
    unit = max(width, height) / 640
    x, y = rng.normal(0, 8) * unit, abs(rng.normal(0, 8)) * unit
    moved = cv2.warpAffine(alpha, np.array([[1, 0, x], [0, 1, y]], np.float32), (width, height))
    soft = np.asarray(cv2.GaussianBlur(moved, (0, 0), rng.uniform(3, 18) * unit), np.float32)
    shade = 1 - np.float32(rng.uniform(0.1, 0.5)) * soft
    return (scene * shade[..., None]).astype(np.uint8)


def _take_with_camera(rng: np.random.Generator, image: FloatArray) -> Pixels:
    """Return colours, float32 [H, W, 3], with the focus, noise and JPEG of a camera."""
    if rng.random() < 0.3:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1)))
    if rng.random() < 0.6:
        noise = rng.standard_normal(image.shape, np.float32)
        image = image + noise * np.float32(rng.uniform(1, 8))
    taken = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(55, 97))]
    _, data = cv2.imencode(".jpg", taken, quality)
    # Both calls take RGB for BGR, and so the two errors cancel.
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
