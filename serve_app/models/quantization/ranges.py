"""The ranges of values of a graph over calibration images, without their rare extremes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import prod

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort

from serve_app.errors import InvalidConfig
from serve_app.models.quantization.layers import PASSING, LayeredGraph

Range = tuple[float, float]
"""Smallest and largest value. 0 lies between them."""

_BINS = 8192
_CHUNK_BYTES = 400_000_000
"""Most bytes of feature maps that one run returns: those of a large model take gigabytes."""


class ValueHistogram:
    """Counts values in equal bins around 0. It widens as values grow, and keeps none of them."""

    def __init__(self) -> None:
        self._limit = 2.0**-20
        self._counts = np.zeros(_BINS, np.int64)
        self._least, self._most = 0.0, 0.0

    def add(self, values: npt.NDArray[np.float32]) -> None:
        """Count values of any shape."""
        self._least = min(self._least, float(values.min()))
        self._most = max(self._most, float(values.max()))
        while max(-self._least, self._most) >= self._limit:
            # Two neighbours become one, and all of them the middle half.
            halved = self._counts.reshape(-1, 2).sum(1)
            self._counts = np.pad(halved, _BINS // 4)
            self._limit *= 2
        places = ((values.ravel() + self._limit) * (_BINS / 2 / self._limit)).astype(np.int32)
        self._counts += np.bincount(np.minimum(places, _BINS - 1), minlength=_BINS)

    def span(self, share: float) -> Range:
        """Return the range that holds a share of the values, cut equally at both ends."""
        cut = (1 - share) / 2 if self._least < 0 else 1 - share
        reached = np.cumsum(self._counts) / max(self._counts.sum(), 1)
        step = 2 * self._limit / _BINS
        low = step * int(np.searchsorted(reached, cut, side="right")) - self._limit
        high = step * (int(np.searchsorted(reached, 1 - cut)) + 1) - self._limit
        return max(min(low, 0.0), self._least), min(max(high, 0.0), self._most)


def measure_ranges(
    layered: LayeredGraph, inputs: Iterable[npt.NDArray[np.float32]], shares: Sequence[float]
) -> Iterator[dict[float, dict[str, Range]] | None]:
    """Yield None after each run, and at last the range of every value that may be an integer.

    Args:
        layered: The graph.
        inputs: Inputs of the calibration images, float32 [1, 3, S, S] each. They are iterated over
            several times.
        shares: Shares of the values that a range may hold, such as 0.9999. Each has its ranges.

    Raises:
        InvalidConfig: A value of the graph is not finite.
        Exception: ONNX Runtime cannot run the graph. It has many classes without a common base.
    """
    source = layered.graph.input[0].name
    histograms = {name: ValueHistogram() for name in _measured(layered)}
    for names in _chunks(layered, [name for name in histograms if name != source]):
        probed = onnx.ModelProto()
        probed.CopyFrom(layered.model)
        del probed.graph.output[:]
        probed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
        session = _session(probed)
        for tensor in inputs:
            for name, values in zip(names, session.run(names, {source: tensor}), strict=True):
                if not np.isfinite(values).all():
                    raise InvalidConfig(
                        f"{name!r} of the graph has values that are not finite on a calibration "
                        "image, so that int8 can have no range for it. Serve the model in float32."
                    )
                histograms[name].add(values)
            yield None
    if source in histograms:
        for tensor in inputs:
            histograms[source].add(tensor)
    yield {
        share: _with_passed_on(
            layered, {name: each.span(share) for name, each in histograms.items()}
        )
        for share in shares
    }


def _measured(layered: LayeredGraph) -> list[str]:
    readers = [layered.makers[each.convolution] for each in layered.layers]
    between = [node for node in layered.graph.node if layered.is_between(node)]
    mixed = [node.output[0] for node in between if node.op_type not in PASSING]
    passed_on = {node.output[0] for node in between if node.op_type in PASSING}
    # Integers are also made of what neither of these makes, such as the graph's input.
    read = {name for node in (*readers, *between) for name in layered.sources(node)} - passed_on
    return list(dict.fromkeys([*(each.name for each in layered.layers), *mixed, *sorted(read)]))


def _chunks(layered: LayeredGraph, names: Sequence[str]) -> Iterator[list[str]]:
    chunk: list[str] = []
    size = 0
    for name in names:
        needed = 4 * prod(layered.shapes[name])
        if chunk and size + needed > _CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
        chunk.append(name)
        size += needed
    if chunk:
        yield chunk


def _with_passed_on(layered: LayeredGraph, ranges: dict[str, Range]) -> dict[str, Range]:
    """Return the ranges with those of what passes values on, which are those of its input."""
    for node in layered.graph.node:
        if node.op_type in PASSING and node.input[0] in ranges and node.output[0] not in ranges:
            ranges[node.output[0]] = ranges[node.input[0]]
    return ranges


def _session(model: onnx.ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
