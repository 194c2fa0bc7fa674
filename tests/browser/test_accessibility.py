"""axe-core finds no violation on the page at /, on /docs, and on the report of a run."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image

from ingest.runs.manifest import write_manifest
from ingest.runs.report import read_report
from ingest.runs.report_page import write_report
from serve_app.config import AppConfig
from serve_app.contracts.job import Source
from serve_app.contracts.outcome import Box, Cutout, Outcome
from serve_app.storage.local import LocalStore
from tests.browser.test_page import drop, wait_for_result
from tests.support.images import book, jpeg, saved
from tests.support.run_records import START, run_folder, run_manifest, write_results

pytestmark = pytest.mark.timeout(300)

SCHEMES = ("light", "dark")


def check(page: Any, state: str) -> None:
    """Check the page as it is now, with light and with dark colours."""
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        # Colours that fade would be measured half-way.
        page.evaluate("Promise.all(document.getAnimations().map((each) => each.finished))")
        found = Axe().run(page).response["violations"]
        violations = {
            f"{each['id']}: {each['help']}": [node["target"] for node in each["nodes"]][:9]
            for each in found
        }
        assert violations == {}, f"{state}, {scheme}"


@pytest.fixture
def ready(page: Any, page_url: str) -> Any:
    page.goto(page_url)
    page.wait_for_selector("#models option:nth-child(2)", state="attached")
    return page


def test_the_start_with_everything_open(ready: Any) -> None:
    check(ready, "start")
    ready.click("summary")
    ready.select_option("#background", "colour")
    ready.focus("#recipe")
    check(ready, "options")


def test_a_result(ready: Any) -> None:
    drop(ready, jpeg(book(9, 640, 480).image), "book.jpg")
    wait_for_result(ready)
    check(ready, "result")


def test_a_problem(ready: Any) -> None:
    drop(ready, b"no image at all", "notes.txt")
    ready.wait_for_selector("#problem:not([hidden])")
    check(ready, "problem")


def test_a_server_that_asks_for_a_key(page: Any, serve: Callable[..., str]) -> None:
    page.goto(serve(http={"api_keys": ["sesame"]}))
    page.wait_for_selector("#key-field:not([hidden])")
    drop(page, jpeg(book(9, 640, 480).image), "book.jpg")
    page.wait_for_selector("#problem:not([hidden])")
    check(page, "key")


def test_the_documentation(page: Any, page_url: str) -> None:
    page.goto(f"{page_url}docs")
    check(page, "docs")


def make_outcome(store: LocalStore, index: int, code: str | None, confidence: float) -> Outcome:
    """Store an image, and its cut-out unless it failed, and return the outcome."""
    source = Source(bucket="b", key=f"in/{index}.jpg")
    store.put("b", source.key, jpeg(book(index, 320, 240).image), "image/jpeg")
    known: dict[str, Any] = {
        "job_id": f"job-{index}",
        "run_id": "r1",
        "source": source,
        "finished_at": START + timedelta(seconds=index),
    }
    if code is not None:
        message = "the model found nothing to keep"
        return Outcome(**known, status="failed", code=code, message=message, retry="permanent")
    data = saved(Image.new("RGBA", (320, 240), (140, 40, 40, 200)), "PNG")
    store.put("b", f"out/{index}.png", data, "image/png")
    cutout = Cutout(
        model="folio",
        width=320,
        height=240,
        subject=Box(left=8, top=8, right=200, bottom=200),
        mask_confidence=confidence,
        stages_ms={"decode": 10.0, "segment": 30.0},
    )
    return Outcome(
        **known,
        status="done",
        output_bucket="b",
        output_key=f"out/{index}.png",
        output_bytes=len(data),
        cutout=cutout,
    )


def test_the_report_of_a_run(page: Any, tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    outcomes = [
        make_outcome(store, 0, None, 0.97),
        make_outcome(store, 1, None, 0.4),
        make_outcome(store, 2, "no_subject", 0),
        make_outcome(store, 3, "corrupt_image", 0),
    ]
    write_results(store, "a", *outcomes)
    write_manifest(run_folder(store), run_manifest(5))
    with read_report(run_folder(store)) as report:
        path = write_report(report, store, AppConfig.load(), tmp_path / "report", 10)
    page.goto(path.as_uri())
    assert page.locator("img").count() >= 2
    check(page, "report")
    for summary in page.locator("summary").all():
        summary.click()
    check(page, "report, opened")
