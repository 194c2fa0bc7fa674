"""What is known of models, where their files are, and rembg's arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from serve_app.config import AppConfig, SegmenterConfig
from serve_app.errors import InvalidConfig, ModelChecksumMismatch, ModelUnavailable
from serve_app.models.engines.onnx_runtime import session_options
from serve_app.models.facts import MODEL_FACTS, ModelFacts
from serve_app.models.inference import (
    load_model,
    normalize_images,
    stretch_to_masks,
)
from serve_app.models.registry import check_model_exists, locate_weights
from tests.support import graphs

IMAGENET = ModelFacts(320)


def rembg_tensor(image: npt.NDArray[np.uint8], facts: ModelFacts) -> npt.NDArray[np.float32]:
    """Return what rembg's sessions feed their graphs with, step by step in float64."""
    values = image / max(float(np.max(image)), 1e-6)
    tensor = np.zeros(values.shape)
    for channel in range(3):
        tensor[:, :, channel] = (values[:, :, channel] - facts.mean[channel]) / facts.std[channel]
    return tensor.transpose(2, 0, 1).astype(np.float32)


def rembg_mask(answer: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
    """Return what rembg's sessions make of a graph's answer for one image."""
    low, high = np.min(answer), np.max(answer)
    return np.asarray((answer - low) / (high - low) * 255).astype(np.uint8)


def images(seed: int, highest: int = 256) -> npt.NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, highest, (3, 17, 17, 3), dtype=np.uint8)


def custom(path: Path, **segmenter: object) -> AppConfig:
    settings = {"models": ["own"], "model_files": {"own": path}, "segmenter": segmenter}
    return AppConfig.load(settings)


# --- arithmetic ---


@pytest.mark.parametrize("highest", [256, 100, 2])
@pytest.mark.parametrize("facts", [IMAGENET, MODEL_FACTS["isnet-general-use"]])
def test_normalize_is_rembgs_bit_for_bit(highest: int, facts: ModelFacts) -> None:
    batch = images(1, highest)
    expected = np.stack([rembg_tensor(image, facts) for image in batch])
    found = normalize_images(batch, facts)
    assert found.dtype == np.float32
    assert np.array_equal(found, expected)


def test_normalize_divides_each_image_by_its_own_maximum() -> None:
    bright, dark = images(1)[:1], images(1)[:1] // 4
    together = normalize_images(np.concatenate([bright, dark]), IMAGENET)
    assert np.array_equal(together[1], normalize_images(dark, IMAGENET)[0])


def test_normalize_of_a_black_image_is_finite() -> None:
    assert np.isfinite(normalize_images(np.zeros((1, 8, 8, 3), np.uint8), IMAGENET)).all()


def test_stretch_is_rembgs_for_each_image_of_a_batch() -> None:
    rng = np.random.default_rng(0)
    scales = np.array([0.2, 1, 3, 1], np.float32).reshape(4, 1, 1)
    answers = rng.random((4, 20, 20), dtype=np.float32) * scales
    expected = np.stack([rembg_mask(answer) for answer in answers])
    assert np.array_equal(stretch_to_masks(answers, IMAGENET), expected)


@pytest.mark.parametrize("value", [0.0, 0.7, 1.0])
def test_a_constant_answer_is_an_empty_mask(value: float) -> None:
    assert not stretch_to_masks(np.full((1, 8, 8), value, np.float32), IMAGENET).any()


def test_a_low_answer_is_empty_only_where_the_facts_say_so() -> None:
    answer = np.linspace(0, 0.49, 64, dtype=np.float32).reshape(1, 8, 8)
    assert stretch_to_masks(answer, IMAGENET).max() == 255
    assert not stretch_to_masks(answer, ModelFacts(320, empty_below=0.5)).any()
    assert (
        stretch_to_masks(answer + np.float32(0.02), ModelFacts(320, empty_below=0.5)).max() == 255
    )


def test_logits_pass_a_sigmoid_first() -> None:
    logits = np.array([[[-800.0, -1.0, 0.0, 4.0, 800.0]]], np.float32)
    with np.errstate(over="ignore"):
        found = stretch_to_masks(logits, ModelFacts(320, sigmoid=True))
    expected = rembg_mask(1 / (1 + np.exp(-logits[:, :, 1:-1].astype(np.float64))))
    assert found[0, 0, 0] == 0
    assert found[0, 0, -1] == 255
    assert expected.max() == 255


# --- graphs ---


def test_a_model_of_a_file_runs_batches(tmp_path: Path) -> None:
    model = load_model("own", custom(graphs.brightness(tmp_path / "own.onnx"), execution="stack"))
    batch = np.zeros((3, 320, 320, 3), np.uint8)
    for position, image in enumerate(batch):
        image[50 : 100 + position] = 255
    masks = model.masks(batch)
    assert model.batches
    assert masks.shape == (3, 320, 320)
    assert all(
        np.array_equal(mask > 0, image[..., 0] > 0)
        for mask, image in zip(masks, batch, strict=True)
    )


