"""Make what a pair runs, measure it against rembg's float32, and write both.

A derived file is the folded graph of a model without its nearly constant channels
(``near_constant``). That rewriting must not change the masks in float32, or it is left out. What
the pair makes of the graph in its own precision is for the gate to judge.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx

from serve_app.config import SegmenterConfig
from serve_app.errors import InvalidConfig, ModelUnavailable
from serve_app.imaging.mask import resize_mask
from serve_app.imaging.pixels import Pixels
from serve_app.models.engines.network import GATED, Network, Pair, Tensor
from serve_app.models.engines.onnx_runtime import (
    MAX_LEVELS_APART,
    most_levels_apart,
    open_as_written,
    probe_image,
)
from serve_app.models.engines.opening import open_derived
from serve_app.models.engines.processor import Machine, kernel_features, why_not_runnable
from serve_app.models.engines.records import RECIPE_VERSION, GateRecord
from serve_app.models.facts import ModelFacts
from serve_app.models.gate import MaskMeter, MaskPair, Measures
from serve_app.models.gate_images import SmallImage
from serve_app.models.graph_folding import drop_unused, read_folded
from serve_app.models.inference import OnnxModel, normalize_images, stretch_to_masks
from serve_app.models.near_constant import SteadyChannel, find_steady_channels, take_out
from serve_app.models.registry import Weights

_NOISE_SEED = 2
DERIVED_FROM_EVERY = 3
"""One image in so many shows what is constant: each takes three runs of the model."""
_AS_REMBG = SegmenterConfig(threads=1, rewrite_graph=False)


@dataclass(frozen=True, slots=True)
class DerivedGraph:
    """What a pair runs."""

    content: bytes
    """ONNX model with a fixed batch of one."""
    taken: tuple[SteadyChannel, ...]
    """Nearly constant channels that were taken out of it."""

    @property
    def sha256(self) -> str:
        """SHA-256 of the content, as hexadecimal digits."""
        return hashlib.sha256(self.content).hexdigest()


def derive_graph(weights: Weights, squares: Sequence[Pixels]) -> DerivedGraph:
    """Return the graph of a model without its nearly constant channels.

    Args:
        weights: The model.
        squares: Images as the model takes them, uint8 [S, S, 3] each. They show what is constant,
            and that its masks do not change.

    Raises:
        InvalidConfig: A node of the graph contains a graph, which cannot be rewritten.
        Exception: The file is not an ONNX model.
    """
    folded = read_folded(weights.path, batches=False)
    if folded is None:
        raise InvalidConfig(
            f"{weights.path} has nodes that contain graphs, which only ONNX Runtime serves."
        )
    before = folded.SerializeToString()
    taken = take_out(folded, find_steady_channels(folded, _inputs(weights.facts, squares)))
    if not taken:
        return DerivedGraph(before, ())
    drop_unused(folded.graph)
    onnx.checker.check_model(folded)
    after = folded.SerializeToString()
    inputs = _inputs(weights.facts, squares)
    if _most_apart(before, after, inputs, weights.facts) > MAX_LEVELS_APART:
        # An image has left the range of the probes. The gate judges the graph as it was.
        return DerivedGraph(before, ())
    return DerivedGraph(after, tuple(taken))


@dataclass(frozen=True, slots=True)
class ReferenceMask:
    """An image and the mask that rembg computes of it in float32. No pixels are at full size."""

    image: SmallImage
    """The image."""
    mask: Pixels
    """Mask by the model's file, before it is resized to the image, uint8 [S, S]."""

    def compared(self, network: Network, facts: ModelFacts) -> MaskPair:
        """Return this mask and that of a network of the same model, at the size of the image."""
        image = self.image
        expected, found = (
            resize_mask(mask, image.width, image.height)
            for mask in (self.mask, _masks(network, image.square[None], facts)[0])
        )
        return MaskPair(image.name, expected, found, image.read_truth())


def reference_masks(weights: Weights, images: Iterable[SmallImage]) -> Iterator[ReferenceMask]:
    """Yield each image with its mask by a model's file as it is, in float32."""
    reference = OnnxModel(weights, _AS_REMBG)
    for image in images:
        yield ReferenceMask(image, reference.masks(image.square[None])[0])


