"""A model in int8, from its file to the graph that goes to the gate."""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from PIL import Image

from ingest.cli.quantize import read_both_sets
from serve_app.config import SegmenterConfig
from serve_app.errors import InvalidConfig
from serve_app.models.derive import compare_with_rembg
from serve_app.models.engines.network import INT8
from serve_app.models.engines.onnx_runtime import open_as_written
from serve_app.models.engines.processor import this_machine, why_not_runnable
from serve_app.models.facts import CUSTOM_MODEL_FACTS
from serve_app.models.gate_images import draw_gate_images, shrink_images
from serve_app.models.quantization.quantize import quantize_model
from serve_app.models.registry import Weights
from tests.support.quantized import SIDE_PX, small_network

FOREEDGE = Path(sys.executable).parent / "foreedge"


def test_a_graph_without_an_axis_for_scales_gets_a_later_operator_set(tmp_path: Path) -> None:
    # Below operator set 13, scales for each channel would be invalid, and nothing would say so.
    path = small_network(tmp_path / "old.onnx", opset=11)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    first, second, *choosing = shrink_images(draw_gate_images(4), SIDE_PX)
    steps: list[str] = []
    weights = Weights("own", path, digest, CUSTOM_MODEL_FACTS)
    found = quantize_model(weights, [first, second], choosing, "fast", on_step=steps.append)
    graph = onnx.load_from_string(found.derived.content)
    assert [item.version for item in graph.opset_import if not item.domain] == [17]
    assert found.layers == 5
    assert found.found.in_int8 >= 0.6
    # The measures are those of the images that chose.
    network = open_as_written(found.derived.content, SegmenterConfig(threads=1))
    assert compare_with_rembg(weights, [network], choosing) == [found.found.measures]
    assert found.found.measures.suffices_for("fast")
    assert "masks in float32" in steps
    assert "trial 1, 0 of 5 layers in float32" in steps


def test_the_bundled_images_of_the_gate_are_none_of_the_calibration(tmp_path: Path) -> None:
    [drawn] = draw_gate_images(1)
    Image.fromarray(drawn.rgb).save(tmp_path / "mine.png")
    with pytest.raises(InvalidConfig, match=r"such as mine \(the bundled images\)"):
        read_both_sets(tmp_path, None, SIDE_PX)


def test_the_command_writes_what_it_reports(tmp_path: Path) -> None:
    model = small_network(tmp_path / "own.onnx")
    calibration = tmp_path / "calibration"
    calibration.mkdir()
    # Drawn after the images of the gate, which are others.
    for image in list(draw_gate_images(44))[-2:]:
        Image.fromarray(image.rgb).save(calibration / f"{image.name}.png")
    settings = {
        "FOREEDGE_MODEL_FILES": json.dumps({"own": str(model)}),
        "U2NET_HOME": str(tmp_path / "home"),
    }
    done = subprocess.run(
        [FOREEDGE, "models", "quantize", "own", "--calibration", str(calibration), "--json"],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    files = sorted(path.name for path in tmp_path.glob("home/derived/*"))
    if why_not_runnable(INT8, this_machine()) is not None:
        assert done.returncode == 2
        assert "int8 cannot be measured here" in done.stderr
        assert files == []
        return
    assert done.stdout, done.stderr
    report = json.loads(done.stdout)
    faster = statistics.median(report["times_as_fast"]) > 1
    assert report["faster"] == faster
    assert (report["path"] is not None) == faster
    written = ["own.onnxruntime-int8.json", "own.onnxruntime-int8.onnx"]
    assert files == (written if faster else [])
    assert (done.returncode == 0) == (faster and report["reached"] is not None)
    # As many images chose the layers, and they are others.
    assert report["measures"]["images"] == report["chosen_by"]["images"] == 24
    assert report["measures"]["worst"] != report["chosen_by"]["worst"]
    assert report["image_set"] == "the bundled images that did not choose its layers"
    integer = sum(count for name, count in report["kernels"].items() if "QLinearConv" in name)
    assert integer == report["layers"] - len(report["in_float"])
