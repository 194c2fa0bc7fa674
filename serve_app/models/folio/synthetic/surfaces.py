"""Colours, noise and surfaces with which synthetic photographs are painted.

Everything takes the size of its canvas in pixels and draws in proportion to it. One *unit* is 1/320
of the canvas's shorter side.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

Colour = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]
Field = npt.NDArray[np.float32]

_NOISE_SIDE_PX = 1024
_GRAIN_SIDE_PX = 512
_CLUTTER_RADIUS = 36

_FAMILIES: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    # Ranges of hue (half degrees, as in OpenCV), saturation and value.
    "any": ((0, 180), (0, 255), (10, 255)),
    "white": ((0, 180), (0, 25), (205, 255)),
    "dark": ((0, 180), (0, 160), (8, 75)),
    "grey": ((0, 180), (0, 25), (50, 210)),
    "earth": ((3, 28), (40, 190), (50, 230)),
    "pastel": ((0, 180), (15, 90), (170, 255)),
    "vivid": ((0, 180), (150, 255), (110, 255)),
}
_FAMILY_SHARES = (0.22, 0.16, 0.16, 0.08, 0.17, 0.09, 0.12)


def colour(rng: np.random.Generator, family: str | None = None) -> Colour:
    """Return a random colour, float32 [3] of 0 to 255, RGB, from one family or from any."""
    name = family or str(rng.choice(list(_FAMILIES), p=_FAMILY_SHARES))
    hsv = np.array([[[rng.uniform(*bounds) for bounds in _FAMILIES[name]]]])
    hsv[..., 0] %= 180
    rgb = np.asarray(cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB))
    return np.asarray(rgb[0, 0], np.float32)


def near(rng: np.random.Generator, base: Colour, distance: float) -> Colour:
    """Return a random colour at about a distance, in grey levels, from another."""
    shift = rng.normal(0, distance) + rng.normal(0, distance / 2, 3)
    return np.clip(base + shift, 0, 255).astype(np.float32)


def noise(
    rng: np.random.Generator,
    height: int,
    width: int,
    roughness: float,
    stretch: tuple[float, float] = (1.0, 1.0),
) -> Field:
    """Return smooth noise of mean 0 and standard deviation 1, float32 [H, W].

    It is a sum of interpolated random grids, whose cells halve from each to the next.

    Args:
        rng: Random number generator.
        height: Height in pixels.
        width: Width in pixels.
        roughness: Amplitude of each grid relative to the one before. 0.3 looks like clouds and 0.9
            like grit.
        stretch: Numbers of cells down and across, relative to an even grid.
    """
    scale = min(1.0, _NOISE_SIDE_PX / max(height, width))
    small_h, small_w = max(2, round(height * scale)), max(2, round(width * scale))
    total = np.zeros((small_h, small_w), np.float32)
    cells, amplitude = 2.0, 1.0
    while cells < max(small_h, small_w) and amplitude > 0.02:
        rows = int(np.clip(cells * stretch[0], 2, small_h))
        columns = int(np.clip(cells * stretch[1], 2, small_w))
        grid = rng.standard_normal((rows, columns), dtype=np.float32) * np.float32(amplitude)
        total += cv2.resize(grid, (small_w, small_h), interpolation=cv2.INTER_LINEAR)
        cells, amplitude = cells * 2, amplitude * roughness
    total -= total.mean()
    total /= max(float(total.std()), 1e-6)
    if scale < 1:
        wide = cv2.resize(total, (width, height), interpolation=cv2.INTER_CUBIC)
        return np.asarray(wide, np.float32)
    return total


def grain(rng: np.random.Generator, height: int, width: int) -> Field:
    """Return noise of single pixels, of mean 0 and standard deviation 1, float32 [H, W]."""
    side_h, side_w = min(height, _GRAIN_SIDE_PX), min(width, _GRAIN_SIDE_PX)
    tile = rng.standard_normal((side_h, side_w), dtype=np.float32)
    return np.tile(tile, (-(-height // side_h), -(-width // side_w)))[:height, :width]


def unit_of(height: int, width: int) -> float:
    """Return the length in pixels that is one pixel at 320 x 320."""
    return min(height, width) / 320


def shade(pixels: Pixels, light: Field) -> Pixels:
    """Return pixels, uint8 [H, W, 3], multiplied by a field, float32 [H, W]."""
    return _as_pixels(cv2.multiply(pixels, cv2.merge([light, light, light]), dtype=cv2.CV_8U))


def blend(below: Pixels, above: Pixels, alpha: Pixels) -> Pixels:
    """Return a mixture of two textures, which is the upper one wherever alpha, uint8, is 255."""
    weight = cv2.merge([alpha, alpha, alpha])
    upper = cv2.multiply(above, weight, scale=1 / 255)
    lower = cv2.multiply(below, cv2.bitwise_not(weight), scale=1 / 255)
    return _as_pixels(cv2.add(upper, lower))


def fill(height: int, width: int, value: Colour) -> Pixels:
    """Return a surface of one colour, uint8 [H, W, 3]."""
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[:] = np.clip(value, 0, 255).astype(np.uint8)
    return pixels


def ramp(rng: np.random.Generator, height: int, width: int) -> Field:
    """Return a linear gradient in a random direction, float32 [H, W], 0 to 1."""
    angle = rng.uniform(0, 2 * np.pi)
    x = np.linspace(-0.5, 0.5, width, dtype=np.float32)[None]
    y = np.linspace(-0.5, 0.5, height, dtype=np.float32)[:, None]
    field = np.float32(np.cos(angle)) * x + np.float32(np.sin(angle)) * y
    return np.asarray((field - field.min()) / max(float(np.ptp(field)), 1e-6), np.float32)


def between(first: Colour, second: Colour, share: Field) -> Pixels:
    """Return a mixture of two colours, uint8 [H, W, 3].

    Args:
        first: Colour at a share of 0.
        second: Colour at a share of 1.
        share: Share of the second colour, float32 [H, W].
    """
    weight = np.clip(share, 0, 1)
    channels = [first[i] + (second[i] - first[i]) * weight for i in range(3)]
    return _as_pixels(cv2.merge(channels))


def plain(rng: np.random.Generator, height: int, width: int) -> Pixels:
    """Return a sheet, a wall or a backdrop of a studio, uint8 [H, W, 3]."""
    base = colour(rng)
    if rng.random() < 0.35:
        return fill(height, width, base)
    return between(base, near(rng, base, 40), ramp(rng, height, width))


def clouds(rng: np.random.Generator, height: int, width: int) -> Pixels:
    """Return marble, plaster or stains: two colours mixed by noise, uint8 [H, W, 3]."""
    base = colour(rng)
    other = near(rng, base, rng.uniform(8, 60)) if rng.random() < 0.75 else colour(rng)
    field = noise(rng, height, width, rng.uniform(0.3, 0.95))
    return between(base, other, 0.5 + rng.uniform(0.15, 0.4) * field)


def wood(rng: np.random.Generator, height: int, width: int) -> Pixels:
    """Return a wooden table or floor, often of planks, uint8 [H, W, 3]."""
    upright = rng.random() < 0.5
    rows, columns = (width, height) if upright else (height, width)
    unit = unit_of(height, width)
    lines = noise(rng, rows, columns, rng.uniform(0.7, 0.95), (rng.uniform(4, 16), 0.5))
    waves = noise(rng, rows, columns, 0.4, (2, 0.5))
    y = np.arange(rows, dtype=np.float32)[:, None] / np.float32(unit)
    rings = np.sin(y / rng.uniform(3, 20) + waves * rng.uniform(1, 5))
    base = colour(rng, "earth" if rng.random() < 0.75 else "grey")
    share = 0.5 + rng.uniform(0.08, 0.25) * lines + rng.uniform(0, 0.15) * rings
    dark = base * np.float32(rng.uniform(0.4, 0.85))
    pixels = between(base, dark, np.asarray(share, np.float32))
    if rng.random() < 0.55:
        light = np.ones((rows, 1), np.float32)
        plank = max(4, round(rng.uniform(25, 130) * unit))
        gap = max(1, round(rng.uniform(0.5, 2.5) * unit))
        for top in range(int(rng.integers(0, plank)) - plank, rows, plank):
            light[max(0, top) : max(0, top + plank)] = rng.uniform(0.85, 1.1)
            light[max(0, top) : max(0, top + gap)] = rng.uniform(0.4, 0.8)
        pixels = shade(pixels, np.repeat(light, columns, axis=1))
    return np.ascontiguousarray(np.rot90(pixels)) if upright else pixels


def fabric(rng: np.random.Generator, height: int, width: int) -> Pixels:
    """Return a table cloth with folds and sometimes stripes, uint8 [H, W, 3]."""
    unit = unit_of(height, width)
    across = rng.uniform(2, 8) * unit
    down = across * rng.uniform(0.7, 1.4)
    x = np.sin(np.arange(width, dtype=np.float32) * np.float32(2 * np.pi / across))[None]
    y = np.sin(np.arange(height, dtype=np.float32) * np.float32(2 * np.pi / down))[:, None]
    light = 1 + rng.uniform(0.02, 0.12) * (x + y) / 2
    light = light + rng.uniform(0.02, 0.18) * noise(rng, height, width, 0.35)
    base = striped(rng, height, width) if rng.random() < 0.3 else fill(height, width, colour(rng))
    return shade(base, light.astype(np.float32))


def striped(rng: np.random.Generator, height: int, width: int) -> Pixels:
    """Return stripes or checks, uint8 [H, W, 3]."""
    unit = unit_of(height, width)
    pixels = fill(height, width, colour(rng)).astype(np.float32)
    direction = rng.integers(0, 3)
    for _ in range(int(rng.integers(1, 4))):
        period = max(2, round(rng.uniform(8, 110) * unit))
        band = max(1, round(period * rng.uniform(0.1, 0.5)))
        stripe, opacity = colour(rng), rng.uniform(0.3, 1)
        if direction != 1:
            columns = np.arange(width) % period < band
            pixels[:, columns] += (stripe - pixels[:, columns]) * opacity
        if direction != 0:
            rows = np.arange(height) % period < band
            pixels[rows] += (stripe - pixels[rows]) * opacity
    return pixels.astype(np.uint8)


def tiles(rng: np.random.Generator, height: int, width: int) -> Pixels:
    """Return tiles or bricks with joints, uint8 [H, W, 3]."""
    unit = unit_of(height, width)
    tile_h = max(3, round(rng.uniform(14, 100) * unit))
    tile_w = max(3, round(tile_h * rng.uniform(0.7, 2.6)))
    joint = max(1, round(rng.uniform(0.6, 4) * unit))
    pixels = fill(height, width, colour(rng, "grey"))
    base, spread, offset = colour(rng), rng.uniform(2, 25), rng.random() < 0.5
    for row, top in enumerate(range(0, height, tile_h)):
        start = -(tile_w // 2) if offset and row % 2 else 0
        for left in range(start, width, tile_w):
            right = max(0, left + tile_w - joint)
            pixels[top : top + max(1, tile_h - joint), max(0, left) : right] = near(
                rng, base, spread
            )
    return shade(pixels, 1 + np.float32(0.05) * noise(rng, height, width, 0.8))


def speckles(rng: np.random.Generator, height: int, width: int) -> Pixels:
    """Return granite, terrazzo or carpet: spots of high noise, uint8 [H, W, 3]."""
    pixels = fill(height, width, colour(rng))
    for _ in range(int(rng.integers(1, 4))):
        spots = noise(rng, height, width, rng.uniform(0.85, 1.0)) > rng.uniform(0.6, 2.0)
        mask = spots.astype(np.uint8) * np.uint8(rng.uniform(60, 255))
        pixels = blend(pixels, fill(height, width, colour(rng)), mask)
    return pixels


def clutter(rng: np.random.Generator, height: int, width: int) -> Pixels:
    """Return a room, leaves or a shelf out of focus, uint8 [H, W, 3].

    These are many overlapping shapes of related colours. None is large, because a single large
    shape on a bare surface would be a subject.
    """
    unit = unit_of(height, width)
    base, spread = colour(rng), rng.uniform(8, 60)
    pixels = fill(height, width, base)
    for _ in range(int(rng.integers(70, 160))):
        centre = rng.uniform(0, 1, 2) * (width, height)
        radius = min(4 + rng.exponential(22), _CLUTTER_RADIUS) * unit
        value = near(rng, base, spread) if rng.random() < 0.75 else colour(rng)
        corners = int(rng.integers(3, 8)) if rng.random() < 0.7 else 24
        angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
        radii = radius * (rng.uniform(0.5, 1.1, corners) if corners < 24 else np.ones(corners))
        outline = centre + np.stack([np.cos(angles), np.sin(angles)], 1) * radii[:, None]
        cv2.fillPoly(pixels, [outline.astype(np.int32)], value.tolist(), cv2.LINE_AA)
    return blur(pixels, rng.choice([0.0, 0.8, 2.5, 6.0]) * unit)


def blur(pixels: Pixels, sigma_px: float) -> Pixels:
    """Return blurred pixels. A wide blur runs on a smaller copy, which looks the same."""
    if sigma_px < 0.3:
        return pixels
    factor = int(max(1, sigma_px // 2))
    if factor == 1:
        return _as_pixels(cv2.GaussianBlur(pixels, (0, 0), sigma_px))
    height, width = pixels.shape[:2]
    small_size = (max(1, width // factor), max(1, height // factor))
    small = cv2.resize(pixels, small_size, interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), sigma_px / factor)
    return _as_pixels(cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR))


_SURFACES: tuple[tuple[Callable[[np.random.Generator, int, int], Pixels], float], ...] = (
    (plain, 0.2),
    (clouds, 0.16),
    (wood, 0.22),
    (fabric, 0.16),
    (striped, 0.03),
    (tiles, 0.05),
    (speckles, 0.06),
    (clutter, 0.12),
)


def surface(rng: np.random.Generator, height: int, width: int) -> Pixels:
    """Return a random surface, uint8 [H, W, 3]."""
    kinds, shares = zip(*_SURFACES, strict=True)
    kind: Callable[[np.random.Generator, int, int], Pixels] = kinds[
        int(rng.choice(len(kinds), p=shares))
    ]
    return kind(rng, height, width)


def _as_pixels(array: object) -> Pixels:
    pixels = np.asarray(array)
    return pixels if pixels.dtype == np.uint8 else np.clip(pixels, 0, 255).astype(np.uint8)
