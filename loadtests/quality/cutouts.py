"""Real cut-outs over real backgrounds, with true masks: ``python -m loadtests.quality.cutouts``.

The stamps and backgrounds come from packages of Debian, which are unpacked under ``out/quality``,
and never installed or committed. Subjects and backgrounds are split into parts that share neither.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from loadtests.quality.composites import Composite, compose_image, draw_background
from loadtests.quality.packages import Package, fetch_package
from loadtests.quality.split import PARTS, Part, part_of
from loadtests.quality.subjects import (
    BACKGROUNDS,
    STAMPS_FOLDER,
    STAMPS_PACKAGE,
    SUBJECTS,
    Background,
)
from serve_app.errors import ForeedgeError, SourceNotFound
from serve_app.imaging.pixels import Pixels

PACKAGES = Path("out/quality/debian")
"""Folder of downloaded and unpacked packages."""

SEED = 20_261_128
"""Seed of the measured images."""

_BACKGROUND_SIDE_PX = 1600


@dataclass(frozen=True, slots=True)
class Material:
    """What the images of one part are made of."""

    part: Part
    subjects: tuple[tuple[str, Path], ...]
    """Kind and PNG file of each stamp."""
    backgrounds: tuple[tuple[Path, Background], ...]
    """File and description of each background."""


@dataclass(frozen=True, slots=True)
class CutoutImage:
    """An image of the set."""

    name: str
    """Part, number and kind of the subject, for example ``test-0007-gnu``."""
    composite: Composite


def fetch_packages(folder: Path = PACKAGES) -> list[Package]:
    """Return the packages that the set is made of, downloaded if they are not there.

    Raises:
        SourceNotFound: A package is unavailable.
    """
    names = {STAMPS_PACKAGE, *(background.package for background in BACKGROUNDS)}
    return [fetch_package(name, folder) for name in sorted(names)]


def find_material(packages: list[Package], part: Part) -> Material:
    """Return the stamps and backgrounds of a part.

    Args:
        packages: Unpacked packages. A listed file that another release of Debian lacks is left out.
        part: Part of the set.

    Raises:
        SourceNotFound: The packages have no stamps or no backgrounds of this part.
    """
    folders = {package.name: package.folder for package in packages}
    stamps = folders[STAMPS_PACKAGE] / STAMPS_FOLDER
    subjects = tuple(
        (kind, stamps / path)
        for kind, paths in SUBJECTS.items()
        if part_of(kind) == part
        for path in paths
        if (stamps / path).is_file()
    )
    found = ((folders[each.package] / each.path, each) for each in BACKGROUNDS)
    backgrounds = tuple(
        (file, each) for file, each in found if part_of(each.path) == part and file.is_file()
    )
    if not subjects or not backgrounds:
        versions = ", ".join(f"{package.name} {package.version}" for package in packages)
        raise SourceNotFound(f"the part {part} has no stamps or no backgrounds in {versions}")
    return Material(part, subjects, backgrounds)


def draw_cutouts(material: Material, count: int, seed: int = SEED) -> Iterator[CutoutImage]:
    """Yield images of a part.

    Every stamp is used once before any is used again. An image depends on the seed, its part
    and its number, and not on the count.

    Args:
        material: Stamps and backgrounds of the part.
        count: Number of images.
        seed: Seed of the random numbers.
    """
    place = PARTS.index(material.part)
    for number in range(count):
        turn, position = divmod(number, len(material.subjects))
        order = np.random.default_rng([seed, place, turn, 0]).permutation(len(material.subjects))
        kind, stamp = material.subjects[order[position]]
        rng = np.random.default_rng([seed, place, number, 1])
        background = material.backgrounds[int(rng.integers(len(material.backgrounds)))]
        composite = compose_image(rng, read_stamp(stamp), read_background(*background))
        name = f"{material.part}-{number:04}-{kind.lower().replace(' ', '-')}"
        yield CutoutImage(name, composite)


@cache
def read_stamp(path: Path) -> Pixels:
    """Return a stamp, uint8 [H, W, 4], RGBA."""
    return np.asarray(Image.open(path).convert("RGBA"))


@cache
def read_background(path: Path, background: Background) -> Pixels:
    """Return a background without its own subject, uint8 [H, W, 3], RGB.

    The longer side of the whole file is 1600 pixels at most.
    """
    image = Image.open(path)
    image.draft("RGB", (_BACKGROUND_SIDE_PX, _BACKGROUND_SIDE_PX))
    taken = image.convert("RGB")
    taken.thumbnail((_BACKGROUND_SIDE_PX, _BACKGROUND_SIDE_PX), Image.Resampling.LANCZOS)
    left, top, right, bottom = background.box
    width, height = taken.size
    box = (int(left * width), int(top * height), int(right * width), int(bottom * height))
    return np.asarray(taken.crop(box))


def write_cutouts(material: Material, count: int, seed: int, folder: Path) -> None:
    """Write images of a part as ``NAME.jpg``, and their true masks as ``NAME.mask.png``."""
    folder.mkdir(parents=True, exist_ok=True)
    for each in draw_cutouts(material, count, seed):
        _write_jpeg(folder / f"{each.name}.jpg", each.composite.image)
        Image.fromarray(each.composite.mask).save(folder / f"{each.name}.mask.png")


def write_backgrounds(material: Material, count: int, seed: int, folder: Path) -> None:
    """Write parts of the backgrounds of a part, without a subject, as ``NAME.jpg``."""
    folder.mkdir(parents=True, exist_ok=True)
    place = PARTS.index(material.part)
    for number in range(count):
        rng = np.random.default_rng([seed, place, number, 2])
        background = material.backgrounds[number % len(material.backgrounds)]
        scene = draw_background(rng, read_background(*background))
        _write_jpeg(folder / f"{material.part}-background-{number:04}.jpg", scene)


def _write_jpeg(path: Path, image: Pixels) -> None:
    Image.fromarray(image).save(path, quality=95, subsampling=0)


def main() -> None:
    """Write the images of a part into a folder."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.quality.cutouts",
        description="Make real cut-outs over real backgrounds, with their true masks.",
    )
    parser.add_argument("--part", choices=PARTS, action="append", required=True, help="repeatable")
    parser.add_argument("--count", type=int, required=True, help="images of each part")
    parser.add_argument("--folder", type=Path, required=True, help="folder to write into")
    parser.add_argument("--seed", type=int, default=SEED, help=f"default: {SEED}")
    parser.add_argument(
        "--without-subject", action="store_true", help="parts of the backgrounds, without masks"
    )
    options = parser.parse_args()
    # Blurs of such small images are not worth the threads, and the masks must be the same anywhere.
    cv2.setNumThreads(1)
    packages = fetch_packages()
    for part in options.part:
        material = find_material(packages, part)
        write = write_backgrounds if options.without_subject else write_cutouts
        write(material, options.count, options.seed, options.folder)
        print(
            f"{part}: {options.count} images of {len(material.subjects)} stamps and "
            f"{len(material.backgrounds)} backgrounds in {options.folder}"
        )


if __name__ == "__main__":
    try:
        main()
    except ForeedgeError as error:
        sys.exit(f"error: {error.code}: {error.message}")
