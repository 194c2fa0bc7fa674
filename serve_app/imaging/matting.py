"""Matting: the transparency and the colours of soft edges, equal to rembg's.

The mask stays as it is wherever it is sure. In the band between subject and background, the
transparency of each pixel is estimated from the colours around it (closed form: Levin, Lischinski
and Weiss, "A Closed-Form Solution to Natural Image Matting", 2008). The background's share is then
removed from the colours (Germer, Uelwer, Conrad and Harmeling, "Fast Multi-Level Foreground
Estimation", 2020).

The arithmetic is pymatting's. It is imported at the first use, because its import takes a second
or two, and more than a minute when Numba compiles it for the first time on a machine.

pymatting's Laplacian has 25 entries for every pixel of an image, which is 400 MB for a megapixel.
Here it is made strip by strip, and only the rows of the band are kept. The equations are the same,
and they need the memory of the band alone.
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
from serve_app.imaging.pixels import Pixels

TRIMAP_UNKNOWN = 128
"""Value of a trimap's unknown pixels. The background's are 0 and the subject's 255."""

MAX_BAND_SHARE = 1 / 16
"""Largest share of ``max_pixels`` that the band may have. Its equations take 2 KB per pixel."""

_STRIP_PIXELS = 1 << 16
"""Number of pixels whose part of the Laplacian is made at a time."""
_REACH_PX = 2
"""Largest distance of two pixels in one equation. They share a window of 3 x 3 pixels."""
_MAX_FILL = 10
"""Most entries of the incomplete factor per entry of its matrix. 2 is usual."""
_TOLERANCE = 1e-7
"""Relative residual at which the solver stops, the same as rembg's."""
_ACCEPTABLE_RESIDUAL = 1e-2
"""Largest relative residual of a solution that is used after the last allowed step."""
_MIN_STEPS = 20
_MAX_PIXEL_STEPS = 30_000_000
"""Largest product of the solver's steps and the band's pixels.

It takes 12 s on one core of a 2.5 GHz Xeon. The band around a subject needs 3 to 50 steps, and a
mask that is unsure about a whole image needs hundreds.
"""

# Numba's parallel loops end the process if two threads enter them at the same time, unless Numba
# has found OpenMP or TBB on the machine.
_parallel_loops = threading.Lock()

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Matte:
    """A subject with soft edges."""

    rgb: Pixels
    """Colours of the subject without the background's share, [H, W, 3]."""
    alpha: Pixels
    """Transparency of the subject, [H, W]."""


@dataclass(frozen=True, slots=True)
class _Region:
    """The part of an image that is matted, and the scale at which it is."""

    rows: slice
    columns: slice
    scale: float
    """Side of the reduced part relative to the original, 0 to 1."""

    def extract(self, image: Pixels) -> Pixels:
        """Return this part of an image at the region's scale.

        Each reduced pixel is the mean of those that it replaces.
        """
        part = image[self.rows, self.columns]
        if self.scale == 1:
            return part
        size = [max(1, math.floor(side * self.scale)) for side in (part.shape[1], part.shape[0])]
        return np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA), np.uint8)


def preload_matting() -> None:
    """Import pymatting now, so that no image waits for it."""
    # The imports of this module's functions are lazy: see the module's docstring.
    import pymatting  # noqa: F401


def matte(pixels: Pixels, mask: Pixels, settings: Matting, max_pixels: int) -> Matte:
    """Return the subject of an image with soft edges.

    An image with more than ``max_pixels`` is matted in the box around the band in which the mask
    is unsure. If that box or the band is too large as well, it is matted at a reduced size. Pixels
    of which the mask is sure keep the full resolution, and the band's transparency and colours are
    enlarged.

    Args:
        pixels: Image, uint8 [H, W, 3].
        mask: Mask, uint8 [H, W].
        settings: Matting settings of a recipe, with a method other than ``off``.
        max_pixels: Most pixels to matte at full size. The band may have a sixteenth of them.
    """
    if settings.method == "closed_form":
        trimap = make_trimap(mask, settings)
        band = trimap == TRIMAP_UNKNOWN
        region = _choose_region(band, max_pixels, MAX_BAND_SHARE * max_pixels)
        alpha = _solve_closed_form(region.extract(pixels), _extract_trimap(region, trimap))
        if alpha is not None:
            return _assemble_matte(region, pixels, trimap, alpha)
    # rembg also falls back to this if there is no subject, no background or no solution.
    return _decontaminate(pixels, mask, max_pixels)


def make_trimap(mask: Pixels, settings: Matting) -> Pixels:
    """Return the pixels of the subject as 255, of the background as 0, and unknown ones as 128.

    Args:
        mask: Mask, uint8 [H, W].
        settings: Thresholds and the size of the erosion.

    Returns:
        uint8 [H, W], the same as rembg's. rembg erodes by SciPy with a square, or with a cross of
        3 x 3 if the size is 0.
    """
    shape = (
        cv2.getStructuringElement(cv2.MORPH_RECT, (settings.erode_px,) * 2)
        if settings.erode_px
        else cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    )

    def eroded(sure: npt.NDArray[np.bool_], beyond: int) -> npt.NDArray[np.bool_]:
        kept = cv2.erode(
            sure.view(np.uint8), shape, borderType=cv2.BORDER_CONSTANT, borderValue=beyond
        )
        return np.asarray(kept, np.uint8).view(np.bool_)

    trimap = np.full(mask.shape, TRIMAP_UNKNOWN, np.uint8)
    trimap[eroded(mask > settings.foreground_above, 0)] = 255
    trimap[eroded(mask < settings.background_below, 1)] = 0
    return trimap


