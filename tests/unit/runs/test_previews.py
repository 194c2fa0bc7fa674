"""Previews of images in the report: what is shown, and what is left out."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from ingest.runs.previews import make_preview
from serve_app.config import ImageLimits

LIMITS = ImageLimits()


@pytest.mark.parametrize("data", [b"", b"not an image", b"\xff\xd8\xff\xe0broken"])
def test_a_file_that_is_no_image_has_no_preview(data: bytes) -> None:
    assert make_preview(data, LIMITS, 320) is None


def test_an_image_beyond_the_limits_is_not_decoded() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (50, 40)).save(buffer, "PNG")

    assert make_preview(buffer.getvalue(), ImageLimits(max_pixels=1_999), 320) is None
    assert make_preview(buffer.getvalue(), ImageLimits(max_side_px=49), 320) is None
    assert make_preview(buffer.getvalue(), ImageLimits(max_pixels=2_000), 20).width == 20  # type: ignore[union-attr]


def test_a_preview_is_upright() -> None:
    image = Image.new("RGB", (60, 20))
    exif = image.getexif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", exif=exif)

    preview = make_preview(buffer.getvalue(), LIMITS, 320)

    assert preview is not None
    assert (preview.width, preview.height) == (20, 60)
