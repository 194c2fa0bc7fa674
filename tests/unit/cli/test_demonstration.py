"""A demonstration: its models, its photographs, and the names and scores of its cut-outs."""

from __future__ import annotations

import io
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from ingest.cli.demonstration import choose_models
from ingest.cli.settings import with_bundled_model
from ingest.cli.true_masks import score_cutouts
from ingest.local.photographs import copy_real_photographs, make_photographs
from serve_app.config import AppConfig


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return an empty folder of weights, and take the default of the models."""
    monkeypatch.delenv("FOREEDGE_MODELS")
    monkeypatch.setenv("U2NET_HOME", str(tmp_path))
    return tmp_path


def chosen() -> tuple[dict[str, Any], str]:
    output = io.StringIO()
    return choose_models(AppConfig.load(), Console(file=output)), output.getvalue()


def test_the_default_is_u2netp_with_folio_on_request(home: Path) -> None:
    (home / "u2netp.onnx").touch()
    assert chosen() == ({}, "")
    config = AppConfig.load(with_bundled_model({}))
    assert (config.models, config.models_on_request) == (("u2netp",), ("folio",))


def test_without_weights_folio_cuts_out_and_one_line_says_what_to_do() -> None:
    settings, output = chosen()
    assert AppConfig.load(with_bundled_model(settings)).served_models == ("folio",)
    assert output.count("\n") == 1
    assert "The weights of u2netp are not on this machine" in output
    assert "'foreedge models fetch u2netp'" in output


@pytest.mark.parametrize("setting", ["MODELS", "MODELS_ON_REQUEST"])
def test_a_model_that_somebody_chose_is_not_replaced(
    monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    monkeypatch.setenv(f"FOREEDGE_{setting}", "silueta")
    assert chosen() == ({}, "")
    assert "silueta" in AppConfig.load(with_bundled_model({})).served_models
    assert "folio" not in AppConfig.load(with_bundled_model({})).served_models


def test_cutouts_are_scored_with_their_true_masks(tmp_path: Path) -> None:
    cutouts, masks = tmp_path / "cutouts", tmp_path / "masks"
    cutouts.mkdir()
    [book, missing] = make_photographs(tmp_path, 2, 72, sizes=[(80, 60)], masks=masks)
    mask = Image.open(masks / "book-00072.png")
    cutout = Image.open(book).copy()
    cutout.putalpha(mask)
    cutout.save(cutouts / "book-00072.png")
    (cutouts / "cat.png").write_bytes(b"it has no true mask")
    assert score_cutouts(cutouts, masks) == {"book-00072": 1.0}

    half = np.array(mask)
    half[: half.shape[0] // 2] = 0
    cutout.putalpha(Image.fromarray(half))
    cutout.save(cutouts / "book-00072.png")
    subject = np.asarray(mask) > 127
    [score] = score_cutouts(cutouts, masks).values()
    assert score == pytest.approx(subject[30:].sum() / subject.sum())
    assert (masks / f"{missing.stem}.png").is_file()


def test_the_real_photographs_are_small_and_have_a_licence(tmp_path: Path) -> None:
    copies = copy_real_photographs(tmp_path, 100)
    assert len(copies) == len(copy_real_photographs(tmp_path, 6)) == 6
    assert copy_real_photographs(tmp_path, 0) == []
    licences = (files("ingest.local") / "real_photographs" / "LICENCES.md").read_text("utf-8")
    for path in copies:
        assert f"| `{path.name}` |" in licences
        assert path.stat().st_size <= 100_000
        with Image.open(path) as image:
            image.load()
            # The checks of a recipe reject a subject that is smaller than 100 pixels.
            assert min(image.size) >= 300
