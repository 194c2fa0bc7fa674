"""The faces of a book: covers, spines, page edges and pages, as flat textures."""

from __future__ import annotations

import string

import cv2
import numpy as np

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


def random_words(rng: np.random.Generator, count: int) -> str:
    """Return a number of meaningless words."""
    letters = list(string.ascii_letters)
    return " ".join("".join(rng.choice(letters, rng.integers(2, 9))) for _ in range(count))


def write_title(
    texture: Pixels, text: str, ink: Colour, font: int, *, y: float, size_px: float, width: float
) -> None:
    """Write a centred line of text.

    Args:
        texture: Pixels to write on, uint8 [H, W, 3].
        text: Text to write.
        ink: Colour of the text.
        font: Font of OpenCV.
        y: Height of the baseline, as a share of the texture's height.
        size_px: Height of the letters, in pixels.
        width: Largest width of the text, as a share of the texture's width.
    """
    height_px, width_px = texture.shape[:2]
    (text_w, text_h), _ = cv2.getTextSize(text, font, 1.0, 2)
    scale = min(size_px / max(text_h, 1), width * width_px / max(text_w, 1))
    thickness = max(1, round(scale * 2.2))
    left = int((width_px - text_w * scale) / 2)
    position = (left, int(y * height_px))
    cv2.putText(texture, text, position, font, scale, ink.tolist(), thickness, cv2.LINE_AA)


def draw_body_text(
    rng: np.random.Generator, texture: Pixels, ink: Colour, box: tuple[float, float, float, float]
) -> None:
    """Draw body text as it looks from afar.

    Args:
        rng: Random number generator.
        texture: Pixels to draw on, uint8 [H, W, 3].
        ink: Colour of the text.
        box: Left, top, right and bottom of the text, in pixels.
    """
    left, top, right, bottom = box
    pitch = texture.shape[0] * rng.uniform(0.016, 0.028)
    thickness = max(1, round(pitch * 0.3))
    y = top
    while y < bottom:
        end = right if rng.random() > 0.12 else left + (right - left) * rng.uniform(0.2, 0.9)
        x = left
        while x < end:
            stop = min(x + pitch * rng.uniform(0.5, 2.4), end)
            start_point, stop_point = (int(x), int(y)), (int(stop), int(y))
            cv2.line(texture, start_point, stop_point, ink.tolist(), thickness, cv2.LINE_AA)
            x = stop + pitch * 0.55
        y += pitch


def readable_ink(rng: np.random.Generator, base: Colour) -> Colour:
    """Return a colour that is readable on another."""
    if rng.random() < 0.25:
        return np.asarray(np.clip(_GILT * rng.uniform(0.7, 1.2), 0, 255), np.float32)
    if base.mean() > 128:
        return colour(rng, str(rng.choice(["dark", "vivid", "earth"]))) * np.float32(0.7)
    return colour(rng, str(rng.choice(["white", "pastel", "vivid"])))


def draw_cover(rng: np.random.Generator, height: int, width: int) -> tuple[Pixels, Colour]:
    """Return the front of a book, uint8 [H, W, 3], and its main colour."""
    kind = str(
        rng.choice(["cloth", "jacket", "bands", "worn", "paper"], p=[0.26, 0.28, 0.14, 0.18, 0.14])
    )
    base = _PAPER * np.float32(rng.uniform(0.78, 1.03)) if kind == "paper" else colour(rng)
    texture = _draw_material(rng, kind, fill(height, width, base), base)
    ink = _INK * np.float32(rng.uniform(0.5, 1.8)) if kind == "paper" else readable_ink(rng, base)
    texture = np.ascontiguousarray(texture)
    _draw_ornaments(rng, texture, ink)
    if kind == "paper" and rng.random() < 0.4:
        margin = rng.uniform(0.09, 0.18) * width
        box = (margin, 0.1 * height, width - margin, 0.92 * height)
        draw_body_text(rng, texture, ink, box)
    elif rng.random() < 0.93:
        _write_title_and_author(rng, texture, ink)
    return texture, base


def _draw_material(rng: np.random.Generator, kind: str, texture: Pixels, base: Colour) -> Pixels:
    """Return a cover of one colour with the surface of its material, if it has one."""
    height, width = texture.shape[:2]
    if kind == "jacket":
        art = surface(rng, height, width) if rng.random() < 0.7 else clouds(rng, height, width)
        first, last = sorted(rng.uniform(0, 1, 2)) if rng.random() < 0.5 else (0.0, 1.0)
        rows = slice(int(first * height), max(int(first * height) + 1, int(last * height)))
        texture[rows] = art[rows]
    elif kind == "bands":
        for _ in range(int(rng.integers(1, 4))):
            top = int(rng.uniform(0, height))
            texture[top : top + int(rng.uniform(0.02, 0.4) * height)] = colour(rng).astype(np.uint8)
    elif kind == "worn":
        rubbed = noise(rng, height, width, 0.8)
        texture = shade(texture, 1 + np.float32(rng.uniform(0.02, 0.12)) * rubbed)
        y, x = np.mgrid[0:height, 0:width].astype(np.float32)
        inset = np.minimum(np.minimum(x, width - x), np.minimum(y, height - y)) / height
        edge = np.exp(-(inset * 100 + rubbed) / rng.uniform(0.8, 4)).clip(0, 1)
        pale = fill(height, width, base * 0.4 + 120)
        texture = blend(texture, pale, (edge * rng.uniform(40, 200)).astype(np.uint8))
    return texture


