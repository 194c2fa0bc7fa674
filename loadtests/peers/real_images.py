"""Real images for the comparison with rembg: of the demonstration, of Debian, or of a folder."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
from PIL import Image, ImageOps

from ingest.local.photographs import copy_real_photographs
from ingest.sources.folder import image_files
from loadtests.quality.cutouts import SEED, fetch_packages, find_material, write_cutouts
from serve_app.errors import InvalidConfig

MAX_SIDE_PX = 1000
"""Longest side of an image. rembg's matting takes seconds for a megapixel, and 13 requests need
it four times."""

_OF_THE_DEMONSTRATION = 6


def demonstration_images() -> dict[str, bytes]:
    """Return the real images of the demonstration, by file name."""
    with tempfile.TemporaryDirectory() as folder:
        paths = copy_real_photographs(Path(folder), _OF_THE_DEMONSTRATION)
        return dict(_read(paths))


def composites(count: int) -> dict[str, bytes]:
    """Return real cut-outs over real backgrounds of Debian's packages, by file name.

    They are of the test part, whose subjects no model of ours was trained or tuned with.

    Raises:
        SourceNotFound: A package cannot be downloaded here.
    """
    # Blurs of such small images are not worth the threads.
    cv2.setNumThreads(1)
    material = find_material(fetch_packages(), "test")
    with tempfile.TemporaryDirectory() as folder:
        write_cutouts(material, count, SEED, Path(folder))
        return dict(_read(sorted(Path(folder).glob("*.jpg"))))


def images_of(folders: Sequence[Path], count: int) -> dict[str, bytes]:
    """Return the first JPEG files of folders, by file name.

    Raises:
        InvalidConfig: A folder has no images.
    """
    found: list[Path] = []
    for folder in folders:
        paths, _ = image_files(folder)
        jpegs = [path for path in paths if path.suffix.lower() in {".jpg", ".jpeg"}]
        if not jpegs:
            raise InvalidConfig(f"the folder {folder} has no JPEG files")
        found += jpegs
    return dict(_read(found[:count]))


def _read(paths: Sequence[Path]) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of images, reduced if a side is longer than ``MAX_SIDE_PX``."""
    for path in paths:
        data = path.read_bytes()
        with Image.open(io.BytesIO(data)) as image:
            if max(image.size) > MAX_SIDE_PX:
                reduced = ImageOps.exif_transpose(image).convert("RGB")
                reduced.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX), Image.Resampling.LANCZOS)
                file = io.BytesIO()
                reduced.save(file, "JPEG", quality=95)
                data = file.getvalue()
        yield path.name, data
