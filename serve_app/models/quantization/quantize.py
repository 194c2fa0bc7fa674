"""Quantize a model: calibrate it, search the layers that stay in float32, and write the graph."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import onnx
from onnx import version_converter

from serve_app.config import SegmenterConfig
from serve_app.contracts.precision import Accuracy
from serve_app.errors import InvalidConfig
from serve_app.imaging.pixels import Pixels
from serve_app.models.derive import (
    DERIVED_FROM_EVERY,
    DerivedGraph,
    ReferenceMask,
    derive_graph,
    reference_masks,
)
from serve_app.models.engines.network import Tensor
from serve_app.models.engines.onnx_runtime import open_as_written
from serve_app.models.facts import ModelFacts
from serve_app.models.gate import Measures, measure_masks
from serve_app.models.gate_images import SmallImage
from serve_app.models.inference import normalize_images
from serve_app.models.near_constant import SteadyChannel
from serve_app.models.quantization.layers import LayeredGraph
from serve_app.models.quantization.ranges import Range, measure_ranges
from serve_app.models.quantization.search import FloatLayers, FloatSearch
from serve_app.models.quantization.writing import write_int8
from serve_app.models.registry import Weights

OPERATOR_SET = 17
"""Operator set of quantized graphs. Before 13, ``DequantizeLinear`` has no axis, so that weights
per channel cannot be written."""
_SHARES = (1.0, 0.99999)
"""Shares of the values that a range may hold. Which is better depends on the layers that stay in
float32, so both are tried (docs/decisions/0025 has what others gave)."""
_PART_IMAGES = 4
"""Most images that the error of a part is measured on: it only orders the layers."""
_ONE_THREAD = SegmenterConfig(threads=1)

_Item = TypeVar("_Item")

OnStep = Callable[[str], None]
"""Function that is called with a description of each step before it begins."""


@dataclass(frozen=True, slots=True)
class QuantizedGraph:
    """A graph in int8 and how it was found."""

    derived: DerivedGraph
    """What is served."""
    found: FloatLayers
    """Layers in float32, the errors that led to them, and what was measured on ``choosing``."""
    layers: int
    """Number of all layers."""


@dataclass(frozen=True, slots=True)
class CalibratedGraph:
    """A model's graph and what its layers need to run in int8."""

    layered: LayeredGraph
    """The graph in float32."""
    taken: tuple[SteadyChannel, ...]
    """Nearly constant channels that were taken out of it."""
    ranges: Mapping[float, Mapping[str, Range]]
    """Range of every value that may become integers, by the share of the values that it holds."""

    def graph(self, in_float: Collection[str] = (), share: float = _SHARES[0]) -> DerivedGraph:
        """Return the graph in int8, with some layers in float32, by their names."""
        graph = write_int8(self.layered, self.ranges[share], in_float)
        return DerivedGraph(graph.SerializeToString(), self.taken)


def quantize_model(
    weights: Weights,
    images: Sequence[SmallImage],
    choosing: Sequence[SmallImage],
    accuracy: Accuracy,
    *,
    threads: int = 1,
    on_step: OnStep = lambda _: None,
) -> QuantizedGraph:
    """Return a model's graph in int8, with the fewest layers in float32 that reach an accuracy.

    The images of the calibration choose everything but two numbers: ``choosing`` says how many of
    the ranked layers stay in float32, and which share of the values the ranges hold. So the gate
    must judge the graph on other images. If none of the choices suffices, the most accurate one is
    returned.

    Args:
        weights: The model.
        images: Images for the calibration, at least one.
        choosing: Images like those of the gate, and none of them, at least one.
        accuracy: Accuracy that is to be reached.
        threads: Number of images that are computed at the same time.
        on_step: Function that is called with a description of each step.

    Raises:
        InvalidConfig: The graph has no convolution that can be quantized, cannot be rewritten, or
            computes values that are not finite.
        Exception: The file is not an ONNX model.
    """
    calibration = calibrate_graph(weights, [image.square for image in images], on_step)
    on_step("masks in float32")
    few = list(reference_masks(weights, _spread(images, _PART_IMAGES)))
    expected = list(reference_masks(weights, choosing))
    choices: dict[float, FloatLayers] = {}
    with ThreadPoolExecutor(threads) as pool:
        trial = _Trial(calibration, weights.facts, pool, on_step)
        for share in _SHARES:
            search = FloatSearch(
                calibration.layered.layers,
                partial(trial.measure, expected, share),
                lambda measures: measures.suffices_for(accuracy),
                judge_part=partial(trial.measure, few, share),
            )
            # Other ranges hardly change which layers matter.
            measured = next((each.parts for each in choices.values()), ())
            found = choices[share] = search.run(measured)
            if not found.in_float and found.measures.suffices_for(accuracy):
                # No other range can keep fewer layers in float32.
                break
    best = max(choices, key=lambda share: choices[share].rank(accuracy))
    derived = calibration.graph(choices[best].in_float, best)
    onnx.checker.check_model(derived.content)
    return QuantizedGraph(derived, choices[best], len(calibration.layered.layers))


