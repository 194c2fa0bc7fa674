"""The report of ``/v1/ops`` about a real application."""

from __future__ import annotations

import time
from typing import Any

from tests.support.images import book, jpeg
from tests.support.running_app import App

BOOK = jpeg(book().image)
METRICS_FLUSHED_S = 2.0
"""Metrics are noted once a second, and an answer is shared for two."""


def ask(app: App) -> dict[str, Any]:
    answer = app.http.get("/v1/ops")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_every_replica_is_asked(app: App) -> None:
    before = ask(app)
    assert app.post(BOOK).status_code == 200
    assert app.http.post("/v1/cutout", content=b"no image").status_code == 415
    time.sleep(2 * METRICS_FLUSHED_S)
    found = ask(app)
    assert found["outcomes"]["done"] > before["outcomes"].get("done", 0)
    failed = found["failures_by_code"]["unsupported_format"]
    assert failed == before["failures_by_code"].get("unsupported_format", 0) + 1
    [last, *_] = found["last_failures"]
    assert (last["code"], last["way_in"], last["subject"]) == (
        "unsupported_format",
        "http",
        "POST /v1/cutout",
    )
    stages = {stage["name"]: stage for stage in found["stages"]}
    assert stages["decode"]["images"] > 0
    assert 0 < stages["segment"]["median_s"] <= stages["segment"]["p95_s"]
    running = {each["deployment"]: each["running"] for each in found["replicas"]}
    assert running["HttpApi"] >= 1
    assert running["CutoutPipeline"] >= 1
    assert len(found["history"]) == 180
    assert sum(moment["done"] for moment in found["history"]) > 0
    if found["ingest"] is not None:
        assert isinstance(found["ingest"]["healthy"], bool)


def test_the_page_is_served(app: App) -> None:
    page = app.http.get("/ops")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    for name in ("ops.css", "ops.js"):
        assert f"page/{name}" in page.text
        assert app.http.get(f"/page/{name}").status_code == 200
