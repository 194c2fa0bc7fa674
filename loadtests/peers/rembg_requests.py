"""Requests to rembg's HTTP API, and the difference between two images that answer one."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

MAX_LEVELS = 2
"""Largest difference of two pixels that count as equal, in levels of 255."""

MIN_EQUAL_SHARE = 0.999
"""Least share of the mask's pixels that must be equal."""

MAX_MATTING_MEAN = 0.002
"""Largest mean difference of two masks after matting, from 0 to 1."""


@dataclass(frozen=True, slots=True)
class RemoveRequest:
    """A request that rembg's server answers with an image."""

    name: str
    form: dict[str, str] = field(default_factory=dict)
    query: dict[str, str] = field(default_factory=dict)
    """Query parameters, from which rembg always reads ``bgc`` and ``extras``."""

    @property
    def matted(self) -> bool:
        """Whether the mask of the response was changed by matting."""
        return "a" in self.form and "om" not in self.form


REQUESTS = (
    RemoveRequest("file alone"),
    RemoveRequest("om=true", {"om": "true"}),
    RemoveRequest("ppm=true", {"ppm": "true"}),
    RemoveRequest("om=true, ppm=true", {"om": "true", "ppm": "true"}),
    RemoveRequest("a=true", {"a": "true"}),
    RemoveRequest("a=true, af, ab, ae", {"a": "true", "af": "220", "ab": "30", "ae": "5"}),
    RemoveRequest("a=true, ppm=true", {"a": "true", "ppm": "true"}),
    RemoveRequest("a=true, om=true", {"a": "true", "om": "true"}),
    RemoveRequest("dc=true", {"dc": "true"}),
    RemoveRequest("?bgc=255,255,255,255", {}, {"bgc": "255,255,255,255"}),
    RemoveRequest("?bgc=0,64,128,200", {}, {"bgc": "0,64,128,200"}),
    RemoveRequest("a=true, ?bgc=0,0,0,255", {"a": "true"}, {"bgc": "0,0,0,255"}),
)

REFUSED_REQUESTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("no file", {"fields": {"om": "true"}}),
    ("unknown model", {"fields": {"model": "nonsense"}, "file": True}),
    ("af=300", {"fields": {"af": "300"}, "file": True}),
    ("a=perhaps", {"fields": {"a": "perhaps"}, "file": True}),
    ("GET without url", {"method": "GET"}),
)
"""Requests that rembg's server refuses."""


@dataclass(frozen=True, slots=True)
class ImageDifference:
    """Difference between two images."""

    kind: str
    """Size and mode of the images."""
    same_kind: bool
    mask_share: float
    """Share of the pixels whose masks are equal."""
    mask_mean: float
    """Mean absolute difference of the masks, from 0 to 1."""
    mask_max: int
    """Largest difference of the masks, in levels."""
    colour_mean: float | None
    """Mean absolute difference of the colours of opaque pixels, in levels."""

    def is_accepted(self, request: RemoveRequest) -> bool:
        """Return whether the images are as equal as the responses to a request must be."""
        if request.matted:
            equal_masks = self.mask_mean <= MAX_MATTING_MEAN
        else:
            equal_masks = self.mask_share >= MIN_EQUAL_SHARE
        return self.same_kind and equal_masks and (self.colour_mean or 0) <= MAX_LEVELS


def compare_images(ours: bytes, theirs: bytes, mask: bytes | None = None) -> ImageDifference:
    """Return the difference between two PNG files.

    Args:
        ours: Foreedge's file.
        theirs: rembg's file.
        mask: Mask of the image, for files with a background. Only colours of pixels with a
            sure mask are compared, because rembg darkens half-transparent pixels.
    """
    mine, other = (Image.open(io.BytesIO(data)) for data in (ours, theirs))
    kind = f"{other.width} x {other.height} {other.mode}"
    if (mine.size, mine.mode) != (other.size, other.mode):
        return ImageDifference(f"{mine.size} {mine.mode}, {kind}", False, 0.0, 1.0, 255, None)
    first, second = _mask_of(mine), _mask_of(other)
    difference = np.abs(first - second)
    colour_mean = None
    opaque = (first >= 255 - MAX_LEVELS) & (second >= 255 - MAX_LEVELS)
    if mask is not None:
        values = _mask_of(Image.open(io.BytesIO(mask)))
        opaque &= (values >= 255 - MAX_LEVELS) | (values <= MAX_LEVELS)
    if mine.mode == "RGBA" and opaque.any():
        pixels = [np.asarray(image, np.int64)[..., :3][opaque] for image in (mine, other)]
        colour_mean = float(np.abs(pixels[0] - pixels[1]).mean())
    return ImageDifference(
        kind,
        True,
        float((difference <= MAX_LEVELS).mean()),
        float(difference.mean() / 255),
        int(difference.max()),
        colour_mean,
    )


def _mask_of(image: Image.Image) -> npt.NDArray[np.int64]:
    return np.asarray(image.getchannel("A") if image.mode == "RGBA" else image, np.int64)