def calibrate_graph(
    weights: Weights, squares: Sequence[Pixels], on_step: OnStep = lambda _: None
) -> CalibratedGraph:
    """Return what a model's layers need to run in int8.

    Args:
        weights: The model.
        squares: Images for the calibration as the model takes them, uint8 [S, S, 3] each.
        on_step: Function that is called with a description of each step.

    Raises:
        InvalidConfig: See ``quantize_model``.
        Exception: The file is not an ONNX model.
    """
    on_step("nearly constant channels")
    derived = derive_graph(weights, squares[::DERIVED_FROM_EVERY])
    layered = LayeredGraph(convert_operator_set(derived.content, weights))
    if not layered.layers:
        raise InvalidConfig(f"{weights.path} has no convolution that int8 could make faster.")
    inputs = _Inputs(squares, weights.facts)
    ranges: Mapping[float, Mapping[str, Range]] = {}
    for number, measured in enumerate(measure_ranges(layered, inputs, _SHARES), 1):
        on_step(f"ranges, run {number}")
        ranges = measured or ranges
    return CalibratedGraph(layered, derived.taken, ranges)


@dataclass(frozen=True, slots=True)
class _Inputs:
    """The inputs of squares, which are four times as large and so made one at a time."""

    squares: Sequence[Pixels]
    facts: ModelFacts

    def __iter__(self) -> Iterator[Tensor]:
        return (normalize_images(each[None], self.facts) for each in self.squares)


class _Trial:
    """Measures the masks of a graph with some layers in float32."""

    def __init__(
        self,
        calibration: CalibratedGraph,
        facts: ModelFacts,
        pool: ThreadPoolExecutor,
        on_step: OnStep,
    ) -> None:
        self._calibration, self._facts, self._pool = calibration, facts, pool
        self._on_step, self._count = on_step, 0

    def measure(
        self, expected: Sequence[ReferenceMask], share: float, in_float: Collection[str]
    ) -> Measures:
        """Return how far the masks are from what is expected."""
        self._count += 1
        layers = len(self._calibration.layered.layers)
        self._on_step(f"trial {self._count}, {len(in_float)} of {layers} layers in float32")
        network = open_as_written(self._calibration.graph(in_float, share).content, _ONE_THREAD)
        return measure_masks(
            self._pool.map(lambda each: each.compared(network, self._facts), expected)
        )


def _spread(items: Sequence[_Item], most: int) -> list[_Item]:
    """Return so many items at equal distances, or all if there are no more."""
    every = -(-len(items) // most)
    return list(items[::every])


def convert_operator_set(content: bytes, weights: Weights) -> onnx.ModelProto:
    """Return a graph of an operator set in which weights per channel can be written.

    Args:
        content: ONNX model.
        weights: Model that it is of.

    Raises:
        InvalidConfig: It cannot be converted.
    """
    model = onnx.load_from_string(content)
    current = next(item.version for item in model.opset_import if item.domain in {"", "ai.onnx"})
    if current >= OPERATOR_SET:
        return model
    try:
        return version_converter.convert_version(model, OPERATOR_SET)
    # onnx has no common class for what it cannot convert.
    except Exception as error:
        text = " ".join(str(error).split())
        raise InvalidConfig(
            f"{weights.path} cannot be converted from operator set {current} to {OPERATOR_SET}, "
            f"which int8 needs: {type(error).__name__}: {text}"
        ) from error
