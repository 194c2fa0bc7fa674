"""ONNX Runtime and OpenVINO send nothing about their use."""

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


_WATCHED = """
import sys

def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        print("CONNECTS", flush=True)
        raise OSError("nothing is sent by a test")

sys.addaudithook(watch)
"""
_OPENVINO = """
from serve_app.config import AppConfig
from serve_app.models.inference import load_model
model = load_model("folio", AppConfig(models=["folio"], segmenter={"engine": "openvino"}))
assert model.choice.pair.engine == "openvino", model.choice
"""


@pytest.mark.parametrize(("code", "sends"), [(_OPENVINO, False), ("import openvino", True)])
def test_openvino_neither_connects_nor_leaves_an_id(code: str, sends: bool, tmp_path: Path) -> None:
    """The second case shows that the first one looks in the right places."""
    done = subprocess.run(
        [sys.executable, "-c", _WATCHED + code],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        cwd=Path(__file__).parents[3],
        check=True,
        capture_output=True,
        text=True,
    )
    assert ("CONNECTS" in done.stdout) == sends
    assert (tmp_path / "intel").exists() == sends
