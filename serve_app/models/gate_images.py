"""The images of the gate: a small set that is part of the package, or those of a folder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from PIL import Image

from serve_app.config import ImageLimits
from serve_app.errors import ForeedgeError, InvalidConfig
from serve_app.imaging.decode import decode_image
from serve_app.imaging.pixels import Pixels
from serve_app.models.folio.synthetic.photograph import Kind, draw_photograph

BUNDLED_SET = "the bundled images"
"""Name of the small set in records."""
_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
_MASK_SUFFIX = ".mask.png"
_FIRST_SEED = 300_000
"""Seed of the first drawn image. No training and no other set uses seeds from here on."""
_DRAWN: tuple[Kind, ...] = ("book", "object")
_SIZES = ((480, 360), (360, 480))


@dataclass(frozen=True, slots=True)
class GateImage:
    """An image of the gate."""

    name: str
    """Name for reports."""
    rgb: Pixels
    """Colours, uint8 [H, W, 3]."""
    truth: Pixels | None = None
    """True mask, uint8 [H, W], if it is known."""


def draw_gate_images(count: int) -> Iterator[GateImage]:
    """Yield drawn books and objects in turn, with their true masks. They are always the same."""
    for number in range(count):
        kind, (width, height) = _DRAWN[number % len(_DRAWN)], _SIZES[number // 2 % len(_SIZES)]
        drawn = draw_photograph(_FIRST_SEED + number, width=width, height=height, kind=kind)
        yield GateImage(f"drawn-{number:02}-{drawn.category}", drawn.image, drawn.mask)


def read_gate_images(folder: Path) -> Iterator[GateImage]:
    """Yield the images of a folder by name.

    ``NAME.mask.png`` is the true mask of ``NAME.jpg``, and need not exist.

    Raises:
        InvalidConfig: The folder has no image, or one that cannot be read.
    """
    paths = [
        path
        for path in sorted(folder.glob("*"))
        if path.suffix.lower() in _SUFFIXES and not path.name.endswith(_MASK_SUFFIX)
    ]
    if not paths:
        raise InvalidConfig(f"{folder} has no image ({', '.join(sorted(_SUFFIXES))}).")
    for path in paths:
        try:
            rgb = decode_image(path.read_bytes(), ImageLimits()).rgb
        except (ForeedgeError, OSError) as error:
            raise InvalidConfig(f"{path} cannot be read as an image: {error}") from error
        yield GateImage(path.stem, rgb, _read_truth(path.with_name(path.stem + _MASK_SUFFIX), rgb))


def shared_images(some: Iterable[GateImage], others: Iterable[GateImage]) -> list[str]:
    """Return the names of the images whose pixels another set has too, whatever their files."""
    known = {_digest(image) for image in others}
    return [image.name for image in some if _digest(image) in known]


def halve(images: Sequence[GateImage]) -> tuple[list[GateImage], list[GateImage]]:
    """Return two halves of a set. What the first one chooses, the second one can judge.

    The order of a hash of the names deals them out, so that neither half has a kind of its own.

    Raises:
        InvalidConfig: There are fewer than two images.
    """
    if len(images) < 2:
        raise InvalidConfig(
            "The gate needs two images at least: one half of them chooses, the other one judges."
        )
    dealt = sorted(images, key=lambda image: sha256(image.name.encode()).digest())
    return dealt[::2], dealt[1::2]


def _digest(image: GateImage) -> tuple[tuple[int, ...], bytes]:
    return image.rgb.shape, sha256(image.rgb.tobytes()).digest()


def _read_truth(path: Path, rgb: Pixels) -> Pixels | None:
    if not path.is_file():
        return None
    try:
        with Image.open(path) as mask:
            truth = np.asarray(mask.convert("L"))
    except OSError as error:
        raise InvalidConfig(f"{path} cannot be read as a mask: {error}") from error
    if truth.shape != rgb.shape[:2]:
        raise InvalidConfig(
            f"{path} has {truth.shape[1]} x {truth.shape[0]} pixels, and its image "
            f"{rgb.shape[1]} x {rgb.shape[0]}. A true mask has the size of its image."
        )
    return truth
