"""The warning about images that would wait in Serve."""

from __future__ import annotations

from typing import Any

import pytest

from serve_app.config import AppConfig
from serve_app.replica_options import warn_if_images_wait_in_serve

QUEUE = {"queue": {"url": "http://127.0.0.1:9/q", "max_in_flight": 64}, "ledger": {"bucket": "b"}}


@pytest.mark.parametrize(
    ("settings", "warns"),
    [
        ({"http": {"max_concurrent": 64}, "pipeline": {"max_ongoing": 64}}, False),
        ({"http": {"max_concurrent": 65}, "pipeline": {"max_ongoing": 64}}, True),
        ({**QUEUE, "http": {"max_concurrent": 64}, "pipeline": {"max_ongoing": 128}}, False),
        ({**QUEUE, "http": {"max_concurrent": 64}, "pipeline": {"max_ongoing": 127}}, True),
    ],
)
def test_more_images_than_the_pipelines_accept(
    settings: dict[str, Any], warns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    warn_if_images_wait_in_serve(AppConfig.load(settings))
    assert ("Raise pipeline.max_ongoing" in caplog.text) == warns
