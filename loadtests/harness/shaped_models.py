"""Benchmark models: networks with the shape of rembg's, for machines without rembg's weights.

They are built from the published architectures, so that they cost what the true ones cost:

- u2netp and u2net: U²-Net (arXiv:2005.09007), an encoder and a decoder of residual U-blocks.
- isnet-general-use: IS-Net (arXiv:2203.03041), the same blocks behind a convolution of stride 2,
  at 1024 x 1024.

They have 1,131,181 parameters (u2netp), 44,009,869 (u2net) and 44,046,790 (isnet-general-use).
These numbers include batch normalisation, which is folded into the convolution before it.

The weights are random (with a fixed seed), except in the last layer, which is fitted by least
squares to the masks of synthetic photographs. A mask in one piece costs the PNG encoder as much as
a true one, and noise would cost more. **The masks are not good. Every number that comes from such a
model carries the label "random weights of the same shape"** (``BenchmarkModel.label``). If the true
weights are on this machine, they are used instead.

``python -m loadtests.harness.shaped_models [NAME ...]`` builds the files and prints their paths.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from serve_app.config import AppConfig
from serve_app.imaging.mask import resize_for_model
from serve_app.models.folio.synthetic.photograph import draw_photograph
from serve_app.models.inference import normalize_images
from serve_app.models.registry import (
    BUNDLED_MODEL,
    MODEL_FACTS,
    find_downloaded_file,
    locate_weights,
)

FOLDER = Path("out/bench/models")

_OPSET, _IR_VERSION = 17, 8
_SEED = 2005_09007
_RANDOM_LABEL = "random weights of the same shape"
_FIT_PHOTOGRAPHS, _FIT_GRID, _FIT_RIDGE, _FIT_LOGIT = 16, 40, 1e-2, 4.0


@dataclass(frozen=True, slots=True)
class BenchmarkModel:
    """A model file and the origin of its weights."""

    name: str
    path: Path
    weights: str
    """Origin of the weights, for tables."""

    @property
    def label(self) -> str:
        """Name of the model and, unless it is bundled, origin of its weights."""
        return self.name if self.weights == "bundled" else f"{self.name} ({self.weights})"

    @property
    def settings(self) -> dict[str, Any]:
        """Settings for ``AppConfig.load`` that serve the model."""
        if self.name == BUNDLED_MODEL:
            return {"models": [self.name]}
        return {"models": [self.name], "model_files": {self.name: str(self.path.resolve())}}


@dataclass(frozen=True, slots=True)
class UBlock:
    """Size of a residual U-block."""

    height: int
    """Number of levels. 0 stands for the dilated block, which has four and does not pool."""
    middle: int
    """Channels inside the block."""
    outputs: int
    """Channels of the block's output."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """A network with an encoder of six blocks and a decoder of five."""

    encoder: tuple[UBlock, ...]
    decoder: tuple[UBlock, ...]
    """Blocks from the coarsest to the finest."""
    stem: int = 0
    """Channels of a first convolution with stride 2, or 0 for none."""
    fused: bool = True
    """Mix all sides into the first output, as U²-Net does, instead of taking the finest side."""


_HEIGHTS = (7, 6, 5, 4, 0, 0)
_LARGE_ENCODER = tuple(
    map(UBlock, _HEIGHTS, (32, 32, 64, 128, 256, 256), (64, 128, 256, 512, 512, 512))
)
_LARGE_DECODER = tuple(
    map(UBlock, (0, 4, 5, 6, 7), (256, 128, 64, 32, 16), (512, 256, 128, 64, 64))
)

ARCHITECTURES = {
    "u2netp": Architecture(
        tuple(UBlock(height, 16, 64) for height in _HEIGHTS),
        tuple(UBlock(height, 16, 64) for height in (0, 4, 5, 6, 7)),
    ),
    "u2net": Architecture(_LARGE_ENCODER, _LARGE_DECODER),
    "isnet-general-use": Architecture(_LARGE_ENCODER, _LARGE_DECODER, stem=64, fused=False),
}


def benchmark_model(name: str, folder: Path = FOLDER) -> BenchmarkModel:
    """Return a model, with its true weights if they are on this machine, else with random ones.

    Args:
        name: ``folio``, or one of ``ARCHITECTURES``.
        folder: Folder that keeps the models with random weights. Each is built once.

    Raises:
        KeyError: The architecture is unknown.
    """
    config = AppConfig.load()
    if name == BUNDLED_MODEL:
        return BenchmarkModel(name, locate_weights(name, config).path, "bundled")
    architecture = ARCHITECTURES[name]
    if find_downloaded_file(name, config) is not None:
        return BenchmarkModel(name, locate_weights(name, config).path, "rembg's weights")
    path = folder / f"{name}-shaped.onnx"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}")
        onnx.save(build_network(name, architecture).model(), temporary)
        temporary.replace(path)
    return BenchmarkModel(name, path, _RANDOM_LABEL)


