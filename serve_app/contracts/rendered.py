"""Rendered: a finished cut-out with its bytes, as CutoutPipeline returns it to HttpApi."""

from __future__ import annotations

from dataclasses import dataclass

from serve_app.contracts.outcome import Cutout


@dataclass(frozen=True, slots=True)
class Rendered:
    """A finished cut-out."""

    data: bytes
    media_type: str
    thumbnail: bytes | None
    """A JPEG."""
    cutout: Cutout
