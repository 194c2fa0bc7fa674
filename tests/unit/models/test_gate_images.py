"""A folder of images for the gate, and what is refused in one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from serve_app.errors import InvalidConfig
from serve_app.models.gate_images import read_gate_images


def grey(width: int = 8, height: int = 6) -> Image.Image:
    return Image.fromarray(np.full((height, width), 90, np.uint8))


def empty(folder: Path) -> None:
    # A true mask is no image, and neither is a text.
    grey().save(folder / "one.mask.png")
    (folder / "notes.txt").write_text("no image")


def broken_image(folder: Path) -> None:
    (folder / "one.jpg").write_bytes(b"no image")


def folder_as_image(folder: Path) -> None:
    (folder / "one.jpg").mkdir()


def broken_mask(folder: Path) -> None:
    grey().save(folder / "one.jpg")
    (folder / "one.mask.png").write_bytes(b"no mask")


def mask_of_another_size(folder: Path) -> None:
    grey().save(folder / "one.jpg")
    grey(6, 8).save(folder / "one.mask.png")


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        (empty, "has no image"),
        (broken_image, r"one.jpg cannot be read as an image"),
        (folder_as_image, r"one.jpg cannot be read as an image"),
        (broken_mask, r"one.mask.png cannot be read as a mask"),
        (mask_of_another_size, r"one.mask.png has 6 x 8 pixels, and its image 8 x 6"),
    ],
)
def test_what_cannot_be_measured_is_refused_with_its_name(
    prepare: Callable[[Path], None], reason: str, tmp_path: Path
) -> None:
    prepare(tmp_path)
    with pytest.raises(InvalidConfig, match=reason):
        list(read_gate_images(tmp_path))


def test_images_are_read_by_name_and_masks_are_none_of_them(tmp_path: Path) -> None:
    for name in ("two.png", "one.jpg", "one.mask.png", "three.WEBP"):
        grey().save(tmp_path / name)
    assert [image.name for image in read_gate_images(tmp_path)] == ["one", "three", "two"]
