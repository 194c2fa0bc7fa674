"""The inputs of load tests: benchmark networks and image corpora."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from loadtests.harness.corpus import corpus
from loadtests.harness.networks import ARCHITECTURES, Network
from loadtests.harness.shaped_models import BenchmarkModel, benchmark_model
from serve_app.config import AppConfig
from serve_app.errors import InvalidConfig
from serve_app.models.facts import MODEL_FACTS
from serve_app.models.inference import load_model


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("u2netp", 1_131_181), ("u2net", 44_009_869), ("isnet-general-use", 44_046_790)],
)
def test_networks_have_the_published_number_of_parameters(name: str, parameters: int) -> None:
    assert Network(ARCHITECTURES[name], MODEL_FACTS[name].size_px).parameters == parameters


def test_a_network_is_served_under_its_name(tmp_path: Path) -> None:
    path = tmp_path / "u2netp-shaped.onnx"
    path.write_bytes(Network(ARCHITECTURES["u2netp"], 320).model(batches=True).SerializeToString())
    model = BenchmarkModel("u2netp", path, "random")
    stacking = {"segmenter": {"execution": "stack"}}
    loaded = load_model("u2netp", AppConfig.load({**model.settings, **stacking}))
    assert loaded.batches
    images = np.random.default_rng(1).integers(0, 256, (2, 320, 320, 3), np.uint8)
    masks = loaded.masks(images)
    assert masks.shape == (2, 320, 320)
    assert masks.max() == 255
    assert (loaded.masks(images[1:]) == masks[1:]).all()


def test_true_weights_are_used_and_named_if_they_are_here(
    u2netp_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("U2NET_HOME", str(u2netp_weights.parents[2]))
    model = benchmark_model("u2netp", tmp_path)
    assert (model.path, model.label) == (u2netp_weights, "u2netp (true weights)")
    assert model.has_true_weights
    assert list(tmp_path.iterdir()) == []


def test_a_set_is_drawn_once(tmp_path: Path) -> None:
    paths = corpus("small", 2, tmp_path)
    first, second = (path.read_bytes() for path in paths)
    assert Image.open(io.BytesIO(second)).size == (640, 480)
    paths[1].unlink()
    paths[0].write_bytes(b"kept")
    assert corpus("small", 2, tmp_path) == paths
    assert paths[0].read_bytes() == b"kept"
    paths[0].unlink()
    assert corpus("small", 1, tmp_path)[0].read_bytes() == first


def test_a_folder_is_gone_through_again(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.png", "notes.txt"):
        (tmp_path / name).write_bytes(b"-")
    assert [path.name for path in corpus(str(tmp_path), 3)] == ["a.jpg", "b.png", "a.jpg"]


def test_neither_set_nor_folder(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="neither a folder nor one of small"):
        corpus(str(tmp_path / "none"), 1)
    with pytest.raises(InvalidConfig, match="no images"):
        corpus(str(tmp_path), 1)
