"""Our Lanczos resize is Pillow's, but for values that rounding errors alone decide."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from serve_app.imaging import lanczos
from tests.support.images import noise
from tests.support.lanczos_interval import lanczos_interval, lanczos_weights, rows_come_first

Pixels = npt.NDArray[np.uint8]

sides = st.integers(1, 700)


def pillow_resize(
    pixels: Pixels,
    width: int,
    height: int,
    resampling: Image.Resampling = Image.Resampling.LANCZOS,
) -> Pixels:
    return np.asarray(Image.fromarray(pixels).resize((width, height), resampling))


def share_outside(values: Pixels, interval: tuple[Pixels, Pixels]) -> float:
    lowest, highest = interval
    return float(((values < lowest) | (values > highest)).mean())


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 99), sides, sides, sides, sides, st.sampled_from([(), (3,)]))
# One pass first, then the other one.
@example(0, 400, 300, 64, 64, (3,))
@example(0, 900, 301, 64, 64, (3,))
# One value is rounded the other way, and then repeated in nine rows: 9 of 4,212 differ.
@example(0, 1, 284, 9, 156, (3,))
# Sums of up to 4,201 products, the most that these sides allow.
@example(0, 700, 700, 1, 1, ())
def test_resize_is_pillows_lanczos(
    seed: int, height: int, width: int, new_height: int, new_width: int, channels: tuple[int, ...]
) -> None:
    pixels = noise(height, width, *channels, seed=seed)
    interval = lanczos_interval(pixels, new_width, new_height)
    assert share_outside(pillow_resize(pixels, new_width, new_height), interval) == 0
    assert share_outside(lanczos.resize(pixels, new_width, new_height), interval) == 0


@pytest.mark.parametrize("size", [(60, 40), (300, 200), (64, 64)])
def test_the_interval_excludes_every_other_way_to_resize(size: tuple[int, int]) -> None:
    width, height = size
    pixels = noise(90, 120, 3)
    interval = lanczos_interval(pixels, width, height)
    assert (interval[0] != interval[1]).mean() < 0.005

    for other in (Image.Resampling.BICUBIC, Image.Resampling.HAMMING, Image.Resampling.BOX):
        assert share_outside(pillow_resize(pixels, width, height, other), interval) > 0.9
    first_pass = (120, height) if not rows_come_first(pixels, width, height) else (width, 90)
    wrong_order = pillow_resize(pillow_resize(pixels, *first_pass), width, height)
    assert share_outside(wrong_order, interval) > 0.1

    down, across = lanczos_weights(90, height), lanczos_weights(120, width)
    exact = np.tensordot(down, np.tensordot(across, pixels, (1, 1)), (1, 1))
    rounded_once = np.clip(np.floor(exact + 0.5), 0, 255).astype(np.uint8)
    assert share_outside(rounded_once, interval) > 0.1


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
