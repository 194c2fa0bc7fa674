"""Samples on disk: an image NAME.jpg and its mask NAME.mask.png."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from serve_app.models.folio.synthetic.surfaces import Pixels

SIDE_PX = 320
"""Side of the samples of the training, in pixels."""
_MASK_SUFFIX = ".mask.png"
_JPEG_QUALITY = 95


def find_pairs(folder: Path) -> list[Path]:
    """Return the images NAME.jpg of a folder, in order of name.

    Args:
        folder: Folder of images NAME.jpg and their masks NAME.mask.png.

    Raises:
        ValueError: An image has no mask, or there is no image.
    """
    images = sorted(folder.glob("*.jpg"))
    if not images:
        raise ValueError(f"there is no image NAME.jpg in {folder}")
    for image in images:
        if not _mask_of(image).exists():
            raise ValueError(f"{image} has no mask: {_mask_of(image).name} is missing")
    return images


def read_pair(image: Path) -> tuple[Pixels, Pixels]:
    """Return an image, uint8 [320, 320, 3], RGB, and its mask, uint8 [320, 320].

    Both are squashed to the square of the training, as the application squashes images.

    Raises:
        ValueError: The image or its mask cannot be read, or they have different sizes.
    """
    pixels = cv2.imread(str(image), cv2.IMREAD_COLOR)
    mask = cv2.imread(str(_mask_of(image)), cv2.IMREAD_GRAYSCALE)
    if pixels is None or mask is None or pixels.shape[:2] != mask.shape:
        raise ValueError(f"{image} and its mask are not an image and a mask of the same size")
    size, square = pixels.shape[:2], (SIDE_PX, SIDE_PX)
    if size != square:
        method = cv2.INTER_AREA if min(size) >= SIDE_PX else cv2.INTER_LINEAR
        pixels = cv2.resize(pixels, square, interpolation=method)
        mask = cv2.resize(mask, square, interpolation=method)
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8), np.asarray(mask, np.uint8)


def write_pair(image: Path, pixels: Pixels, mask: Pixels) -> None:
    """Write an image, uint8 [H, W, 3], RGB, as NAME.jpg, and its mask, uint8 [H, W].

    Raises:
        OSError: A file cannot be written.
    """
    bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    for path, array, options in ((image, bgr, quality), (_mask_of(image), mask, [])):
        if not cv2.imwrite(str(path), array, options):
            raise OSError(f"{path} cannot be written")


def _mask_of(image: Path) -> Path:
    return image.with_suffix(_MASK_SUFFIX)