def _draw_ornaments(rng: np.random.Generator, texture: Pixels, ink: Colour) -> None:
    """Draw a frame and some ellipses on a cover, or none of them."""
    height, width = texture.shape[:2]
    if rng.random() < 0.35:
        inset_px = int(rng.uniform(0.02, 0.09) * width)
        corners = (inset_px, inset_px), (width - inset_px, height - inset_px)
        cv2.rectangle(texture, *corners, ink.tolist(), max(1, height // 150), cv2.LINE_AA)
    for _ in range(int(rng.choice([0, 0, 1, 2]))):
        centre = (int(rng.uniform(0.25, 0.75) * width), int(rng.uniform(0.35, 0.75) * height))
        axes = (int(rng.uniform(0.05, 0.32) * width), int(rng.uniform(0.05, 0.22) * height))
        turn = float(rng.uniform(0, 180))
        cv2.ellipse(texture, centre, axes, turn, 0, 360, colour(rng).tolist(), -1, cv2.LINE_AA)


def _write_title_and_author(rng: np.random.Generator, texture: Pixels, ink: Colour) -> None:
    height = texture.shape[0]
    font = int(rng.choice(_FONTS))
    y = rng.uniform(0.12, 0.3)
    for _ in range(int(rng.integers(1, 4))):
        size_px = height * rng.uniform(0.035, 0.075)
        write_title(texture, random_words(rng, 1), ink, font, y=y, size_px=size_px, width=0.85)
        y += rng.uniform(0.09, 0.13)
    if rng.random() < 0.7:
        author = random_words(rng, 2)
        write_title(texture, author, ink, font, y=0.92, size_px=height * 0.03, width=0.7)


def draw_spine(rng: np.random.Generator, height: int, width: int, base: Colour) -> Pixels:
    """Return the spine of a book with bands and a title, uint8 [H, W, 3]."""
    texture = fill(height, width, base if rng.random() < 0.7 else colour(rng))
    ink = readable_ink(rng, base)
    for _ in range(int(rng.integers(0, 5))):
        top = int(rng.uniform(0, height))
        texture[top : top + max(1, int(rng.uniform(0.005, 0.1) * height))] = ink.astype(np.uint8)
    along = np.ascontiguousarray(np.rot90(texture))
    write_title(
        along,
        random_words(rng, 2),
        ink,
        int(rng.choice(_FONTS)),
        y=0.68,
        size_px=width * 0.4,
        width=0.6,
    )
    texture = np.ascontiguousarray(np.rot90(along, -1))
    x = np.linspace(-1, 1, width, dtype=np.float32)[None]
    light = 1 - np.float32(rng.uniform(0, 0.4)) * x * x
    return shade(texture, np.repeat(light, height, axis=0))


def draw_page_edges(rng: np.random.Generator, height: int, width: int, base: Colour) -> Pixels:
    """Return the edges of a block of pages between two boards, uint8 [H, W, 3]."""
    stripes = 1 + rng.uniform(0.04, 0.14) * rng.standard_normal((1, width)).astype(np.float32)
    paper = _PAPER * np.float32(rng.uniform(0.65, 1.03))
    texture = shade(fill(height, width, paper), np.repeat(stripes, height, axis=0))
    board = int(rng.integers(0, 3)) * max(1, width // 24)
    if board:
        texture[:, :board] = texture[:, -board:] = base.astype(np.uint8)
    return texture


def draw_page(rng: np.random.Generator, height: int, width: int) -> Pixels:
    """Return a right-hand page with text and sometimes a plate, uint8 [H, W, 3]."""
    paper = np.clip(_PAPER * np.float32(rng.uniform(0.8, 1.03)), 0, 255)
    texture = fill(height, width, near(rng, paper, 3))
    ink = _INK * np.float32(rng.uniform(0.6, 1.8))
    margin = rng.uniform(0.09, 0.16) * width
    top = 0.09 * height
    if rng.random() < 0.25:
        bottom = int(rng.uniform(0.25, 0.55) * height)
        plate = surface(rng, bottom - int(top), int(width - 2 * margin))
        left = int(margin)
        texture[int(top) : bottom, left : left + plate.shape[1]] = plate
        top = bottom + 0.04 * height
    draw_body_text(rng, texture, ink, (margin, top, width - margin, 0.92 * height))
    x = np.linspace(0, 1, width, dtype=np.float32)[None]
    fold = 1 - np.float32(rng.uniform(0.2, 0.55)) * np.exp(-x / np.float32(rng.uniform(0.03, 0.13)))
    return shade(texture, np.repeat(fold, height, axis=0))
