"""Matting equals rembg's up to its cap on pixels, is close to it above, and delays no other image.

The first import of rembg on a machine takes more than a minute, because Numba compiles pymatting.
"""

from __future__ import annotations

import asyncio
import io
import subprocess
import sys

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from serve_app.config import AppConfig
from serve_app.contracts.model import ModelInfo
from serve_app.contracts.priority import Priority
from serve_app.contracts.recipe import Checks, Matting, Recipe, parse_recipe
from serve_app.errors import SubjectTooSmall
from serve_app.imaging.matting import TRIMAP_UNKNOWN, Matte, make_trimap, matte
from serve_app.pipeline.image_pipeline import ImagePipeline, imaging_threads
from serve_app.storage import open_store
from tests.support.images import HEIGHT, WIDTH, book, jpeg

pytestmark = pytest.mark.timeout(600)

Pixels = npt.NDArray[np.uint8]
CLOSED_FORM = Matting(method="closed_form")
PLENTY = 10_000_000
MEAN_DIFFERENCE = 0.002


def soft_mask(seed: int = 7, width: int = WIDTH, height: int = HEIGHT) -> Pixels:
    """Return the true mask of a book with a soft edge, as a good model would return it."""
    mask = book(seed, width, height).mask
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), width / 200), np.uint8)


def ramp(width: int, height: int) -> Pixels:
    """Return a mask that is unsure almost everywhere."""
    return np.tile(np.linspace(-40, 295, width).clip(0, 255).astype(np.uint8), (height, 1))


def rembg_cutout(pixels: Pixels, mask: Pixels, matting: Matting) -> npt.NDArray[np.int64]:
    from rembg.bg import alpha_matting_cutout

    cutout = alpha_matting_cutout(
        Image.fromarray(pixels),
        Image.fromarray(mask),
        matting.foreground_above,
        matting.background_below,
        matting.erode_px,
    )
    return np.asarray(cutout, np.int64)


def stacked(found: Matte) -> Pixels:
    return np.dstack([found.rgb, found.alpha])


# --- the same as rembg's ---


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
    st.integers(0, 255),
    st.integers(0, 255),
    st.integers(0, 25),
)
def test_the_trimap_is_rembgs(
    seed: int, shape: tuple[int, int], above: int, below: int, erode_px: int
) -> None:
    # As rembg.bg.alpha_matting_cutout makes it.
    from scipy.ndimage import binary_erosion

    noise = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    mask = np.asarray(cv2.blur(noise, (9, 9)), np.uint8)
    square = np.ones((erode_px, erode_px), np.uint8) if erode_px else None
    expected = np.full(shape, TRIMAP_UNKNOWN, np.uint8)
    expected[binary_erosion(mask > above, structure=square)] = 255
    expected[binary_erosion(mask < below, structure=square, border_value=1)] = 0
    wanted = Matting(foreground_above=above, background_below=below, erode_px=erode_px)
    assert np.array_equal(make_trimap(mask, wanted), expected)


@pytest.mark.parametrize(
    ("seed", "size", "matting"),
    [
        (7, (400, 300), CLOSED_FORM),
        (11, (300, 400), CLOSED_FORM.model_copy(update={"erode_px": 25})),
        (12, (640, 480), CLOSED_FORM.model_copy(update={"foreground_above": 200})),
        (13, (200, 160), CLOSED_FORM.model_copy(update={"background_below": 60, "erode_px": 0})),
    ],
)
def test_closed_form_is_rembgs(seed: int, size: tuple[int, int], matting: Matting) -> None:
    pixels, mask = book(seed, *size).image, soft_mask(seed, *size)
    expected = rembg_cutout(pixels, mask, matting)
    found = stacked(matte(pixels, mask, matting, PLENTY))
    difference = np.abs(expected - found) / 255
    assert difference[..., 3].mean() <= MEAN_DIFFERENCE
    assert difference[expected[..., 3] > 0].mean() <= MEAN_DIFFERENCE
    trimap = make_trimap(mask, matting)
    assert 0 < (trimap == TRIMAP_UNKNOWN).mean() < 0.5


