"""The stored masks of one image, one for each model whose weights are known.

A mask belongs to exact weights: the name of its file ends with their digest. After a change of a
model's weights, write its mask again::

    python -m ingest.smoke.reference folio u2netp
"""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image

from serve_app.config import AppConfig
from serve_app.errors import ModelUnavailable
from serve_app.imaging.decode import decode_image
from serve_app.imaging.mask import resize_for_model
from serve_app.imaging.pixels import Pixels
from serve_app.models.inference import load_model

IMAGE_FILE = "coffee.jpg"
"""One of the real images of the demonstration (CC0), on which every model is sure."""
WRITE_COMMAND = "python -m ingest.smoke.reference"
"""Command that writes the masks of the models that it is given."""

_SAME_LEVELS = 1
"""Largest difference, in grey levels, of a pixel that counts as the same."""
_MIN_SAME = 0.999
"""Smallest share of the pixels that must be the same. CPUs round sums of products differently."""
_DIGEST_DIGITS = 16


@dataclass(frozen=True, slots=True)
class Comparison:
    """How far a mask is from the stored one."""

    max_levels: int
    """Largest difference of a pixel, in grey levels."""
    same: float
    """Share of the pixels that differ by one grey level or less, 0 to 1."""

    @property
    def passes(self) -> bool:
        """Whether the masks count as the same."""
        return self.same >= _MIN_SAME


def read_image_file() -> bytes:
    """Return the content of the image's JPEG file."""
    return (files("ingest.local") / "real_photographs" / IMAGE_FILE).read_bytes()


def read_mask(name: str, sha256: str) -> Pixels | None:
    """Return the stored mask of a model, or None if its weights have none.

    Args:
        name: Name of the model.
        sha256: SHA-256 of its weights, as hexadecimal digits.
    """
    stored = files("ingest.smoke") / "masks" / _file_name(name, sha256)
    if not stored.is_file():
        return None
    with Image.open(io.BytesIO(stored.read_bytes())) as image:
        return np.asarray(image)


def compare_masks(mask: Pixels, stored: Pixels) -> Comparison:
    """Compare two masks of the same size, uint8 [H, W]."""
    levels = np.abs(mask.astype(np.int16) - stored)
    return Comparison(int(levels.max()), float((levels <= _SAME_LEVELS).mean()))


def require_stored_mask(name: str, sha256: str, mask: Pixels) -> Comparison | None:
    """Compare a model's mask of the image with the stored one, if its weights have one.

    Args:
        name: Name of the model.
        sha256: SHA-256 of its weights, as hexadecimal digits.
        mask: Mask, uint8 [S, S].

    Raises:
        ModelUnavailable: The masks are not the same.
    """
    stored = read_mask(name, sha256)
    if stored is None:
        return None
    found = compare_masks(mask, stored)
    if not found.passes:
        raise ModelUnavailable(
            f"{name}: {1 - found.same:.2%} of the pixels of its mask of {IMAGE_FILE} differ by "
            f"more than one grey level from the stored mask, by up to {found.max_levels}. The "
            "weights are the same, so ONNX Runtime computes something else on this CPU. Use its "
            "version in requirements-runtime.lock."
        )
    return found


def write_mask(name: str) -> Path:
    """Write the mask of a model whose weights are here in place of its earlier one."""
    config = AppConfig()
    model = load_model(name, config)
    folder = Path(__file__).parent / "masks"
    for earlier in folder.glob(f"{name}-*.png"):
        earlier.unlink()
    path = folder / _file_name(name, model.sha256)
    image = decode_image(read_image_file(), config.limits)
    mask = model.masks(resize_for_model(image.rgb, model.size_px)[None])[0]
    Image.fromarray(mask).save(path, "PNG", optimize=True)
    return path


def _file_name(name: str, sha256: str) -> str:
    return f"{name}-{sha256[:_DIGEST_DIGITS]}.png"


if __name__ == "__main__":
    for each in sys.argv[1:]:
        print(write_mask(each))
