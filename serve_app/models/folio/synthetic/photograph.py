"""Synthetic photographs of books and other objects on surfaces, with their true masks.

They train the bundled model, and they are the images of the demonstration, the tests and the load
tests, because no data set may be shipped. A photograph depends only on its seed, kind and size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from serve_app.models.folio.synthetic import books, objects
from serve_app.models.folio.synthetic.layers import Layer
from serve_app.models.folio.synthetic.surfaces import (
    Pixels,
    blend,
    blur,
    clutter,
    colour,
    fill,
    grain,
    noise,
    ramp,
    shade,
    surface,
)

Kind = Literal["book", "object", "empty"]

_KINDS: tuple[Kind, ...] = ("book", "object", "empty")
_SHARES = (0.52, 0.34, 0.14)
_SMALLEST_SHARE = 0.015
_ATTEMPTS = 20


@dataclass(frozen=True, slots=True)
class SyntheticPhotograph:
    """A photograph with the true mask of its subject."""

    image: Pixels
    """Photograph, uint8 [H, W, 3], RGB."""
    mask: Pixels
    """True alpha of the subject, uint8 [H, W], which is 0 everywhere in an empty scene."""
    kind: Kind
    """Kind of the subject."""
    category: str
    """Category of the subject: ``cover``, ``spine``, ``stack`` or ``open`` of a book, the name of
    an object, or ``empty``."""


def draw_photograph(
    seed: int, *, width: int = 320, height: int = 320, kind: Kind | None = None
) -> SyntheticPhotograph:
    """Return a synthetic photograph.

    Args:
        seed: Seed of the random numbers. The same seed, kind and size give the same photograph.
        width: Width in pixels, up to about 4000. Details keep their proportion.
        height: Height in pixels, up to about 4000.
        kind: Kind of the subject, or None to choose one at random.

    Raises:
        ValueError: A side is below 1 pixel, or the kind is unknown.
    """
    if width < 1 or height < 1:
        raise ValueError(f"a photograph cannot have {width} x {height} pixels")
    if kind is not None and kind not in _KINDS:
        raise ValueError(f"kind {kind!r} is not one of {', '.join(_KINDS)}")
    rng = np.random.default_rng([seed, _KINDS.index(kind) + 1 if kind else 0])
    chosen: Kind = kind or _KINDS[int(rng.choice(len(_KINDS), p=_SHARES))]
    layer, category = paint_subject(rng, chosen, height, width)
    scene = surface(rng, height, width)
    if rng.random() < 0.2:
        scene = _add_wall(rng, scene)
    if chosen == "empty":
        scene = _add_stains(rng, scene)
    elif rng.random() < 0.25:
        scene = blur(scene, rng.uniform(0.5, 5) * layer.unit)
    scene = add_shadow(rng, scene, layer.alpha)
    image = blend(scene, layer.pixels, layer.alpha)
    return SyntheticPhotograph(take_with_camera(rng, image), layer.alpha, chosen, category)


def paint_subject(
    rng: np.random.Generator, kind: Kind, height: int, width: int
) -> tuple[Layer, str]:
    """Return a layer with a subject of a kind, and the category of the subject."""
    layer = Layer.empty(height, width)
    if kind == "empty":
        return layer, "empty"
    for _ in range(_ATTEMPTS):
        layer = Layer.empty(height, width)
        paint = objects.paint_object if kind == "object" else _paint_book
        category = paint(rng, layer)
        if layer.alpha.mean() >= _SMALLEST_SHARE * 255:
            break
    return layer, category


def _paint_book(rng: np.random.Generator, layer: Layer) -> str:
    category = str(rng.choice(["cover", "spine", "stack", "open"], p=[0.6, 0.08, 0.17, 0.15]))
    if category == "cover":
        books.paint_closed_book(rng, layer)
    elif category == "spine":
        books.paint_book_from_behind(rng, layer)
    elif category == "stack":
        books.paint_stack(rng, layer)
    else:
        books.paint_open_book(rng, layer)
    return category


def _add_wall(rng: np.random.Generator, scene: Pixels) -> Pixels:
    """Return a surface that ends at a wall, uint8 [H, W, 3]."""
    height, width = scene.shape[:2]
    layer = Layer.empty(height, width)
    left, right = rng.uniform(0.05, 0.5) * height + rng.normal(0, 0.03, 2) * height
    corners = np.array([(0.0, 0.0), (width, 0.0), (width, right), (0.0, left)])
    return blend(scene, blur(surface(rng, height, width), layer.unit), layer.polygon(corners))


def _add_stains(rng: np.random.Generator, scene: Pixels) -> Pixels:
    """Return an empty scene with what a model must not take for a subject: stains, shadows."""
    height, width = scene.shape[:2]
    for _ in range(int(rng.choice([0, 1, 2, 3], p=[0.4, 0.3, 0.2, 0.1]))):
        field = noise(rng, height, width, rng.uniform(0.2, 0.5))
        spot = np.clip((field - rng.uniform(0.5, 1.8)) * rng.uniform(40, 150), 0, 255)
        opacity = np.float32(rng.uniform(0.08, 0.5))
        scene = blend(scene, fill(height, width, colour(rng)), (spot * opacity).astype(np.uint8))
    if rng.random() < 0.15:
        faint = np.full((height, width), rng.uniform(40, 160), np.uint8)
        scene = blend(scene, clutter(rng, height, width), faint)
    return scene


def add_shadow(rng: np.random.Generator, scene: Pixels, alpha: Pixels) -> Pixels:
    """Return a scene with the soft shadow of a subject on it."""
    if rng.random() < 0.2:
        return scene
    height, width = alpha.shape
    unit = min(height, width) / 320
    shift = rng.normal(0, 6, 2) * unit
    matrix = np.array([[1, 0, shift[0]], [0, 1, shift[1]]], np.float32)
    moved = np.asarray(cv2.warpAffine(alpha, matrix, (width, height)), np.uint8)
    soft = blur(moved, rng.uniform(1.5, 14) * unit)
    strength = np.float32(rng.uniform(0.15, 0.7) / 255)
    return shade(scene, 1 - strength * soft.astype(np.float32))


def take_with_camera(rng: np.random.Generator, image: Pixels) -> Pixels:
    """Return a scene as a camera takes it: with its light, focus, exposure, noise and JPEG."""
    height, width = image.shape[:2]
    if rng.random() < 0.7:
        slope = ramp(rng, height, width) - np.float32(0.5)
        image = shade(image, 1 + np.float32(rng.uniform(0, 0.5)) * slope)
    if rng.random() < 0.3:
        image = blur(image, rng.uniform(0.3, 1.1) * min(height, width) / 320)
    if rng.random() < 0.5:
        exposure, lift = rng.uniform(0.55, 1.25), rng.uniform(-18, 25)
        image = np.asarray(cv2.convertScaleAbs(image, alpha=exposure, beta=lift), np.uint8)
    if rng.random() < 0.5:
        speckle = np.float32(rng.uniform(1, 9)) * grain(rng, height, width)
        noisy = cv2.add(image, cv2.merge([speckle, speckle, speckle]), dtype=cv2.CV_8U)
        image = np.asarray(noisy, np.uint8)
    if rng.random() < 0.4:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(45, 96))]
        _, data = cv2.imencode(".jpg", image, quality)
        # Both calls take RGB for BGR, and so the two errors cancel.
        image = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)
    return image
