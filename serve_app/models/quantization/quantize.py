"""Quantize a model: calibrate it, search the layers that stay in float32, and write the graph."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import onnx
from onnx import version_converter

from serve_app.config import SegmenterConfig
from serve_app.contracts.precision import Accuracy
from serve_app.errors import InvalidConfig
from serve_app.imaging.mask import resize_for_model
from serve_app.imaging.pixels import Pixels
from serve_app.models.derive import DERIVED_FROM_EVERY, DerivedGraph, derive_graph
from serve_app.models.engines.network import Tensor
from serve_app.models.engines.onnx_runtime import OnnxRuntimeNetwork, open_as_written
from serve_app.models.facts import ModelFacts
from serve_app.models.gate import BOUNDS, MaskPair, Measures, measure_masks
from serve_app.models.gate_images import GateImage
from serve_app.models.inference import normalize_images, stretch_to_masks
from serve_app.models.quantization.layers import LayeredGraph
from serve_app.models.quantization.ranges import Range, measure_ranges
from serve_app.models.quantization.search import FloatLayers, FloatSearch
from serve_app.models.quantization.writing import write_int8
from serve_app.models.registry import Weights

OPERATOR_SET = 17
"""Operator set of quantized graphs. Before 13, ``DequantizeLinear`` has no axis, so that weights
per channel cannot be written."""
_IN_RANGE = 0.99999
"""Share of the values that a range holds (docs/decisions/0025 has what others gave)."""
MARGIN = 0.33
"""Share of each bound that the search allows on the images that the ranges were taken from. Other
images are further off, so this leaves the gate's images room."""
_QUICK_EVERY = 3
"""One image in so many measures the error of a part."""
_ONE_THREAD = SegmenterConfig(threads=1)


@dataclass(frozen=True, slots=True)
class QuantizedGraph:
    """A graph in int8 and how it was found."""

    derived: DerivedGraph
    """What is served."""
    found: FloatLayers
    """Layers in float32, and the errors that led to them."""
    layers: int
    """Number of all layers."""


def quantize_model(
    weights: Weights,
    images: Sequence[GateImage],
    accuracy: Accuracy,
    *,
    threads: int = 1,
    on_step: Callable[[str], None] = lambda _: None,
) -> QuantizedGraph:
    """Return a model's graph in int8, with the layers in float32 that an accuracy needs.

    Nothing here decides whether it may serve: that is the gate's, on other images.

    Args:
        weights: The model.
        images: Images for the calibration and the search, at least one.
        accuracy: Accuracy that the search aims at.
        threads: Number of images that are computed at the same time.
        on_step: Function that is called with a description of each step.

    Raises:
        InvalidConfig: The graph has no convolution that can be quantized, cannot be rewritten, or
            computes values that are not finite.
        Exception: The file is not an ONNX model.
    """
    on_step("nearly constant channels")
    derived = derive_graph(weights, images[::DERIVED_FROM_EVERY])
    layered = LayeredGraph(_with_axes(derived.content, weights))
    if not layered.layers:
        raise InvalidConfig(f"{weights.path} has no convolution that int8 could make faster.")
    inputs = [_input_of(image, weights.facts) for image in images]
    ranges: dict[str, Range] = {}
    for number, found in enumerate(measure_ranges(layered, inputs, _IN_RANGE), 1):
        on_step(f"ranges, run {number}")
        ranges = found or ranges
    with ThreadPoolExecutor(threads) as pool:
        trial = _Trial(layered, ranges, inputs, weights.facts, pool, on_step)
        search = FloatSearch(
            layered.layers,
            trial.measure,
            lambda measures: suffices(measures, accuracy),
            quick_judge=trial.measure_quickly,
        )
        result = search.run()
    graph = write_int8(layered, ranges, result.in_float)
    onnx.checker.check_model(graph)
    return QuantizedGraph(
        DerivedGraph(graph.SerializeToString(), derived.taken), result, len(layered.layers)
    )


def suffices(measures: Measures, accuracy: Accuracy) -> bool:
    """Return whether masks of the calibration images keep to ``MARGIN`` of each bound."""
    bounds = BOUNDS[accuracy]
    share = measures.within_2 if bounds.levels == 2 else measures.within_8
    return (
        measures.difference <= MARGIN * bounds.difference
        and 1 - measures.iou <= MARGIN * (1 - bounds.iou)
        and 1 - share <= MARGIN * (1 - bounds.share)
    )


class _Trial:
    """Measures the masks of a graph with some layers in float32."""

    def __init__(
        self,
        layered: LayeredGraph,
        ranges: dict[str, Range],
        inputs: Sequence[Tensor],
        facts: ModelFacts,
        pool: ThreadPoolExecutor,
        on_step: Callable[[str], None],
    ) -> None:
        self._layered, self._ranges, self._facts = layered, ranges, facts
        self._inputs, self._pool, self._on_step = inputs, pool, on_step
        on_step("masks in float32")
        self._expected = self._masks(layered.model, inputs)

    def measure(self, in_float: Collection[str]) -> Measures:
        """Return the measures over all images."""
        kept = len(in_float)
        self._on_step(f"masks with {kept} layer{'s' * (kept != 1)} in float32")
        return self._measure(in_float, 1)

    def measure_quickly(self, in_float: Collection[str]) -> Measures:
        """Return the measures over some of the images."""
        alone = len(self._layered.layers) - len(in_float)
        self._on_step(f"masks with {alone} layer{'s' * (alone > 1)} in int8")
        return self._measure(in_float, _QUICK_EVERY)

    def _measure(self, in_float: Collection[str], every: int) -> Measures:
        graph = write_int8(self._layered, self._ranges, in_float)
        masks = self._masks(graph, self._inputs[::every])
        return measure_masks(
            MaskPair(str(number), expected, found)
            for number, (expected, found) in enumerate(
                zip(self._expected[::every], masks, strict=True)
            )
        )

    def _masks(self, graph: onnx.ModelProto, inputs: Sequence[Tensor]) -> list[Pixels]:
        network = open_as_written(graph.SerializeToString(), _ONE_THREAD)
        return list(self._pool.map(lambda tensor: self._mask(network, tensor), inputs))

    def _mask(self, network: OnnxRuntimeNetwork, tensor: Tensor) -> Pixels:
        mask: Pixels = stretch_to_masks(network.run(tensor), self._facts)[0]
        return mask


def _with_axes(content: bytes, weights: Weights) -> onnx.ModelProto:
    """Return a graph of an operator set in which weights per channel can be written."""
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


def _input_of(image: GateImage, facts: ModelFacts) -> Tensor:
    return normalize_images(resize_for_model(image.rgb, facts.size_px)[None], facts)
