"""Decoding: every trait, every defect and every limit of an image file."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageOps

from serve_app.config import ImageLimits
from serve_app.errors import (
    CorruptImage,
    ForeedgeError,
    ImageTooLarge,
    PermanentError,
    UnsupportedFormat,
)
from serve_app.imaging.decode import decode_image, read_header
from tests.support.fuzzing import examples
from tests.support.images import Defect, Trait, bomb, book, defects, flat, jpeg, saved, traits

LIMITS = ImageLimits()


@pytest.mark.parametrize("trait", traits(), ids=lambda trait: trait.name)
def test_traits(trait: Trait) -> None:
    image = decode_image(trait.data, LIMITS)
    found = image.rgb
    assert found.dtype == np.uint8
    assert found.shape == trait.expected.shape
    assert np.abs(found.astype(float) - trait.expected).mean() <= trait.tolerance
    if trait.alpha is None:
        assert image.alpha is None
    else:
        assert image.alpha is not None
        assert np.array_equal(image.alpha, trait.alpha)


def test_a_profile_is_applied_and_not_ignored() -> None:
    linear = next(trait for trait in traits() if trait.name == "linear-icc-jpeg")
    without = Image.open(io.BytesIO(linear.data)).convert("RGB")
    ignored = np.abs(np.asarray(without).astype(float) - linear.expected).mean()
    assert ignored > 2 * linear.tolerance


UNDECODABLE = [defect for defect in defects() if defect.code != "no_subject"]


@pytest.mark.parametrize("defect", UNDECODABLE, ids=lambda defect: defect.name)
def test_defects(defect: Defect) -> None:
    with pytest.raises(ForeedgeError) as caught:
        decode_image(defect.data, LIMITS)
    assert caught.value.code == defect.code
    assert caught.value.http_status == defect.status


def test_a_size_over_the_limit_is_refused_by_the_header() -> None:
    with pytest.raises(ImageTooLarge, match="3,600,000,000 pixels"):
        read_header(bomb(60_000, 60_000), LIMITS)


def test_limits_are_inclusive() -> None:
    data = flat(40, 30)
    fits = ImageLimits(max_bytes=len(data), max_pixels=1200, max_side_px=40)
    assert read_header(data, fits).pixels == 1200
    for name, value in (("max_bytes", len(data) - 1), ("max_pixels", 1199), ("max_side_px", 39)):
        with pytest.raises(ImageTooLarge, match=name):
            read_header(data, fits.model_copy(update={name: value}))


def test_a_format_that_pillow_reads_and_we_do_not() -> None:
    with pytest.raises(UnsupportedFormat):
        decode_image(saved(Image.new("RGB", (8, 8)), "PPM"), LIMITS)


def test_pixels_of_32_bits_are_refused() -> None:
    with pytest.raises(UnsupportedFormat, match="32 bits"):
        decode_image(saved(Image.new("F", (8, 8), 0.5), "TIFF"), LIMITS)


def test_an_mpo_is_decoded_as_its_first_jpeg() -> None:
    first, second = (Image.fromarray(book(seed).image) for seed in (1, 2))
    data = saved(first, "MPO", save_all=True, append_images=[second], quality=95)
    image = decode_image(data, LIMITS)
    assert np.abs(image.rgb.astype(float) - np.asarray(first)).mean() < 4


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@settings(max_examples=examples(50), deadline=None)
@given(st.data())
def test_a_damaged_file_is_decoded_or_refused_with_a_code(data: st.DataObject) -> None:
    trait = data.draw(st.sampled_from(traits()))
    content = bytearray(trait.data)
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    kept = data.draw(st.integers(1, len(content)))
    with contextlib.suppress(PermanentError):
        decode_image(bytes(content[:kept]), LIMITS)


@settings(max_examples=examples(50), deadline=None)
@given(st.binary(min_size=1, max_size=300))
def test_random_bytes_are_refused_with_a_code(content: bytes) -> None:
    with pytest.raises((CorruptImage, UnsupportedFormat, ImageTooLarge)):
        decode_image(content, LIMITS)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_data_is_ignored() -> None:
    pixels = book().image
    decoded = decode_image(jpeg(pixels, exif=b"Exif\0\0II*\0\xff\xff\xff\xff"), LIMITS)
    assert decoded.width == pixels.shape[1]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_colours_and_transparency_turn_alike(orientation: int) -> None:
    noise = np.random.default_rng(orientation).integers(1, 255, (5, 9, 4), np.uint8)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    data = saved(Image.fromarray(noise), "PNG", exif=exif)
    image = decode_image(data, LIMITS)
    assert image.alpha is not None
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    assert np.array_equal(image.rgb, upright[..., :3])
    assert np.array_equal(image.alpha, upright[..., 3])
    assert image.rgb.flags.c_contiguous
    assert image.alpha.flags.c_contiguous
