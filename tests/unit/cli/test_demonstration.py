"""The models of a demonstration, with and without the weights of the default."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from ingest.cli.demonstration import models_to_show
from serve_app.config import AppConfig


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return an empty folder of weights, and take the default of the models."""
    monkeypatch.delenv("FOREEDGE_MODELS")
    monkeypatch.setenv("U2NET_HOME", str(tmp_path))
    return tmp_path


def shown() -> tuple[list[str], str]:
    output = io.StringIO()
    return models_to_show(AppConfig.load(), Console(file=output)), output.getvalue()


def test_the_default_is_u2netp_with_folio_next_to_it(home: Path) -> None:
    (home / "u2netp.onnx").touch()
    assert shown() == (["u2netp", "folio"], "")


def test_without_weights_folio_shows_and_one_line_says_what_to_do() -> None:
    models, output = shown()
    assert models == ["folio"]
    assert output.count("\n") == 1
    assert "The weights of u2netp are not on this machine" in output
    assert "'foreedge models fetch u2netp'" in output


def test_a_model_that_somebody_chose_is_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOREEDGE_MODELS", '["silueta"]')
    assert shown() == (["silueta"], "")
