"""The images of the gate: a small set that is part of the package, or those of a folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path

import numpy as np
from PIL import Image

from serve_app.config import ImageLimits
from serve_app.errors import ForeedgeError, InvalidConfig
from serve_app.imaging.decode import decode_image
from serve_app.imaging.mask import resize_for_model
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


Truth = Callable[[], Pixels | None]
"""Function that returns a true mask, uint8 [H, W], or None if it is not known."""


def known_truth(mask: Pixels | None = None) -> Truth:
    """Return the function that returns a mask which is in memory already.

    Args:
        mask: True mask, uint8 [H, W], or None if it is not known.
    """
    return lambda: mask


@dataclass(frozen=True, slots=True)
class GateImage:
    """An image of the gate at full size. Hundreds of them may not fit into the memory."""

    name: str
    """Name for reports."""
    rgb: Pixels
    """Colours, uint8 [H, W, 3]."""
    read_truth: Truth = field(default_factory=known_truth)
    """Function that returns the true mask. It reads a file each time if the image is of one."""


@dataclass(frozen=True, slots=True)
class SmallImage:
    """What is kept of an image of the gate: what a model takes, and no pixels at full size."""

    name: str
    """Name for reports."""
    square: Pixels
    """The image as the model takes it, uint8 [S, S, 3]."""
    width: int
    """Width of the image, in pixels."""
    height: int
    """Height of the image, in pixels."""
    digest: bytes
    """Digest of the pixels at full size."""
    read_truth: Truth
    """Function that returns the true mask, uint8 [H, W]. It reads a file each time."""


def shrink_images(images: Iterable[GateImage], size_px: int) -> Iterator[SmallImage]:
    """Yield what a model needs of each image. No more than one of them is held at full size.

    Args:
        images: Images, which an iterator reads one after the other.
        size_px: Side of the model's input, in pixels.
    """
    # A loop would hold an image while the next one is read.
    return map(partial(_shrink, size_px=size_px), images)


def _shrink(image: GateImage, size_px: int) -> SmallImage:
    height, width = image.rgb.shape[:2]
    digest = sha256(repr(image.rgb.shape).encode())
    digest.update(np.ascontiguousarray(image.rgb).data)
    square = resize_for_model(image.rgb, size_px)
    return SmallImage(image.name, square, width, height, digest.digest(), image.read_truth)


def draw_gate_images(count: int) -> Iterator[GateImage]:
    """Yield drawn books and objects in turn, with their true masks. They are always the same."""
    for number in range(count):
        kind, (width, height) = _DRAWN[number % len(_DRAWN)], _SIZES[number // 2 % len(_SIZES)]
        drawn = draw_photograph(_FIRST_SEED + number, width=width, height=height, kind=kind)
        yield GateImage(f"drawn-{number:02}-{drawn.category}", drawn.image, known_truth(drawn.mask))


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
        yield _read_image(path)


def _read_image(path: Path) -> GateImage:
    try:
        rgb = decode_image(path.read_bytes(), ImageLimits()).rgb
    except (ForeedgeError, OSError) as error:
        raise InvalidConfig(f"{path} cannot be read as an image: {error}") from error
    height, width = rgb.shape[:2]
    truth = path.with_name(path.stem + _MASK_SUFFIX)
    if not truth.is_file():
        return GateImage(path.stem, rgb)
    _check_truth(truth, width, height)
    return GateImage(path.stem, rgb, partial(_read_truth, truth, width, height))


def shared_images(some: Iterable[SmallImage], others: Iterable[SmallImage]) -> list[str]:
    """Return the names of the images whose pixels another set has too, whatever their files."""
    known = {image.digest for image in others}
    return [image.name for image in some if image.digest in known]


def distinct_images(images: Iterable[SmallImage]) -> list[SmallImage]:
    """Return the first of the images that have the same pixels, whatever their names are."""
    first: dict[bytes, SmallImage] = {}
    for image in images:
        first.setdefault(image.digest, image)
    return list(first.values())


def halve(images: Sequence[SmallImage]) -> tuple[list[SmallImage], list[SmallImage]]:
    """Return two halves of a set. What the first one chooses, the second one can judge.

    The order of a hash of the names deals them out, so that neither half has a kind of its own. Of
    images with the same pixels one is dealt, since the others could be in the other half.

    Raises:
        InvalidConfig: There are fewer than two images with different pixels.
    """
    by_hash = sorted(images, key=lambda image: sha256(image.name.encode()).digest())
    dealt = distinct_images(by_hash)
    if len(dealt) < 2:
        raise InvalidConfig(
            "The gate needs two different images at least: one half of them chooses, the other one "
            "judges."
        )
    return dealt[::2], dealt[1::2]


def _read_truth(path: Path, width: int, height: int) -> Pixels:
    _check_truth(path, width, height)
    try:
        with Image.open(path) as mask:
            return np.asarray(mask.convert("L"))
    except OSError as error:
        raise InvalidConfig(f"{path} cannot be read as a mask: {error}") from error


def _check_truth(path: Path, width: int, height: int) -> None:
    """Refuse a true mask of another size, by its header alone."""
    try:
        with Image.open(path) as mask:
            size = mask.size
    except OSError as error:
        raise InvalidConfig(f"{path} cannot be read as a mask: {error}") from error
    if size != (width, height):
        raise InvalidConfig(
            f"{path} has {size[0]} x {size[1]} pixels, and its image {width} x {height}. "
            "A true mask has the size of its image."
        )
