"""WebP images of one frame, which OpenCV decodes, compared with Pillow."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from serve_app.config import ImageLimits
from serve_app.errors import CorruptImage, ImageTooLarge
from serve_app.imaging.decode import decode_image, read_header
from tests.support.images import noise

LIMITS = ImageLimits()
SIZES = [(1, 1), (33, 17), (290, 501)]
"""Height and width. The last one has more than one strip."""
WAYS: list[dict[str, Any]] = [
    {"quality": 80},
    {"quality": 10, "method": 0, "exact": True},
    {"lossless": True, "quality": 10},
    {"lossless": True, "quality": 10, "exact": True},
]


def webp(height: int, width: int, mode: str, **options: Any) -> bytes:
    channels = len(Image.new(mode, (1, 1)).getbands())
    patches = noise(1 + height // 7, 1 + width // 7, channels)
    image = Image.frombytes(mode, (patches.shape[1], patches.shape[0]), patches.tobytes())
    file = io.BytesIO()
    image.resize((width, height)).save(file, "WEBP", **options)
    return file.getvalue()


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("options", WAYS)
def test_pixels_are_pillows(height: int, width: int, mode: str, options: dict[str, Any]) -> None:
    data = webp(height, width, mode, **options)
    expected = Image.open(io.BytesIO(data))
    header, found = read_header(data, LIMITS), decode_image(data, LIMITS)
    assert (header.width, header.height) == expected.size == (width, height)
    assert np.array_equal(found.rgb, np.asarray(expected.convert("RGB")))
    if expected.mode == "RGBA":
        assert found.alpha is not None
        assert np.array_equal(found.alpha, np.asarray(expected.getchannel("A")))
    else:
        assert found.alpha is None


@pytest.mark.parametrize("options", WAYS)
def test_the_size_is_checked_before_anything_is_decoded(options: dict[str, Any]) -> None:
    data = webp(40, 50, "RGBA", **options)
    with pytest.raises(ImageTooLarge, match="50 x 40"):
        read_header(data, ImageLimits(max_pixels=1_999))
    assert read_header(data, ImageLimits(max_pixels=2_000)).pixels == 2_000


@pytest.mark.parametrize("options", WAYS)
def test_a_file_that_is_cut_off_is_corrupt(options: dict[str, Any]) -> None:
    data = webp(101, 203, "RGB", **options)
    for length in (*range(12, 40), len(data) // 2, len(data) - 9):
        with pytest.raises(CorruptImage, match="cut off or damaged"):
            decode_image(data[:length], LIMITS)


def test_an_animation_is_its_first_frame() -> None:
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("#104080", "#ff0000")]
    file = io.BytesIO()
    frames[0].save(file, "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    found = decode_image(file.getvalue(), LIMITS)
    assert found.rgb.shape == (30, 40, 3)
    assert tuple(found.rgb[0, 0]) == (0x10, 0x40, 0x80)
