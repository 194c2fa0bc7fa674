"""The samples of the training, mixed from drawn photographs, pairs on disk and composites."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from serve_app.models.folio.synthetic.surfaces import Pixels
from serve_app.models.folio.training.composites import CutOut, compose
from serve_app.models.folio.training.dataset import BLOCK, augment
from serve_app.models.folio.training.pairs import find_pairs, read_pair

_POOL = 160
"""Number of drawn photographs among which the order is random."""


@dataclass(frozen=True, slots=True)
class Mixture:
    """What a training takes its samples from. A source without anything in it has no share."""

    drawn: tuple[Pixels, Pixels]
    """Drawn photographs, uint8 [N, 320, 320, 3], and their masks, uint8 [N, 320, 320]."""
    pairs: tuple[Path, ...]
    """Folders of pairs. Each is listed again when it has been used up, since it may grow."""
    cut_outs: Sequence[CutOut]
    """Cut-outs of the composites."""
    backgrounds: Sequence[Sequence[Pixels]]
    """Groups of photographs behind the cut-outs."""
    shares: tuple[float, ...]
    """Relative frequencies of drawn photographs, of composites, and of each folder of pairs."""

    def __post_init__(self) -> None:
        """Check that each source has a share.

        Raises:
            ValueError: The number of shares is wrong, a share is negative, an empty source has a
                share, or a folder has no complete pairs.
        """
        listed = [len(find_pairs(folder)) for folder in self.pairs]
        sizes = [len(self.drawn[0]) // BLOCK, len(self.cut_outs), *listed]
        if len(self.shares) != len(sizes):
            raise ValueError(f"{len(sizes)} sources have {len(self.shares)} shares")
        if min(self.shares) < 0 or not sum(self.shares):
            raise ValueError("shares must not be negative, and one of them must be positive")
        for number, (share, size) in enumerate(zip(self.shares, sizes, strict=True)):
            if share and not size:
                raise ValueError(f"source {number + 1} has a share of {share:g} and no samples")


def samples(
    mixture: Mixture, rng: np.random.Generator, side_px: int
) -> Iterator[tuple[Pixels, Pixels]]:
    """Yield images, uint8 [S, S, 3], and masks, uint8 [S, S], without end and in a random order."""
    drawn = _drawn(mixture.drawn, rng)
    listed = [_shuffled(folder, rng) for folder in mixture.pairs]
    shares = np.array(mixture.shares) / sum(mixture.shares)
    while True:
        source = int(rng.choice(len(shares), p=shares))
        if source == 1:
            # Composites are varied already.
            yield compose(rng, mixture.cut_outs, mixture.backgrounds, side_px)
        else:
            image, mask = read_pair(next(listed[source - 2])) if source else next(drawn)
            yield augment(rng, image, mask, side_px)


def _drawn(
    photographs: tuple[Pixels, Pixels], rng: np.random.Generator
) -> Iterator[tuple[Pixels, Pixels]]:
    """Yield drawn photographs.

    Random reads of a mapped file are slow. Blocks of consecutive photographs are therefore read,
    and mixed in a small pool.
    """
    images, masks = photographs
    pool: list[tuple[Pixels, Pixels]] = []
    while True:
        for block in rng.permutation(len(images) // BLOCK):
            rows = slice(block * BLOCK, (block + 1) * BLOCK)
            pool.extend(zip(np.array(images[rows]), np.array(masks[rows]), strict=True))
            while len(pool) > _POOL:
                at = int(rng.integers(len(pool)))
                pool[at], pool[-1] = pool[-1], pool[at]
                yield pool.pop()


def _shuffled(folder: Path, rng: np.random.Generator) -> Iterator[Path]:
    """Yield the images of a folder of pairs."""
    while True:
        paths = find_pairs(folder)
        for index in rng.permutation(len(paths)):
            yield paths[int(index)]
