"""Take the constant part out of channels that hardly vary, so that low precision loses less.

A channel of 226 to 228 for every image spoils the sums of the convolution that reads it: bfloat16
has steps of 1 there, which are larger than what the other channels say. The constant is the same
for every image, so it can move, and nothing else changes:

- The convolution that makes the channel gets the constant subtracted from its bias.
- Enlargement, maximum pooling, concatenation and addition pass it on.
- The convolution that reads it gets it back through its own bias. Its zero padding stands for
  places without the constant, so a map of the border is added to its output.

In float32 the graph answers as before, up to rounding. Whoever makes such a graph compares both.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

from serve_app.models.known_shapes import known_shapes
from serve_app.models.node_attributes import read_attributes

Vector = npt.NDArray[np.float64]
"""Constant of each channel of a feature map, [C], with 0 if it stays as it is."""

_STEADY = 0.9
"""Share of a channel's largest value below which it never falls, if it is nearly constant."""
_OUTSTANDS = 3.0
"""How many times the largest value of the channels that vary it is, if it spoils them."""
_TAKEN = 0.97
"""Share of its smallest value that is taken out. An image may lie a little below all probes."""
_DIGITS = 3
"""Significant digits of what is taken out, so that every processor derives the same graph."""


@dataclass(frozen=True, slots=True)
class SteadyChannel:
    """A channel that is nearly the same for every image."""

    feature_map: str
    """Name of the value that holds it."""
    channel: int
    """Index of the channel."""
    low: float
    """Smallest value for any probe."""
    high: float
    """Largest value for any probe."""


def find_steady_channels(
    model: onnx.ModelProto, probes: Iterable[npt.NDArray[np.float32]]
) -> list[SteadyChannel]:
    """Return the nearly constant channels that outstand all those of their feature map that vary.

    Only the rectified output of a convolution is looked at, which is never negative.

    Args:
        model: Graph with a fixed batch of one.
        probes: Inputs that differ as much as images can, float32 [1, 3, S, S] each.

    Raises:
        Exception: ONNX Runtime cannot run the graph. It has many classes without a common base.
    """
    graph = _Graph(model)
    names = [each for each in graph.rectified() if graph.channels(each)]
    if not names:
        return []
    low, high = _ranges(model, names, probes)
    found = []
    for name, least, most in zip(names, low, high, strict=True):
        steady = least >= _STEADY * most
        # Two steady channels of one map must not hide each other.
        varying = most[~steady].max(initial=0)
        for channel in np.flatnonzero(steady & (least > 0) & (least >= _OUTSTANDS * varying)):
            span = float(least[channel]), float(most[channel])
            found.append(SteadyChannel(name, int(channel), *span))
    return found


def take_out(model: onnx.ModelProto, channels: Sequence[SteadyChannel]) -> list[SteadyChannel]:
    """Take the constants of channels out of a graph, and return the channels that could be.

    A channel stays if something reads it that is neither a convolution nor passes a constant on.

    Args:
        model: Graph with a fixed batch of one. It is changed.
        channels: What ``find_steady_channels`` has found in it.
    """
    taken = []
    for each in channels:
        graph = _Graph(model)
        vector = np.zeros(graph.channels(each.feature_map))
        vector[each.channel] = float(f"{_TAKEN * each.low:.{_DIGITS}g}")
        readers = graph.readers(each.feature_map, vector)
        if readers is not None:
            graph.add_to_bias(graph.maker(graph.maker(each.feature_map).input[0]), -vector)
            for output, moved in readers.items():
                graph.compensate(graph.maker(output), moved)
            taken.append(each)
    return taken


