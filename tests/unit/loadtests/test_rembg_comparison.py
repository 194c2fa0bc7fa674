"""What the comparison with rembg's server accepts, and which images it sends."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from loadtests.peers.real_images import MAX_SIDE_PX, demonstration_images, images_of
from loadtests.peers.rembg_requests import RemoveRequest, compare_images
from serve_app.errors import InvalidConfig

PLAIN = RemoveRequest("file alone")
MATTED = RemoveRequest("a=true, ppm=true", {"a": "true", "ppm": "true"})


def png(alpha: npt.NDArray[np.uint8]) -> bytes:
    rgba = np.full((*alpha.shape, 4), 90, np.uint8)
    rgba[..., 3] = alpha
    file = io.BytesIO()
    Image.fromarray(rgba).save(file, "PNG")
    return file.getvalue()


def test_a_difference_of_two_levels_is_accepted_and_of_three_is_not() -> None:
    alpha = np.full((40, 50), 100, np.uint8)
    found = compare_images(png(alpha + 2), png(alpha))
    assert found.mask_max == 2
    assert found.is_accepted(PLAIN)
    found = compare_images(png(alpha + 3), png(alpha))
    assert (found.mask_max, found.mask_share) == (3, 0)
    assert not found.is_accepted(PLAIN)


def test_matting_is_judged_by_the_mean() -> None:
    alpha = np.full((100, 100), 100, np.uint8)
    other = alpha.copy()
    other[:2] += 20
    found = compare_images(png(other), png(alpha))
    assert found.mask_mean == pytest.approx(0.02 * 20 / 255)
    assert found.is_accepted(MATTED)
    assert not found.is_accepted(PLAIN)


def test_other_sizes_are_different() -> None:
    found = compare_images(png(np.zeros((4, 5), np.uint8)), png(np.zeros((5, 4), np.uint8)))
    assert not found.same_kind
    assert not found.is_accepted(PLAIN)


def test_real_images_are_bounded_and_otherwise_as_they_are(tmp_path: Path) -> None:
    shipped = demonstration_images()
    assert len(shipped) == 6
    name, data = next(iter(shipped.items()))
    (tmp_path / name).write_bytes(data)
    Image.new("RGB", (3 * MAX_SIDE_PX, MAX_SIDE_PX)).save(tmp_path / "zz-large.jpg")
    (tmp_path / "zz-mask.png").write_bytes(b"left out")
    found = images_of([tmp_path], count=5)
    assert found.keys() == {name, "zz-large.jpg"}
    assert found[name] == data
    assert max(Image.open(io.BytesIO(found["zz-large.jpg"])).size) == MAX_SIDE_PX
    assert images_of([tmp_path], count=1).keys() == {name}


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="has no JPEG files"):
        images_of([tmp_path], count=1)
