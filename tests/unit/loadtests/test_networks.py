"""Networks of the benchmarks: the form of the true exporter, and what a rewriting makes of it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx

from loadtests.harness.networks import ARCHITECTURES, Architecture, Network
from serve_app.models.graph_rewrites import optimize_for_cpu

# Of rembg's release of u2netp (its digest is in MODEL_FACTS).
TRUE_U2NETP = {
    "Constant": 266,
    "Concat": 127,
    "Conv": 119,
    "Shape": 114,
    "Relu": 112,
    "Gather": 76,
    "Unsqueeze": 76,
    "Slice": 38,
    "Cast": 38,
    "Resize": 38,
    "MaxPool": 33,
    "Add": 11,
    "Sigmoid": 7,
}
REWRITTEN_U2NETP = {
    "Conv": 157,
    "Relu": 112,
    "Add": 56,
    "Resize": 38,
    "MaxPool": 33,
    "Concat": 11,
    "ConvTranspose": 6,
    "Mul": 6,
    "Sigmoid": 1,
}
TRUE_SHAPES = [[1, 1, 320, 320]] * 2 + [[0, 0, 0, 0]] * 5


def operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def test_a_network_has_the_operators_of_the_true_file() -> None:
    model = Network(ARCHITECTURES["u2netp"], 320).model()
    onnx.checker.check_model(model)
    assert operators(model) == TRUE_U2NETP
    assert (model.ir_version, model.opset_import[0].version) == (6, 11)
    assert [item.name for item in model.graph.input] == ["input.1"]
    shapes = [
        [dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in model.graph.output
    ]
    assert shapes == TRUE_SHAPES
    resize = next(node for node in model.graph.node if node.op_type == "Resize")
    assert len(resize.input) == 4, "it has to enlarge by sizes"
    mode = next(a for a in resize.attribute if a.name == "coordinate_transformation_mode")
    assert mode.s == b"pytorch_half_pixel"


def rewritten(network: Network, folder: Path) -> Counter[str]:
    path = folder / "network.onnx"
    onnx.save(network.model(), path)
    return operators(onnx.load_from_string(optimize_for_cpu(path, batches=False)))


def test_the_rewriting_makes_of_a_network_what_it_makes_of_the_true_file(tmp_path: Path) -> None:
    # tests/integration/test_true_weights.py compares the network with the true file itself.
    assert rewritten(Network(ARCHITECTURES["u2netp"], 320), tmp_path) == REWRITTEN_U2NETP


def test_the_rewriting_finds_the_shapes_of_is_net(tmp_path: Path) -> None:
    small = ARCHITECTURES["u2netp"]
    network = Network(Architecture(small.encoder, small.decoder, stem=16, fused=False), 64)
    found = rewritten(network, tmp_path)
    assert found["Concat"] == REWRITTEN_U2NETP["Concat"]
    assert "Shape" not in found
