"""The photographs of the training: drawn once, stored in a folder, and varied at random."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track

from serve_app.models.folio.synthetic.photograph import draw_photograph

Pixels = npt.NDArray[np.uint8]

SIDE_PX = 320
"""Side of the photographs, in pixels."""
TRAINING_SEED = 1_000_000
"""First seed of training photographs. Those below are for tests, demonstrations and scores."""
BLOCK = 16
"""Number of consecutive photographs that are drawn and read together."""


def draw_photographs(seeds: range) -> tuple[Pixels, Pixels]:
    """Return photographs, uint8 [N, 320, 320, 3], and their true masks, uint8 [N, 320, 320]."""
    cv2.setNumThreads(1)
    drawn = [draw_photograph(seed, width=SIDE_PX, height=SIDE_PX) for seed in seeds]
    return np.stack([p.image for p in drawn]), np.stack([p.mask for p in drawn])


def load_photographs(cache: Path, count: int, console: Console) -> tuple[Pixels, Pixels]:
    """Return the photographs and masks of the training, which are drawn if they are not on disk.

    Args:
        cache: Folder of the drawn photographs.
        count: Number of photographs.
        console: Terminal that shows the progress of the drawing.

    Returns:
        Memory-mapped arrays, uint8 [count, 320, 320, 3] and uint8 [count, 320, 320].
    """
    images_path, masks_path = cache / f"images-{count}.npy", cache / f"masks-{count}.npy"
    if not masks_path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        part = masks_path.with_suffix(".part")
        shape = (count, SIDE_PX, SIDE_PX)
        images = np.lib.format.open_memmap(images_path, "w+", np.uint8, (*shape, 3))
        masks = np.lib.format.open_memmap(part, "w+", np.uint8, shape)
        blocks = [
            range(TRAINING_SEED + first, TRAINING_SEED + min(first + BLOCK, count))
            for first in range(0, count, BLOCK)
        ]
        with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
            drawn = pool.map(draw_photographs, blocks)
            for block, (some_images, some_masks) in zip(
                track(blocks, "Drawing photographs", console=console), drawn, strict=True
            ):
                rows = slice(block.start - TRAINING_SEED, block.stop - TRAINING_SEED)
                images[rows], masks[rows] = some_images, some_masks
        images.flush()
        masks.flush()
        part.rename(masks_path)
    return np.load(images_path, mmap_mode="r"), np.load(masks_path, mmap_mode="r")


def augment(
    rng: np.random.Generator, image: Pixels, mask: Pixels, side_px: int
) -> tuple[Pixels, Pixels]:
    """Return a random variant of a photograph and its mask, with sides of ``side_px`` pixels."""
    if rng.random() < 0.5:
        image, mask = _crop(rng, image, mask)
    if rng.random() < 0.12:
        turns = int(rng.integers(1, 4))
        image, mask = np.rot90(image, turns), np.rot90(mask, turns)
    if rng.random() < 0.5:
        image, mask = image[:, ::-1], mask[:, ::-1]
    if rng.random() < 0.12:
        image = image[..., rng.permutation(3)]
    size = (side_px, side_px)
    shrinking = image.shape[0] > 1.3 * side_px
    method = cv2.INTER_AREA if shrinking else cv2.INTER_LINEAR
    sized = cv2.resize(np.ascontiguousarray(image), size, interpolation=method)
    truth = cv2.resize(np.ascontiguousarray(mask), size, interpolation=cv2.INTER_LINEAR)
    if rng.random() < 0.2:
        gain, lift = rng.uniform(0.7, 1.3), rng.uniform(-20, 20)
        sized = cv2.convertScaleAbs(sized, alpha=gain, beta=lift)
    return np.asarray(sized, np.uint8), np.asarray(truth, np.uint8)


def _crop(rng: np.random.Generator, image: Pixels, mask: Pixels) -> tuple[Pixels, Pixels]:
    """Return a random part of a photograph that still contains its subject, and its mask.

    The part is resized to a square later, which changes its aspect ratio. folio must know such
    images, because every image is squashed to a square for it.
    """
    height, width = mask.shape
    tall, wide = (rng.uniform(0.68, 1, 2) * (height, width)).astype(int)
    top, left = int(rng.uniform(0, height - tall)), int(rng.uniform(0, width - wide))
    part = mask[top : top + tall, left : left + wide]
    kept, covered = part.sum(dtype=np.int64), mask.sum(dtype=np.int64)
    if kept < 0.8 * covered or kept > 0.93 * 255 * part.size:
        return image, mask
    return image[top : top + tall, left : left + wide], part
