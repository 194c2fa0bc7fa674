"""ONNX Runtime sends nothing about its use."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_RUN = """
from serve_app.config import AppConfig
from serve_app.models.inference import load_model
load_model("folio", AppConfig(models=["folio"]))
"""


@pytest.mark.parametrize(
    ("environment", "kept"), [({}, False), ({"ORT_DISABLE_TELEMETRY": "0"}, True)]
)
def test_a_model_leaves_no_record_of_its_use(
    environment: dict[str, str], kept: bool, tmp_path: Path
) -> None:
    """The second case shows that the first one looks in the right place.

    The environment is a bare one: ONNX Runtime also keeps nothing if `CI` or the like is set.
    """
    bare = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }
    subprocess.run(
        [sys.executable, "-c", _RUN],
        env={**bare, **environment},
        cwd=Path(__file__).parents[3],
        check=True,
    )
    assert (tmp_path / "cache" / "Microsoft").exists() == kept
