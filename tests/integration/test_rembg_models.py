"""Every model of rembg's: our facts are rembg's code, on graphs of the same input and output."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from PIL import Image

from serve_app.config import AppConfig
from serve_app.models.engines.onnx_runtime import probe_image
from serve_app.models.facts import MODEL_FACTS, NOT_SERVED
from serve_app.models.inference import load_model
from serve_app.models.registry import BUNDLED_MODEL
from tests.support import graphs

LEVELS = 1
"""rembg rounds its float64 arithmetic down to a grey level, and so does our float32."""
REMBG_MODELS = sorted(set(MODEL_FACTS) - {BUNDLED_MODEL})


@pytest.fixture(scope="module")
def sessions() -> dict[str, Any]:
    """Return rembg's session classes by name. The first import compiles, for a minute and more."""
    from rembg.sessions import sessions as found

    return dict(found)


@pytest.mark.timeout(600)
def test_every_session_is_served_or_refused_with_a_reason(sessions: dict[str, Any]) -> None:
    assert set(sessions) == set(REMBG_MODELS) | set(NOT_SERVED)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", REMBG_MODELS)
def test_masks_are_those_of_rembgs_session(
    name: str, sessions: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size_px = MODEL_FACTS[name].size_px
    path = tmp_path / "models" / name / f"{name}.onnx"
    graphs.brightness(path, batch=1, side_px=size_px)
    monkeypatch.setenv("U2NET_HOME", str(tmp_path))
    image = probe_image(size_px)
    # rembg takes a file that it finds as it is, without a look at its digest.
    [expected] = sessions[name](name, ort.SessionOptions()).predict(Image.fromarray(image[0]))
    config = AppConfig(models=(name,), model_files={name: path})
    found = load_model(name, config).masks(image)[0]
    assert np.abs(found.astype(int) - np.asarray(expected)).max() <= LEVELS
    assert np.ptp(found) == 255
