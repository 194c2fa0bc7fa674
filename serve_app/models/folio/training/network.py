"""The network ``folio`` and its export to ONNX. Needs PyTorch (the extra ``train``).

It is a U-shaped network for salient objects that takes 10 ms per image on one core:

- There are no features of full resolution. The stem halves the image at once, and the head writes
  the four pixels of each half-resolution place by a pixel shuffle.
- Downsampling is by dense convolutions of 3 x 3 with stride 2, because strided depthwise ones have
  a very slow backward pass on CPUs. Between them are inverted residuals (MobileNetV2,
  arXiv:1801.04381).
- Whether something is the subject depends on the whole image. A global context block (GCNet,
  arXiv:1904.11492) and self-attention see all of it, at 1/16 and 1/32 of the resolution, at which
  they are cheap.
- The decoder adds skip connections instead of concatenating them.
"""

from __future__ import annotations

import copy
from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional

from serve_app.models.folio.training.dataset import SIDE_PX

_STEM, _ENCODER = 16, (32, 48, 80, 112)
_DECODER = (16, 32, 48, 64)
_OPSET = 17


def _convolution(
    inputs: int, outputs: int, kernel: int = 3, *, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))


class InvertedResidual(nn.Module):
    """An inverted residual: expand, convolve depthwise, project, and add the input."""

    def __init__(self, channels: int, expansion: float, kernel: int = 3) -> None:
        super().__init__()
        wide = int(channels * expansion)
        self.body = nn.Sequential(
            _convolution(channels, wide, 1),
            nn.ReLU(inplace=True),
            _convolution(wide, wide, kernel, groups=wide),
            nn.ReLU(inplace=True),
            _convolution(wide, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, C, H, W] for an input of the same shape."""
        return x + self.body(x)


class Attention(nn.Module):
    """Self-attention over all places of a small grid, added to the input."""

    def __init__(self, channels: int, heads: int, head_channels: int = 16) -> None:
        super().__init__()
        self.heads, self.head_channels = heads, head_channels
        self.norm = nn.BatchNorm2d(channels)
        self.project_in = nn.Conv2d(channels, 3 * heads * head_channels, 1)
        self.project_out = nn.Conv2d(heads * head_channels, channels, 1)
        # The block begins as the identity, so that it does not disturb the first steps.
        nn.init.zeros_(self.project_out.weight)
        nn.init.zeros_(self.project_out.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, C, H, W] for an input of the same shape."""
        height, width = x.shape[-2:]
        flat = self.project_in(self.norm(x)).reshape(
            -1, 3 * self.heads, self.head_channels, height * width
        )
        query, key, value = flat.split(self.heads, dim=1)
        scores = query.transpose(2, 3) @ key * self.head_channels**-0.5
        seen = value @ torch.softmax(scores, dim=-1).transpose(2, 3)
        return x + self.project_out(
            seen.reshape(-1, self.heads * self.head_channels, height, width)
        )


class GlobalContext(nn.Module):
    """A summary of the whole image, added to every place."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, channels // 4, 1)
        self.expand = nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, C, H, W] for an input of the same shape."""
        whole = functional.relu(self.squeeze(x.mean((2, 3), keepdim=True)))
        return x + self.expand(whole)


class Up(nn.Module):
    """A decoder step: the enlarged features from below plus the encoder's skip connection."""

    def __init__(self, below: int, skip: int, outputs: int, *, dense: bool = False) -> None:
        super().__init__()
        self.below = _convolution(below, outputs, 1)
        self.skip = _convolution(skip, outputs, 1)
        self.refine = nn.Sequential(
            *([_convolution(outputs, outputs)] if dense else self._separable(outputs)),
            nn.ReLU(inplace=True),
        )
        self.again = (
            None if dense else nn.Sequential(*self._separable(outputs), nn.ReLU(inplace=True))
        )

    @staticmethod
    def _separable(channels: int) -> list[nn.Module]:
        return [
            _convolution(channels, channels, groups=channels),
            _convolution(channels, channels, 1),
        ]

    def forward(self, below: Tensor, skip: Tensor) -> Tensor:
        """Return [N, outputs, 2H, 2W] from [N, C, H, W] and the skip connection [N, S, 2H, 2W]."""
        enlarged = functional.interpolate(
            self.below(below), scale_factor=2, mode="bilinear", align_corners=False
        )
        x = self.refine(functional.relu(enlarged + self.skip(skip)))
        return x if self.again is None else x + self.again(x)


class Folio(nn.Module):
    """The network, from images to masks.

    ``forward`` takes ImageNet-normalised images, float32 [N, 3, H, W], with sides that are
    multiples of 32. It returns their masks, [N, 1, H, W], 0 to 1. ``logits`` is for training.
    """

    def __init__(self) -> None:
        super().__init__()
        c1, c2, c3, c4 = _ENCODER
        d0, d1, d2, d3 = _DECODER
        self.stem = nn.Sequential(_convolution(3, _STEM, stride=2), nn.ReLU(inplace=True))
        self.stage1 = self._stage(_STEM, c1, 1, 2)
        self.stage2 = self._stage(c1, c2, 2, 3)
        self.stage3 = nn.Sequential(self._stage(c2, c3, 4, 3), Attention(c3, heads=2))
        self.stage4 = nn.Sequential(
            self._stage(c3, c4, 2, 2.5, kernel=5), GlobalContext(c4), Attention(c4, heads=4)
        )
        self.up3 = Up(c4, c3, d3)
        self.up2 = Up(d3, c2, d2)
        self.up1 = Up(d2, c1, d1)
        self.up0 = Up(d1, _STEM, d0, dense=True)
        self.head = nn.Conv2d(d0, 4, 3, padding=1)
        self.side_heads = nn.ModuleList(nn.Conv2d(c, 1, 1) for c in (d1, d2, d3, c4))

    @staticmethod
    def _stage(
        inputs: int, outputs: int, depth: int, expansion: float, kernel: int = 3
    ) -> nn.Sequential:
        return nn.Sequential(
            _convolution(inputs, outputs, stride=2),
            nn.ReLU(inplace=True),
            *(InvertedResidual(outputs, expansion, kernel) for _ in range(depth)),
        )

    def logits(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the logits of the masks, [N, 1, H, W], and the side outputs from fine to coarse.

        The side outputs, at 1/4, 1/8, 1/16 and 1/32, give the deep layers gradients of their own.
        """
        e0 = self.stem(x)
        e1 = self.stage1(e0)
        e2 = self.stage2(e1)
        e3 = self.stage3(e2)
        e4 = self.stage4(e3)
        d3 = self.up3(e4, e3)
        d2 = self.up2(d3, e2)
        d1 = self.up1(d2, e1)
        d0 = self.up0(d1, e0)
        mask = functional.pixel_shuffle(self.head(d0), 2)
        sides = [head(at) for head, at in zip(self.side_heads, (d1, d2, d3, e4), strict=True)]
        return mask, sides

    def forward(self, x: Tensor) -> Tensor:
        """Return masks, [N, 1, H, W], of images, [N, 3, H, W]."""
        return torch.sigmoid(self.logits(x)[0])


def export(network: Folio, path: Path) -> None:
    """Write a network as ONNX with u2net's input: any number of images of 320 x 320 pixels."""
    shipped = copy.deepcopy(network).eval().float().to(memory_format=torch.contiguous_format)
    torch.onnx.export(
        shipped,
        (torch.zeros(1, 3, SIDE_PX, SIDE_PX),),
        path,
        input_names=["input"],
        output_names=["mask"],
        opset_version=_OPSET,
        dynamic_axes={"input": {0: "N"}, "mask": {0: "N"}},
        # The tracing exporter folds the batch norms and keeps the batch axis open.
        dynamo=False,
    )


@torch.no_grad()
def restore(network: Folio, path: Path, photographs: Tensor) -> None:
    """Load the weights of a file that ``export`` wrote.

    The export folds most batch norms into the convolutions before them. They are unfolded here by
    the statistics of some photographs, so that the network computes the same as the file and can
    be trained further. The side heads are not exported and keep their weights.

    Args:
        network: Network of the same shape as the exported one.
        path: ONNX file.
        photographs: Normalised photographs, float32 [N, 3, H, W].

    Raises:
        TypeError: A convolution of the file has no batch norm in the network.
    """
    graph = onnx.load(path).graph
    stored = {item.name: torch.tensor(numpy_helper.to_array(item)) for item in graph.initializer}
    own = network.state_dict()
    for name in stored.keys() & own.keys():
        own[name].copy_(stored[name])
    folded: list[nn.BatchNorm2d] = []
    for node in graph.node:
        if node.op_type != "Conv" or len(node.input) < 3 or node.input[1] in own:
            continue
        name = _module_name(node.name)
        network.get_parameter(f"{name}.weight").copy_(stored[node.input[1]])
        norm = network.get_submodule(f"{name.rpartition('.')[0]}.1")
        if not isinstance(norm, nn.BatchNorm2d):
            raise TypeError(f"{name} is not followed by a batch norm")
        norm.bias.copy_(stored[node.input[2]])
        norm.weight.fill_((1 + norm.eps) ** 0.5)
        folded.append(norm)

    def unfold(norm: nn.Module, inputs: tuple[Tensor]) -> None:
        mean, variance = inputs[0].mean((0, 2, 3)), inputs[0].var((0, 2, 3))
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        norm.weight.copy_((variance + norm.eps).sqrt())
        norm.bias.add_(mean)

    hooks = [norm.register_forward_pre_hook(unfold) for norm in folded]
    was_training = network.training
    network.eval()(photographs)
    network.train(was_training)
    for hook in hooks:
        hook.remove()


def _module_name(node_name: str) -> str:
    """Return the name of the module from which a node was exported.

    The exporter writes every enclosing scope: ``/up0/skip/skip.0/Conv`` is from ``up0.skip.0``.
    """
    scopes: list[str] = []
    for scope in node_name.split("/")[1:-1]:
        if scopes and scope.startswith(f"{scopes[-1]}."):
            scopes.pop()
        scopes.append(scope)
    return ".".join(scopes)