def _choose_region(band: npt.NDArray[np.bool_], max_pixels: int, max_band: float) -> _Region:
    """Return the region to matte: the whole image, the box around the band, or a reduced box.

    Args:
        band: Pixels of which the mask is unsure, bool [H, W].
        max_pixels: Most pixels of the region after its reduction.
        max_band: Most pixels of the band after its reduction.
    """
    whole = _Region(slice(None), slice(None), 1.0)
    count = int(np.count_nonzero(band))
    if not count or (band.size <= max_pixels and count <= max_band):
        return whole
    left, top, width, height = cv2.boundingRect(band.view(np.uint8))
    room = min(max_pixels / (width * height), max_band / count)
    scale = min(1.0, math.sqrt(room))
    # The band needs sure pixels around it, after the reduction too.
    margin = math.ceil((_REACH_PX + 1) / scale)
    rows = slice(max(0, top - margin), top + height + margin)
    columns = slice(max(0, left - margin), left + width + margin)
    return _Region(rows, columns, scale)


def _extract_trimap(region: _Region, trimap: Pixels) -> Pixels:
    part = region.extract(trimap)
    if region.scale == 1:
        return part
    # A mean of different kinds of pixels is of neither kind, and so unknown.
    return np.where((part == 0) | (part == 255), part, np.uint8(TRIMAP_UNKNOWN))


def _solve_closed_form(pixels: Pixels, trimap: Pixels) -> Floats | None:
    """Return the transparency, float64 [H, W], 0 to 1, or None if there is no solution."""
    if not (trimap == 255).any() or not (trimap == 0).any():
        return None
    from pymatting import cg, ichol

    alpha = trimap / 255.0
    unknown = trimap == TRIMAP_UNKNOWN
    if not unknown.any():
        return alpha
    equations, right_side = _make_equations(pixels, trimap)
    steps = max(_MIN_STEPS, _MAX_PIXEL_STEPS // right_side.size)
    nearest, residual = right_side, math.inf

    def keep(_a: object, x: Floats, _b: object, norm: float, _r: object, norm_r: float) -> None:
        nonlocal nearest, residual
        nearest, residual = x, norm_r / norm

    try:
        factor = ichol(equations, max_nnz=_MAX_FILL * equations.nnz)
        nearest = cg(equations, right_side, M=factor, rtol=_TOLERANCE, maxiter=steps, callback=keep)
    except ValueError:
        # The matrix is not positive definite, or the solver reached the last step.
        if residual > _ACCEPTABLE_RESIDUAL:
            return None
    alpha[unknown] = np.clip(nearest, 0, 1)
    return alpha


def _make_equations(pixels: Pixels, trimap: Pixels) -> tuple[Any, Floats]:
    """Return the matting Laplacian of the unknown pixels, and what the known ones contribute.

    Args:
        pixels: Image, uint8 [H, W, 3].
        trimap: Trimap, uint8 [H, W], with N unknown pixels.

    Returns:
        A sparse matrix (CSR) [N, N], and the right side of the equations, float64 [N]. The
        solution is the transparency of the unknown pixels.
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
        # Pixels beyond an edge of the image appear as entries of 0.
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


def _decontaminate(pixels: Pixels, mask: Pixels, max_pixels: int) -> Matte:
    """Return a subject with the mask as it is, and without the background's share of colours."""
    region = _choose_region((mask > 0) & (mask < 255), max_pixels, math.inf)
    found = _assemble_matte(region, pixels, mask, region.extract(mask) / 255.0)
    return Matte(found.rgb, mask)


def _assemble_matte(region: _Region, pixels: Pixels, known: Pixels, alpha: Floats) -> Matte:
    """Return the matte of a whole image, given the transparency of the region.

    Args:
        region: Region that was matted.
        pixels: Whole image, uint8 [H, W, 3].
        known: Mask or trimap of the whole image, uint8 [H, W]. Its values of 0 and 255 are kept.
        alpha: Transparency of the region at its scale, float64, 0 to 1.
    """
    colours = _estimate_colours(region.extract(pixels), alpha)
    found = np.clip(alpha * 255, 0, 255).astype(np.uint8)
    whole_alpha, whole_colours = known.copy(), pixels.copy()
    part = known[region.rows, region.columns]
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


def _estimate_colours(pixels: Pixels, alpha: Floats) -> Pixels:
    """Return the colours without the background's share, uint8 [H, W, 3]."""
    if max(alpha.shape) == 1:
        return pixels
    from pymatting import estimate_foreground_ml

    # rembg's arithmetic amounts to this float32 of value / 255 in float64.
    scaled = cv2.LUT(pixels, (np.arange(256) / 255.0).astype(np.float32))
    with _parallel_loops:
        colours: Floats = estimate_foreground_ml(scaled, alpha)
    return np.clip(colours * np.float64(255), 0, 255).astype(np.uint8)
