"""Nearly constant channels are found and taken out, and float32 answers as before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from serve_app.models.near_constant import SteadyChannel, find_steady_channels, take_out

SIDE, CHANNELS, STEADY = 24, 6, 4
LEVEL = 200.0


@dataclass
class Graph:
    """A graph whose feature map ``steady`` has one nearly constant channel of about ``LEVEL``."""

    nodes: list[Any] = field(default_factory=list)
    weights: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(3))

    def __post_init__(self) -> None:
        kernel = self.rng.normal(0, 0.3, (CHANNELS, 3, 3, 3)).astype(np.float32)
        kernel[STEADY] *= 0.01
        bias = np.zeros(CHANNELS, np.float32)
        bias[STEADY] = LEVEL
        self.conv("image", "before", kernel, bias, pads=[1] * 4)
        self.add("Relu", ["before"], "steady")

    def add(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> None:
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))

    def conv(
        self,
        source: str,
        output: str,
        kernel: npt.NDArray[np.float32],
        bias: npt.NDArray[np.float32] | None = None,
        **attributes: Any,
    ) -> None:
        self.weights[f"{output}/kernel"] = kernel
        names = [source, f"{output}/kernel"]
        if bias is not None:
            self.weights[f"{output}/bias"] = bias
            names.append(f"{output}/bias")
        self.add("Conv", names, output, **attributes)

    def read(self, source: str, channels: int, output: str = "answer", **attributes: Any) -> None:
        """Add a convolution into one channel, without a bias."""
        kernel = self.rng.normal(0, 0.2, (1, channels, 3, 3)).astype(np.float32)
        self.conv(source, output, kernel, **{"pads": [1] * 4, **attributes})

    def constant(self, name: str, values: list[Any]) -> str:
        self.weights[name] = np.array(values, np.float32)
        return name

    def model(self, *outputs: str) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "steady",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
            [helper.make_empty_tensor_value_info(name) for name in outputs or ("answer",)],
            [numpy_helper.from_array(value, name) for name, value in self.weights.items()],
        )
        for value in graph.output:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
        opsets = [helper.make_opsetid("", 17)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        inferred: onnx.ModelProto = onnx.shape_inference.infer_shapes(model, strict_mode=True)
        return inferred


def images(count: int = 4, seed: int = 1) -> list[npt.NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    drawn = [rng.normal(0, 1, (1, 3, SIDE, SIDE)).astype(np.float32) for _ in range(count)]
    return [np.zeros_like(drawn[0]), *drawn]


def answers(model: onnx.ModelProto) -> list[npt.NDArray[np.float32]]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return [session.run(None, {"image": image})[0] for image in images(seed=2)]


def copy_of(model: onnx.ModelProto) -> onnx.ModelProto:
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    return copied


def straight(graph: Graph) -> None:
    graph.read("steady", CHANNELS)


def strided_and_dilated(graph: Graph) -> None:
    graph.read("steady", CHANNELS, strides=[2, 3], dilations=[2, 1], pads=[3, 0, 1, 2])


def without_padding(graph: Graph) -> None:
    graph.read("steady", CHANNELS, pads=[0] * 4)


def concatenated_last(graph: Graph) -> None:
    graph.conv("image", "other", np.full((2, 3, 1, 1), 0.3, np.float32))
    graph.add("Concat", ["other", "steady", "other"], "whole", axis=1)
    graph.read("whole", 2 + CHANNELS + 2)


def enlarged_and_pooled(graph: Graph) -> None:
    scales = graph.constant("scales", [1, 1, 2, 2])
    graph.add(
        "Resize",
        ["steady", "", scales],
        "large",
        mode="linear",
        coordinate_transformation_mode="half_pixel",
    )
    graph.add("MaxPool", ["large"], "small", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    graph.read("small", CHANNELS)


def added_and_read_twice(graph: Graph) -> None:
    graph.conv("image", "other", np.full((CHANNELS, 3, 1, 1), 0.3, np.float32))
    graph.add("Add", ["other", "steady"], "total")
    graph.read("total", CHANNELS, "first")
    graph.read("steady", CHANNELS, "second", dilations=[2, 2], pads=[2] * 4)
    graph.add("Add", ["first", "second"], "answer")


def twice_in_one_sum(graph: Graph) -> None:
    graph.add("Add", ["steady", "steady"], "double")
    graph.add("Concat", ["double", "steady"], "both", axis=1)
    graph.read("both", 2 * CHANNELS)


ROUTES = [
    straight,
    strided_and_dilated,
    without_padding,
    concatenated_last,
    enlarged_and_pooled,
    added_and_read_twice,
    twice_in_one_sum,
]


@pytest.mark.parametrize("route", ROUTES)
def test_a_constant_moves_along_every_route(route: Callable[[Graph], None]) -> None:
    graph = Graph()
    route(graph)
    model = graph.model()
    before = answers(model)
    found = find_steady_channels(model, images())
    assert [(each.feature_map, each.channel) for each in found] == [("steady", STEADY)]
    assert take_out(model, found) == found
    onnx.checker.check_model(model, full_check=True)
    for ours, theirs in zip(answers(model), before, strict=True):
        assert np.abs(ours - theirs).max() < 1e-3
    # What is left of the channel is small, so that low precision has fine steps for it.
    (left,) = find_left(model)
    assert 0 <= left < LEVEL / 10


def find_left(model: onnx.ModelProto) -> list[float]:
    """Return the largest value that is left in the channel, for any image."""
    probed = copy_of(model)
    probed.graph.output.append(onnx.ValueInfoProto(name="steady"))
    session = ort.InferenceSession(probed.SerializeToString(), providers=["CPUExecutionProvider"])
    found = [session.run(["steady"], {"image": image})[0] for image in images()]
    return [max(float(each[0, STEADY].max()) for each in found)]


def through_a_sigmoid(graph: Graph) -> None:
    graph.add("Sigmoid", ["steady"], "soft")
    graph.read("soft", CHANNELS)


def into_groups(graph: Graph) -> None:
    kernel = np.ones((CHANNELS, 1, 3, 3), np.float32)
    graph.conv("steady", "answer", kernel, pads=[1] * 4, group=CHANNELS)


def through_a_broadcast_sum(graph: Graph) -> None:
    graph.add("Add", ["steady", graph.constant("one", [1.0])], "more")
    graph.read("more", CHANNELS)


def with_one_reader_that_cannot(graph: Graph) -> None:
    graph.read("steady", CHANNELS, "first")
    graph.add("ReduceMean", ["steady"], "second", axes=[1], keepdims=1)
    graph.add("Add", ["first", "second"], "answer")


@pytest.mark.parametrize(
    "route", [through_a_sigmoid, into_groups, through_a_broadcast_sum, with_one_reader_that_cannot]
)
def test_a_channel_that_something_else_reads_stays(route: Callable[[Graph], None]) -> None:
    graph = Graph()
    route(graph)
    model = graph.model()
    before = copy_of(model)
    found = find_steady_channels(model, images())
    assert len(found) == 1
    assert take_out(model, found) == []
    assert model == before


def test_a_channel_that_is_an_output_stays() -> None:
    graph = Graph()
    straight(graph)
    model = graph.model("answer", "steady")
    assert take_out(model, [SteadyChannel("steady", STEADY, LEVEL, LEVEL)]) == []


def test_a_bias_that_others_share_stays_theirs() -> None:
    graph = Graph()
    kernel = np.full((CHANNELS, 3, 3, 3), 0.1, np.float32)
    graph.weights["twin/kernel"] = kernel
    graph.add("Conv", ["image", "twin/kernel", "before/bias"], "twin", pads=[1] * 4)
    graph.add("Concat", ["steady", "twin"], "both", axis=1)
    graph.read("both", 2 * CHANNELS)
    model = graph.model()
    before = answers(model)
    assert take_out(model, find_steady_channels(model, images()))
    for ours, theirs in zip(answers(model), before, strict=True):
        assert np.abs(ours - theirs).max() < 1e-3


def test_two_channels_do_not_hide_each_other() -> None:
    graph = Graph()
    graph.weights["before/bias"][1] = LEVEL + 30
    graph.weights["before/kernel"][1] *= 0.01
    straight(graph)
    model = graph.model()
    before = answers(model)
    found = find_steady_channels(model, images())
    assert [each.channel for each in found] == [1, STEADY]
    assert take_out(model, found) == found
    for ours, theirs in zip(answers(model), before, strict=True):
        assert np.abs(ours - theirs).max() < 1e-3


def test_a_channel_that_varies_or_does_not_outstand_is_not_found() -> None:
    graph = Graph()
    straight(graph)
    model = graph.model()
    bright = [np.full((1, 3, SIDE, SIDE), 1e4, np.float32)]
    assert find_steady_channels(model, images() + bright) == []


@pytest.mark.parametrize(
    ("channel", "scale"),
    [
        # It falls to half of its largest value.
        (STEADY, 1_000),
        # Another channel reaches more than a third of it.
        (1, 100),
    ],
)
def test_a_channel_stays_that_is_not_steady_enough_or_hardly_larger_than_others(
    channel: int, scale: float
) -> None:
    graph = Graph()
    graph.weights["before/kernel"][channel] *= scale
    straight(graph)
    assert find_steady_channels(graph.model(), images()) == []


def test_images_between_the_probes_answer_alike() -> None:
    """The channel may fall below all probes a little: it is cut off at what was taken out."""
    graph = Graph()
    straight(graph)
    model = graph.model()
    found = find_steady_channels(model, [np.zeros((1, 3, SIDE, SIDE), np.float32)])
    before = answers(model)
    take_out(model, found)
    for ours, theirs in zip(answers(model), before, strict=True):
        assert np.abs(ours - theirs).max() < 1e-3
