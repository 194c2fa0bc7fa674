"""A model in int8, from its file to the graph that goes to the gate."""

from __future__ import annotations

import hashlib
from pathlib import Path

import onnx
import pytest
from PIL import Image

from ingest.cli.quantize import read_both_sets
from serve_app.errors import InvalidConfig
from serve_app.models.facts import CUSTOM_MODEL_FACTS
from serve_app.models.gate_images import draw_gate_images
from serve_app.models.quantization.quantize import quantize_model
from serve_app.models.registry import Weights
from tests.support.quantized import small_network


def test_a_graph_without_an_axis_for_scales_gets_a_later_operator_set(tmp_path: Path) -> None:
    # Below operator set 13, scales for each channel would be invalid, and nothing would say so.
    path = small_network(tmp_path / "old.onnx", opset=11)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    images = list(draw_gate_images(2))
    steps: list[str] = []
    weights = Weights("own", path, digest, CUSTOM_MODEL_FACTS)
    found = quantize_model(weights, images, "fast", on_step=steps.append)
    graph = onnx.load_from_string(found.derived.content)
    assert [item.version for item in graph.opset_import if not item.domain] == [17]
    assert found.layers == 5
    assert found.found.in_int8 >= 0.6
    assert found.found.measures.images == len(images)
    assert "masks in float32" in steps
    assert not any(step.startswith("masks with 1 layers") for step in steps)


def test_the_bundled_images_of_the_gate_are_none_of_the_calibration(tmp_path: Path) -> None:
    [drawn] = draw_gate_images(1)
    Image.fromarray(drawn.rgb).save(tmp_path / "mine.png")
    with pytest.raises(InvalidConfig, match=r"such as mine \(the bundled images\)"):
        read_both_sets(tmp_path, None)
