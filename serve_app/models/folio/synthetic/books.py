"""Books that stand, lie, lean, are stacked or open, painted on a layer."""

from __future__ import annotations

import cv2
import numpy as np

from serve_app.models.folio.synthetic.book_faces import (
    draw_cover,
    draw_page,
    draw_page_edges,
    draw_spine,
)
from serve_app.models.folio.synthetic.layers import Layer, Points, fit, project, rotation
from serve_app.models.folio.synthetic.surfaces import Colour, shade

_FRONT = (0, 1, 2, 3)
# The corners of a box are numbered clockwise from the top left: front (0-3), then back (4-7).
_SIDES = {"spine": (4, 0, 3, 7), "edge": (1, 5, 6, 2), "top": (4, 5, 1, 0), "foot": (3, 2, 6, 7)}


def paint_volume(
    rng: np.random.Generator,
    layer: Layer,
    *,
    turn: tuple[float, float, float],
    centre: tuple[float, float],
    longest: float,
    spine_only: bool = False,
) -> None:
    """Paint a closed book.

    Args:
        rng: Random number generator.
        layer: Layer to paint on.
        turn: Yaw, pitch and roll, in radians.
        centre: Centre of the book's bounding box, x and y in pixels.
        longest: Longer side of the book's bounding box, in pixels.
        spine_only: Whether the book shows its spine, as on a shelf.
    """
    texture_h = int(np.clip(longest, 48, 1600))
    height, width = 1.0, rng.uniform(0.58, 0.85)
    depth = rng.uniform(0.02, 0.08) if rng.random() < 0.4 else rng.uniform(0.08, 0.26)
    if rng.random() < 0.12:
        height, width = width, 1.0
    rows, columns = int(texture_h * height), int(texture_h * width)
    front, base = draw_cover(rng, rows, columns)
    if spine_only:
        width, depth = rng.uniform(0.07, 0.24), rng.uniform(0.3, 0.7)
        front = draw_spine(rng, rows, max(8, int(texture_h * width)), base)
    x, y, z = width / 2, height / 2, depth / 2
    square = ((-x, -y), (x, -y), (x, y), (-x, y))
    box = np.array([(a, b, side) for side in (-z, z) for a, b in square])
    corners = fit(project(box, rotation(*turn), rng.uniform(2.2, 6)), centre, longest)
    thickness = max(6, int(texture_h * depth))
    block = draw_page_edges(rng, rows, thickness, base)
    for name, places in _SIDES.items():
        quad = corners[list(places)]
        if _area(quad) < 2:
            continue
        if name == "spine" and not spine_only:
            side = draw_spine(rng, rows, thickness, base)
        elif name in {"top", "foot"}:
            side = np.ascontiguousarray(np.rot90(draw_page_edges(rng, columns, thickness, base)))
        else:
            side = block
        light = np.full(side.shape[:2], rng.uniform(0.45, 1.0), np.float32)
        layer.paint_texture(shade(side, light), quad)
    quad = corners[list(_FRONT)]
    layer.paint_texture(front, quad)
    if not spine_only and rng.random() < 0.4:
        _hinge(rng, layer, quad, base)


def _hinge(rng: np.random.Generator, layer: Layer, quad: Points, base: Colour) -> None:
    share = rng.uniform(0.03, 0.07)
    top = quad[0] + (quad[1] - quad[0]) * share
    foot = quad[3] + (quad[2] - quad[3]) * share
    groove = (base * np.float32(rng.uniform(0.5, 0.85))).tolist()
    thickness = max(1, round(layer.unit * rng.uniform(0.8, 2)))
    start, end = (int(top[0]), int(top[1])), (int(foot[0]), int(foot[1]))
    cv2.line(layer.pixels, start, end, groove, thickness, cv2.LINE_AA)


def _area(quad: Points) -> float:
    """Return the area of a quadrilateral, which is negative if it is seen from behind."""
    x, y = quad[:, 0], quad[:, 1]
    return float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y) / 2)


def _turn(rng: np.random.Generator) -> tuple[float, float, float]:
    """Return a random yaw, pitch and roll in radians, mostly of nearly flat and upright books."""
    spread = float(rng.choice([0.1, 0.3, 0.55], p=[0.35, 0.35, 0.3]))
    yaw = float(np.clip(rng.normal(0, spread), -0.9, 0.9))
    pitch = float(np.clip(rng.normal(-0.3 * spread, spread), -0.9, 0.9))
    tilt = float(rng.choice([0.05, 0.25, 1.6], p=[0.55, 0.3, 0.15]))
    return yaw, pitch, float(rng.normal(0, tilt))


