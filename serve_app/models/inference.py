"""Running a model: squares of uint8 pixels in, uint8 masks out, with rembg's arithmetic.

rembg works in float64 on each image; here a table of the 256 values that a channel can take,
computed in float64 as rembg does, gives the same float32 tensor with one lookup for each pixel.
"""

from __future__ import annotations

import logging
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
from PIL import Image

from serve_app.config import AppConfig, SegmenterConfig
from serve_app.errors import InvalidConfig, ModelUnavailable
from serve_app.models.graph_rewrites import optimize_for_cpu
from serve_app.models.registry import ModelFacts, Weights, locate_weights, rembg_session_class

_logger = logging.getLogger(__name__)

_REMBG_SIZE_PX = 1024
_PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")


class Model(Protocol):
    """A loaded model; safe to share among threads."""

    name: str
    size_px: int
    sha256: str
    batches: bool
    """Whether one run can take several images."""

    def masks(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Return the mask of each image.

        Args:
            images: uint8 [N, S, S, 3], RGB.

        Returns:
            uint8 [N, S, S]; all 0 where there is no subject.

        Raises:
            ModelUnavailable: The graph could not be run.
        """
        ...


def load_model(name: str, config: AppConfig) -> Model:
    """Return a model that is ready to run.

    Raises:
        FatalError: The model, its file or its graph is not what it should be.
        ModelUnavailable: Its weights could not be downloaded.
    """
    weights = locate_weights(name, config)
    if weights.facts is None:
        return RembgModel(weights, config.segmenter)
    return OnnxModel(weights, weights.facts, config.segmenter)


def session_options(config: SegmenterConfig) -> ort.SessionOptions:
    """Return ONNX Runtime's options.

    ``fan_out`` runs one image on each thread, and so wants one thread inside of each run.
    Threads that wait do not spin: replicas share cores.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1 if config.execution == "fan_out" else config.threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # One block for all that a run holds, laid out beforehand, is twice what it ever holds at once.
    options.enable_mem_pattern = False
    if config.bfloat16:
        options.add_session_config_entry("mlas.enable_gemm_fastmath_arm64_bfloat16", "1")
    options.log_severity_level = 3
    return options


class OnnxModel:
    """A graph whose facts are known."""

    def __init__(self, weights: Weights, facts: ModelFacts, config: SegmenterConfig) -> None:
        """Load and check a graph.

        Args:
            weights: Its file.
            facts: What it expects.
            config: How it is run.

        Raises:
            InvalidConfig: The file is no ONNX model, or its input is not what the facts say.
        """
        self.name = weights.name
        self.sha256 = weights.sha256
        self.size_px = facts.size_px
        self._facts = facts
        available = ort.get_available_providers()
        providers = [provider for provider in _PROVIDERS if provider in available]
        try:
            on_cpu = providers == ["CPUExecutionProvider"]
            batches = config.execution == "stack"
            file = optimize_for_cpu(weights.path, batches=batches) if on_cpu else weights.path
            self._session = ort.InferenceSession(file, session_options(config), providers=providers)
        except Exception as error:
            raise InvalidConfig(f"{weights.path} cannot be loaded: {_brief(error)}") from error
        graph_input = self._session.get_inputs()[0]
        self._input = graph_input.name
        self._output = self._session.get_outputs()[0].name
        _check_shape(graph_input.shape, facts.size_px, weights)
        self.batches = not isinstance(graph_input.shape[0], int)

    def masks(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """See Model."""
        tensor = normalize_images(images, self._facts)
        try:
            answer = self._session.run([self._output], {self._input: tensor})[0]
        # ONNX Runtime's errors share no base class of their own.
        except Exception as error:
            raise ModelUnavailable(f"{self.name}: {_brief(error)}") from error
        return stretch_to_masks(answer[:, 0], self._facts)


class RembgModel:
    """A model of rembg's that the registry has no facts for: rembg's own code runs it."""

    def __init__(self, weights: Weights, config: SegmenterConfig) -> None:
        """Load a model through rembg.

        Args:
            weights: Its file.
            config: How it is run.

        Raises:
            InvalidConfig: rembg could not load it.
        """
        self.name = weights.name
        self.sha256 = weights.sha256
        self.size_px = _REMBG_SIZE_PX
        self.batches = False
        try:
            session_class = rembg_session_class(weights.name)
            self._session = session_class(weights.name, session_options(config))
        except (ValueError, OSError, RuntimeError) as error:
            raise InvalidConfig(f"rembg cannot load {weights.name}: {_brief(error)}") from error

    def masks(self, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """See Model. A model with a mask for each class (clothes) gives their union."""
        return np.stack([self._mask(image) for image in images])

    def _mask(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        try:
            masks: list[Any] = self._session.predict(Image.fromarray(image))
        except Exception as error:
            raise ModelUnavailable(f"{self.name}: {_brief(error)}") from error
        union: npt.NDArray[np.uint8] = np.maximum.reduce(
            [np.asarray(m.convert("L")) for m in masks]
        )
        return union


def normalize_images(images: npt.NDArray[np.uint8], facts: ModelFacts) -> npt.NDArray[np.float32]:
    """Return the tensor that rembg would make of each image: bit for bit the same.

    Args:
        images: uint8 [N, S, S, 3], RGB.
        facts: Mean and standard deviation.

    Returns:
        float32 [N, 3, S, S]: (value / the image's own maximum - mean) / std.
    """
    count, height, width, channels = images.shape
    tensor = np.empty((count, channels, height, width), np.float32)
    for position, image in enumerate(images):
        scaled = np.arange(256) / max(int(image.max()), 1e-6)
        for channel in range(channels):
            table = ((scaled - facts.mean[channel]) / facts.std[channel]).astype(np.float32)
            np.take(table, image[:, :, channel], out=tensor[position, channel])
    return tensor


def stretch_to_masks(answers: npt.NDArray[np.float32], facts: ModelFacts) -> npt.NDArray[np.uint8]:
    """Return answers as masks, each stretched from its own minimum to its own maximum.

    rembg stretches over the whole tensor, which is the same for its batches of one. It divides
    0 by 0 where an answer is constant; here that is an empty mask.

    Args:
        answers: float32 [N, S, S].
        facts: Whether they are logits, and below what maximum there is no subject.

    Returns:
        uint8 [N, S, S].
    """
    if facts.sigmoid:
        answers = np.float32(1) / (np.float32(1) + np.exp(-answers))
    masks = np.zeros(answers.shape, np.uint8)
    for mask, answer in zip(masks, answers, strict=True):
        low, high = answer.min(), answer.max()
        if high > low and high >= facts.empty_below:
            mask[:] = (answer - low) / (high - low) * 255
    return masks


def _check_shape(shape: list[Any], size_px: int, weights: Weights) -> None:
    # A name instead of a number stands for an axis of any size.
    expected = (3, size_px, size_px)
    fits = len(shape) == 4 and all(
        not isinstance(found, int) or found == wanted
        for found, wanted in zip(shape[1:], expected, strict=True)
    )
    if not fits:
        raise InvalidConfig(
            f"{weights.path}: the input of {weights.name} must be [N, 3, {size_px}, {size_px}] "
            f"and is {shape}"
        )


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
