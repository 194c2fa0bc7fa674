"""Objects other than books, from which the model learns subjects instead of rectangles.

An object is a list of outlines in a square of -1 to 1. They are painted with a material and lit
from one side.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from serve_app.models.folio.synthetic.layers import Layer, Points, fit
from serve_app.models.folio.synthetic.surfaces import (
    Colour,
    Pixels,
    between,
    blend,
    colour,
    fill,
    near,
    noise,
    ramp,
    shade,
    striped,
    surface,
)

Outlines = list[Points]


def blob(rng: np.random.Generator, waves: int, amount: float) -> Points:
    """Return a closed curve around the origin: a circle with waves."""
    angle = np.linspace(0, 2 * np.pi, 96, endpoint=False)
    radius = np.ones_like(angle)
    for wave in range(2, waves + 1):
        phase = rng.uniform(0, 2 * np.pi)
        radius += amount * rng.normal() / wave * np.cos(wave * angle + phase)
    radius = np.clip(radius, 0.3, None)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)


def ellipse(x: float, y: float, width: float, height: float, turn: float = 0.0) -> Points:
    """Return an ellipse of these half axes, turned by an angle in radians."""
    angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    points = np.stack([width * np.cos(angle), height * np.sin(angle)], 1)
    return np.asarray(_rotate(points, turn) + np.array([x, y]))


def limb(start: tuple[float, float], end: tuple[float, float], width: float) -> Points:
    """Return a bar with round ends."""
    first, last = np.array(start), np.array(end)
    along = last - first
    heading = np.arctan2(along[1], along[0])
    half = np.linspace(np.pi / 2, 3 * np.pi / 2, 12)
    cap = np.stack([np.cos(half), np.sin(half)], 1) * width
    near_cap = _rotate(cap, heading) + first
    far_cap = _rotate(-cap, heading) + last
    return np.concatenate([near_cap, far_cap])


def vessel(rng: np.random.Generator) -> Outlines:
    """Return the outlines of a vase, a bottle, a cup or a lamp."""
    y = np.linspace(-1, 1, 40)
    half = np.full(40, rng.uniform(0.25, 0.6))
    for wave in range(1, 5):
        half += rng.normal(0, 0.2) / wave * np.cos(np.pi * wave * (y + 1) / 2)
    half = np.clip(half, 0.1, 0.9)
    body = np.concatenate([np.stack([half, y], 1), np.stack([-half, y], 1)[::-1]])
    if rng.random() < 0.3:
        handle = [limb((0.5, -0.5), (1.0, -0.3), 0.08), limb((1.0, -0.3), (0.45, 0.4), 0.08)]
        return [*handle, body]
    return [body]


def box(rng: np.random.Generator) -> Outlines:
    """Return the outlines of a box, a phone, a frame or a panel."""
    power = rng.uniform(0.08, 1.0)
    angle = np.linspace(0, 2 * np.pi, 96, endpoint=False)
    x, y = np.cos(angle), np.sin(angle)
    aspect = rng.uniform(0.35, 1.0)
    x, y = np.sign(x) * np.abs(x) ** power, np.sign(y) * np.abs(y) ** power * aspect
    return [np.stack([x, y], 1)]


def stone(rng: np.random.Generator) -> Outlines:
    """Return the outlines of a stone or a crystal."""
    corners = int(rng.integers(3, 9))
    angle = np.sort(rng.uniform(0, 2 * np.pi, corners)) + np.linspace(0, 0.5, corners)
    radius = rng.uniform(0.6, 1, corners)
    return [np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)]


def fruit(rng: np.random.Generator) -> Outlines:
    """Return the outlines of one or several fruits, cushions or toys."""
    if rng.random() < 0.7:
        return [blob(rng, int(rng.integers(2, 8)), rng.uniform(0.05, 0.5))]
    return [blob(rng, 4, 0.15) * rng.uniform(0.4, 0.6) + rng.uniform(-0.5, 0.5, 2) for _ in "abc"]


def plant(rng: np.random.Generator) -> Outlines:
    """Return the outlines of a plant in a pot."""
    parts: Outlines = []
    for _ in range(int(rng.integers(5, 14))):
        angle, length = rng.uniform(-2.9, -0.25), rng.uniform(0.4, 1.0)
        tip = (length * np.cos(angle), 0.2 + length * np.sin(angle))
        parts.append(limb((0.0, 0.3), tip, 0.02))
        leaf = ellipse(*tip, rng.uniform(0.12, 0.3), rng.uniform(0.05, 0.14), angle)
        parts.append(leaf)
    top, foot = rng.uniform(0.3, 0.45), rng.uniform(0.2, 0.35)
    parts.append(np.array([(-top, 0.3), (top, 0.3), (foot, 1.0), (-foot, 1.0)]))
    return parts


def animal(rng: np.random.Generator) -> Outlines:
    """Return the outlines of an animal with four legs, a head, ears and a tail."""
    length, girth = rng.uniform(0.55, 0.8), rng.uniform(0.22, 0.4)
    ground = rng.uniform(0.6, 0.95)
    parts = [ellipse(0, 0, length, girth, rng.normal(0, 0.1))]
    for x in (-0.75, -0.5, 0.5, 0.75):
        foot = x * length + rng.normal(0, 0.08)
        parts.append(limb((x * length, 0.1), (foot, ground), rng.uniform(0.06, 0.1)))
    head_x, head_y = length * rng.uniform(0.95, 1.15), -rng.uniform(0.25, 0.6)
    parts.append(limb((length * 0.7, -0.05), (head_x, head_y), rng.uniform(0.1, 0.18)))
    parts.append(ellipse(head_x, head_y, rng.uniform(0.18, 0.28), rng.uniform(0.14, 0.22)))
    parts.append(ellipse(head_x - 0.08, head_y - 0.22, 0.06, 0.14, rng.normal(0, 0.3)))
    tail_y = rng.uniform(-0.6, 0.3)
    parts.append(limb((-length, -0.05), (-length - rng.uniform(0.1, 0.4), tail_y), 0.05))
    return parts


def figure(rng: np.random.Generator) -> Outlines:
    """Return the outlines of a person or a statue."""
    shoulder, hip = rng.uniform(0.22, 0.34), rng.uniform(0.18, 0.28)
    parts = [ellipse(0, -0.82, 0.14, 0.18)]
    torso = [(-shoulder, -0.6), (shoulder, -0.6), (hip, 0.15), (-hip, 0.15)]
    parts.append(np.array(torso))
    parts.append(limb((0, -0.7), (0, -0.55), 0.08))
    for side in (-1, 1):
        elbow = (side * (shoulder + rng.uniform(0.02, 0.3)), rng.uniform(-0.45, -0.1))
        hand = (elbow[0] + side * rng.uniform(-0.25, 0.2), elbow[1] + rng.uniform(-0.3, 0.35))
        parts.append(limb((side * shoulder, -0.54), elbow, 0.08))
        parts.append(limb(elbow, hand, 0.065))
        knee = (side * (hip * 0.6 + rng.uniform(0, 0.15)), 0.55)
        parts.append(limb((side * hip * 0.6, 0.1), knee, 0.11))
        parts.append(limb(knee, (knee[0] + rng.normal(0, 0.08), 1.0), 0.08))
    return parts


def vehicle(rng: np.random.Generator) -> Outlines:
    """Return the outlines of a car, a van or a train."""
    front, back = rng.uniform(-0.6, -0.3), rng.uniform(0.3, 0.8)
    roof = rng.uniform(-0.5, -0.25)
    cabin = [(front - 0.2, 0), (front, roof), (back, roof), (back + 0.18, 0)]
    body = [(-1, 0.05), (-0.92, -0.03), (0.95, -0.05), (1, 0.1), (1, 0.32), (-1, 0.32)]
    size = rng.uniform(0.13, 0.2)
    wheels = [ellipse(x + rng.normal(0, 0.04), 0.32, size, size) for x in (-0.6, 0.6)]
    return [np.array(cabin), np.array(body), *wheels]


def tool(rng: np.random.Generator) -> Outlines:
    """Return the outlines of a hammer, a spoon, a brush or a racket."""
    width = rng.uniform(0.04, 0.12)
    head = ellipse(0, -0.75, rng.uniform(0.12, 0.45), rng.uniform(0.1, 0.3))
    if rng.random() < 0.5:
        half_w, half_h = rng.uniform(0.2, 0.5), rng.uniform(0.08, 0.2)
        square = [(-half_w, -half_h), (half_w, -half_h), (half_w, half_h), (-half_w, half_h)]
        head = np.array(square) + np.array([0, -0.8])
    return [limb((0, -0.7), (0, 0.95), width), head]


_MAKERS: dict[str, tuple[Callable[[np.random.Generator], Outlines], float]] = {
    "vessel": (vessel, 0.14),
    "box": (box, 0.14),
    "stone": (stone, 0.08),
    "fruit": (fruit, 0.15),
    "plant": (plant, 0.08),
    "animal": (animal, 0.13),
    "figure": (figure, 0.1),
    "vehicle": (vehicle, 0.1),
    "tool": (tool, 0.08),
}


def paint_object(rng: np.random.Generator, layer: Layer) -> str:
    """Paint a random object and return its name."""
    names = list(_MAKERS)
    name = str(rng.choice(names, p=[share for _, share in _MAKERS.values()]))
    outlines = _MAKERS[name][0](rng)
    turn = rng.normal(0, 0.12) if rng.random() < 0.7 else rng.uniform(0, 2 * np.pi)
    mirrored = np.array([-1.0 if rng.random() < 0.5 else 1.0, 1.0])
    joined = _rotate(np.concatenate(outlines) * mirrored, turn)
    longest = min(layer.height, layer.width) * rng.uniform(0.45, 0.95)
    free = np.maximum(0, (layer.width - longest, layer.height - longest))
    middle = np.array([layer.width, layer.height]) / 2
    centre = middle + np.clip(rng.normal(0, 0.35, 2), -1, 1) * free / 2
    joined = fit(joined, centre.tolist(), longest)
    cuts = np.cumsum([len(outline) for outline in outlines])[:-1]
    _paint_outlines(rng, layer, np.split(joined, cuts))
    return name


def _paint_outlines(rng: np.random.Generator, layer: Layer, outlines: Outlines) -> None:
    base = colour(rng)
    light = 0.65 + np.float32(0.6) * ramp(rng, layer.height, layer.width)
    light = light + np.float32(rng.uniform(0, 0.12)) * noise(rng, layer.height, layer.width, 0.8)
    one_material = rng.random() < 0.6
    material = _draw_material(rng, layer, base)
    for position, outline in enumerate(outlines):
        if position and not one_material:
            material = fill(layer.height, layer.width, near(rng, base, 60))
        shape = layer.polygon(outline)
        layer.paint(_shade_edges(rng, layer, shade(material, light), shape), shape)


def _draw_material(rng: np.random.Generator, layer: Layer, base: Colour) -> Pixels:
    kind = rng.random()
    if kind < 0.45:
        return fill(layer.height, layer.width, base)
    if kind < 0.65:
        return between(base, near(rng, base, 50), ramp(rng, layer.height, layer.width))
    if kind < 0.75:
        return striped(rng, layer.height, layer.width)
    return surface(rng, layer.height, layer.width)


def _shade_edges(rng: np.random.Generator, layer: Layer, pixels: Pixels, shape: Pixels) -> Pixels:
    """Return pixels that darken towards the edge of their shape, like those of a round object."""
    if rng.random() < 0.4:
        return pixels
    sigma = max(1.0, layer.unit * rng.uniform(4, 16))
    step = max(1, int(sigma // 2))
    small_size = (max(1, layer.width // step), max(1, layer.height // step))
    small = cv2.resize(shape, small_size, interpolation=cv2.INTER_AREA)
    soft = cv2.GaussianBlur(small, (0, 0), max(0.5, sigma / step))
    soft = cv2.resize(soft, (layer.width, layer.height), interpolation=cv2.INTER_LINEAR)
    dark = shade(pixels, np.full(shape.shape, rng.uniform(0.3, 0.8), np.float32))
    inner = np.clip((np.asarray(soft, np.float32) - 110) * 1.8, 0, 255).astype(np.uint8)
    return blend(dark, pixels, inner)


def _rotate(points: Points, angle: float) -> Points:
    cos, sin = np.cos(angle), np.sin(angle)
    return np.asarray(points @ np.array([[cos, sin], [-sin, cos]]))
