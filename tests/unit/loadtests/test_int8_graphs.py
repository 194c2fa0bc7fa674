"""int8 graphs of the measurements are made once, and again if what they depend on has changed."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import pytest

from loadtests.quality.int8_graphs import int8_graph
from serve_app.models.engines.processor import this_machine
from serve_app.models.facts import CUSTOM_MODEL_FACTS
from serve_app.models.gate_images import draw_gate_images, shrink_images
from serve_app.models.registry import Weights
from tests.support.quantized import SIDE_PX, small_network


@pytest.fixture
def weights(tmp_path: Path) -> Weights:
    path = small_network(tmp_path / "own.onnx")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Weights("own", path, digest, CUSTOM_MODEL_FACTS)


def test_a_graph_is_made_once_for_its_source_and_calibration(
    weights: Weights, tmp_path: Path
) -> None:
    first, second, choosing = shrink_images(draw_gate_images(3), SIDE_PX)
    steps: list[str] = []

    def made(source: Weights, number: int) -> Path:
        images = [first, second][number]
        found = int8_graph(
            source, [images], [choosing], this_machine(), folder=tmp_path, on_step=steps.append
        )
        assert found.layers == 5
        assert found.measures.images == 1
        return found.path

    path = made(weights, 0)
    assert path.is_file()
    assert steps
    steps.clear()
    assert made(weights, 0) == path
    assert steps == []
    others = {made(weights, 1), made(dataclasses.replace(weights, sha256="0" * 64), 0)}
    assert len(others | {path}) == 3


def test_a_graph_that_was_interrupted_is_made_again(weights: Weights, tmp_path: Path) -> None:
    image, choosing = shrink_images(draw_gate_images(2), SIDE_PX)
    found = int8_graph(weights, [image], [choosing], this_machine(), folder=tmp_path)
    whole = found.path.read_bytes()
    found.path.write_bytes(b"half")
    found.path.with_suffix(".json").unlink()
    again = int8_graph(weights, [image], [choosing], this_machine(), folder=tmp_path)
    assert again.path.read_bytes() == whole
