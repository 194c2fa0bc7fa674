"""Books: covers, spines, pages, and volumes that stand, lie, lean, are stacked or open."""

from __future__ import annotations

import string

import cv2
import numpy as np

from serve_app.models.folio.synthetic.layers import Layer, Points, fit, project, rotation
from serve_app.models.folio.synthetic.surfaces import (
    Colour,
    Pixels,
    blend,
    clouds,
    colour,
    fill,
    near,
    noise,
    shade,
    surface,
)

_FONTS = (
    cv2.FONT_HERSHEY_SIMPLEX,
    cv2.FONT_HERSHEY_DUPLEX,
    cv2.FONT_HERSHEY_COMPLEX,
    cv2.FONT_HERSHEY_TRIPLEX,
    cv2.FONT_HERSHEY_SCRIPT_COMPLEX,
)
_GILT = np.array([200, 165, 70], np.float32)
_PAPER = np.array([244, 236, 220], np.float32)
_INK = np.array([44, 40, 38], np.float32)

_FRONT = (0, 1, 2, 3)
# Corners of a box: front (0-3) and back (4-7), each from the top left, clockwise.
_SIDES = {"spine": (4, 0, 3, 7), "edge": (1, 5, 6, 2), "top": (4, 5, 1, 0), "foot": (3, 2, 6, 7)}


def words(rng: np.random.Generator, count: int) -> str:
    """Return some words that mean nothing."""
    letters = list(string.ascii_letters)
    return " ".join("".join(rng.choice(letters, rng.integers(2, 9))) for _ in range(count))


def title(
    picture: Pixels, text: str, ink: Colour, font: int, *, y: float, size_px: float, width: float
) -> None:
    """Write a centred line of text, as wide as ``width`` of the picture at most."""
    height_px, width_px = picture.shape[:2]
    (text_w, text_h), _ = cv2.getTextSize(text, font, 1.0, 2)
    scale = min(size_px / max(text_h, 1), width * width_px / max(text_w, 1))
    thickness = max(1, round(scale * 2.2))
    left = int((width_px - text_w * scale) / 2)
    position = (left, int(y * height_px))
    cv2.putText(picture, text, position, font, scale, ink.tolist(), thickness, cv2.LINE_AA)


def lines_of_text(
    rng: np.random.Generator, picture: Pixels, ink: Colour, box: tuple[float, float, float, float]
) -> None:
    """Draw body text as it looks from afar; the box is left, top, right, bottom in pixels."""
    left, top, right, bottom = box
    pitch = picture.shape[0] * rng.uniform(0.016, 0.028)
    thickness = max(1, round(pitch * 0.3))
    y = top
    while y < bottom:
        end = right if rng.random() > 0.12 else left + (right - left) * rng.uniform(0.2, 0.9)
        x = left
        while x < end:
            stop = min(x + pitch * rng.uniform(0.5, 2.4), end)
            start_point, stop_point = (int(x), int(y)), (int(stop), int(y))
            cv2.line(picture, start_point, stop_point, ink.tolist(), thickness, cv2.LINE_AA)
            x = stop + pitch * 0.55
        y += pitch


def ink_on(rng: np.random.Generator, base: Colour) -> Colour:
    """Return a colour that can be read on another."""
    if rng.random() < 0.25:
        return np.asarray(np.clip(_GILT * rng.uniform(0.7, 1.2), 0, 255), np.float32)
    if base.mean() > 128:
        return colour(rng, str(rng.choice(["dark", "vivid", "earth"]))) * np.float32(0.7)
    return colour(rng, str(rng.choice(["white", "pastel", "vivid"])))


