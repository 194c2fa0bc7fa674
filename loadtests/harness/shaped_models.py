"""Benchmark models: networks with the shape of rembg's, for machines without their weights.

Built from the published architectures, so that they cost what the true ones cost:

- u2netp and u2net: U²-Net (arXiv:2005.09007), an encoder and a decoder of residual U-blocks.
- isnet-general-use: IS-Net (arXiv:2203.03041), the same blocks behind a convolution of stride 2,
  at 1024 x 1024.

Parameters, batch normalisation counted and then folded into the convolutions before it: u2netp
1,131,181, u2net 44,009,869, isnet-general-use 44,046,790.

The weights are random (seeded), but for the last layer, which is fitted by least squares to the
masks of synthetic photographs: a mask of one piece costs the encoder what a true one costs, and
noise would not. **The masks are not good. Numbers from them are of random weights of the same
shape, and say so** (``BenchmarkModel.label``). Where the true weights are on this machine, they
are used instead.

``python -m loadtests.harness.shaped_models [NAME ...]`` makes the files and prints what they are.
"""

from __future__ import annotations

import os
import sys
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
    """A model for benchmarks."""

    name: str
    path: Path
    weights: str
    """Where they come from, in words."""

    @property
    def label(self) -> str:
        """Name and origin, for tables."""
        return self.name if self.weights == "bundled" else f"{self.name} ({self.weights})"

    @property
    def settings(self) -> dict[str, Any]:
        """What serves it, for ``AppConfig.load``."""
        if self.name == BUNDLED_MODEL:
            return {"models": [self.name]}
        return {"models": [self.name], "model_files": {self.name: str(self.path.resolve())}}


@dataclass(frozen=True, slots=True)
class Stage:
    """One residual U-block: its height (0: the dilated one, without pooling) and channels."""

    height: int
    middle: int
    outputs: int


@dataclass(frozen=True, slots=True)
class Architecture:
    """An encoder of six stages and a decoder of five."""

    encoder: tuple[Stage, ...]
    decoder: tuple[Stage, ...]
    """From the coarsest to the finest."""
    stem: int = 0
    """Channels of a first convolution of stride 2; 0: none."""
    fused: bool = True
    """The first output is a mixture of all sides, as in U²-Net; else the finest side alone."""


_HEIGHTS = (7, 6, 5, 4, 0, 0)
_LARGE_ENCODER = tuple(
    map(Stage, _HEIGHTS, (32, 32, 64, 128, 256, 256), (64, 128, 256, 512, 512, 512))
)
_LARGE_DECODER = tuple(map(Stage, (0, 4, 5, 6, 7), (256, 128, 64, 32, 16), (512, 256, 128, 64, 64)))

ARCHITECTURES = {
    "u2netp": Architecture(
        tuple(Stage(height, 16, 64) for height in _HEIGHTS),
        tuple(Stage(height, 16, 64) for height in (0, 4, 5, 6, 7)),
    ),
    "u2net": Architecture(_LARGE_ENCODER, _LARGE_DECODER),
    "isnet-general-use": Architecture(_LARGE_ENCODER, _LARGE_DECODER, stem=64, fused=False),
}


