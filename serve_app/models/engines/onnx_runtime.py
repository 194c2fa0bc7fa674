"""ONNX Runtime, with a rewritten graph if its probe mask is the same."""

from __future__ import annotations

import logging
from collections.abc import Callable, Set
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from serve_app.config import SegmenterConfig
from serve_app.imaging.pixels import Pixels
from serve_app.models.engines.network import Network, Tensor
from serve_app.models.graph_rewrites import optimize_for_cpu

_logger = logging.getLogger(__name__)

_PROVIDERS = ("CPUExecutionProvider",)
"""A build of ONNX Runtime may have others, whose masks nobody has compared with rembg's."""
_PROBE_SEED = 1
MAX_LEVELS_APART = 1
"""Largest difference, in grey levels, between the masks of a graph and of its rewritten form."""

Probe = Callable[[Network], Pixels]
"""Returns a network's mask of the probe image, uint8 [1, S, S]."""


class OnnxRuntimeNetwork:
    """A graph that ONNX Runtime runs."""

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session
        self._input = session.get_inputs()[0].name
        self._output = session.get_outputs()[0].name
        self.input_shape: list[Any] = session.get_inputs()[0].shape

    def run(self, images: Tensor) -> Tensor:
        """Return the first channel of the first output, float32 [N, S, S]. See ``Network``."""
        answers: Tensor = self._session.run([self._output], {self._input: images})[0]
        return answers[:, 0]


def runtime_version() -> str:
    """Return the version of ONNX Runtime."""
    return str(ort.__version__)


def session_options(config: SegmenterConfig) -> ort.SessionOptions:
    """Return ONNX Runtime's options for a way of execution.

    ``fan_out`` runs one image on each thread, and so has one thread within each run. Threads that
    wait do not spin, because replicas share cores.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1 if config.execution == "fan_out" else config.threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # A block that is laid out for the whole run is twice as large as what a run ever holds at once.
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    return options


def open_onnx_runtime(
    path: Path, config: SegmenterConfig, probe: Probe, compared: Set[str] = frozenset()
) -> OnnxRuntimeNetwork:
    """Return a network for a model file.

    The graph is rewritten (``graph_rewrites``) if ``config.rewrite_graph`` is on. The rewritten one
    serves only if its mask of a probe image is that of the file, within one grey level. Otherwise
    the file serves as it is, and a warning says why.

    Args:
        path: ONNX file.
        config: Settings of the model's execution.
        probe: Function that returns a network's mask of the probe image. It may raise if the file
            does not fit the model.
        compared: SHA-256 of rewritten graphs whose masks are known to be those of the file. They
            serve without a probe.

    Raises:
        Exception: The file is not an ONNX model. ONNX Runtime has no common class for this.
    """
    if config.rewrite_graph and compared:
        known = _open_compared(path, config, compared)
        if known is not None:
            return known
    as_it_is = open_as_written(path, config)
    expected = probe(as_it_is)
    if not config.rewrite_graph:
        return as_it_is
    # Two sessions of a large model at the same time could exhaust the memory.
    del as_it_is
    try:
        rewritten = open_as_written(_rewritten(path, config), config)
        levels = most_levels_apart(probe(rewritten), expected)
    # Neither onnx nor ONNX Runtime has a common class for what can be wrong with a graph.
    except Exception as error:  # noqa: BLE001
        reason = f"its rewritten graph does not run: {type(error).__name__}: {error}"
    else:
        if levels <= MAX_LEVELS_APART:
            return rewritten
        reason = f"the masks of its rewritten graph differ by up to {levels} grey levels"
    _logger.warning("%s is served as it is, and slower: %s", path, reason)
    return open_as_written(path, config)


def _open_compared(
    path: Path, config: SegmenterConfig, compared: Set[str]
) -> OnnxRuntimeNetwork | None:
    """Return a network of the rewritten graph if it was compared before, otherwise None."""
    try:
        graph = _rewritten(path, config)
        if sha256(graph).hexdigest() in compared:
            return open_as_written(graph, config)
    # The comparison meets what is wrong again, and reports it.
    except Exception:  # noqa: BLE001
        return None
    return None


def _rewritten(path: Path, config: SegmenterConfig) -> bytes:
    return optimize_for_cpu(path, batches=config.execution == "stack")


def open_as_written(graph: Path | bytes, config: SegmenterConfig) -> OnnxRuntimeNetwork:
    """Return a network that runs a graph on the CPU exactly as it is written.

    Raises:
        Exception: The graph is not an ONNX model. ONNX Runtime has no common class for this.
    """
    options = session_options(config)
    session = ort.InferenceSession(graph, options, providers=_PROVIDERS)
    # It keeps the graph for a change of providers, which is 176 MB of a model such as u2net.
    session._model_bytes = None  # noqa: SLF001
    return OnnxRuntimeNetwork(session)


def most_levels_apart(found: Pixels, expected: Pixels) -> int:
    """Return the largest difference of two masks of one shape, in grey levels."""
    return int(np.abs(found.astype(int) - expected).max())


def probe_image(size_px: int) -> Pixels:
    """Return the image on which two graphs are compared: a bright disc on a noisy gradient.

    Args:
        size_px: Side of the image in pixels.

    Returns:
        uint8 [1, S, S, 3], always the same for a size.
    """
    rows, columns = np.mgrid[0:size_px, 0:size_px] / size_px
    noise = np.random.default_rng(_PROBE_SEED).normal(0, 12, (size_px, size_px, 3))
    ground = 60 + 80 * rows[..., None] + noise
    disc = ((rows - 0.5) ** 2 + (columns - 0.45) ** 2 < 0.08)[..., None]
    image = np.where(disc, np.array([220, 180, 90]) + noise / 2, ground)
    return np.clip(image, 0, 255).astype(np.uint8)[None]
