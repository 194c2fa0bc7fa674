"""What a calibration measures, and what it must not share with the gate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from ingest.cli.quantize import read_both_sets
from serve_app.errors import InvalidConfig
from serve_app.models.gate_images import GateImage, draw_gate_images
from serve_app.models.quantization.layers import LayeredGraph
from serve_app.models.quantization.ranges import measure_ranges


def one_layer(first: str, constant: float) -> LayeredGraph:
    """Return a convolution behind another operator with a constant."""
    shape = [1, 1, 4, 4]
    graph = helper.make_graph(
        [
            helper.make_node(first, ["image", "constant"], ["changed"]),
            helper.make_node("Conv", ["changed", "kernel"], ["answer"]),
        ],
        "graph",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("answer", TensorProto.FLOAT, shape)],
        [
            numpy_helper.from_array(np.array(constant, np.float32), "constant"),
            numpy_helper.from_array(np.ones((1, 1, 1, 1), np.float32), "kernel"),
        ],
    )
    opset = helper.make_opsetid("", 17)
    return LayeredGraph(helper.make_model(graph, opset_imports=[opset], ir_version=8))


def test_an_image_that_is_changed_before_the_first_layer_needs_no_range() -> None:
    image = np.full((1, 1, 4, 4), 3, np.float32)
    *_, ranges = measure_ranges(one_layer("Mul", 2.0), [image], [1.0])
    assert ranges == {1.0: {"answer": (0, 6), "changed": (0, 6)}}


def test_values_that_are_not_finite_are_named() -> None:
    image = np.full((1, 1, 4, 4), 3, np.float32)
    with pytest.raises(InvalidConfig, match="'answer' of the graph"):
        list(measure_ranges(one_layer("Div", 0.0), [image], [1.0]))


def saved(folder: Path, images: list[GateImage]) -> Path:
    folder.mkdir()
    for image in images:
        Image.fromarray(image.rgb).save(folder / f"{image.name}.png")
    return folder


def test_the_gate_never_judges_on_images_of_the_calibration(tmp_path: Path) -> None:
    first, second, third = draw_gate_images(3)
    fitted = saved(tmp_path / "fitted", [first, second])
    chosen, judged = read_both_sets(fitted, saved(tmp_path / "others", [third]), 32)
    assert ([each.name for each in judged], len(chosen)) == ([third.name], 2)
    renamed = GateImage("renamed", second.rgb)
    with pytest.raises(InvalidConfig, match=rf"such as {second.name} \(.*some\)"):
        read_both_sets(fitted, saved(tmp_path / "some", [third, renamed]), 32)