def benchmark_model(name: str, folder: Path = FOLDER) -> BenchmarkModel:
    """Return a model; its true weights where they are here, else random ones, made once.

    Args:
        name: ``folio``, or one of ``ARCHITECTURES``.
        folder: Where random ones are kept.

    Raises:
        KeyError: Its architecture is not known.
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
        onnx.save(build(name, architecture).model(), temporary)
        temporary.replace(path)
    return BenchmarkModel(name, path, _RANDOM_LABEL)


def build(name: str, architecture: Architecture) -> Network:
    """Return a network with random weights and a fitted last layer."""
    network = Network(architecture, MODEL_FACTS[name].size_px)
    _fit(network, name)
    return network


class Network:
    """A graph under construction. Weights are He-normal (arXiv:1502.01852)."""

    def __init__(self, architecture: Architecture, size_px: int) -> None:
        self.architecture = architecture
        self.size_px = size_px
        self.parameters = 0
        """Of the published network: each normalised convolution has its two for each channel."""
        self._rng = np.random.default_rng(_SEED)
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, npt.NDArray[Any]] = {}
        self.features = self._stages()
        self.outputs = self._sides()

    def model(self, extra_outputs: tuple[str, ...] = ()) -> onnx.ModelProto:
        """Return the ONNX model; ``extra_outputs`` names inner values to give out too."""
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
        """Give a side's 3 x 3 convolution weights in its centre, and zeros around it."""
        weights = np.zeros_like(self._constants[f"side{number}.weights"])
        weights[0, :, 1, 1] = centre
        self._constants[f"side{number}.weights"] = weights
        self._constants[f"side{number}.bias"] = np.array([bias], np.float32)

    def _stages(self) -> list[tuple[str, int]]:
        """Add everything up to the sides; return what they look at, finest first."""
        value, channels = "image", 3
        if self.architecture.stem:
            stem = self.architecture.stem
            value = self._convolution(value, channels, stem, stride=2, normalised=False)
            channels = stem
        kept: list[tuple[str, int]] = []
        for position, stage in enumerate(self.architecture.encoder):
            if position:
                value = self._pool(value)
            value = self._block(value, channels, stage)
            channels = stage.outputs
            kept.append((value, channels))
        found = [kept.pop()]
        for stage in self.architecture.decoder:
            skip, skip_channels = kept.pop()
            joined = self._node("Concat", [self._upsampled(value, 2), skip], axis=1)
            value = self._block(joined, channels + skip_channels, stage)
            channels = stage.outputs
            found.append((value, channels))
        return found[::-1]

    def _sides(self) -> list[str]:
        first = 2 if self.architecture.stem else 1
        sides = []
        for number, (value, channels) in enumerate(self.features, start=1):
            name = f"side{number}"
            side = self._convolution(value, channels, 1, normalised=False, name=name)
            sides.append(self._upsampled(side, first * 2 ** (number - 1)))
        if self.architecture.fused:
            joined = self._node("Concat", sides, axis=1)
            self._constants["fuse.weights"] = np.ones((1, len(sides), 1, 1), np.float32)
            self._constants["fuse.bias"] = np.zeros(1, np.float32)
            self.parameters += len(sides) + 1
            sides.insert(0, self._node("Conv", [joined, "fuse.weights", "fuse.bias"]))
        return [self._node("Sigmoid", [side]) for side in sides]

    def _block(self, value: str, inputs: int, stage: Stage) -> str:
        """Add a residual U-block: U²-Net, figure 2 (e); dilated where the height is 0."""
        dilated = stage.height == 0
        depth = 4 if dilated else stage.height
        value = whole = self._convolution(value, inputs, stage.outputs)
        levels, channels = [value], stage.outputs
        for level in range(1, depth):
            if level > 1 and not dilated:
                value = self._pool(value)
            dilation = 2 ** (level - 1) if dilated else 1
            value = self._convolution(value, channels, stage.middle, dilation=dilation)
            levels.append(value)
            channels = stage.middle
        deepest = 2 ** (depth - 1) if dilated else 2
        found = self._convolution(levels[-1], channels, stage.middle, dilation=deepest)
        for level in range(depth - 1, 0, -1):
            joined = self._node("Concat", [found, levels[level]], axis=1)
            outputs = stage.outputs if level == 1 else stage.middle
            dilation = 2 ** (level - 1) if dilated else 1
            found = self._convolution(joined, 2 * stage.middle, outputs, dilation=dilation)
            if level > 1 and not dilated:
                found = self._upsampled(found, 2)
        return self._node("Add", [found, whole])

    def _convolution(
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
        """Add a 3 x 3 convolution; a normalised one is followed by a ReLU."""
        name = name or f"convolution{len(self._nodes)}"
        weights = self._rng.standard_normal((outputs, inputs, 3, 3), np.float32)
        weights *= np.float32(np.sqrt(2 / (9 * inputs)))
        self._constants[f"{name}.weights"] = weights
        self._constants[f"{name}.bias"] = np.zeros(outputs, np.float32)
        self.parameters += weights.size + outputs * (3 if normalised else 1)
        found = self._node(
            "Conv",
            [value, f"{name}.weights", f"{name}.bias"],
            dilations=[dilation] * 2,
            pads=[dilation] * 4,
            strides=[stride] * 2,
        )
        return self._node("Relu", [found]) if normalised else found

    def _pool(self, value: str) -> str:
        return self._node("MaxPool", [value], kernel_shape=[2, 2], strides=[2, 2])

    def _upsampled(self, value: str, scale: int) -> str:
        if scale == 1:
            return value
        self._constants[f"scale{scale}"] = np.array([1, 1, scale, scale], np.float32)
        return self._node("Resize", [value, "", f"scale{scale}"], mode="linear")

    def _node(self, operator: str, inputs: list[str], **attributes: Any) -> str:
        name = f"{operator.lower()}{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, inputs, [name], name, **attributes))
        return name


def _fit(network: Network, name: str) -> None:
    """Fit the sides to masks of synthetic photographs, by ridge regression on their features."""
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
    """Return maps, [C, H, W], at the places of one grid, [C, G * G]."""
    resized = [
        Image.fromarray(m).resize((_FIT_GRID, _FIT_GRID), Image.Resampling.BILINEAR) for m in maps
    ]
    return np.stack([np.asarray(image).ravel() for image in resized])


def main() -> None:
    """Make the models that are named on the command line, or all."""
    for name in sys.argv[1:] or ARCHITECTURES:
        model = benchmark_model(name)
        print(f"{model.label}: {model.path}, {model.path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