def compare_with_rembg(
    weights: Weights,
    networks: Sequence[Network],
    images: Iterable[SmallImage],
    *,
    threads: int = 1,
) -> list[Measures]:
    """Return how far the masks of networks are from those of their model's file in float32.

    Args:
        weights: The model.
        networks: Networks to measure.
        images: Images, at least one.
        threads: Number of networks that compute at the same time.

    Returns:
        The measures of each network.
    """
    meters = [MaskMeter() for _ in networks]
    with ThreadPoolExecutor(threads) as pool:
        for expected in reference_masks(weights, images):
            compared = partial(expected.compared, facts=weights.facts)
            for masks, meter in zip(pool.map(compared, networks), meters, strict=True):
                meter.add(masks)
    return [meter.measures() for meter in meters]


def pass_gate(
    weights: Weights,
    pair: Pair,
    graph: DerivedGraph,
    images: Iterable[SmallImage],
    *,
    image_set: str,
    machine: Machine,
) -> GateRecord:
    """Return the record of what a pair makes of a derived graph on this machine.

    Args:
        weights: The model.
        pair: One of ``GATED``. The others do not run what ``derive_graph`` returns.
        graph: What the pair runs.
        images: Images to measure on.
        image_set: Name of these images, for the record.
        machine: This machine.

    Raises:
        InvalidConfig: The machine cannot run the pair, or it is not in ``GATED``.
        ModelUnavailable: The engine cannot load the graph, or cannot be loaded itself.
    """
    if pair not in GATED:
        raise InvalidConfig(f"{pair} cannot be measured so: its graph is not a derived one.")
    reason = why_not_runnable(pair, machine)
    if reason is not None:
        raise InvalidConfig(f"{pair} cannot be measured here: {reason}.")
    try:
        network = open_derived(graph.content, pair, SegmenterConfig(threads=1))
    # No engine has a common class for what can be wrong with a graph or a C library.
    except Exception as error:
        text = " ".join(str(error).split())
        raise ModelUnavailable(
            f"{pair} cannot run {weights.name} here: {type(error).__name__}: {text}"
        ) from error
    (measures,) = compare_with_rembg(weights, [network], images)
    return record_of(weights, pair, graph, machine, image_set, measures)


def record_of(
    weights: Weights,
    pair: Pair,
    graph: DerivedGraph,
    machine: Machine,
    image_set: str,
    measures: Measures,
) -> GateRecord:
    """Return the record of what was measured on a machine. See ``pass_gate`` for the arguments."""
    return GateRecord(
        model=weights.name,
        source_sha256=weights.sha256,
        derived_sha256=graph.sha256,
        recipe_version=RECIPE_VERSION,
        engine=pair.engine,
        engine_version=machine.version_of(pair.engine) or "",
        precision=pair.precision,
        architecture=machine.architecture,
        features=kernel_features(pair, machine),
        image_set=image_set,
        measures=measures,
    )


def _inputs(facts: ModelFacts, squares: Sequence[Pixels]) -> Iterator[Tensor]:
    """Yield inputs that differ as much as images can: black, white, noise, and the images."""
    shape = (1, facts.size_px, facts.size_px, 3)
    noise = np.random.default_rng(_NOISE_SEED).integers(0, 256, shape, dtype=np.uint8)
    drawn = [np.zeros(shape, np.uint8), np.full(shape, 255, np.uint8), noise]
    drawn.append(probe_image(facts.size_px))
    for each in (*drawn, *(square[None] for square in squares)):
        yield normalize_images(each, facts)


def _most_apart(before: bytes, after: bytes, inputs: Iterable[Tensor], facts: ModelFacts) -> int:
    """Return the largest difference of two graphs' masks in float32, in grey levels."""
    networks = [open_as_written(graph, _AS_REMBG) for graph in (before, after)]
    return max(
        most_levels_apart(*(stretch_to_masks(each.run(tensor), facts) for each in networks))
        for tensor in inputs
    )


def _masks(network: Network, images: Pixels, facts: ModelFacts) -> Pixels:
    return stretch_to_masks(network.run(normalize_images(images, facts)), facts)