def test_a_mask_that_is_unsure_everywhere() -> None:
    pixels, mask = book(7, 160, 120).image, ramp(160, 120)
    expected = rembg_cutout(pixels, mask, CLOSED_FORM)
    found = stacked(matte(pixels, mask, CLOSED_FORM, PLENTY))
    assert np.abs(expected - found)[..., 3].mean() / 255 <= MEAN_DIFFERENCE


def test_decontaminate_is_rembgs() -> None:
    from rembg.bg import decontaminate_cutout

    pixels, mask = book().image, soft_mask()
    images = Image.fromarray(pixels), Image.fromarray(mask)
    expected = np.asarray(decontaminate_cutout(*images), np.int64)
    found = matte(pixels, mask, Matting(method="decontaminate"), PLENTY)
    assert np.array_equal(found.alpha, mask)
    assert np.abs(expected - stacked(found)).max() <= 1


def test_decontaminate_keeps_the_mask_at_any_size() -> None:
    pixels, mask = book(7, 160, 120).image, ramp(160, 120)
    wanted = Matting(method="decontaminate")
    for cap in (mask.size, mask.size // 8):
        assert np.array_equal(matte(pixels, mask, wanted, cap).alpha, mask)


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_mask_of_one_kind_keeps_its_alpha_as_in_rembg(value: int) -> None:
    from rembg.bg import alpha_matting_cutout

    pixels, mask = book().image, np.full((HEIGHT, WIDTH), value, np.uint8)
    with pytest.raises(ValueError, match="did not contain"):
        alpha_matting_cutout(Image.fromarray(pixels), Image.fromarray(mask), 240, 10, 10)
    assert np.array_equal(matte(pixels, mask, CLOSED_FORM, PLENTY).alpha, mask)


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (1, 3), (2, 2), (3, 3), (40, 1)])
@pytest.mark.parametrize("cap", [1, PLENTY])
def test_the_smallest_images(size: tuple[int, int], cap: int) -> None:
    pixels = np.full((size[1], size[0], 3), (0, 128, 128), np.uint8)
    mask = np.resize(np.array([0, 255, 128], np.uint8), (size[1], size[0]))
    for method in ("closed_form", "decontaminate"):
        wanted = Matting.model_validate({"method": method, "erode_px": 1})
        assert matte(pixels, mask, wanted, cap).alpha.shape == mask.shape


# --- above the cap ---


def small_in_large() -> tuple[Pixels, Pixels]:
    """Return a photograph of a book within a larger image, and its mask."""
    pixels = cv2.copyMakeBorder(book().image, 200, 300, 400, 100, cv2.BORDER_REPLICATE)
    mask = cv2.copyMakeBorder(soft_mask(), 200, 300, 400, 100, cv2.BORDER_CONSTANT, value=0)
    return np.asarray(pixels, np.uint8), np.asarray(mask, np.uint8)


def test_above_the_cap_the_box_around_the_band_has_the_same_alpha() -> None:
    pixels, mask = small_in_large()
    whole = matte(pixels, mask, CLOSED_FORM, PLENTY)
    cap = 3 * WIDTH * HEIGHT
    assert mask.size > cap
    boxed = matte(pixels, mask, CLOSED_FORM, cap)
    assert np.array_equal(whole.alpha, boxed.alpha)
    inside = whole.alpha > 0
    difference = np.abs(whole.rgb.astype(int) - boxed.rgb)[inside]
    assert difference.mean() < 2


