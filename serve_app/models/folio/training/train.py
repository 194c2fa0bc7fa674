"""Train ``folio``: ``python -m serve_app.models.folio.training.train --minutes 45``.

It draws photographs, trains on them for a given time, and writes the ONNX file every few minutes,
so that an interrupted run has a result. Needs PyTorch (the extra ``train``).
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from rich.console import Console
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset

from serve_app.models.folio.training.composites import load_backgrounds, load_cut_outs
from serve_app.models.folio.training.dataset import SIDE_PX, load_photographs
from serve_app.models.folio.training.mixture import Mixture, samples
from serve_app.models.folio.training.network import Folio, export, restore

# ImageNet's statistics. As in rembg, an image is first divided by its own largest value.
_MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
_STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)

_PREFETCHED_BATCHES = 6
_SMALL_PX = 224
"""Side of the small photographs, with which a training begins."""
_CALIBRATION = 128
"""Number of photographs whose statistics unfold the batch norms of a file."""
_BOUNDARY_PX = 15
"""Width in pixels of the band around the subject's boundary that has a higher weight."""
_BOUNDARY_WEIGHT = 4.0
_SIDE_WEIGHT = 0.2
"""Weight of each side output's loss, relative to that of the mask."""
_AVERAGE_DECAY = 0.998
"""Share of the averaged weights that one step keeps."""
_WARM_UP_STEPS = 60
_WEIGHT_DECAY = 0.02
_LARGEST_GRADIENT = 2.0

console = Console()


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of the training. Small photographs, which are faster, come first."""

    side_px: int
    """Side of the photographs, in pixels."""
    batch_size: int
    """Number of photographs in a step."""
    until: float
    """Share of the training time at which the phase ends, 0 to 1."""
    learning_rate: float
    """Learning rate relative to that of the whole training."""


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """The options of the command."""

    minutes: float
    """Duration of the training in minutes, without the time to draw."""
    samples: int
    """Number of photographs to draw, a multiple of 16."""
    out: Path
    """ONNX file to write."""
    cache: Path
    """Folder of the drawn photographs."""
    every: float
    """Minutes between two writes of the file."""
    learning_rate: float
    """Highest learning rate."""
    seed: int
    """Seed of the initial weights and of the order of the photographs."""
    init: Path | None
    """ONNX file to continue from, or None to start from random weights."""
    small_until: float
    """Share of the time with small photographs, 0 to 1."""
    pairs: list[Path]
    """Folders of pairs (``pairs``), each of which is a source of its own."""
    cut_outs: list[Path]
    """Folders of cut-outs for composites."""
    backgrounds: list[Path]
    """Folders of photographs for composites."""
    shares: list[float]
    """Relative frequencies of drawn photographs, of composites, and of each folder of pairs."""

    def phases(self) -> tuple[Phase, ...]:
        """Return the parts of the training."""
        small = Phase(_SMALL_PX, 16, self.small_until, 1.0)
        full = Phase(SIDE_PX, 16, 1.0, 0.8)
        return (small, full) if self.small_until else (full,)


class Batches(IterableDataset[tuple[Tensor, Tensor, Tensor]]):
    """Endless batches of images, masks and weights, all uint8.

    The weight of a pixel, 0 to 255, is higher the closer it is to the subject's boundary.
    """

    def __init__(self, mixture: Mixture, phase: Phase, seed: int) -> None:
        super().__init__()
        self._mixture, self._phase, self._seed = mixture, phase, seed

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield images, [N, H, W, 3], masks, [N, H, W], and weights, [N, H, W]."""
        source = samples(self._mixture, np.random.default_rng(self._seed), self._phase.side_px)
        kernel = (_BOUNDARY_PX, _BOUNDARY_PX)
        while True:
            batch = list(islice(source, self._phase.batch_size))
            weights = [cv2.absdiff(cv2.blur(mask, kernel), mask) for _, mask in batch]
            images, masks = zip(*batch, strict=True)
            yield (
                torch.from_numpy(np.stack(images)),
                torch.from_numpy(np.stack(masks)),
                torch.from_numpy(np.stack(weights)),
            )


def normalise_images(images: Tensor) -> Tensor:
    """Return the network's input, float32 [N, 3, H, W], from images, uint8 [N, H, W, 3]."""
    x = images.permute(0, 3, 1, 2).float()
    brightest = x.amax((1, 2, 3), keepdim=True).clamp_min(1)
    return (x / brightest - _MEAN) / _STD


def batch_loss(network: Folio, images: Tensor, masks: Tensor, weights: Tensor) -> Tensor:
    """Return the loss of a batch: boundary-weighted cross-entropy plus soft IoU.

    Args:
        network: Network in training.
        images: Images, uint8 [N, H, W, 3].
        masks: True masks, uint8 [N, H, W].
        weights: Weights of the pixels from the boundary, uint8 [N, H, W].
    """
    x = normalise_images(images)
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
    # One pixel is added to both, so that an empty mask of an empty scene has the lowest loss.
    return (1 - (common + 1) / (joined + 1)).mean()


def _has_bfloat16() -> bool:
    """Return whether the processor has the instructions that PyTorch's bfloat16 kernels need.

    On x86, oneDNN requires AVX512 with the extensions VL, BW and DQ for them, as does PyTorch's
    capability of this name. Other processors train in float32.
    """
    return bool(torch.backends.cpu.get_cpu_capability().startswith("AVX512"))


