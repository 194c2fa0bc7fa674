"""Metadata of results: sRGB, the resolution, and EXIF data without what is no longer true."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from serve_app.config import ImageLimits
from serve_app.contracts.recipe import Recipe, Thumbnail, parse_recipe
from serve_app.imaging.decode import DecodedImage, decode_image
from serve_app.imaging.encode import encode_image, encode_thumbnail
from serve_app.imaging.icc import SRGB_PROFILE
from serve_app.imaging.metadata import NO_METADATA, ImageMetadata
from tests.support.images import noise, saved

RECIPES: list[dict[str, Any]] = [
    {"format": "png"},
    {"format": "png", "png_compression": 6},
    {"format": "webp"},
    {"format": "jpeg", "background": "white"},
]
PLACE = b"48.2082"
NOTE = b"the maker's own"
PHOTO, GPS = ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo


def with_exif(file_format: str, **options: Any) -> bytes:
    """Return a file with a description, an orientation, a place, a maker's note and a thumbnail."""
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = "The cover of a book"
    exif[ExifTags.Base.Copyright] = "A library"
    exif[ExifTags.Base.Orientation] = 6
    photo = exif.get_ifd(PHOTO)
    photo[ExifTags.Base.DateTimeOriginal] = "2026:11:28 12:00:00"
    photo[ExifTags.Base.ExposureTime] = 0.01
    photo[ExifTags.Base.MakerNote] = NOTE
    photo[ExifTags.Base.ExifImageWidth] = 40
    photo[ExifTags.Base.ColorSpace] = 65_535
    place = exif.get_ifd(GPS)
    place[ExifTags.GPS.GPSProcessingMethod] = PLACE
    place[ExifTags.GPS.GPSLatitudeRef] = "N"
    if file_format == "TIFF":
        # Pillow writes the groups of a TIFF only if they are values of their tags.
        exif[PHOTO], exif[GPS] = dict(photo), dict(place)
    image = Image.fromarray(noise(30, 40, 3))
    return saved(image, file_format, exif=exif, **options)


def result(image: DecodedImage, recipe: Recipe) -> Image.Image:
    data = encode_image(image.rgb, recipe, image.metadata)
    decoded = Image.open(io.BytesIO(data))
    decoded.load()
    return decoded


def decoded(data: bytes, *, keep: bool) -> DecodedImage:
    return decode_image(data, ImageLimits(), keep)


@pytest.mark.parametrize("fields", RECIPES)
@pytest.mark.parametrize("source", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_exif_data_is_kept_on_request(source: str, fields: dict[str, Any]) -> None:
    data = with_exif(source)
    recipe = parse_recipe({**fields, "keep_metadata": True})
    kept = result(decoded(data, keep=True), recipe)
    exif = kept.getexif()
    assert kept.size == (30, 40)
    assert exif[ExifTags.Base.ImageDescription] == "The cover of a book"
    assert exif[ExifTags.Base.Copyright] == "A library"
    photo = exif.get_ifd(PHOTO)
    assert photo[ExifTags.Base.DateTimeOriginal] == "2026:11:28 12:00:00"
    assert photo[ExifTags.Base.ExposureTime] == pytest.approx(0.01)
    assert photo[ExifTags.Base.ColorSpace] == 1
    assert ExifTags.Base.Orientation not in exif
    assert not {ExifTags.Base.MakerNote, ExifTags.Base.ExifImageWidth} & set(photo)
    written = encode_image(noise(30, 40, 3), recipe, decoded(data, keep=True).metadata)
    assert PLACE in data
    assert PLACE not in written
    assert NOTE not in written
    # Without the request there is nothing.
    assert not result(decoded(data, keep=False), recipe).getexif()


@pytest.mark.parametrize("fields", RECIPES)
@pytest.mark.parametrize("source", ["JPEG", "PNG", "TIFF", "BMP"])
def test_the_resolution_is_kept(source: str, fields: dict[str, Any]) -> None:
    data = saved(Image.fromarray(noise(30, 40, 3)), source, dpi=(300, 150))
    kept = result(decoded(data, keep=False), parse_recipe(fields))
    found = kept.info.get("dpi") or tuple(
        kept.getexif()[tag] for tag in (ExifTags.Base.XResolution, ExifTags.Base.YResolution)
    )
    assert found == pytest.approx((300, 150), abs=0.1)


def test_the_resolution_turns_with_the_image_and_comes_from_exif_data() -> None:
    turned = decoded(with_exif("JPEG", dpi=(300, 150)), keep=False)
    assert turned.metadata.dpi == pytest.approx((150, 300))
    exif = Image.Exif()
    exif[ExifTags.Base.XResolution] = exif[ExifTags.Base.YResolution] = 100
    exif[ExifTags.Base.ResolutionUnit] = 3
    data = saved(Image.fromarray(noise(30, 40, 3)), "WEBP", exif=exif)
    assert decoded(data, keep=False).metadata.dpi == pytest.approx((254, 254))


@pytest.mark.parametrize("dpi", [(1, 1), (0, 0), (70_000, 70_000), (300, 2_000_000)])
def test_a_resolution_that_says_nothing_is_left_out(dpi: tuple[int, int]) -> None:
    for file_format in ("PNG", "TIFF"):
        image = decoded(saved(Image.fromarray(noise(30, 40, 3)), file_format, dpi=dpi), keep=False)
        assert image.metadata == NO_METADATA


@pytest.mark.parametrize("fields", RECIPES)
@pytest.mark.parametrize("dpi", [(2, 2), (65_535, 3), (65_535, 65_535)])
def test_every_resolution_that_counts_can_be_written(
    dpi: tuple[float, float], fields: dict[str, Any]
) -> None:
    written = encode_image(noise(30, 40, 3), parse_recipe(fields), ImageMetadata(dpi))
    assert Image.open(io.BytesIO(written)).size == (40, 30)


@pytest.mark.parametrize("fields", RECIPES)
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_results_are_labelled_as_srgb(mode: str, fields: dict[str, Any]) -> None:
    if mode == "RGBA":
        fields = {**fields, "format": fields["format"].replace("jpeg", "webp")}
    pixels = np.asarray(Image.fromarray(noise(40, 30, 4)).convert(mode))
    data = encode_image(pixels, parse_recipe(fields))
    info = Image.open(io.BytesIO(data)).info
    if fields["format"] == "png":
        assert info["srgb"] == 0
        assert "icc_profile" not in info
        assert data.count(b"sRGB") == 1
    else:
        assert info.get("icc_profile") == (None if mode == "L" else SRGB_PROFILE)


def test_labels_cost_little() -> None:
    """Their sum stays below 600 bytes, and a thumbnail has none."""
    pixels = noise(40, 30, 3)
    for fields in RECIPES:
        recipe = parse_recipe(fields)
        labelled = len(encode_image(pixels, recipe, ImageMetadata((300, 300))))
        file = io.BytesIO()
        image = Image.fromarray(pixels)
        if recipe.format == "png":
            image.save(file, "PNG", compress_level=recipe.png_compression)
            assert labelled < len(file.getvalue()) + 300
        else:
            image.save(file, recipe.format, quality=recipe.quality, method=0)
            assert labelled < len(file.getvalue()) + 700
    small = encode_thumbnail(pixels, Thumbnail(size_px=300, quality=85))
    assert "icc_profile" not in Image.open(io.BytesIO(small)).info


def test_exif_data_that_is_too_large_for_a_jpeg_is_left_out() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = "a" * 70_000
    data = saved(Image.fromarray(noise(30, 40, 3)), "PNG", exif=exif)
    assert decoded(data, keep=True).metadata.exif is None