def cover(rng: np.random.Generator, height: int, width: int) -> tuple[Pixels, Colour]:
    """Return the front of a book, uint8 [H, W, 3], and its main colour."""
    kind = str(
        rng.choice(["cloth", "jacket", "bands", "worn", "paper"], p=[0.26, 0.28, 0.14, 0.18, 0.14])
    )
    base = _PAPER * np.float32(rng.uniform(0.78, 1.03)) if kind == "paper" else colour(rng)
    picture = fill(height, width, base)
    if kind == "jacket":
        art = surface(rng, height, width) if rng.random() < 0.7 else clouds(rng, height, width)
        first, last = sorted(rng.uniform(0, 1, 2)) if rng.random() < 0.5 else (0.0, 1.0)
        rows = slice(int(first * height), max(int(first * height) + 1, int(last * height)))
        picture[rows] = art[rows]
    elif kind == "bands":
        for _ in range(int(rng.integers(1, 4))):
            top = int(rng.uniform(0, height))
            picture[top : top + int(rng.uniform(0.02, 0.4) * height)] = colour(rng).astype(np.uint8)
    elif kind == "worn":
        rubbed = noise(rng, height, width, 0.8)
        picture = shade(picture, 1 + np.float32(rng.uniform(0.02, 0.12)) * rubbed)
        y, x = np.mgrid[0:height, 0:width].astype(np.float32)
        inset = np.minimum(np.minimum(x, width - x), np.minimum(y, height - y)) / height
        edge = np.exp(-(inset * 100 + rubbed) / rng.uniform(0.8, 4)).clip(0, 1)
        pale = fill(height, width, base * 0.4 + 120)
        picture = blend(picture, pale, (edge * rng.uniform(40, 200)).astype(np.uint8))
    ink = _INK * np.float32(rng.uniform(0.5, 1.8)) if kind == "paper" else ink_on(rng, base)
    picture = np.ascontiguousarray(picture)
    if rng.random() < 0.35:
        inset_px = int(rng.uniform(0.02, 0.09) * width)
        corners = (inset_px, inset_px), (width - inset_px, height - inset_px)
        cv2.rectangle(picture, *corners, ink.tolist(), max(1, height // 150), cv2.LINE_AA)
    for _ in range(int(rng.choice([0, 0, 1, 2]))):
        centre = (int(rng.uniform(0.25, 0.75) * width), int(rng.uniform(0.35, 0.75) * height))
        axes = (int(rng.uniform(0.05, 0.32) * width), int(rng.uniform(0.05, 0.22) * height))
        turn = float(rng.uniform(0, 180))
        cv2.ellipse(picture, centre, axes, turn, 0, 360, colour(rng).tolist(), -1, cv2.LINE_AA)
    if kind == "paper" and rng.random() < 0.4:
        margin = rng.uniform(0.09, 0.18) * width
        box = (margin, 0.1 * height, width - margin, 0.92 * height)
        lines_of_text(rng, picture, ink, box)
    elif rng.random() < 0.93:
        font = int(rng.choice(_FONTS))
        y = rng.uniform(0.12, 0.3)
        for _ in range(int(rng.integers(1, 4))):
            size_px = height * rng.uniform(0.035, 0.075)
            title(picture, words(rng, 1), ink, font, y=y, size_px=size_px, width=0.85)
            y += rng.uniform(0.09, 0.13)
        if rng.random() < 0.7:
            author = words(rng, 2)
            title(picture, author, ink, font, y=0.92, size_px=height * 0.03, width=0.7)
    return picture, base


def spine(rng: np.random.Generator, height: int, width: int, base: Colour) -> Pixels:
    """Return the back of a book, uint8 [H, W, 3]: bands, a title, rounded."""
    picture = fill(height, width, base if rng.random() < 0.7 else colour(rng))
    ink = ink_on(rng, base)
    for _ in range(int(rng.integers(0, 5))):
        top = int(rng.uniform(0, height))
        picture[top : top + max(1, int(rng.uniform(0.005, 0.1) * height))] = ink.astype(np.uint8)
    along = np.ascontiguousarray(np.rot90(picture))
    title(
        along, words(rng, 2), ink, int(rng.choice(_FONTS)), y=0.68, size_px=width * 0.4, width=0.6
    )
    picture = np.ascontiguousarray(np.rot90(along, -1))
    x = np.linspace(-1, 1, width, dtype=np.float32)[None]
    light = 1 - np.float32(rng.uniform(0, 0.4)) * x * x
    return shade(picture, np.repeat(light, height, axis=0))


def edges(rng: np.random.Generator, height: int, width: int, base: Colour) -> Pixels:
    """Return the edge of a block of pages, uint8 [H, W, 3], between its two boards."""
    stripes = 1 + rng.uniform(0.04, 0.14) * rng.standard_normal((1, width)).astype(np.float32)
    paper = _PAPER * np.float32(rng.uniform(0.65, 1.03))
    picture = shade(fill(height, width, paper), np.repeat(stripes, height, axis=0))
    board = int(rng.integers(0, 3)) * max(1, width // 24)
    if board:
        picture[:, :board] = picture[:, -board:] = base.astype(np.uint8)
    return picture


def volume(
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
        rng: Chance.
        layer: Where it is painted.
        turn: Yaw, pitch and roll in radians.
        centre: Of its box, x and y in pixels.
        longest: Longer side of its box, in pixels.
        spine_only: Seen from its back, as on a shelf.
    """
    texture_h = int(np.clip(longest, 48, 1600))
    height, width = 1.0, rng.uniform(0.58, 0.85)
    depth = rng.uniform(0.02, 0.08) if rng.random() < 0.4 else rng.uniform(0.08, 0.26)
    if rng.random() < 0.12:
        height, width = width, 1.0
    rows, columns = int(texture_h * height), int(texture_h * width)
    front, base = cover(rng, rows, columns)
    if spine_only:
        width, depth = rng.uniform(0.07, 0.24), rng.uniform(0.3, 0.7)
        front = spine(rng, rows, max(8, int(texture_h * width)), base)
    x, y, z = width / 2, height / 2, depth / 2
    square = ((-x, -y), (x, -y), (x, y), (-x, y))
    box = np.array([(a, b, side) for side in (-z, z) for a, b in square])
    corners = fit(project(box, rotation(*turn), rng.uniform(2.2, 6)), centre, longest)
    thickness = max(6, int(texture_h * depth))
    block = edges(rng, rows, thickness, base)
    for name, places in _SIDES.items():
        quad = corners[list(places)]
        if _area(quad) < 2:
            continue
        if name == "spine" and not spine_only:
            side = spine(rng, rows, thickness, base)
        elif name in {"top", "foot"}:
            side = np.ascontiguousarray(np.rot90(edges(rng, columns, thickness, base)))
        else:
            side = block
        light = np.full(side.shape[:2], rng.uniform(0.45, 1.0), np.float32)
        layer.picture(shade(side, light), quad)
    quad = corners[list(_FRONT)]
    layer.picture(front, quad)
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
    """Return the area of a quadrilateral; below 0 where it is seen from behind."""
    x, y = quad[:, 0], quad[:, 1]
    return float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y) / 2)


def _turn(rng: np.random.Generator) -> tuple[float, float, float]:
    """Return how a book is turned: mostly nearly flat and upright, sometimes anything."""
    spread = float(rng.choice([0.1, 0.3, 0.55], p=[0.35, 0.35, 0.3]))
    yaw = float(np.clip(rng.normal(0, spread), -0.9, 0.9))
    pitch = float(np.clip(rng.normal(-0.3 * spread, spread), -0.9, 0.9))
    tilt = float(rng.choice([0.05, 0.25, 1.6], p=[0.55, 0.3, 0.15]))
    return yaw, pitch, float(rng.normal(0, tilt))


def _centre(rng: np.random.Generator, layer: Layer, longest: float) -> tuple[float, float]:
    """Return a centre around which a subject of this size mostly stays in the picture."""
    free = np.maximum(0, (layer.width - longest, layer.height - longest))
    shift = np.clip(rng.normal(0, 0.35, 2), -1, 1) * free / 2 + rng.normal(0, 5, 2) * layer.unit
    return layer.width / 2 + float(shift[0]), layer.height / 2 + float(shift[1])


def closed(rng: np.random.Generator, layer: Layer) -> None:
    """One book, its cover to us."""
    longest = min(layer.height, layer.width) * rng.uniform(0.45, 0.98)
    volume(rng, layer, turn=_turn(rng), centre=_centre(rng, layer, longest), longest=longest)


def from_behind(rng: np.random.Generator, layer: Layer) -> None:
    """One book, its spine to us."""
    longest = min(layer.height, layer.width) * rng.uniform(0.6, 0.97)
    centre = _centre(rng, layer, longest)
    volume(rng, layer, turn=_turn(rng), centre=centre, longest=longest, spine_only=True)


def stack(rng: np.random.Generator, layer: Layer) -> None:
    """Some books upon or beside each other."""
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
        volume(rng, layer, turn=turn, centre=(x, y), longest=size, spine_only=on_shelf)


def opened(rng: np.random.Generator, layer: Layer) -> None:
    """An open book: two pages that bow towards the fold."""
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
    layer.picture(np.asarray(bowed, np.uint8), corners, shape)


def draw_page(rng: np.random.Generator, height: int, width: int) -> Pixels:
    """Return a right-hand page, uint8 [H, W, 3]: text, sometimes a plate, dark at the fold."""
    paper = np.clip(_PAPER * np.float32(rng.uniform(0.8, 1.03)), 0, 255)
    picture = fill(height, width, near(rng, paper, 3))
    ink = _INK * np.float32(rng.uniform(0.6, 1.8))
    margin = rng.uniform(0.09, 0.16) * width
    top = 0.09 * height
    if rng.random() < 0.25:
        bottom = int(rng.uniform(0.25, 0.55) * height)
        plate = surface(rng, bottom - int(top), int(width - 2 * margin))
        left = int(margin)
        picture[int(top) : bottom, left : left + plate.shape[1]] = plate
        top = bottom + 0.04 * height
    lines_of_text(rng, picture, ink, (margin, top, width - margin, 0.92 * height))
    x = np.linspace(0, 1, width, dtype=np.float32)[None]
    fold = 1 - np.float32(rng.uniform(0.2, 0.55)) * np.exp(-x / np.float32(rng.uniform(0.03, 0.13)))
    return shade(picture, np.repeat(fold, height, axis=0))
