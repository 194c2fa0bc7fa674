"""Train ``folio``: ``python -m serve_app.models.folio.training.train --minutes 45``.

Draws the photographs, trains on them until the time is over, and writes the ONNX file every few
minutes, so that a run that is stopped has a result. Needs the extra ``train``.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
import typer
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset

from serve_app.models.folio.synthetic.photograph import draw_photograph
from serve_app.models.folio.training.network import SIDE_PX, Folio, export, restore

Pixels = npt.NDArray[np.uint8]

TRAINING_SEED = 1_000_000
"""Training seeds begin here. Those below are for tests, demonstrations and scores."""

# ImageNet's statistics, as rembg normalises: after division by the picture's own largest value.
_MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
_STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)

_BLOCK = 16
_POOL = 160
_PREFETCHED = 6
_CALIBRATION = 128
_BOUNDARY_PX = 15
_BOUNDARY_WEIGHT = 4.0
_SIDE_WEIGHT = 0.2
_EMA = 0.998
_WARM_UP_STEPS = 250
_WEIGHT_DECAY = 0.02
_LARGEST_GRADIENT = 2.0

console = Console()


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of the training: small pictures first, which are quicker, then those of use."""

    side_px: int
    batch_size: int
    until: float
    """Share of the time at which it ends."""
    learning_rate: float
    """Relative."""


_PHASES = (Phase(224, 32, 0.42, 1.0), Phase(SIDE_PX, 16, 1.0, 0.8))


def draw(seeds: range) -> tuple[Pixels, Pixels]:
    """Return photographs, uint8 [N, 320, 320, 3], and their masks, uint8 [N, 320, 320]."""
    cv2.setNumThreads(1)
    drawn = [draw_photograph(seed, width=SIDE_PX, height=SIDE_PX) for seed in seeds]
    return np.stack([p.image for p in drawn]), np.stack([p.mask for p in drawn])


def photographs(cache: Path, count: int) -> tuple[Pixels, Pixels]:
    """Return the training set, mapped from a folder; it is drawn if it is not there."""
    images_path, masks_path = cache / f"images-{count}.npy", cache / f"masks-{count}.npy"
    if not masks_path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        part = masks_path.with_suffix(".part")
        shape = (count, SIDE_PX, SIDE_PX)
        images = np.lib.format.open_memmap(images_path, "w+", np.uint8, (*shape, 3))
        masks = np.lib.format.open_memmap(part, "w+", np.uint8, shape)
        blocks = [
            range(TRAINING_SEED + first, TRAINING_SEED + min(first + _BLOCK, count))
            for first in range(0, count, _BLOCK)
        ]
        with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
            drawn = pool.map(draw, blocks)
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
    """Return a variant of a photograph and its mask at a size."""
    if rng.random() < 0.5:
        image, mask = _cropped(rng, image, mask)
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


def _cropped(rng: np.random.Generator, image: Pixels, mask: Pixels) -> tuple[Pixels, Pixels]:
    """Return a part of a photograph that keeps its subject; its aspect changes when it is resized.

    rembg squashes every photograph to a square, so folio must know squashed things.
    """
    height, width = mask.shape
    tall, wide = (rng.uniform(0.68, 1, 2) * (height, width)).astype(int)
    top, left = int(rng.uniform(0, height - tall)), int(rng.uniform(0, width - wide))
    part = mask[top : top + tall, left : left + wide]
    kept, covered = part.sum(dtype=np.int64), mask.sum(dtype=np.int64)
    if kept < 0.8 * covered or kept > 0.93 * 255 * part.size:
        return image, mask
    return image[top : top + tall, left : left + wide], part


