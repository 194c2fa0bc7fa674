"""Mix two files of ``folio``: ``python -m serve_app.models.folio.training.interpolate``.

A training that continues from a file learns something and forgets something. If the weights of both
files are mixed, much of what was forgotten comes back, and most of what was learned stays (WiSE-FT,
arXiv:2109.01903). It holds only if the second file was trained from the first.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import onnx
import typer
from onnx import numpy_helper


def interpolate(first: onnx.ModelProto, second: onnx.ModelProto, share: float) -> onnx.ModelProto:
    """Return the first model with mixed weights.

    Args:
        first: Model from which the training continued.
        second: Model after the training.
        share: Share of the second model's weights, 0 to 1.

    Raises:
        ValueError: The models have different weights by name or shape.
    """
    mixed = onnx.ModelProto()
    mixed.CopyFrom(first)
    others = {each.name: numpy_helper.to_array(each) for each in second.graph.initializer}
    if {each.name for each in mixed.graph.initializer} != set(others):
        raise ValueError("the models have different weights: they are not of one network")
    for each in mixed.graph.initializer:
        own, other = numpy_helper.to_array(each), others[each.name]
        if own.shape != other.shape:
            raise ValueError(f"{each.name} has the shapes {own.shape} and {other.shape}")
        if own.dtype == np.float32:
            values = (1 - share) * own + share * other
            each.CopyFrom(numpy_helper.from_array(values.astype(np.float32), each.name))
    return mixed


def interpolate_files(
    first: Annotated[Path, typer.Option(help="ONNX file from which the training continued.")],
    second: Annotated[Path, typer.Option(help="ONNX file that the training wrote.")],
    share: Annotated[float, typer.Option(min=0, max=1, help="Share of the second file.")],
    out: Annotated[Path, typer.Option(help="ONNX file to write.")],
) -> None:
    """Write a file with the mixed weights of two files."""
    onnx.save(interpolate(onnx.load(first), onnx.load(second), share), out)


if __name__ == "__main__":
    typer.run(interpolate_files)
