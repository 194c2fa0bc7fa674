"""The images of the gate: many photographs at full size never fit into the memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ingest.cli.quantize import read_both_sets
from serve_app.config import SegmenterConfig
from serve_app.errors import InvalidConfig
from serve_app.imaging.mask import resize_for_model, resize_mask
from serve_app.models.derive import ReferenceMask, reference_masks
from serve_app.models.engines.onnx_runtime import open_as_written
from serve_app.models.facts import CUSTOM_MODEL_FACTS
from serve_app.models.gate_images import read_gate_images, shrink_images
from serve_app.models.inference import OnnxModel
from serve_app.models.registry import Weights
from tests.support import graphs

SIDE_PX = 320
WIDTH, HEIGHT = 1500, 1000
IMAGE_BYTES = 3 * WIDTH * HEIGHT
IMAGES = 12


def photographs(folder: Path, count: int, first: int = 0) -> Path:
    """Write photographs with their true masks, and return the folder."""
    folder.mkdir()
    for number in range(first, first + count):
        rgb = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
        rgb[100:700, 200 : 400 + 50 * number] = (200, 10 * number, 30)
        Image.fromarray(rgb).save(folder / f"{number:02}.png", compress_level=1)
        mask = Image.fromarray((rgb[:, :, 0] > 100) * np.uint8(255))
        mask.save(folder / f"{number:02}.mask.png", compress_level=1)
    return folder


@pytest.fixture
def measured() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


def peak_images() -> float:
    """Return the largest memory of this test so far, in images at full size."""
    return tracemalloc.get_traced_memory()[1] / IMAGE_BYTES


@pytest.fixture
def weights(tmp_path: Path) -> Weights:
    return Weights("own", graphs.brightness(tmp_path / "own.onnx"), "0" * 64, CUSTOM_MODEL_FACTS)


def test_both_sets_of_int8_are_read_one_image_at_a_time(tmp_path: Path, measured: None) -> None:
    fitted = photographs(tmp_path / "fitted", 2)
    gate = photographs(tmp_path / "gate", IMAGES, first=2)
    tracemalloc.reset_peak()
    fitting, judged = read_both_sets(fitted, gate, SIDE_PX)
    assert (len(fitting), len(judged)) == (2, IMAGES)
    # The decoder, the image and what the filter needs of it.
    assert peak_images() < 4


def test_the_masks_that_are_expected_are_held_at_the_size_of_the_model(
    weights: Weights, tmp_path: Path, measured: None
) -> None:
    folder = photographs(tmp_path / "gate", IMAGES)
    tracemalloc.reset_peak()
    small = shrink_images(read_gate_images(folder), SIDE_PX)
    expected = list(reference_masks(weights, small))
    assert len(expected) == IMAGES
    assert peak_images() < 4


def test_nothing_is_lost_on_the_way_to_the_size_of_the_model(
    weights: Weights, tmp_path: Path
) -> None:
    [whole] = read_gate_images(photographs(tmp_path / "gate", 1))
    [small] = shrink_images([whole], SIDE_PX)
    square = resize_for_model(whole.rgb, SIDE_PX)
    assert (small.name, small.width, small.height) == ("00", WIDTH, HEIGHT)
    assert np.array_equal(small.square, square)
    config = SegmenterConfig(threads=1)
    [mask] = OnnxModel(weights, config).masks(square[None])
    network = open_as_written(weights.path, config)
    found = ReferenceMask(small, mask).compared(network, weights.facts)
    assert np.array_equal(found.reference, resize_mask(mask, WIDTH, HEIGHT))
    assert np.array_equal(found.found, found.reference)
    assert found.truth is not None
    assert np.array_equal(found.truth, (whole.rgb[:, :, 0] > 100) * np.uint8(255))


def test_a_true_mask_of_another_size_is_refused_before_any_model_runs(tmp_path: Path) -> None:
    folder = photographs(tmp_path / "gate", 1)
    Image.new("L", (10, 20)).save(folder / "00.mask.png")
    with pytest.raises(
        InvalidConfig, match=r"00\.mask.png has 10 x 20 pixels, and its image 1500 x"
    ):
        next(read_gate_images(folder))
    (folder / "00.mask.png").write_bytes(b"no image")
    with pytest.raises(InvalidConfig, match="cannot be read as a mask"):
        next(read_gate_images(folder))
