"""Strips of rows: a step on a whole image in the memory and the cache of a small part of it."""

from __future__ import annotations

from collections.abc import Iterator

_STRIP_PIXELS = 1 << 17
"""Number of pixels of a strip: 512 KB as RGBA, which fits the second cache of a core."""


def strips(first: int, end: int, width: int) -> Iterator[slice]:
    """Yield slices that cover the rows of an image.

    Args:
        first: First row.
        end: Row after the last one.
        width: Width of the image, in pixels.
    """
    step = max(1, _STRIP_PIXELS // max(1, width))
    for top in range(first, end, step):
        yield slice(top, min(top + step, end))
