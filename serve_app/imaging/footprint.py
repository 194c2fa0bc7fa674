"""The memory that an image takes while it is processed."""

from __future__ import annotations

from serve_app.contracts.recipe import Recipe
from serve_app.imaging.decode import ImageHeader


def bytes_needed(header: ImageHeader, recipe: Recipe) -> int:
    """Return the most memory that the steps of an image take at the same time, in bytes."""
    return 16 * header.pixels
