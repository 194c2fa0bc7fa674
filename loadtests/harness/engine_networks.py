"""A model with every engine and precision that a machine has, loaded for one thread."""

from __future__ import annotations

from serve_app.config import SegmenterConfig
from serve_app.models.derive import DerivedGraph
from serve_app.models.engines.network import EXACT, GATED, OPENVINO_EXACT, Network, Pair
from serve_app.models.engines.onnx_runtime import open_onnx_runtime, probe_image
from serve_app.models.engines.openvino_runtime import OpenVinoNetwork
from serve_app.models.engines.processor import Machine, why_not_runnable
from serve_app.models.graph_rewrites import optimize_for_cpu
from serve_app.models.inference import normalize_images, stretch_to_masks
from serve_app.models.registry import Weights


def open_rembg_network(weights: Weights) -> Network:
    """Return the file as it is in ONNX Runtime, which is how rembg runs it."""
    return _open_onnx_runtime(weights, rewrite_graph=False)


def open_networks(weights: Weights, machine: Machine, graph: DerivedGraph) -> dict[Pair, Network]:
    """Return what a machine can serve a model with.

    Args:
        weights: The model.
        machine: This machine.
        graph: Graph of the model that pairs which change numbers run.
    """
    found = {EXACT: _open_onnx_runtime(weights, rewrite_graph=True)}
    if why_not_runnable(OPENVINO_EXACT, machine) is None:
        exact = optimize_for_cpu(weights.path, batches=False)
        found[OPENVINO_EXACT] = OpenVinoNetwork(exact, OPENVINO_EXACT.precision, threads=1)
    for pair in GATED:
        if why_not_runnable(pair, machine) is None:
            found[pair] = OpenVinoNetwork(graph.content, pair.precision, threads=1)
    return found


def _open_onnx_runtime(weights: Weights, *, rewrite_graph: bool) -> Network:
    facts = weights.facts
    probe = normalize_images(probe_image(facts.size_px), facts)
    return open_onnx_runtime(
        weights.path,
        SegmenterConfig(threads=1, rewrite_graph=rewrite_graph),
        lambda network: stretch_to_masks(network.run(probe), facts),
    )
