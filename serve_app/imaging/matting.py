"""Matting: the transparency and the colours of soft edges, equal to rembg's.

Where the mask is sure, it stays; in the band between, the transparency of each pixel is solved
for from the colours around it (closed form: Levin, Lischinski and Weiss, "A Closed-Form Solution
to Natural Image Matting", 2008), and the colours are freed of the background's share (Germer,
Uelwer, Conrad and Harmeling, "Fast Multi-Level Foreground Estimation", 2020). The arithmetic is
pymatting's, imported where it is first needed: it compiles for a minute and more once on each
machine, and takes a second or two afterwards.

pymatting's Laplacian has 25 entries for every pixel, which is 400 MB for a megapixel. Here it is
made in strips, of which the rows of the band are kept: the same system of equations, in the memory
that the band needs.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from serve_app.contracts.recipe import Matting

TRIMAP_UNKNOWN = 128
"""What a trimap has between 0, background, and 255, subject."""

MAX_BAND_SHARE = 1 / 16
"""Share of the pixel cap that the band itself may have: its equations take some 2 KB a pixel."""

_STRIP_PIXELS = 1 << 16
_REACH_PX = 2
"""How far an equation reaches: two pixels share one in a window of 3 x 3."""
_MAX_FILL = 10
"""Entries of the incomplete factor for each entry of its matrix; 2 is usual."""
_TOLERANCE = 1e-7
"""Of the residual, relative; rembg's."""
_ACCEPTABLE = 1e-2
"""Residual that is still taken where the steps have come to their end."""
_MIN_STEPS = 20
_MAX_PIXEL_STEPS = 30_000_000
"""Steps of the solver, times the pixels of the band: 12 s on one core of a 2.5 GHz Xeon. A band
around a subject takes 3 to 50 steps; a mask that is unsure of a whole picture takes hundreds."""

# Numba's parallel loops end the process where two threads enter them at once, unless it has
# found OpenMP or TBB on the machine.
_parallel_loops = threading.Lock()

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Matte:
    """A subject with soft edges."""

    rgb: Pixels
    """[H, W, 3]: its own colours, without the background's share."""
    alpha: Pixels
    """[H, W]."""


@dataclass(frozen=True, slots=True)
class _Region:
    """The part of an image that is worked on, and at what scale."""

    rows: slice
    columns: slice
    scale: float

    def of(self, image: Pixels) -> Pixels:
        """Return this part of an image, reduced; a mean of pixels that agree is their value."""
        part = image[self.rows, self.columns]
        if self.scale == 1:
            return part
        size = [max(1, math.floor(side * self.scale)) for side in (part.shape[1], part.shape[0])]
        return np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA), np.uint8)


def preload_matting() -> None:
    """Import what matting needs, so that no image waits for it."""
    import pymatting  # noqa: F401


def matte(pixels: Pixels, mask: Pixels, settings: Matting, max_pixels: int) -> Matte:
    """Return the subject of an image with soft edges.

    A larger image than the cap is worked on in the box around the band where the mask is unsure,
    and where that is too large as well, at a reduced size: what is sure keeps its full resolution,
    and the band's transparency and colours are enlarged.

    Args:
        pixels: uint8 [H, W, 3].
        mask: uint8 [H, W].
        settings: Its method is not ``off``.
        max_pixels: That are worked on at full size; a sixteenth of them may be the band's.
    """
    if settings.method == "closed_form":
        trimap = make_trimap(mask, settings)
        region = _region(trimap == TRIMAP_UNKNOWN, max_pixels, MAX_BAND_SHARE * max_pixels)
        alpha = _closed_form(region.of(pixels), _trimap_of(region, trimap))
        if alpha is not None:
            return _finish(region, pixels, trimap, alpha)
    # As rembg does where there is no foreground, no background or no solution.
    return _decontaminated(pixels, mask, max_pixels)


