"""Networks of U-blocks with the shape of rembg's models and random weights.

- u2netp and u2net: U²-Net (arXiv:2005.09007), an encoder and a decoder of residual U-blocks.
- isnet-general-use: IS-Net (arXiv:2203.03041), the same blocks behind a convolution of stride 2,
  at 1024 x 1024.

They have 1,131,181 parameters (u2netp), 44,009,869 (u2net) and 44,046,790 (isnet-general-use).
These numbers include batch normalisation, which is folded into the convolution before it.

The graphs have the form in which PyTorch 1.9 exported rembg's ``u2netp.onnx``, operator by operator
(``tests/unit/loadtests/test_networks.py`` has its histogram). What makes that file slow, or hides
its shapes from a rewriting, is so in these graphs too: each enlargement computes its size at run
time from that of another feature map (``Shape``, ``Gather``, ``Slice``, ``Concat``, then ``Resize``
by sizes with ``pytorch_half_pixel``), the batch is fixed at one image, and operator set 11 is in
use. The weights are constants of the graph and not listed as its inputs, as in the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

_OPSET, _IR_VERSION = 11, 6
_INPUT = "input.1"
_SEED = 2005_09007


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
        self._enlarged: set[str] = set()
        """Names of the outputs whose shapes the exporter does not know."""
        self.features = self._add_blocks()
        self.outputs = self._add_sides()

    def model(
        self, extra_outputs: tuple[str, ...] = (), *, batches: bool = False
    ) -> onnx.ModelProto:
        """Return the ONNX model.

        Args:
            extra_outputs: Names of inner values that become outputs too.
            batches: Leave the batch axis open, as newer exporters can.
        """
        side = self.size_px
        batch = "N" if batches else 1
        source = _describe(_INPUT, [batch, 3, side, side])
        # The exporter knows no shape behind an enlargement.
        shapes: list[list[int | str]] = [
            [f"{name}_dim_{axis}" for axis in range(4)]
            if name in self._enlarged
            else [batch, 1, side, side]
            for name in self.outputs
        ]
        masks = [_describe(n, shape) for n, shape in zip(self.outputs, shapes, strict=True)]
        extra = [_describe(name, None) for name in extra_outputs]
        constants = [numpy_helper.from_array(value, n) for n, value in self._constants.items()]
        graph = helper.make_graph(
            self._nodes, "torch-jit-export", [source], masks + extra, constants
        )
        opset = helper.make_opsetid("", _OPSET)
        return helper.make_model(
            graph, opset_imports=[opset], ir_version=_IR_VERSION, producer_name="pytorch"
        )

    def set_side(self, number: int, centre: npt.NDArray[np.float32], bias: float) -> None:
        """Set a side's 3 x 3 convolution to weights in its centre and zeros around it."""
        weights = np.zeros_like(self._constants[f"side{number}.weight"])
        weights[0, :, 1, 1] = centre
        self._constants[f"side{number}.weight"] = weights
        self._constants[f"side{number}.bias"] = np.array([bias], np.float32)

    def _add_blocks(self) -> list[tuple[str, int]]:
        """Add the encoder and the decoder.

        Returns:
            Names and channels of the values that the sides look at, the finest first.
        """
        value, channels = _INPUT, 3
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
            joined = self._add_node("Concat", [self._add_enlargement(value, skip), skip], axis=1)
            value = self._add_block(joined, channels + skip_channels, block)
            channels = block.outputs
            found.append((value, channels))
        return found[::-1]

    def _add_sides(self) -> list[str]:
        """Add the convolutions that give masks, and return the names of the masks."""
        sides: list[str] = []
        for number, (value, channels) in enumerate(self.features, start=1):
            name = f"side{number}"
            side = self._add_convolution(value, channels, 1, normalised=False, name=name)
            # U²-Net enlarges to its finest side. IS-Net, whose finest side is half as large as the
            # image, enlarges all of them to the image.
            like = _INPUT if self.architecture.stem else next(iter(sides), None)
            sides.append(side if like is None else self._add_enlargement(side, like))
        enlarged = [side.startswith("Resize") for side in sides]
        if self.architecture.fused:
            joined = self._add_node("Concat", sides, axis=1)
            self._constants["outconv.weight"] = np.ones((1, len(sides), 1, 1), np.float32)
            self._constants["outconv.bias"] = np.zeros(1, np.float32)
            self.parameters += len(sides) + 1
            mixed = self._add_node(
                "Conv",
                [joined, "outconv.weight", "outconv.bias"],
                **_convolution_attributes(size=1),
            )
            sides.insert(0, mixed)
            enlarged.insert(0, False)
        outputs = [self._add_node("Sigmoid", [side]) for side in sides]
        self._enlarged = {name for name, is_so in zip(outputs, enlarged, strict=True) if is_so}
        return outputs

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
                found = self._add_enlargement(found, levels[level - 1])
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
        self._constants[f"{name}.weight"] = weights
        self._constants[f"{name}.bias"] = np.zeros(outputs, np.float32)
        self.parameters += weights.size + outputs * (3 if normalised else 1)
        found = self._add_node(
            "Conv",
            [value, f"{name}.weight", f"{name}.bias"],
            **_convolution_attributes(size=3, dilation=dilation, stride=stride),
        )
        return self._add_node("Relu", [found]) if normalised else found

    def _add_pooling(self, value: str) -> str:
        return self._add_node(
            "MaxPool", [value], ceil_mode=1, kernel_shape=[2, 2], pads=[0] * 4, strides=[2, 2]
        )

    def _add_enlargement(self, value: str, like: str) -> str:
        """Add an enlargement to the size of another value, as ``F.interpolate`` is exported."""
        sides = []
        for axis in (2, 3):
            shape = self._add_node("Shape", [like])
            side = self._add_node("Gather", [shape, self._add_integers(axis)], axis=0)
            sides.append(side)
        columns = [self._add_node("Unsqueeze", [side], axes=[0]) for side in sides]
        size = self._add_node("Concat", columns, axis=0)
        shape = self._add_node("Shape", [value])
        axes, start, end = (self._add_integers([number]) for number in (0, 0, 2))
        kept = self._add_node("Slice", [shape, start, end, axes])
        cast = self._add_node("Cast", [size], to=TensorProto.INT64)
        sizes = self._add_node("Concat", [kept, cast], axis=0)
        no_region, no_scales = (
            self._add_constant(np.zeros(0, np.float32)) for _ in ("region", "scales")
        )
        return self._add_node(
            "Resize",
            [value, no_region, no_scales, sizes],
            coordinate_transformation_mode="pytorch_half_pixel",
            cubic_coeff_a=-0.75,
            mode="linear",
            nearest_mode="floor",
        )

    def _add_integers(self, value: int | list[int]) -> str:
        return self._add_constant(np.array(value, np.int64))

    def _add_constant(self, value: npt.NDArray[Any]) -> str:
        return self._add_node("Constant", [], value=numpy_helper.from_array(value))

    def _add_node(self, operator: str, inputs: list[str], **attributes: Any) -> str:
        name = f"{operator}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, inputs, [name], name, **attributes))
        return name


def _convolution_attributes(*, size: int, dilation: int = 1, stride: int = 1) -> dict[str, Any]:
    return {
        "dilations": [dilation] * 2,
        "group": 1,
        "kernel_shape": [size] * 2,
        "pads": [dilation * (size // 2)] * 4,
        "strides": [stride] * 2,
    }


def _describe(name: str, shape: list[int | str] | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