def test_a_model_takes_one_image_where_its_file_does_or_where_images_fan_out(
    tmp_path: Path,
) -> None:
    path = graphs.brightness(tmp_path / "fixed.onnx", batch=1)
    assert not load_model("own", custom(path, execution="stack")).batches
    path = graphs.brightness(tmp_path / "open.onnx")
    assert not load_model("own", custom(path, execution="fan_out")).batches


def test_a_batch_gives_what_single_images_give(tmp_path: Path) -> None:
    model = load_model("own", custom(graphs.brightness(tmp_path / "own.onnx"), execution="stack"))
    rng = np.random.default_rng(0)
    batch = rng.integers(0, 256, (4, 320, 320, 3), dtype=np.uint8)
    batch[1] //= 3
    single = np.concatenate([model.masks(image[None]) for image in batch])
    assert np.array_equal(model.masks(batch), single)


def test_a_constant_graph_finds_nothing(tmp_path: Path) -> None:
    model = load_model("own", custom(graphs.constant(tmp_path / "own.onnx")))
    assert not model.masks(np.zeros((1, 320, 320, 3), np.uint8)).any()


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda path: graphs.brightness(path, side_px=64), "must be \\[N, 3, 320, 320\\]"),
        (lambda path: path.write_text("no graph"), "cannot be loaded"),
        (lambda path: None, "is not a file"),
    ],
    ids=["other size", "not onnx", "missing"],
)
def test_files_that_are_no_model(
    tmp_path: Path, make: Callable[[Path], object], expected: str
) -> None:
    path = tmp_path / "own.onnx"
    make(path)
    with pytest.raises(InvalidConfig, match=expected):
        load_model("own", custom(path))


def test_threads_go_inside_of_a_run_only_where_runs_are_not_parallel() -> None:
    fanned = session_options(SegmenterConfig(threads=4))
    stacked = session_options(SegmenterConfig(threads=4, execution="stack"))
    assert (fanned.intra_op_num_threads, stacked.intra_op_num_threads) == (1, 4)
    spinning = "session.intra_op.allow_spinning"
    assert fanned.get_session_config_entry(spinning) == "0"


# --- weights ---


def test_every_size_of_the_facts_can_hold_a_mask() -> None:
    assert {facts.size_px for facts in MODEL_FACTS.values()} == {320, 1024}


@pytest.mark.parametrize("layout", ["u2netp.onnx", "models/u2netp/u2netp.onnx"])
def test_a_file_that_is_not_rembgs_release(tmp_path: Path, layout: str) -> None:
    path = tmp_path / layout
    graphs.brightness(path)
    config = AppConfig.load({"models": ["u2netp"], "u2net_home": tmp_path})
    with pytest.raises(ModelChecksumMismatch, match=r"foreedge models fetch u2netp.*model_files"):
        locate_weights("u2netp", config)


def test_weights_that_are_not_here_say_how_to_get_them(tmp_path: Path) -> None:
    config = AppConfig.load({"models": ["u2net"], "u2net_home": tmp_path})
    with pytest.raises(ModelUnavailable, match=rf"foreedge models fetch u2net'.*{tmp_path}"):
        locate_weights("u2net", config)


def test_a_configured_file_wins_over_a_name_of_rembgs(tmp_path: Path) -> None:
    path = graphs.brightness(tmp_path / "mine.onnx")
    config = AppConfig.load({"models": ["u2net"], "model_files": {"u2net": path}})
    check_model_exists("u2net", config)
    found = locate_weights("u2net", config)
    assert found.path == path
    assert len(found.sha256) == 64


def test_different_files_have_different_digests(tmp_path: Path) -> None:
    first = custom(graphs.brightness(tmp_path / "a.onnx"))
    second = custom(graphs.constant(tmp_path / "b.onnx"))
    assert locate_weights("own", first).sha256 != locate_weights("own", second).sha256


def test_the_bundled_model_needs_nothing() -> None:
    found = locate_weights("folio", AppConfig.load())
    assert found.path.stat().st_size <= 3_000_000


def test_weights_in_a_file_of_their_own_are_refused(tmp_path: Path) -> None:
    with as_file(files("serve_app.models.folio") / "folio.onnx") as whole:
        model = onnx.load(whole)
    path = tmp_path / "own.onnx"
    onnx.save(model, path, save_as_external_data=True, location="own.data", size_threshold=0)
    with pytest.raises(InvalidConfig, match=r"keeps its weights in another file.*Write one file"):
        load_model("own", custom(path))


@pytest.mark.parametrize("name", ["模型", "a\r\nSet-Cookie: x", ""])
def test_a_name_that_no_header_can_carry_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidConfig, match="cannot name a model"):
        AppConfig.load({"models": ["folio"], "model_files": {name: tmp_path / "m.onnx"}})