def make_trimap(mask: Pixels, settings: Matting) -> Pixels:
    """Return which pixels are the subject's (255), the background's (0) or unknown (128).

    Args:
        mask: uint8 [H, W].
        settings: Thresholds and size of the erosion.

    Returns:
        uint8 [H, W], the same as rembg's: its erosions are SciPy's, with a square, or with a cross
        of 3 x 3 where the size is 0.
    """
    shape = (
        cv2.getStructuringElement(cv2.MORPH_RECT, (settings.erode_px,) * 2)
        if settings.erode_px
        else cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    )

    def eroded(sure: npt.NDArray[np.bool_], beyond: int) -> npt.NDArray[np.bool_]:
        found = cv2.erode(
            sure.view(np.uint8), shape, borderType=cv2.BORDER_CONSTANT, borderValue=beyond
        )
        return np.asarray(found, np.uint8).view(np.bool_)

    trimap = np.full(mask.shape, TRIMAP_UNKNOWN, np.uint8)
    trimap[eroded(mask > settings.foreground_above, 0)] = 255
    trimap[eroded(mask < settings.background_below, 1)] = 0
    return trimap


def _region(band: npt.NDArray[np.bool_], max_pixels: int, max_band: float) -> _Region:
    """Return what is worked on: everything, the box around a band, or that at reduced size."""
    whole = _Region(slice(None), slice(None), 1.0)
    count = int(np.count_nonzero(band))
    if not count or (band.size <= max_pixels and count <= max_band):
        return whole
    left, top, width, height = cv2.boundingRect(band.view(np.uint8))
    room = min(max_pixels / (width * height), max_band / count)
    scale = min(1.0, math.sqrt(room))
    # Sure pixels around the band, and after the reduction too.
    margin = math.ceil((_REACH_PX + 1) / scale)
    rows = slice(max(0, top - margin), top + height + margin)
    columns = slice(max(0, left - margin), left + width + margin)
    return _Region(rows, columns, scale)


def _trimap_of(region: _Region, trimap: Pixels) -> Pixels:
    part = region.of(trimap)
    if region.scale == 1:
        return part
    # A mean of several kinds of pixels is none of them.
    return np.where((part == 0) | (part == 255), part, np.uint8(TRIMAP_UNKNOWN))