class Batches(IterableDataset[tuple[Tensor, Tensor, Tensor]]):
    """Endless batches of images, masks and weights, all uint8, in a random order.

    Blocks of consecutive photographs are read, since random reads of a mapped file are slow, and
    mixed in a small pool. The weight of a pixel tells how near it is to the subject's boundary:
    0 to 255.
    """

    def __init__(self, images: Pixels, masks: Pixels, phase: Phase, seed: int) -> None:
        super().__init__()
        self._images, self._masks, self._phase, self._seed = images, masks, phase, seed

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield [N, H, W, 3], [N, H, W], [N, H, W]."""
        cv2.setNumThreads(1)
        rng = np.random.default_rng(self._seed)
        source = self._mixed(rng)
        while True:
            batch = [
                augment(rng, *next(source), self._phase.side_px)
                for _ in range(self._phase.batch_size)
            ]
            kernel = (_BOUNDARY_PX, _BOUNDARY_PX)
            weights = [cv2.absdiff(cv2.blur(mask, kernel), mask) for _, mask in batch]
            images, masks = zip(*batch, strict=True)
            yield (
                torch.from_numpy(np.stack(images)),
                torch.from_numpy(np.stack(masks)),
                torch.from_numpy(np.stack(weights)),
            )

    def _mixed(self, rng: np.random.Generator) -> Iterator[tuple[Pixels, Pixels]]:
        pool: list[tuple[Pixels, Pixels]] = []
        while True:
            for block in rng.permutation(len(self._images) // _BLOCK):
                rows = slice(block * _BLOCK, (block + 1) * _BLOCK)
                images, masks = np.array(self._images[rows]), np.array(self._masks[rows])
                pool.extend(zip(images, masks, strict=True))
                while len(pool) > _POOL:
                    at = int(rng.integers(len(pool)))
                    pool[at], pool[-1] = pool[-1], pool[at]
                    yield pool.pop()


def normalise(images: Tensor) -> Tensor:
    """Return images, uint8 [N, H, W, 3], as the network takes them, float32 [N, 3, H, W]."""
    x = images.permute(0, 3, 1, 2).float()
    brightest = x.amax((1, 2, 3), keepdim=True).clamp_min(1)
    return (x / brightest - _MEAN) / _STD


def loss_of(network: Folio, images: Tensor, masks: Tensor, weights: Tensor) -> Tensor:
    """Return the loss of a batch as the loader gives it: boundary-weighted BCE and soft IoU."""
    x = normalise(images)
    truth = masks[:, None].float() / 255
    weight = 1 + _BOUNDARY_WEIGHT / 255 * weights[:, None].float()
    with torch.autocast("cpu", torch.bfloat16, enabled=_has_bfloat16()):
        predicted, sides = network.logits(x)
    predicted = predicted.float()
    each = functional.binary_cross_entropy_with_logits(predicted, truth, reduction="none")
    total = (weight * each).sum() / weight.sum() + _iou_loss(predicted, truth)
    for side in sides:
        coarse = functional.adaptive_avg_pool2d(truth, side.shape[-2:])
        entropy = functional.binary_cross_entropy_with_logits(side.float(), coarse)
        total = total + _SIDE_WEIGHT * (entropy + _iou_loss(side.float(), coarse))
    return total


def _iou_loss(logits: Tensor, truth: Tensor) -> Tensor:
    predicted = torch.sigmoid(logits)
    common = (predicted * truth).sum((1, 2, 3))
    joined = (predicted + truth - predicted * truth).sum((1, 2, 3))
    # One pixel more in both: an empty scene has no pixels in common, and must yet have a best loss.
    return (1 - (common + 1) / (joined + 1)).mean()


def _has_bfloat16() -> bool:
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


class Average:
    """The exponential moving average of a network's weights: what is shipped."""

    def __init__(self, network: Folio) -> None:
        self.network = copy.deepcopy(network).eval()
        pairs = zip(self.network.state_dict().values(), network.state_dict().values(), strict=True)
        floating = [(mean, now) for mean, now in pairs if now.dtype.is_floating_point]
        self._means = [mean for mean, _ in floating]
        self._values = [now for _, now in floating]

    def update(self, step: int) -> None:
        """Take in the network's weights after a step; the first ones count for less long."""
        torch._foreach_lerp_(self._means, self._values, 1 - min(_EMA, (step + 1) / (step + 20)))


def optimiser(network: Folio, learning_rate: float) -> torch.optim.Optimizer:
    """Return AdamW that decays the weights, and not the biases and norms."""
    decayed = [p for p in network.parameters() if p.ndim > 1]
    free = [p for p in network.parameters() if p.ndim <= 1]
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": _WEIGHT_DECAY},
        {"params": free, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, learning_rate, betas=(0.9, 0.99), foreach=True)


def train(
    minutes: Annotated[float, typer.Option(help="How long to train, after drawing.")] = 45,
    samples: Annotated[int, typer.Option(help="Photographs to draw; a multiple of 16.")] = 20_000,
    out: Annotated[Path, typer.Option(help="The ONNX file to write.")] = Path("folio.onnx"),
    cache: Annotated[
        Path, typer.Option(help="Where the photographs are kept: 0.4 MB for each.")
    ] = Path("training-photographs"),
    every: Annotated[float, typer.Option(help="Minutes between two writings.")] = 4,
    learning_rate: Annotated[float, typer.Option(help="At its highest.")] = 2.5e-3,
    seed: Annotated[int, typer.Option(help="Of the weights and the order.")] = 0,
    init: Annotated[
        Path | None, typer.Option(help="An ONNX file to go on from, at full size only.")
    ] = None,
) -> None:
    """Train folio for a time and write it as ONNX."""
    images, masks = photographs(cache, samples)
    torch.manual_seed(seed)
    network = Folio().to(memory_format=torch.channels_last).train()
    phases: tuple[Phase, ...] = _PHASES
    if init is not None:
        restore(network, init, normalise(torch.from_numpy(np.array(images[:_CALIBRATION]))))
        phases = _PHASES[1:]
    average, steps = Average(network), optimiser(network, learning_rate)
    started, step, written, recent = time.monotonic(), 0, 0, []
    for phase in phases:
        batches = DataLoader(
            Batches(images, masks, phase, seed + step),
            batch_size=None,
            num_workers=1,
            prefetch_factor=_PREFETCHED,
        )
        for batch in batches:
            share = (time.monotonic() - started) / (60 * minutes)
            if share >= phase.until:
                break
            warm = min(1.0, (step + 1) / _WARM_UP_STEPS)
            rate = phase.learning_rate * warm * (1 + math.cos(math.pi * share)) / 2
            for group in steps.param_groups:
                group["lr"] = learning_rate * rate + 1e-6
            loss = loss_of(network, *batch)
            steps.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), _LARGEST_GRADIENT)
            steps.step()
            average.update(step)
            step += 1
            recent.append(float(loss.detach()))
            if share * minutes >= every * (written + 1):
                written += 1
                export(average.network, out)
                console.print(
                    f"{share * minutes:5.1f} min  step {step}  {phase.side_px} px  "
                    f"loss {np.mean(recent):.4f}  wrote {out}"
                )
                recent.clear()
    export(average.network, out)
    console.print(f"{step} steps; wrote {out}, {out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    typer.run(train)