def _centre(rng: np.random.Generator, layer: Layer, longest: float) -> tuple[float, float]:
    """Return a random centre that mostly keeps a subject of this size within the layer."""
    free = np.maximum(0, (layer.width - longest, layer.height - longest))
    shift = np.clip(rng.normal(0, 0.35, 2), -1, 1) * free / 2 + rng.normal(0, 5, 2) * layer.unit
    return layer.width / 2 + float(shift[0]), layer.height / 2 + float(shift[1])


def paint_closed_book(rng: np.random.Generator, layer: Layer) -> None:
    """Paint a closed book that shows its cover."""
    longest = min(layer.height, layer.width) * rng.uniform(0.45, 0.98)
    paint_volume(rng, layer, turn=_turn(rng), centre=_centre(rng, layer, longest), longest=longest)


def paint_book_from_behind(rng: np.random.Generator, layer: Layer) -> None:
    """Paint a closed book that shows its spine."""
    longest = min(layer.height, layer.width) * rng.uniform(0.6, 0.97)
    centre = _centre(rng, layer, longest)
    paint_volume(rng, layer, turn=_turn(rng), centre=centre, longest=longest, spine_only=True)


def paint_stack(rng: np.random.Generator, layer: Layer) -> None:
    """Paint some books on top of or next to each other."""
    count = int(rng.integers(2, 5))
    yaw, pitch = rng.normal(0, 0.15, 2)
    roll = rng.normal(0, 0.12)
    longest = min(layer.height, layer.width) * rng.uniform(0.42, 0.7)
    on_shelf = rng.random() < 0.35
    angle = roll if on_shelf else rng.uniform(0, 2 * np.pi)
    step = longest * (rng.uniform(0.13, 0.2) if on_shelf else rng.uniform(0.12, 0.35))
    direction = np.array([np.cos(angle), np.sin(angle)]) * step
    middle = np.array([layer.width, layer.height]) / 2 + rng.normal(0, 8, 2) * layer.unit
    for i in range(count):
        x, y = middle + direction * (i - (count - 1) / 2)
        lean = roll + rng.normal(0, 0.02 if on_shelf else 0.12)
        size = longest * rng.uniform(0.88, 1.08)
        turn = (float(yaw), float(pitch), float(lean))
        paint_volume(rng, layer, turn=turn, centre=(x, y), longest=size, spine_only=on_shelf)


def paint_open_book(rng: np.random.Generator, layer: Layer) -> None:
    """Paint an open book, whose two pages bow towards the fold."""
    longest = min(layer.height, layer.width) * rng.uniform(0.6, 1.0)
    columns = int(np.clip(longest, 64, 1600)) // 2 * 2
    rows, bow_px = int(columns * rng.uniform(0.56, 0.8)), int(columns * 0.06)
    sheets = [draw_page(rng, rows, columns // 2) for _ in range(2)]
    spread = np.concatenate([np.asarray(cv2.flip(sheets[0], 1)), sheets[1]], axis=1)
    spread = np.asarray(cv2.copyMakeBorder(spread, bow_px, bow_px, 0, 0, cv2.BORDER_REPLICATE))
    x = np.abs(np.linspace(-1, 1, columns, dtype=np.float32))
    bow = np.float32(rng.uniform(0.2, 1.0) * bow_px) * (np.sqrt(x) * (1 - 0.6 * x) / 0.48 - 1)
    across, down = np.meshgrid(
        np.arange(columns, dtype=np.float32), np.arange(rows + 2 * bow_px, dtype=np.float32)
    )
    source_y = down + bow[None]
    bowed = cv2.remap(spread, across, source_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    depth = np.minimum(source_y - bow_px, rows + bow_px - source_y)
    shape = (np.clip(depth + 0.5, 0, 1) * 255).astype(np.uint8)
    half_w, half_h = 0.5, 0.5 * (rows + 2 * bow_px) / columns
    flat = np.array(
        [(-half_w, -half_h, 0), (half_w, -half_h, 0), (half_w, half_h, 0), (-half_w, half_h, 0)]
    )
    yaw, pitch = rng.normal(0, 0.12), rng.normal(-0.2, 0.2)
    roll = rng.normal(0, 0.1) if rng.random() < 0.8 else rng.uniform(-3, 3)
    seen = project(flat, rotation(yaw, pitch, roll), rng.uniform(2, 6))
    corners = fit(seen, _centre(rng, layer, longest), longest)
    layer.paint_texture(np.asarray(bowed, np.uint8), corners, shape)
