"""The former name of the memory budget's setting."""

from __future__ import annotations

from typing import Any

import pytest

from serve_app.config import AppConfig
from serve_app.errors import InvalidConfig


@pytest.mark.parametrize("pixels", [64_000_000, "64000000"])
def test_the_former_budget_in_pixels_is_read(pixels: int | str) -> None:
    config = AppConfig.load({"pipeline.max_decoded_pixels": pixels, "pipeline.threads": 3})
    assert config.pipeline.max_decoded_bytes == 640_000_000
    assert AppConfig.load(config.model_dump()) == config


def test_the_former_budget_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOREEDGE_PIPELINE__MAX_DECODED_PIXELS", "1000")
    assert AppConfig.load().pipeline.max_decoded_bytes == 10_000


@pytest.mark.parametrize("pixels", [0, -1, "many", None])
def test_a_wrong_former_budget_is_refused(pixels: Any) -> None:
    with pytest.raises(InvalidConfig, match="max_decoded_pixels: Input should be"):
        AppConfig.load({"pipeline": {"max_decoded_pixels": pixels}})