def build_network(name: str, architecture: Architecture) -> Network:
    """Return a network with random weights and a fitted last layer."""
    network = Network(architecture, MODEL_FACTS[name].size_px)
    _fit_sides(network, name)
    return network


class Network:
    """A graph under construction. Its weights are He-normal (arXiv:1502.01852)."""

    def __init__(self, architecture: Architecture, size_px: int) -> None:
        self.architecture = architecture
        self.size_px = size_px
        self.parameters = 0
        """Number of parameters of the published network, with two for each normalised channel."""
        self._rng = np.random.default_rng(_SEED)
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, npt.NDArray[Any]] = {}
        self.features = self._add_blocks()
        self.outputs = self._add_sides()

    def model(self, extra_outputs: tuple[str, ...] = ()) -> onnx.ModelProto:
        """Return the ONNX model.

        Args:
            extra_outputs: Names of inner values that become outputs too.
        """
        side = self.size_px
        shape: list[int | str] = ["N", 3, side, side]
        source = helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)
        masks = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 1, side, side])
            for name in self.outputs
        ]
        extra = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in extra_outputs]
        constants = [numpy_helper.from_array(value, n) for n, value in self._constants.items()]
        graph = helper.make_graph(self._nodes, "network", [source], masks + extra, constants)
        opset = helper.make_opsetid("", _OPSET)
        return helper.make_model(graph, opset_imports=[opset], ir_version=_IR_VERSION)

    def set_side(self, number: int, centre: npt.NDArray[np.float32], bias: float) -> None:
        """Set a side's 3 x 3 convolution to weights in its centre and zeros around it."""
        weights = np.zeros_like(self._constants[f"side{number}.weights"])
        weights[0, :, 1, 1] = centre
        self._constants[f"side{number}.weights"] = weights
        self._constants[f"side{number}.bias"] = np.array([bias], np.float32)

    def _add_blocks(self) -> list[tuple[str, int]]:
        """Add the encoder and the decoder.

        Returns:
            Names and channels of the values that the sides look at, the finest first.
        """
        value, channels = "image", 3
        if self.architecture.stem:
            stem = self.architecture.stem
            value = self._add_convolution(value, channels, stem, stride=2, normalised=False)
            channels = stem
        kept: list[tuple[str, int]] = []
        for position, block in enumerate(self.architecture.encoder):
            if position:
                value = self._add_pooling(value)
            value = self._add_block(value, channels, block)
            channels = block.outputs
            kept.append((value, channels))
        found = [kept.pop()]
        for block in self.architecture.decoder:
            skip, skip_channels = kept.pop()
            joined = self._add_node("Concat", [self._add_upsampling(value, 2), skip], axis=1)
            value = self._add_block(joined, channels + skip_channels, block)
            channels = block.outputs
            found.append((value, channels))
        return found[::-1]

    def _add_sides(self) -> list[str]:
        """Add the convolutions that give masks, and return the names of the masks."""
        first = 2 if self.architecture.stem else 1
        sides = []
        for number, (value, channels) in enumerate(self.features, start=1):
            name = f"side{number}"
            side = self._add_convolution(value, channels, 1, normalised=False, name=name)
            sides.append(self._add_upsampling(side, first * 2 ** (number - 1)))
        if self.architecture.fused:
            joined = self._add_node("Concat", sides, axis=1)
            self._constants["fuse.weights"] = np.ones((1, len(sides), 1, 1), np.float32)
            self._constants["fuse.bias"] = np.zeros(1, np.float32)
            self.parameters += len(sides) + 1
            sides.insert(0, self._add_node("Conv", [joined, "fuse.weights", "fuse.bias"]))
        return [self._add_node("Sigmoid", [side]) for side in sides]

    def _add_block(self, value: str, inputs: int, block: UBlock) -> str:
        """Add a residual U-block (U²-Net, figure 2e)."""
        dilated = block.height == 0
        depth = 4 if dilated else block.height
        value = whole = self._add_convolution(value, inputs, block.outputs)
        levels, channels = [value], block.outputs
        for level in range(1, depth):
            if level > 1 and not dilated:
                value = self._add_pooling(value)
            dilation = 2 ** (level - 1) if dilated else 1
            value = self._add_convolution(value, channels, block.middle, dilation=dilation)
            levels.append(value)
            channels = block.middle
        deepest = 2 ** (depth - 1) if dilated else 2
        found = self._add_convolution(levels[-1], channels, block.middle, dilation=deepest)
        for level in range(depth - 1, 0, -1):
            joined = self._add_node("Concat", [found, levels[level]], axis=1)
            outputs = block.outputs if level == 1 else block.middle
            dilation = 2 ** (level - 1) if dilated else 1
            found = self._add_convolution(joined, 2 * block.middle, outputs, dilation=dilation)
            if level > 1 and not dilated:
                found = self._add_upsampling(found, 2)
        return self._add_node("Add", [found, whole])

    def _add_convolution(
        self,
        value: str,
        inputs: int,
        outputs: int,
        *,
        dilation: int = 1,
        stride: int = 1,
        normalised: bool = True,
        name: str = "",
    ) -> str:
        """Add a 3 x 3 convolution, and a ReLU if the published one is normalised."""
        name = name or f"convolution{len(self._nodes)}"
        weights = self._rng.standard_normal((outputs, inputs, 3, 3), np.float32)
        weights *= np.float32(np.sqrt(2 / (9 * inputs)))
        self._constants[f"{name}.weights"] = weights
        self._constants[f"{name}.bias"] = np.zeros(outputs, np.float32)
        self.parameters += weights.size + outputs * (3 if normalised else 1)
        found = self._add_node(
            "Conv",
            [value, f"{name}.weights", f"{name}.bias"],
            dilations=[dilation] * 2,
            pads=[dilation] * 4,
            strides=[stride] * 2,
        )
        return self._add_node("Relu", [found]) if normalised else found

    def _add_pooling(self, value: str) -> str:
        return self._add_node("MaxPool", [value], kernel_shape=[2, 2], strides=[2, 2])

    def _add_upsampling(self, value: str, scale: int) -> str:
        if scale == 1:
            return value
        self._constants[f"scale{scale}"] = np.array([1, 1, scale, scale], np.float32)
        return self._add_node("Resize", [value, "", f"scale{scale}"], mode="linear")

    def _add_node(self, operator: str, inputs: list[str], **attributes: Any) -> str:
        name = f"{operator.lower()}{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, inputs, [name], name, **attributes))
        return name


