"""The page at /ops, with answers of ``/v1/ops`` that are made from reports of replicas."""

from __future__ import annotations

from typing import Any

import pytest

from serve_app.http.operations import Replicas, summarize_operations
from serve_app.serving.metrics import (
    DRAIN_SECONDS,
    IMAGES,
    MESSAGES_IN_FLIGHT,
    QUEUE_MESSAGES,
    STAGE_SECONDS,
)
from serve_app.serving.recent_metrics import (
    SLOT_S,
    RecentFailure,
    RecentMetrics,
    RecentReport,
)
from tests.browser.test_accessibility import check

pytestmark = pytest.mark.timeout(300)

NOW_S = 1_790_000_000.0
HEALTHY = {"healthy": True, "reason": None}
AWAY = {"healthy": False, "reason": "storage_unavailable: the bucket photos does not answer"}


def answer(ingest: dict[str, Any], *, running: int = 2, done: int = 40, failed: int = 3) -> str:
    """Return the JSON of an application that has drained a backlog for twenty minutes."""
    clock_s = NOW_S - 1200
    recent = RecentMetrics(lambda: clock_s)
    for index in range(120):
        recent.note(
            [
                (IMAGES, ("queue", "done", "", "u2netp"), done),
                (IMAGES, ("queue", "failed", "no_subject", ""), failed),
                (QUEUE_MESSAGES, ("visible",), 6000 - 43 * index),
                (QUEUE_MESSAGES, ("not_visible",), 64),
                (MESSAGES_IN_FLIGHT, (), 64),
                (DRAIN_SECONDS, ("CutoutPipeline",), 130),
                (STAGE_SECONDS, ("decode",), 0.02),
                (STAGE_SECONDS, ("segment",), 0.4),
            ]
        )
        clock_s += SLOT_S
    shot = RecentFailure(
        NOW_S, "queue", "no_subject", "no subject was found", "s3://photos/a.jpg", "j1", "run-1"
    )
    states = {"RUNNING": running, "STARTING": 2 - running}
    replicas = [Replicas(deployment="CutoutPipeline", wanted=2, running=running, states=states)]
    report = RecentReport(recent.values(), (shot,))
    return summarize_operations([report], replicas, ingest, NOW_S).model_dump_json()


def open_page(page: Any, url: str, body: str) -> None:
    page.route("**/v1/ops", lambda route: route.fulfill(body=body, content_type="application/json"))
    page.goto(f"{url}ops")
    page.wait_for_selector("#facts-now:not([hidden])")


def test_a_healthy_run(page: Any, page_url: str) -> None:
    open_page(page, page_url, answer(HEALTHY))
    assert page.inner_text("#verdict") == "Everything is healthy"
    assert page.inner_text("#rate") == "4.3"
    assert page.inner_text("#waiting") == "883"
    assert page.inner_text("#drained") == "4 min"
    assert page.inner_text("#policy") == "2 min"
    assert page.inner_text("#failed") == "360"
    assert "no_subject" in page.inner_text("#codes")
    assert "s3://photos/a.jpg" in page.inner_text("#failures")
    assert page.inner_text("#stages").split()[0] == "decode"
    for plot in ("rates", "backlog"):
        assert page.locator(f"#{plot} path").count() == 2
    check(page, "healthy")


def test_what_needs_attention_is_said(page: Any, page_url: str) -> None:
    open_page(page, page_url, answer(AWAY, running=1, done=0, failed=0))
    assert page.inner_text("#verdict") == "Needs attention"
    reasons = page.inner_text("#reasons")
    assert "the bucket photos does not answer" in reasons
    assert "CutoutPipeline: 1 of 2 replicas run." in reasons
    assert "none was processed in the last minute" in reasons
    assert page.inner_text("#drained") == "not draining"
    check(page, "unhealthy")


def test_a_key_is_asked_for_and_kept(page: Any, page_url: str) -> None:
    problem = '{"detail": "This server needs an API key.", "code": "unauthenticated"}'

    def fulfil(route: Any) -> None:
        if route.request.headers.get("x-api-key") == "secret":
            route.fulfill(body=answer(HEALTHY), content_type="application/json")
        else:
            route.fulfill(status=401, body=problem, content_type="application/json")

    page.route("**/v1/ops", fulfil)
    page.goto(f"{page_url}ops")
    page.wait_for_selector("#access:not([hidden])")
    assert page.inner_text("#verdict") == "This server needs an API key"
    check(page, "without a key")
    page.keyboard.type("wrong")
    page.keyboard.press("Enter")
    page.wait_for_selector("#reasons li")
    page.fill("#key", "secret")
    page.keyboard.press("Enter")
    page.wait_for_selector("#facts-now:not([hidden])")
    assert page.inner_text("#verdict") == "Everything is healthy"
    page.reload()
    page.wait_for_selector("#facts-now:not([hidden])")


def test_a_server_that_is_gone_is_said(page: Any, page_url: str) -> None:
    page.route("**/v1/ops", lambda route: route.abort())
    page.goto(f"{page_url}ops")
    page.wait_for_selector("#reasons li")
    assert page.inner_text("#verdict") == "The server cannot be reached"
