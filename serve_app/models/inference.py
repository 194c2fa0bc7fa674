"""Running a model: from square images to masks, both uint8, with rembg's arithmetic.

rembg computes the input tensor of an image in float64. Here only a table of the 256 possible
values of a channel is computed in float64. One lookup per value then gives the same float32 tensor.
"""

from __future__ import annotations

import logging
from collections.abc import Set
from functools import cache
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from serve_app.config import AppConfig, SegmenterConfig
from serve_app.errors import InvalidConfig, ModelUnavailable
from serve_app.imaging.pixels import Pixels
from serve_app.models.engines.choice import Choice, choose_pair
from serve_app.models.engines.compared import compared_graphs
from serve_app.models.engines.network import Network, Tensor
from serve_app.models.engines.onnx_runtime import probe_image
from serve_app.models.engines.opening import open_network
from serve_app.models.engines.processor import this_machine
from serve_app.models.engines.records import derived_folder
from serve_app.models.facts import ModelFacts
from serve_app.models.registry import Weights, locate_weights

_logger = logging.getLogger(__name__)


class Model(Protocol):
    """A loaded model, which threads may share."""

    name: str
    """Name of the model."""
    size_px: int
    """Side S of its square input, in pixels."""
    sha256: str
    """SHA-256 of its file, as hexadecimal digits."""
    batches: bool
    """Whether one run can take several images."""
    choice: Choice
    """Engine and precision that run it, and why."""

    def masks(self, images: Pixels) -> Pixels:
        """Return the mask of each image.

        Args:
            images: uint8 [N, S, S, 3], RGB.

        Returns:
            uint8 [N, S, S]. The mask of an image without a subject is 0 everywhere.

        Raises:
            ModelUnavailable: The model could not be run.
        """
        ...


def load_model(name: str, config: AppConfig) -> Model:
    """Return a model that is ready to run, with the engine and precision that may serve it.

    Args:
        name: Name of the model.
        config: Settings of the application.

    Raises:
        FatalError: The model is unknown, or its file is not valid.
        ModelUnavailable: The weights are not on this machine.
    """
    weights = locate_weights(name, config)
    machine = this_machine()
    choice = choose_pair(weights, config.segmenter, derived_folder(config), machine)
    return OnnxModel(weights, config.segmenter, choice, compared_graphs(weights, machine))


class OnnxModel:
    """A model whose facts are known, run by an engine."""

    def __init__(
        self,
        weights: Weights,
        config: SegmenterConfig,
        choice: Choice | None = None,
        compared: Set[str] = frozenset(),
    ) -> None:
        """Load a model and check its input.

        Args:
            weights: File of the model, and the facts about it.
            config: Settings of its execution.
            choice: Engine and precision. None stands for the default. If that engine cannot load
                the model, the default does, and ``self.choice`` says why.
            compared: SHA-256 of rewritten graphs of this file that serve without a comparison.

        Raises:
            InvalidConfig: The file is not an ONNX model, or its input differs from the facts.
        """
        self.name = weights.name
        self.sha256 = weights.sha256
        facts = self._facts = weights.facts
        self.size_px = facts.size_px

        @cache
        def probe() -> Tensor:
            return normalize_images(probe_image(facts.size_px), facts)

        def masks_of_probe(network: Network) -> Pixels:
            _check_shape(network.input_shape, facts.size_px, weights)
            return stretch_to_masks(network.run(probe()), facts)

        try:
            self._network, self.choice = open_network(
                weights.path, config, choice or Choice(), masks_of_probe, compared
            )
        except InvalidConfig:
            raise
        except Exception as error:
            raise InvalidConfig(f"{weights.path} cannot be loaded: {_brief(error)}") from error
        self.batches = not isinstance(self._network.input_shape[0], int)
        if self.choice.refused:
            _logger.warning("%s: %s", self.name, self.choice.refused)
        _logger.info("%s runs with %s. %s", self.name, self.choice.pair, self.choice.because)

    def masks(self, images: Pixels) -> Pixels:
        """Return the mask of each image, uint8 [N, S, S]. See ``Model``."""
        tensor = normalize_images(images, self._facts)
        try:
            answers = self._network.run(tensor)
        # The errors of engines have no common base class.
        except Exception as error:
            raise ModelUnavailable(f"{self.name}: {_brief(error)}") from error
        return stretch_to_masks(answers, self._facts)


def normalize_images(images: Pixels, facts: ModelFacts) -> npt.NDArray[np.float32]:
    """Return the input tensor of images, bit by bit the same as rembg's.

    Args:
        images: uint8 [N, S, S, 3], RGB.
        facts: Facts that give the mean and the standard deviation.

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


def stretch_to_masks(answers: npt.NDArray[np.float32], facts: ModelFacts) -> Pixels:
    """Return the masks of a model's outputs, stretched from 0 to 255.

    Each output is stretched from its own minimum to its own maximum. rembg stretches over the
    whole tensor, which is the same for its batches of one. For a constant output rembg divides 0
    by 0. Here it becomes an empty mask.

    Args:
        answers: Outputs, float32 [N, S, S].
        facts: Facts that say if the outputs are logits, and which of them show no subject.

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
    # An axis of any size has a name instead of a number.
    expected = (3, size_px, size_px)
    fits = len(shape) == 4 and all(
        not isinstance(found, int) or found == wanted
        for found, wanted in zip(shape[1:], expected, strict=True)
    )
    if not fits:
        raise InvalidConfig(
            f"{weights.path}: the input of {weights.name} must be [N, 3, {size_px}, {size_px}] "
            f"but is {shape}"
        )


def _brief(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
