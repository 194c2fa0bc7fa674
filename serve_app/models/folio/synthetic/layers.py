"""Layers of a photograph, and flat textures that are painted on them in perspective."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from serve_app.models.folio.synthetic.surfaces import Pixels, blend, unit_of

Points = npt.NDArray[np.float64]

_SUBPIXEL_BITS = 4


@dataclass(slots=True)
class Layer:
    """The painted foreground: its colours and its true alpha."""

    pixels: Pixels
    """Colours, uint8 [H, W, 3]."""
    alpha: Pixels
    """True alpha, uint8 [H, W]."""

    @classmethod
    def empty(cls, height: int, width: int) -> Layer:
        """Return a layer on which nothing is painted."""
        return cls(np.zeros((height, width, 3), np.uint8), np.zeros((height, width), np.uint8))

    @property
    def height(self) -> int:
        """Height in pixels."""
        return int(self.alpha.shape[0])

    @property
    def width(self) -> int:
        """Width in pixels."""
        return int(self.alpha.shape[1])

    @property
    def unit(self) -> float:
        """The length that is one pixel at 320 x 320."""
        return unit_of(self.height, self.width)

    def paint(self, pixels: Pixels, shape: Pixels) -> None:
        """Paint pixels, uint8 [H, W, 3], through a shape, uint8 [H, W]."""
        self.pixels = blend(self.pixels, pixels, shape)
        self.alpha = np.asarray(cv2.max(self.alpha, shape), np.uint8)

    def polygon(self, corners: Points) -> Pixels:
        """Return a filled polygon with smooth edges, uint8 [H, W], without painting it."""
        shape = np.zeros((self.height, self.width), np.uint8)
        fixed = np.round(corners * (1 << _SUBPIXEL_BITS)).astype(np.int32)
        cv2.fillPoly(shape, [fixed], 255, cv2.LINE_AA, _SUBPIXEL_BITS)
        return shape

    def paint_texture(self, texture: Pixels, corners: Points, shape: Pixels | None = None) -> None:
        """Paint a flat texture into a quadrilateral.

        Args:
            texture: Pixels of any size, uint8 [h, w, 3].
            corners: Corners of the quadrilateral, [4, 2]: x and y of top left, top right, bottom
                right and bottom left.
            shape: Opacity of the texture, uint8 [h, w], or None if all of it is opaque.
        """
        texture, shape = self._reduce(texture, corners, shape)
        height, width = texture.shape[:2]
        rectangle = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
        matrix = cv2.getPerspectiveTransform(rectangle, corners.astype(np.float32))
        size = (self.width, self.height)
        seen = cv2.warpPerspective(texture, matrix, size, borderMode=cv2.BORDER_REPLICATE)
        alpha = self.polygon(corners) if shape is None else cv2.warpPerspective(shape, matrix, size)
        self.paint(np.asarray(seen, np.uint8), np.asarray(alpha, np.uint8))

    @staticmethod
    def _reduce(
        texture: Pixels, corners: Points, shape: Pixels | None
    ) -> tuple[Pixels, Pixels | None]:
        """Return a texture and its shape, reduced to about the size at which they are seen.

        Otherwise the bilinear sampling of ``paint_texture`` would alias.
        """
        edges = np.linalg.norm(corners - np.roll(corners, -1, axis=0), axis=1)
        wide, tall = max(edges[0], edges[2], 2), max(edges[1], edges[3], 2)
        height, width = texture.shape[:2]
        if width <= 1.5 * wide and height <= 1.5 * tall:
            return texture, shape
        size = (max(2, min(width, int(1.2 * wide))), max(2, min(height, int(1.2 * tall))))
        small = np.asarray(cv2.resize(texture, size, interpolation=cv2.INTER_AREA), np.uint8)
        if shape is not None:
            shape = np.asarray(cv2.resize(shape, size, interpolation=cv2.INTER_AREA), np.uint8)
        return small, shape


def rotation(yaw: float, pitch: float, roll: float) -> npt.NDArray[np.float64]:
    """Return the matrix, [3, 3], of a roll, then a yaw, then a pitch, all in radians."""
    cos_y, sin_y = np.cos(yaw), np.sin(yaw)
    cos_p, sin_p = np.cos(pitch), np.sin(pitch)
    cos_r, sin_r = np.cos(roll), np.sin(roll)
    about_y = np.array([[cos_y, 0, sin_y], [0, 1, 0], [-sin_y, 0, cos_y]])
    about_x = np.array([[1, 0, 0], [0, cos_p, -sin_p], [0, sin_p, cos_p]])
    about_z = np.array([[cos_r, -sin_r, 0], [sin_r, cos_r, 0], [0, 0, 1]])
    return np.asarray(about_x @ about_y @ about_z)


def project(points: Points, turn: npt.NDArray[np.float64], distance: float) -> Points:
    """Return where a pinhole camera at a distance sees points, [N, 3], after a turn: [N, 2]."""
    turned = points @ turn.T
    return np.asarray(turned[:, :2] * (distance / (distance + turned[:, 2:])))


def fit(points: Points, centre: Sequence[float], longest: float) -> Points:
    """Return points, [N, 2], scaled and moved to a bounding box of this centre and longer side."""
    low, high = points.min(0), points.max(0)
    return np.asarray((points - (low + high) / 2) * (longest / (high - low).max()) + centre)
