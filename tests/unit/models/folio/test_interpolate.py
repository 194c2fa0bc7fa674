"""Weights between two files of folio."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from serve_app.models.folio.training.calibrate import scale_logits
from serve_app.models.folio.training.interpolate import interpolate, interpolate_files

FOLIO = Path(str(files("serve_app.models.folio") / "folio.onnx"))


def weights(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_weights_lie_between_those_of_both(tmp_path: Path, share: float) -> None:
    scaled = onnx.load(FOLIO)
    scale_logits(scaled, 3)
    onnx.save(scaled, tmp_path / "second.onnx")
    interpolate_files(FOLIO, tmp_path / "second.onnx", share, tmp_path / "mixed.onnx")
    before, after = weights(onnx.load(FOLIO)), weights(onnx.load(tmp_path / "mixed.onnx"))
    for name, values in before.items():
        factor = 1 + 2 * share if name.startswith("head.") else 1
        assert np.allclose(after[name], values * factor, rtol=1e-6), name


def test_models_of_different_networks_are_refused() -> None:
    first, second = onnx.load(FOLIO), onnx.load(FOLIO)
    del second.graph.initializer[0]
    with pytest.raises(ValueError, match="not of one network"):
        interpolate(first, second, 0.5)


def test_weights_of_different_shapes_are_named() -> None:
    first, second = onnx.load(FOLIO), onnx.load(FOLIO)
    for each in second.graph.initializer:
        if each.name == "head.bias":
            each.CopyFrom(numpy_helper.from_array(np.zeros(5, np.float32), each.name))
    with pytest.raises(ValueError, match=r"head\.bias has the shapes \(4,\) and \(5,\)"):
        interpolate(first, second, 0.5)
