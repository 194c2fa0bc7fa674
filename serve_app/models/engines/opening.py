"""Open a model with the engine and precision that were chosen, or with the default."""

from __future__ import annotations

from collections.abc import Set
from hashlib import sha256
from pathlib import Path

from serve_app.config import SegmenterConfig
from serve_app.models.engines.choice import Choice
from serve_app.models.engines.network import EXACT, Network, Pair
from serve_app.models.engines.onnx_runtime import (
    MAX_LEVELS_APART,
    Probe,
    most_levels_apart,
    open_as_written,
    open_onnx_runtime,
)
from serve_app.models.engines.openvino_runtime import OpenVinoNetwork
from serve_app.models.graph_rewrites import optimize_for_cpu


def open_network(
    path: Path,
    config: SegmenterConfig,
    choice: Choice,
    probe: Probe,
    compared: Set[str] = frozenset(),
) -> tuple[Network, Choice]:
    """Return the network of a model, and the choice that it follows.

    What OpenVINO cannot load, or computes otherwise in float32, ONNX Runtime serves. So it serves
    in float32 if it cannot load the int8 graph.

    Args:
        path: ONNX file of the model.
        config: Settings of its execution.
        choice: Engine, precision and derived file.
        probe: Function that returns a network's mask of the probe image.
        compared: SHA-256 of rewritten graphs that ONNX Runtime serves without a comparison.

    Raises:
        Exception: ONNX Runtime cannot load the file either.
    """
    if choice.pair == EXACT:
        return open_onnx_runtime(path, config, probe, compared), choice
    try:
        if choice.derived is None:
            return _open_openvino(path, config, choice, probe, compared), choice
        # The gate has compared its masks of many images. No variable keeps the file: it is large.
        network = open_derived(
            _read_checked(choice.derived, choice.derived_sha256), choice.pair, config
        )
        probe(network)
        return network, choice
    # No engine has a common class for what can be wrong with a graph or a C library.
    except Exception as error:  # noqa: BLE001
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return open_onnx_runtime(path, config, probe, compared), choice.without(reason)


def _read_checked(derived: Path, digest: str | None) -> bytes:
    """Return the content of a derived file, which may have been replaced since it was chosen."""
    content = derived.read_bytes()
    if digest not in {None, sha256(content).hexdigest()}:
        raise ValueError(f"{derived} was replaced while it was opened")
    return content


def open_derived(graph: Path | bytes, pair: Pair, config: SegmenterConfig) -> Network:
    """Return the network of a derived graph.

    Args:
        graph: ONNX file or its content, with a fixed batch of one.
        pair: Engine and precision, which change numbers.
        config: Settings of its execution.

    Raises:
        Exception: The engine cannot load the graph, or cannot be loaded itself.
    """
    if pair.engine == "openvino":
        return OpenVinoNetwork(graph, pair.precision, config.threads)
    return open_as_written(graph, config)


def _open_openvino(
    path: Path, config: SegmenterConfig, choice: Choice, probe: Probe, compared: Set[str]
) -> Network:
    expected = probe(open_onnx_runtime(path, config, probe, compared))
    graph = optimize_for_cpu(path, batches=False) if config.rewrite_graph else path
    network = OpenVinoNetwork(graph, choice.pair.precision, config.threads)
    levels = most_levels_apart(probe(network), expected)
    if levels > MAX_LEVELS_APART:
        raise ValueError(f"its masks of the probe differ by up to {levels} grey levels")
    return network
