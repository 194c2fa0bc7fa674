"""Our Lanczos resize is Pillow's, bit by bit."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from serve_app.imaging import lanczos
from serve_app.imaging.lanczos_filter import covering_filter
from tests.support.fuzzing import examples
from tests.support.images import noise

Pixels = npt.NDArray[np.uint8]

sides = st.integers(1, 700)


def pillow_resize(pixels: Pixels, width: int, height: int) -> Pixels:
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS))


@settings(max_examples=examples(20), deadline=None)
@given(st.integers(0, 99), sides, sides, sides, sides, st.sampled_from([(), (3,)]))
# One pass first, then the other one.
@example(0, 400, 300, 64, 64, (3,))
@example(0, 900, 301, 64, 64, (3,))
# One value was rounded the other way, and then repeated in nine rows: 9 of 4,212 differed.
@example(0, 1, 284, 9, 156, (3,))
# Lines of 7,800 values, which are enlarged in four parts.
@example(0, 300, 40, 350, 2600, (3,))
# Sums of up to 4,201 products, the most that these sides allow.
@example(0, 700, 700, 1, 1, ())
def test_resize_is_pillows_lanczos(
    seed: int, height: int, width: int, new_height: int, new_width: int, channels: tuple[int, ...]
) -> None:
    pixels = noise(height, width, *channels, seed=seed)
    found = lanczos.resize(pixels, new_width, new_height)
    assert np.array_equal(found, pillow_resize(pixels, new_width, new_height))


@pytest.mark.parametrize("size", [(320, 320), (1024, 1024)])
def test_no_value_of_a_large_image_is_rounded_the_other_way(size: tuple[int, int]) -> None:
    # Sums of float32 alone differed in 30 to 50 of 307,200 values.
    pixels = noise(1200, 1600, 3, seed=5)
    assert np.array_equal(lanczos.resize(pixels, *size), pillow_resize(pixels, *size))


def test_no_value_of_an_enlarged_mask_is_rounded_the_other_way() -> None:
    mask = pillow_resize(noise(24, 24, seed=3), 320, 320)
    found = lanczos.resize(mask, 1600, 1200)
    assert np.array_equal(found, pillow_resize(mask, 1600, 1200))


@settings(max_examples=examples(25), deadline=None)
@given(sides, sides, st.data())
def test_a_part_equals_that_part_of_the_whole(height: int, width: int, data: st.DataObject) -> None:
    pixels = noise(96, 64, 3)
    columns, rows = [
        sorted(data.draw(st.tuples(*[st.integers(0, side)] * 2).filter(lambda p: p[0] != p[1])))
        for side in (width, height)
    ]
    part = lanczos.resize(pixels, width, height, columns=tuple(columns), rows=tuple(rows))
    whole = lanczos.resize(pixels, width, height)
    assert np.array_equal(part, whole[slice(*rows), slice(*columns)])


def test_a_filter_has_the_memory_that_the_page_says() -> None:
    def mb(count: int, size: int) -> float:
        kept = covering_filter(count, size, 0, size)
        weights = sum(band.weights.nbytes for band in kept.bands)
        return (weights + kept.starts.nbytes + kept.coefficients.nbytes) / 1e6

    # docs/operations/memory.md: 128 of them, which are those of 32 images.
    of_12_megapixels = sum(mb(side, 320) + mb(320, side) for side in (4000, 3000))
    assert 32 * of_12_megapixels == pytest.approx(43, abs=0.5)
    assert mb(1024, 16_384) == pytest.approx(1.4, abs=0.05)