def _closed_form(pixels: Pixels, trimap: Pixels) -> Floats | None:
    """Return the transparency, float64 [H, W], 0 to 1; None where there is no solution."""
    if not (trimap == 255).any() or not (trimap == 0).any():
        return None
    from pymatting import cg, ichol

    alpha = trimap / 255.0
    unknown = trimap == TRIMAP_UNKNOWN
    if not unknown.any():
        return alpha
    equations, right_side = _equations(pixels, trimap)
    steps = max(_MIN_STEPS, _MAX_PIXEL_STEPS // right_side.size)
    nearest, residual = right_side, math.inf

    def keep(_a: object, x: Floats, _b: object, norm: float, _r: object, norm_r: float) -> None:
        nonlocal nearest, residual
        nearest, residual = x, norm_r / norm

    try:
        factor = ichol(equations, max_nnz=_MAX_FILL * equations.nnz)
        nearest = cg(equations, right_side, M=factor, rtol=_TOLERANCE, maxiter=steps, callback=keep)
    except ValueError:
        # Not positive definite, or not within these steps.
        if residual > _ACCEPTABLE:
            return None
    alpha[unknown] = np.clip(nearest, 0, 1)
    return alpha


def _equations(pixels: Pixels, trimap: Pixels) -> tuple[Any, Floats]:
    """Return the matting Laplacian of the unknown pixels, and what the known ones contribute.

    Args:
        pixels: uint8 [H, W, 3].
        trimap: uint8 [H, W], with N unknown pixels.

    Returns:
        A sparse matrix (CSR) [N, N] and float64 [N]; their solution is the transparency.
    """
    from pymatting import cf_laplacian
    from scipy.sparse import csr_matrix

    height, width = trimap.shape
    unknown = trimap == TRIMAP_UNKNOWN
    number = np.cumsum(unknown, dtype=np.int64).reshape(unknown.shape) - 1
    data, columns, lengths, right_side = [], [], [], []
    step = max(8, _STRIP_PIXELS // width)
    for top in range(0, height, step):
        strip = unknown[top : top + step]
        used = np.flatnonzero(strip.any(axis=0))
        if not used.size:
            continue
        rows = slice(max(0, top - _REACH_PX), top + step + _REACH_PX)
        sides = slice(max(0, used[0] - _REACH_PX), used[-1] + 1 + _REACH_PX)
        inside = unknown[rows, sides]
        wanted = inside.copy()
        wanted[: top - rows.start] = False
        wanted[top - rows.start + step :] = False
        laplacian = cf_laplacian(pixels[rows, sides] / 255.0, is_known=~inside)
        own = laplacian[np.flatnonzero(wanted)]
        right_side.append(-own.dot((trimap[rows, sides] == 255).ravel()))
        # What lies beyond an edge of the image is there as a 0.
        kept = (own.data != 0) & inside.ravel()[own.indices]
        before = np.concatenate(([0], np.cumsum(kept)))[own.indptr]
        lengths.append(np.diff(before))
        data.append(own.data[kept])
        columns.append(number[rows, sides].ravel()[own.indices[kept]])
    starts = np.concatenate(([0], np.cumsum(np.concatenate(lengths))))
    count = starts.size - 1
    matrix = csr_matrix(
        (np.concatenate(data), np.concatenate(columns), starts), shape=(count, count)
    )
    return matrix, np.concatenate(right_side)


def _decontaminated(pixels: Pixels, mask: Pixels, max_pixels: int) -> Matte:
    """Return a subject with the mask as it is, and with its own colours."""
    region = _region((mask > 0) & (mask < 255), max_pixels, math.inf)
    found = _finish(region, pixels, mask, region.of(mask) / 255.0)
    return Matte(found.rgb, mask)


def _finish(region: _Region, pixels: Pixels, sure: Pixels, alpha: Floats) -> Matte:
    """Return the matte of a whole image, given the transparency of the region.

    Args:
        region: What was worked on.
        pixels: uint8 [H, W, 3], of the whole image.
        sure: uint8 [H, W], of the whole image; its 0 and 255 stand.
        alpha: float64, of the region at its scale.
    """
    colours = _foreground(region.of(pixels), alpha)
    found = np.clip(alpha * 255, 0, 255).astype(np.uint8)
    whole_alpha, whole_colours = sure.copy(), pixels.copy()
    part = sure[region.rows, region.columns]
    if region.scale != 1:
        size = (part.shape[1], part.shape[0])
        found = np.asarray(cv2.resize(found, size, interpolation=cv2.INTER_LINEAR), np.uint8)
        colours = np.asarray(cv2.resize(colours, size, interpolation=cv2.INTER_LINEAR), np.uint8)
        found = np.where((part == 0) | (part == 255), part, found)
        opaque = (found == 255)[..., np.newaxis]
        colours = np.where(opaque, pixels[region.rows, region.columns], colours)
    whole_alpha[region.rows, region.columns] = found
    whole_colours[region.rows, region.columns] = colours
    return Matte(whole_colours, whole_alpha)


def _foreground(pixels: Pixels, alpha: Floats) -> Pixels:
    """Return the subject's own colours, uint8 [H, W, 3]."""
    if max(alpha.shape) == 1:
        return pixels
    from pymatting import estimate_foreground_ml

    # The float32 of value / 255 in float64, which is what rembg's arithmetic comes to.
    scaled = cv2.LUT(pixels, (np.arange(256) / 255.0).astype(np.float32))
    with _parallel_loops:
        colours: Floats = estimate_foreground_ml(scaled, alpha)
    return np.clip(colours * np.float64(255), 0, 255).astype(np.uint8)
