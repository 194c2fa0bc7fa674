"""Rendered: a finished cut-out with its bytes, as CutoutPipeline returns it to HttpApi."""

from __future__ import annotations

from dataclasses import dataclass

from serve_app.contracts.outcome import Cutout


@dataclass(frozen=True, slots=True)
class Rendered:
    """A finished cut-out with its bytes."""

    data: bytes
    """File of the result."""
    media_type: str
    """Media type of the file."""
    thumbnail: bytes | None
    """JPEG file of the thumbnail. None if the recipe has no thumbnail."""
    cutout: Cutout
    """Facts about the cut-out."""