def _ranges(
    model: onnx.ModelProto, names: Sequence[str], probes: Iterable[npt.NDArray[np.float32]]
) -> tuple[list[Vector], list[Vector]]:
    """Return the smallest and the largest value of each channel of feature maps, for any probe."""
    probed = onnx.ModelProto()
    probed.CopyFrom(model)
    wanted = []
    for name in names:
        # Whole feature maps of a large model would take gigabytes. This operator has been the same
        # in every operator set, other than the reductions.
        negative, low, high = (f"{name}/{what}" for what in ("negative", "lowest", "highest"))
        probed.graph.node.extend(
            [
                helper.make_node("Neg", [name], [negative]),
                helper.make_node("GlobalMaxPool", [negative], [low]),
                helper.make_node("GlobalMaxPool", [name], [high]),
            ]
        )
        wanted += [low, high]
    probed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(
        probed.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    source = session.get_inputs()[0].name
    answers = [session.run(wanted, {source: probe}) for probe in probes]
    extremes = [np.max(each, axis=0).ravel() for each in zip(*answers, strict=True)]
    return [-each for each in extremes[::2]], extremes[1::2]


class _Graph:
    """A graph, and what is read and written by whom."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._graph: Any = model.graph
        self._weights = {item.name: item for item in self._graph.initializer}
        self._makers = {name: node for node in self._graph.node for name in node.output}
        self._readers: dict[str, list[tuple[Any, int]]] = defaultdict(list)
        for node in self._graph.node:
            for position, name in enumerate(node.input):
                self._readers[name].append((node, position))
        self._outputs = {value.name for value in self._graph.output}
        self._shapes = known_shapes(model)

    def maker(self, name: str) -> Any:
        """Return the node that makes a value."""
        return self._makers[name]

    def channels(self, name: str) -> int:
        """Return the number of channels of a feature map, or 0 if its shape is unknown."""
        shape = self._shapes.get(name, [])
        return shape[1] if len(shape) == 4 and 0 not in shape else 0

    def rectified(self) -> list[str]:
        """Return the values that are a rectified convolution, which nothing else reads."""
        found = []
        for node in self._graph.node:
            before = self._makers.get(node.input[0]) if node.op_type == "Relu" else None
            if (
                before is not None
                and before.op_type == "Conv"
                and len(self._readers[node.input[0]]) == 1
                and node.input[0] not in self._outputs
                and self._has_known_weights(before)
            ):
                found.append(node.output[0])
        return found

    def readers(self, name: str, vector: Vector) -> dict[str, Vector] | None:
        """Return what each convolution that reads a feature map gets of its constants.

        Args:
            name: The feature map.
            vector: Constants of its channels.

        Returns:
            Constants of the input's channels by the convolution's output. None if something else
            reads them.
        """
        found: dict[str, Vector] = {}
        pending = [(name, vector)]
        while pending:
            name, vector = pending.pop()
            if name in self._outputs:
                return None
            for node, position in self._readers[name]:
                if node.op_type == "Conv":
                    if position or not self._can_compensate(node):
                        return None
                    output = node.output[0]
                    found[output] = found.get(output, np.zeros(len(vector))) + vector
                    continue
                passed = self._pass_on(node, position, vector)
                if passed is None:
                    return None
                pending.append((node.output[0], passed))
        return found

    def _pass_on(self, node: Any, position: int, vector: Vector) -> Vector | None:
        """Return the constants of a node's output, or None if it does not pass them on."""
        found = read_attributes(node)
        if node.op_type == "Resize":
            outside = found.get("coordinate_transformation_mode") == b"tf_crop_and_resize"
            same = not position and not outside and self.channels(node.output[0]) == len(vector)
            return vector if same else None
        if node.op_type == "MaxPool":
            return vector if len(node.output) == 1 else None
        if node.op_type == "Add":
            shapes = {tuple(self._shapes.get(name, ())) for name in node.input}
            return vector if len(shapes) == 1 and shapes != {()} else None
        counts = [self.channels(name) for name in node.input]
        if node.op_type != "Concat" or found["axis"] not in (1, -3) or 0 in counts:
            return None
        whole = np.zeros(sum(counts))
        whole[sum(counts[:position]) :][: len(vector)] = vector
        return whole

    def _has_known_weights(self, node: Any) -> bool:
        return all(name in self._weights for name in node.input[1:] if name)

    def _can_compensate(self, node: Any) -> bool:
        found = read_attributes(node)
        plain = found.get("group", 1) == 1 and found.get("auto_pad", b"NOTSET") == b"NOTSET"
        known = self.channels(node.input[0]) and self.channels(node.output[0])
        return bool(plain and known and self._has_known_weights(node))

    def add_to_bias(self, node: Any, change: Vector) -> None:
        """Add to the bias of a convolution, which need not have one."""
        bias = node.input[2] if len(node.input) > 2 else ""
        before = numpy_helper.to_array(self._weights[bias]) if bias else np.zeros(len(change))
        name = f"{node.output[0]}/bias{len(self._weights)}"
        # Under a name of its own, since other convolutions may have the same one.
        changed = numpy_helper.from_array((before + change).astype(np.float32), name)
        self._graph.initializer.append(changed)
        self._weights[name] = changed
        del node.input[2:]
        node.input.append(name)

    def compensate(self, node: Any, vector: Vector) -> None:
        """Give a convolution back the constants that are taken out of its input."""
        kernel = numpy_helper.to_array(self._weights[node.input[1]]).astype(np.float64)
        of_places = np.einsum("oihw,i->ohw", kernel, vector)
        border = self._border(node, of_places)
        self.add_to_bias(node, of_places.sum((1, 2)))
        if not border.any():
            return
        output = node.output[0]
        inner, name = f"{output}/inner{len(self._weights)}", f"{output}/border{len(self._weights)}"
        self._graph.initializer.append(numpy_helper.from_array(border.astype(np.float32), name))
        node.output[0] = inner
        addition = helper.make_node("Add", [inner, name], [output])
        self._graph.node.insert(list(self._graph.node).index(node) + 1, addition)

    def _border(self, node: Any, of_places: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return what the padding takes of the constants, [1, O, H, W], which is 0 inside."""
        found = read_attributes(node)
        sides = self._shapes[node.input[0]][2:]
        results = self._shapes[node.output[0]][2:]
        inside = []
        for axis in (0, 1):
            step = found.get("strides", [1, 1])[axis]
            spread = found.get("dilations", [1, 1])[axis]
            start = np.arange(results[axis]) * step - found.get("pads", [0] * 4)[axis]
            place = start + np.arange(of_places.shape[1 + axis])[:, None] * spread
            inside.append(((place >= 0) & (place < sides[axis])).astype(np.float64))
        reached = np.einsum("ohw,hy,wx->oyx", of_places, *inside)
        return np.asarray(reached - of_places.sum((1, 2))[:, None, None])[None]
