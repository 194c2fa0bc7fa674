"""The page at /ops, with answers of ``/v1/ops`` that are made from reports of replicas."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import pytest

from serve_app.http.operations import describe_replicas, summarize_operations
from serve_app.serving.metrics import (
    DRAIN_SECONDS,
    HTTP_REFUSALS,
    IMAGES,
    MESSAGES_IN_FLIGHT,
    MESSAGES_RETRIED,
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
ILL = "output s3://photos: storage_rejected: the bucket denies to write the results of this run"
NAMES = ("queue", "source", "model", "pipeline", "output", "ledger", "autoscaling")


def health(**reasons: str) -> dict[str, Any]:
    boundaries = [
        {"name": name, "reason": reasons.get(name), "consumers": name in reasons} for name in NAMES
    ]
    reason = next(iter(reasons.values()), None)
    return {
        "healthy": reason is None,
        "reason": reason,
        "boundaries": boundaries,
        "replicas": [{}],
        "catalog": {"jobs": {"pending": 7, "completed": 12}, "stale": 0, "oldest_pending_s": 40},
    }


def answer(
    ingest: dict[str, Any] | None, *, running: int = 2, done: int = 40, failed: int = 2
) -> str:
    """Return the JSON of an application that has drained a backlog for twenty minutes."""
    clock_s = NOW_S - 1200
    recent = RecentMetrics(lambda: clock_s)
    for index in range(120):
        recent.note(
            [
                (IMAGES, ("queue", "done", "", "u2netp"), done),
                (IMAGES, ("queue", "failed", "no_subject", ""), failed),
                (MESSAGES_RETRIED, ("storage_unavailable",), 1),
                (HTTP_REFUSALS, ("overloaded", "http.max_concurrent", ""), 1),
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
    replicas = [describe_replicas("CutoutPipeline", states)]
    report = RecentReport(recent.values(), (shot,))
    return summarize_operations([report], replicas, ingest, NOW_S).model_dump_json()


def open_page(page: Any, url: str, body: str) -> None:
    page.route("**/v1/ops", lambda route: route.fulfill(body=body, content_type="application/json"))
    page.goto(f"{url}ops")
    page.wait_for_selector("#facts-now:not([hidden])")


def ask_again(page: Any) -> None:
    with page.expect_event("requestfinished", lambda request: request.url.endswith("/v1/ops")):
        page.evaluate("dispatchEvent(new Event('visibilitychange'))")


def test_a_healthy_run(page: Any, page_url: str) -> None:
    open_page(page, page_url, answer(health()))
    assert page.inner_text("#verdict") == "Everything is healthy"
    assert page.inner_text("#rate") == "4.2"
    assert page.inner_text("#waiting") == "883"
    assert page.inner_text("#drained") == "4 min"
    assert page.inner_text("#policy").endswith("; 2 min by the policy")
    assert page.inner_text("#failed") == "240"
    assert page.inner_text("#share") == "4.8% of 5,040"
    codes = [row.split() for row in page.locator("#codes tr").all_inner_texts()]
    assert codes == [
        ["no_subject", "240", "0", "0"],
        ["storage_unavailable", "0", "120", "0"],
        ["overloaded", "0", "0", "120"],
    ]
    assert "s3://photos/a.jpg" in page.inner_text("#failures")
    assert page.inner_text("#stages").split()[0] == "decode"
    assert page.inner_text("#catalog").split()[:2] == ["pending", "7"]
    assert {row.split()[-1] for row in page.locator("#boundaries tr").all_inner_texts()} == {"well"}
    for plot in ("rates", "backlog"):
        assert page.locator(f"#{plot} path").count() == 2
    assert "waiting: 883 now, at most 6,000." in page.get_attribute("#backlog", "aria-label")
    check(page, "healthy")


def test_the_labels_of_a_plot_are_whole_minutes_at_their_places(page: Any, page_url: str) -> None:
    open_page(page, page_url, answer(health()))
    minutes = page.evaluate(
        """[...document.querySelectorAll('#rates text[y="150"]')].map((each) => {
            const [hour, minute] = each.textContent.split(':').map(Number);
            return [60 * hour + minute, each.getBBox().x + each.getBBox().width / 2];
        })"""
    )
    assert len(minutes) >= 3
    assert len({minute % 5 for minute, _ in minutes}) == 1
    steps = [
        (after - before, place - former)
        for (before, former), (after, place) in pairwise(minutes[:-1])
    ]
    assert {minute for minute, _ in steps} == {5}
    assert max(place for _, place in steps) - min(place for _, place in steps) < 1


def test_milliseconds_of_stages_have_as_many_digits_as_their_neighbours(
    page: Any, page_url: str
) -> None:
    recent = RecentMetrics(lambda: NOW_S)
    stages = {"decode": 0.0071, "resize": 0.0212, "segment": 0.181, "publish": 1.5}
    recent.note([(STAGE_SECONDS, (name,), value) for name, value in stages.items()])
    body = summarize_operations([RecentReport(recent.values())], [], None, NOW_S)
    open_page(page, page_url, body.model_dump_json())
    rows = [row.split("\t") for row in page.locator("#stages tr").all_inner_texts()]
    assert len(rows) == len(stages)
    for _, _, *cells in rows:
        for value, unit in map(str.split, cells):
            digits = 2 if unit == "s" else int(float(value) < 99.95)
            assert len(value.partition(".")[2]) == digits, cells


def test_what_needs_attention_is_said(page: Any, page_url: str) -> None:
    open_page(page, page_url, answer(health(output=ILL), running=0, done=0, failed=0))
    assert page.inner_text("#verdict") == "Needs attention"
    assert page.title() == "Needs attention · Foreedge"
    reasons = page.inner_text("#reasons")
    assert reasons.splitlines()[0] == ILL
    assert "CutoutPipeline has no running replica." in reasons
    assert "none was processed in the last minute" in reasons
    assert page.inner_text("#drained") == "not draining"
    assert page.inner_text("#policy") == ""
    rows = page.locator("#boundaries tr").all_inner_texts()
    [row] = [row for row in rows if "not well" in row]
    assert row.split() == f"Results (S3) not well {ILL}".split()
    check(page, "unhealthy")


def test_replicas_that_start_are_no_alarm(page: Any, page_url: str) -> None:
    open_page(page, page_url, answer(health(), running=1))
    assert page.inner_text("#verdict") == "Everything is healthy"
    assert page.inner_text("#notes") == "CutoutPipeline: 1 of 2 replicas run, 1 starting."
    check(page, "scaling up")


@pytest.mark.parametrize(("width", "columns"), [(1280, 6), (390, 2)])
def test_the_facts_fill_their_lines_and_nothing_is_cut_off(
    page: Any, page_url: str, width: int, columns: int
) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    open_page(page, page_url, answer(health(output=ILL)))
    tops = page.evaluate(
        "[...document.querySelectorAll('#now dl > div')].map((each) => each.offsetTop)"
    )
    assert set(Counter(tops).values()) == {columns}
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    # One unit of a plot is one pixel, so that its labels can be read at every width.
    box = page.get_attribute("#rates", "viewBox").split()
    assert int(box[2]) == page.evaluate("document.getElementById('rates').clientWidth")
    check(page, f"{width} pixels")


def test_an_application_without_a_queue_shows_nothing_of_one(page: Any, page_url: str) -> None:
    body = summarize_operations([], [], None, NOW_S).model_dump_json()
    open_page(page, page_url, body)
    assert not page.is_visible("#waiting")
    assert not page.is_visible("#boundaries")
    assert page.inner_text("#stages") == "No image was processed."
    assert page.inner_text("#failures") == "Nothing has failed."
    check(page, "empty")


def test_a_backlog_that_cannot_be_read_has_its_last_number(page: Any, page_url: str) -> None:
    recent = RecentMetrics(lambda: NOW_S - 120)
    recent.note([(QUEUE_MESSAGES, ("visible",), 177), (QUEUE_MESSAGES, ("not_visible",), 5)])
    report = RecentReport(recent.values())
    body = summarize_operations([report], [], health(queue="queue_unavailable: no answer"), NOW_S)
    open_page(page, page_url, body.model_dump_json())
    assert page.inner_text("#waiting") == "unknown"
    assert page.inner_text("#waiting-before").startswith("177 at ")


def test_what_somebody_selects_stays_if_nothing_changes(page: Any, page_url: str) -> None:
    open_page(page, page_url, answer(health()))
    page.evaluate("getSelection().selectAllChildren(document.getElementById('failures'))")
    ask_again(page)
    page.wait_for_timeout(100)
    assert "no subject was found" in page.evaluate("getSelection().toString()")


def test_a_key_is_asked_for_and_kept(page: Any, page_url: str) -> None:
    problem = '{"detail": "This server needs an API key.", "code": "unauthenticated"}'

    def fulfil(route: Any) -> None:
        if route.request.headers.get("x-api-key") == "secret":
            route.fulfill(body=answer(health()), content_type="application/json")
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


def test_a_server_that_is_gone_is_said_with_the_time_of_what_is_shown(
    page: Any, page_url: str
) -> None:
    open_page(page, page_url, answer(health()))
    page.unroute("**/v1/ops")
    page.route("**/v1/ops", lambda route: route.abort())
    page.evaluate("dispatchEvent(new Event('visibilitychange'))")
    page.wait_for_selector("#reasons li")
    assert page.inner_text("#verdict") == "The server cannot be reached"
    assert "What is below was true at " in page.inner_text("#reasons")


def test_an_answer_of_haproxy_is_said(page: Any, page_url: str) -> None:
    body = "<html><body><h1>503 Service Unavailable</h1></body></html>"
    page.route("**/v1/ops", lambda route: route.fulfill(status=503, body=body))
    page.goto(f"{page_url}ops")
    page.wait_for_selector("#reasons li")
    assert "The server answers with an error" in page.inner_text("main")
    assert "503 Service Unavailable" in page.inner_text("#reasons")