def _fit_sides(network: Network, name: str) -> None:
    """Fit the sides to masks of synthetic photographs by ridge regression on their features."""
    facts, size = MODEL_FACTS[name], network.size_px
    looked_at = network.features if network.architecture.fused else network.features[:1]
    names = [value for value, _ in looked_at]
    model = network.model(tuple(names)).SerializeToString()
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    rows, targets = [], []
    for seed in range(_FIT_PHOTOGRAPHS):
        taken = draw_photograph(seed, width=size, height=size, kind="book")
        tensor = normalize_images(resize_for_model(taken.image, size)[None], facts)
        found = session.run(names, {"image": tensor})
        rows.append(np.concatenate([_on_grid(value[0]) for value in found]).T)
        targets.append(_on_grid(taken.mask[None])[0] / 127.5 - 1)
    features, wanted = np.concatenate(rows).astype(np.float64), np.concatenate(targets)
    mean, spread = features.mean(0), features.std(0) + 1e-9
    scaled = (features - mean) / spread
    penalty = _FIT_RIDGE * len(scaled) * np.eye(scaled.shape[1])
    solved = np.linalg.solve(scaled.T @ scaled + penalty, scaled.T @ (wanted - wanted.mean()))
    weights = _FIT_LOGIT * solved / spread
    bias = _FIT_LOGIT * wanted.mean() - float(weights @ mean)
    start = 0
    for number, (_, channels) in enumerate(looked_at, start=1):
        centre = weights[start : start + channels].astype(np.float32)
        network.set_side(number, centre, bias if number == 1 else 0.0)
        start += channels


def _on_grid(maps: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return maps, [C, H, W], resampled on a square grid, [C, G * G]."""
    resized = [
        Image.fromarray(m).resize((_FIT_GRID, _FIT_GRID), Image.Resampling.BILINEAR) for m in maps
    ]
    return np.stack([np.asarray(image).ravel() for image in resized])


def main() -> None:
    """Build the models that the command line names, or all."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.harness.shaped_models", description="Build benchmark models."
    )
    known = f"{', '.join(ARCHITECTURES)} (default: all)"
    parser.add_argument("names", nargs="*", metavar="NAME", help=known)
    names = parser.parse_args().names or list(ARCHITECTURES)
    if unknown := sorted(set(names) - set(ARCHITECTURES)):
        parser.error(f"unknown models: {', '.join(unknown)}")
    for name in names:
        model = benchmark_model(name)
        print(f"{model.label}: {model.path}, {model.path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
