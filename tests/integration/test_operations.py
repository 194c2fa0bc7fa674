"""The report of ``/v1/ops`` about a real application."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from ray.experimental.internal_kv import internal_kv_get_gcs_client

from ingest.consumer.troubles import BOUNDARIES
from ingest.local.application import APPLICATION
from serve_app.models.registry import BUNDLED_MODEL
from serve_app.serving.kept_reports import ReportKeeper, kept_reports
from serve_app.serving.metrics import IMAGES
from serve_app.serving.recent_metrics import SLOT_S, SLOTS, RecentMetrics, RecentReport
from tests.support.images import book, jpeg
from tests.support.running_app import App

BOOK = jpeg(book().image)
OVER_HTTP = ("http", "done", "", BUNDLED_MODEL)
METRICS_FLUSHED_S = 2.0
"""Metrics are noted once a second, and an answer is shared for two."""
COUNTED_WITHIN_S = 20.0
"""Counters of a consumer are read every 5 s."""


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


def test_the_numbers_are_those_of_the_run(app: App) -> None:
    before = ask(app)
    images = {f"{number}.jpg": BOOK + bytes(number) for number in range(6)}
    ended = app.run(images | {"text.jpg": b"a text", "empty.jpg": b""}).outcomes.values()
    statuses = Counter(outcome.status for outcome in ended)
    codes = Counter(outcome.code for outcome in ended if outcome.code)
    assert sum(codes.values()) == 2
    deadline = time.monotonic() + COUNTED_WITHIN_S
    while True:
        found = ask(app)
        outcomes = Counter(found["outcomes"]) - Counter(before["outcomes"])
        failures = Counter(found["failures_by_code"]) - Counter(before["failures_by_code"])
        if (outcomes, failures) == (statuses, codes):
            break
        assert time.monotonic() < deadline, (outcomes, statuses, failures, codes)
        time.sleep(0.5)
    assert {each["code"] for each in found["last_failures"]} >= set(codes)
    assert [each["name"] for each in found["boundaries"]] == list(BOUNDARIES)
    assert {each["reason"] for each in found["boundaries"]} == {None}
    # Other tests count the letters of the same dead-letter queue.
    letters = app.dead_letters()
    while len(letters) < 2:
        assert time.monotonic() < deadline, letters
        letters += app.dead_letters()
        time.sleep(0.1)


def report(images: int, before_s: float = 0) -> RecentReport:
    """Return the report of a process that processed images some seconds ago."""
    recent = RecentMetrics(lambda: time.time() - before_s)
    recent.note([(IMAGES, ("queue", "done", "", "ended"), images)])
    return RecentReport(recent.values())


def test_what_ended_replicas_did_is_kept(app: App) -> None:
    before = ask(app)["outcomes"].get("done", 0)
    ReportKeeper(APPLICATION, "ended", lambda: report(1000)).keep()
    time.sleep(METRICS_FLUSHED_S)
    assert ask(app)["outcomes"]["done"] >= before + 1000
    # A replica that answers for itself does not count twice.
    series = (IMAGES.name, ("queue", "done", "", "ended"))
    assert any(series in each.values.counts for each in kept_reports(APPLICATION))
    assert not any(series in each.values.counts for each in kept_reports(APPLICATION, ["ended"]))


def test_every_replica_stores_its_report(app: App) -> None:
    app.post(BOOK)
    counted = {"images": 0, "stages": 0}
    deadline = time.monotonic() + 30
    while not all(counted.values()) and time.monotonic() < deadline:
        time.sleep(1)
        kept = kept_reports(APPLICATION)
        counted["images"] = sum((IMAGES.name, OVER_HTTP) in each.values.counts for each in kept)
        counted["stages"] = sum(bool(each.values.distributions) for each in kept)
    assert min(counted.values()) >= 1, counted


def test_reports_that_are_too_old_are_removed(app: App) -> None:
    old = report(1, before_s=SLOTS * SLOT_S + 60)
    ReportKeeper("another", "old", lambda: old).keep()
    prefix = b"recent another "
    store = internal_kv_get_gcs_client()
    assert len(store.internal_kv_keys(prefix, b"foreedge", 5)) == 1
    assert kept_reports("another") == []
    assert store.internal_kv_keys(prefix, b"foreedge", 5) == []


def test_the_page_is_served(app: App) -> None:
    page = app.http.get("/ops")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    for name in ("ops.css", "ops.js"):
        assert f"page/{name}" in page.text
        assert app.http.get(f"/page/{name}").status_code == 200