class WeightAverage:
    """The exponential moving average of a network's weights. It is what is written."""

    def __init__(self, network: Folio) -> None:
        self.network = copy.deepcopy(network).eval()
        pairs = zip(self.network.state_dict().values(), network.state_dict().values(), strict=True)
        floating = [(mean, now) for mean, now in pairs if now.dtype.is_floating_point]
        self._means = [mean for mean, _ in floating]
        self._values = [now for _, now in floating]

    def update(self, step: int) -> None:
        """Add the network's weights after a step. Those of the first steps are forgotten sooner."""
        torch._foreach_lerp_(
            self._means, self._values, 1 - min(_AVERAGE_DECAY, (step + 1) / (step + 20))
        )


def make_optimiser(network: Folio, learning_rate: float) -> torch.optim.Optimizer:
    """Return AdamW with weight decay for the weights, but not for biases and norms."""
    decayed = [p for p in network.parameters() if p.ndim > 1]
    free = [p for p in network.parameters() if p.ndim <= 1]
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": _WEIGHT_DECAY},
        {"params": free, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, learning_rate, betas=(0.9, 0.99), foreach=True)


def load_mixture(options: TrainingOptions) -> Mixture:
    """Return the sources of the samples. Photographs that are not on disk are drawn now.

    Raises:
        ValueError: A folder is empty or has a file that cannot be read, or the shares do not fit
            the sources.
    """
    return Mixture(
        load_photographs(options.cache, options.samples, console),
        tuple(options.pairs),
        load_cut_outs(options.cut_outs) if options.cut_outs else [],
        [load_backgrounds(folder) for folder in options.backgrounds],
        tuple(options.shares),
    )


def start_network(options: TrainingOptions, mixture: Mixture) -> Folio:
    """Return the network with random weights, or with those of the file to continue from."""
    torch.manual_seed(options.seed)
    network = Folio()
    network.to(memory_format=torch.channels_last).train()
    if options.init is not None:
        source = samples(mixture, np.random.default_rng(options.seed), SIDE_PX)
        images = np.stack([image for image, _ in islice(source, _CALIBRATION)])
        restore(network, options.init, normalise_images(torch.from_numpy(images)))
    return network


def train(options: TrainingOptions) -> None:
    """Train folio for some time and write it as ONNX.

    The learning rate and the size of the photographs follow the clock, so that a training ends in
    time and with a low learning rate on a busy machine too.
    """
    # A forked loader would hang: it waits for threads that OpenCV had in this process only.
    cv2.setNumThreads(1)
    mixture = load_mixture(options)
    network = start_network(options, mixture)
    average, steps = WeightAverage(network), make_optimiser(network, options.learning_rate)
    started, step, written = time.monotonic(), 0, 0
    recent: list[float] = []
    for phase in options.phases():
        batches = DataLoader(
            Batches(mixture, phase, options.seed + step),
            batch_size=None,
            num_workers=1,
            prefetch_factor=_PREFETCHED_BATCHES,
        )
        for batch in batches:
            share = (time.monotonic() - started) / (60 * options.minutes)
            if share >= phase.until:
                break
            warm = min(1.0, (step + 1) / _WARM_UP_STEPS)
            rate = phase.learning_rate * warm * (1 + math.cos(math.pi * share)) / 2
            for group in steps.param_groups:
                group["lr"] = options.learning_rate * rate + 1e-6
            loss = batch_loss(network, *batch)
            steps.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), _LARGEST_GRADIENT)
            steps.step()
            average.update(step)
            step += 1
            recent.append(float(loss.detach()))
            if share * options.minutes >= options.every * (written + 1):
                written += 1
                export(average.network, options.out)
                console.print(
                    f"{share * options.minutes:5.1f} min  step {step}  {phase.side_px} px  "
                    f"loss {np.mean(recent):.4f}  wrote {options.out}"
                )
                recent.clear()
    export(average.network, options.out)
    console.print(f"{step} steps; wrote {options.out}, {options.out.stat().st_size / 1e6:.2f} MB")


def _parse_options() -> TrainingOptions:
    parser = argparse.ArgumentParser(
        description=train.__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    add = parser.add_argument
    add("--minutes", type=float, default=45, help="minutes to train, without the time to draw")
    add("--samples", type=int, default=20_000, help="photographs to draw, a multiple of 16")
    add("--out", type=Path, default=Path("folio.onnx"), help="ONNX file to write")
    cache_help = "folder of the drawn photographs, 0.4 MB each"
    add("--cache", type=Path, default=Path("training-photographs"), help=cache_help)
    add("--every", type=float, default=4, help="minutes between two writes of the file")
    add("--learning-rate", type=float, default=2.5e-3, help="highest learning rate")
    add("--seed", type=int, default=0, help="seed of the weights and of the order")
    add("--init", type=Path, help="ONNX file to continue from")
    small_help = "share of the time with photographs of 224 pixels, which are faster"
    add("--small-until", type=float, default=0.42, help=small_help)
    pairs_help = "folder of images NAME.jpg and masks NAME.mask.png; may be repeated"
    add("--pairs", type=Path, action="append", default=[], help=pairs_help)
    cut_outs_help = "folder of RGBA files for composites; may be repeated"
    add("--cut-outs", type=Path, action="append", default=[], help=cut_outs_help)
    backgrounds_help = "folder of photographs for composites; may be repeated"
    add("--backgrounds", type=Path, action="append", default=[], help=backgrounds_help)
    shares_help = "shares of drawn photographs, of composites, and of each folder of pairs"
    add("--shares", type=float, nargs="+", default=[1.0, 0.0], help=shares_help)
    return TrainingOptions(**vars(parser.parse_args()))


if __name__ == "__main__":
    train(_parse_options())
