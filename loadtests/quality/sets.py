"""The sets of images that masks are measured on, as files with true masks."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from loadtests.quality.cutouts import SEED, find_material, write_cutouts
from loadtests.quality.packages import Package
from loadtests.quality.split import Part
from serve_app.imaging.pixels import Pixels
from serve_app.models.folio.synthetic.photograph import draw_photograph
from serve_app.models.folio.training.score import HELD_OUT_SEED

FOLDER = Path("out/quality/sets")
"""Folder of the images, one folder for each set."""

_BOOK_SIZES = ((480, 360), (360, 480), (640, 480))


@dataclass(frozen=True, slots=True)
class TrueImage:
    """An image with its true mask."""

    name: str
    """Name of the files, without their endings."""
    data: bytes
    """Content of the JPEG."""
    mask: Pixels
    """True mask, uint8 [H, W]."""


def write_cutout_set(packages: list[Package], part: Part, count: int) -> Path:
    """Write images of a part of the real cut-outs, and return their folder."""
    folder = _emptied(FOLDER / f"cutouts-{part}")
    write_cutouts(find_material(packages, part), count, SEED, folder)
    return folder


def write_book_set(count: int) -> Path:
    """Write drawn books that no training has seen, and return their folder."""
    folder = _emptied(FOLDER / "books")
    for number in range(count):
        width, height = _BOOK_SIZES[number % len(_BOOK_SIZES)]
        drawn = draw_photograph(HELD_OUT_SEED + number, width=width, height=height, kind="book")
        name = f"book-{number:04}-{drawn.category}"
        Image.fromarray(drawn.image).save(folder / f"{name}.jpg", quality=95, subsampling=0)
        Image.fromarray(drawn.mask).save(folder / f"{name}.mask.png")
    return folder


def read_set(folder: Path) -> list[TrueImage]:
    """Return the images of a folder of ``NAME.jpg`` and ``NAME.mask.png``, by name."""
    found = []
    for path in sorted(folder.glob("*.jpg")):
        with Image.open(path.with_suffix(".mask.png")) as mask:
            found.append(TrueImage(path.stem, path.read_bytes(), np.asarray(mask)))
    return found


def _emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