def test_far_above_the_cap_what_is_sure_stays_sharp() -> None:
    pixels, mask = small_in_large()
    whole = matte(pixels, mask, CLOSED_FORM, PLENTY)
    reduced = matte(pixels, mask, CLOSED_FORM, WIDTH * HEIGHT // 8)
    trimap = make_trimap(mask, CLOSED_FORM)
    assert np.all(reduced.alpha[trimap == 255] == 255)
    assert not reduced.alpha[trimap == 0].any()
    assert np.abs(whole.alpha.astype(int) - reduced.alpha).mean() / 255 < 0.01
    assert np.array_equal(reduced.rgb[trimap == 255], pixels[trimap == 255])


def test_a_band_that_is_most_of_the_picture_counts_as_too_large() -> None:
    pixels, mask = book(7, 160, 120).image, ramp(160, 120)
    found = matte(pixels, mask, CLOSED_FORM, mask.size)
    exact = matte(pixels, mask, CLOSED_FORM, PLENTY)
    assert not np.array_equal(found.alpha, exact.alpha)
    trimap = make_trimap(mask, CLOSED_FORM)
    sure = trimap != TRIMAP_UNKNOWN
    assert np.array_equal(found.alpha[sure], trimap[sure])


# --- in the pipeline ---


class TrueMask:
    """Segmenters that return the true mask of the only photograph."""

    def __init__(self, seed: int, width: int, height: int) -> None:
        mask = Image.fromarray(soft_mask(seed, width, height))
        self._mask = np.asarray(mask.resize((320, 320), Image.Resampling.LANCZOS))

    async def describe(self, name: str) -> ModelInfo:
        return ModelInfo(name=name, size_px=320, sha256="0" * 64)

    async def segment(self, name: str, image: Pixels, priority: Priority) -> Pixels:
        return self._mask


def pipeline(segmenters: TrueMask, **settings: object) -> ImagePipeline:
    config = AppConfig.load({"pipeline": {"threads": 1, **settings}})
    return ImagePipeline(config, open_store(config), segmenters, imaging_threads(config.pipeline))


async def test_the_catalog_preset_is_matted() -> None:
    rendered = await pipeline(TrueMask(7, WIDTH, HEIGHT)).cut_out(
        jpeg(book().image), parse_recipe("catalog")
    )
    stages = "decode resize segment mask matting compose encode"
    assert list(rendered.cutout.stages_ms) == stages.split()
    assert rendered.thumbnail is not None


async def test_other_images_pass_those_that_are_matted() -> None:
    size = (900, 700)
    data = jpeg(book(7, *size).image)
    # One imaging thread, and room for one more decoded image than those that wait for matting.
    pixels = 3 * size[0] * size[1]
    images = pipeline(TrueMask(7, *size), max_decoded_pixels=pixels)
    slow = [
        asyncio.create_task(images.cut_out(data, Recipe(matting=CLOSED_FORM))) for _ in range(6)
    ]
    ticks = 0
    for _ in range(3):
        await images.cut_out(data, Recipe())
        ticks += 1
    assert not all(task.done() for task in slow)
    while not all(task.done() for task in slow):
        ticks += 1
        await asyncio.sleep(0.001)
    # Each is matted for more than a hundred milliseconds, during which the event loop must run.
    assert ticks > 60
    assert len({(await task).data for task in slow}) == 1


async def test_transparency_of_its_own_counts_after_matting() -> None:
    image = Image.fromarray(book().image)
    own = np.full((HEIGHT, WIDTH), 255, np.uint8)
    own[:, : WIDTH // 2] = 0
    any_size = Checks(min_subject_px=1)
    image.putalpha(Image.fromarray(own))
    file = io.BytesIO()
    image.save(file, "PNG")
    images = pipeline(TrueMask(7, WIDTH, HEIGHT))
    rendered = await images.cut_out(file.getvalue(), Recipe(matting=CLOSED_FORM, checks=any_size))
    alpha = np.asarray(Image.open(io.BytesIO(rendered.data)))[..., 3]
    assert not alpha[:, : WIDTH // 2].any()
    assert (alpha == 255).any()


async def test_checks_hold_before_and_after_matting() -> None:
    checks = Checks(min_subject_px=WIDTH)
    with pytest.raises(SubjectTooSmall):
        await pipeline(TrueMask(7, WIDTH, HEIGHT)).cut_out(
            jpeg(book().image), Recipe(matting=CLOSED_FORM, checks=checks)
        )


def test_matting_is_imported_at_its_first_use() -> None:
    code = (
        "import sys; import serve_app.pipeline.deployment; "
        "sys.exit(any(name in sys.modules for name in ('pymatting', 'numba', 'scipy', 'rembg')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
