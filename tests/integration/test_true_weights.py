"""The graph rewriting on true weights, in the forms that exporters and converters write."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, version_converter
from onnxruntime.transformers.float16 import convert_float_to_float16

from loadtests.harness.networks import ARCHITECTURES, Network
from serve_app.config import AppConfig, SegmenterConfig
from serve_app.models.engines.compared import read_records
from serve_app.models.engines.onnx_runtime import probe_image, session_options
from serve_app.models.engines.processor import this_machine
from serve_app.models.facts import MODEL_FACTS
from serve_app.models.graph_rewrites import optimize_for_cpu
from serve_app.models.inference import load_model, normalize_images
from serve_app.models.registry import locate_weights

FLOAT32_ROUNDING = 1e-4
"""Most by which two orders of the same sums differ here, of answers between 0 and 1."""


def as_exported(model: onnx.ModelProto) -> onnx.ModelProto:
    return model


def with_weights_as_inputs(model: onnx.ModelProto) -> onnx.ModelProto:
    image = model.graph.input[0]
    del model.graph.input[:]
    model.graph.input.extend(
        helper.make_tensor_value_info(item.name, item.data_type, list(item.dims))
        for item in model.graph.initializer
    )
    model.graph.input.append(image)
    return model


def in_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    converted: onnx.ModelProto = convert_float_to_float16(model, keep_io_types=True)
    return converted


def with_open_batch(model: onnx.ModelProto) -> onnx.ModelProto:
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    del model.graph.value_info[:]
    return model


def at_opset(version: int) -> Callable[[onnx.ModelProto], onnx.ModelProto]:
    def convert(model: onnx.ModelProto) -> onnx.ModelProto:
        converted: onnx.ModelProto = version_converter.convert_version(model, version)
        return converted

    return convert


FORMS = {
    "as exported": as_exported,
    "weights as inputs": with_weights_as_inputs,
    "float16": in_float16,
    "open batch": with_open_batch,
    **{f"opset {version}": at_opset(version) for version in (13, 15, 17, 18, 19, 21, 23)},
}


def answer(graph: bytes) -> npt.NDArray[np.float32]:
    session = ort.InferenceSession(graph, session_options(SegmenterConfig()))
    image = normalize_images(probe_image(320), MODEL_FACTS["u2netp"])
    found: npt.NDArray[np.float32] = session.run(None, {session.get_inputs()[0].name: image})[0]
    return found.astype(np.float32)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_rewritten_and_answers_as_its_file(
    u2netp_weights: Path, tmp_path: Path, form: str
) -> None:
    path = tmp_path / "u2netp.onnx"
    onnx.save(FORMS[form](onnx.load(u2netp_weights)), path)
    rewritten = optimize_for_cpu(path, batches=False)
    nodes = onnx.load_from_string(rewritten).graph.node
    assert {len(node.input) for node in nodes if node.op_type == "Resize"} == {3}
    assert not {node.op_type for node in nodes} & {"Shape", "Gather", "Slice"}
    assert np.abs(answer(rewritten) - answer(path.read_bytes())).max() < FLOAT32_ROUNDING


def operators(graph: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in graph.graph.node)


def test_the_benchmarks_network_is_the_true_graph_operator_by_operator(
    u2netp_weights: Path,
) -> None:
    true, network = onnx.load(u2netp_weights), Network(ARCHITECTURES["u2netp"], 320).model()
    assert [node.op_type for node in network.graph.node] == [
        node.op_type for node in true.graph.node
    ]


def test_concatenations_are_found_behind_the_exporters_shape_chains(u2netp_weights: Path) -> None:
    before = operators(onnx.load(u2netp_weights))
    after = operators(onnx.load_from_string(optimize_for_cpu(u2netp_weights, batches=False)))
    # Every concatenation but that of the six masks is convolved part by part.
    assert after["Concat"] < before["Concat"] / 10
    assert after["Conv"] > before["Conv"] + 30


@pytest.mark.parametrize("batches", [False, True])
def test_the_model_serves_the_rewritten_graph(
    u2netp_weights: Path, caplog: pytest.LogCaptureFixture, batches: bool
) -> None:
    config = AppConfig(
        models=("u2netp",),
        u2net_home=u2netp_weights.parents[2],
        segmenter=SegmenterConfig(execution="stack" if batches else "fan_out"),
    )
    image = probe_image(320)
    rewritten = load_model("u2netp", config).masks(image).astype(int)
    assert "served as it is" not in caplog.text
    plain = config.model_copy(update={"segmenter": SegmenterConfig(rewrite_graph=False)})
    assert np.abs(rewritten - load_model("u2netp", plain).masks(image)).max() <= 1


def test_the_records_of_the_default_model_are_of_its_present_graphs(u2netp_weights: Path) -> None:
    config = AppConfig(models=("u2netp",), u2net_home=u2netp_weights.parents[2])
    source, version = locate_weights("u2netp", config).sha256, this_machine().onnxruntime
    recorded = {
        (one.source_sha256, one.batches, one.rewritten_sha256, one.onnxruntime)
        for one in read_records()
        if one.model == "u2netp"
    }
    present = {
        (source, batches, sha256(graph).hexdigest(), version)
        for batches in (False, True)
        for graph in [optimize_for_cpu(u2netp_weights, batches=batches)]
    }
    assert present <= recorded, "run 'python -m loadtests.quality.rewritten --write-records'"
