"""Screenshots of the page at /ops: ``python -m tests.browser.operations_pictures``.

A real application drains a real run while Chromium shows the page: a replica is added, the bucket
of the results refuses for a while, and the run is drained. At the end, the page's numbers must be
those of the run's ledger. The screenshots are written to docs/operations.
"""

from __future__ import annotations

import io
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from ingest.local.application import serving
from ingest.local.aws import LocalAws, use_dummy_credentials
from ingest.local.ports import free_port
from ingest.runs.folder import RunFolder
from ingest.runs.ledger import read_outcomes
from serve_app.config import AppConfig
from tests.browser.conftest import FLAGS
from tests.support.fault_effects import refuse
from tests.support.fault_proxy import Proxy
from tests.support.images import book, jpeg
from tests.support.running_app import App, Aws, settings_behind

FOLDER = Path(__file__).parents[2] / "docs" / "operations"
MOST_BYTES = 250_000

_JOBS = 450
_BROKEN_EVERY = 40
_STEADY_S = 30.0
_OUTAGE_S = 75.0
"""Longer than the minute of which the page shows the rate."""
_PATIENCE_S = 120.0
_COLOURS = 128


@contextmanager
def application() -> Iterator[tuple[App, Proxy]]:
    """Run an application that may add a replica, behind a proxy that can let S3 fail."""
    use_dummy_credentials()
    with LocalAws() as server, Proxy(server.endpoint_url) as proxy:
        aws = Aws(server)
        # More in flight would be too many at once for one local S3.
        args, dead_url = settings_behind(proxy, aws, visibility_timeout_s=120, max_in_flight=12)
        args["autoscaling"] = {"max_replicas": 2, "drain_target_s": 20, "upscale_delay_s": 2}
        with serving(args, port=free_port(), quiet=True) as endpoints:
            app = App(endpoints.http, AppConfig.load(args), dead_url, aws)
            yield app, proxy
            app.http.close()


def main() -> None:
    """Let the run, the scale-up and the failure happen, and write their screenshots."""
    program = shutil.which("chromium")
    assert program is not None, "chromium is not installed (Debian's package chromium)"
    with application() as (app, proxy), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        good = jpeg(book(width=1000, height=800).image)
        images = {
            f"{number:03d}.jpg": b"a text" if number % _BROKEN_EVERY == 7 else good + bytes(number)
            for number in range(_JOBS)
        }
        entries = app.put(images)
        # In a thread: the replica starts before everything is sent.
        with ThreadPoolExecutor() as threads:
            sending = threads.submit(app.send, entries)
            _wait_for(app, lambda found: bool(found["notes"]), "a replica that starts")
            _photograph(browser, app, "ops-scale-up.png")
            monitor = sending.result()
        _wait_for(app, lambda found: not found["notes"], "the replica")
        time.sleep(_STEADY_S)
        _photograph(browser, app, "ops-run.png")
        _photograph(browser, app, "ops-run-small.png", width=390, dark=True)
        rule = proxy.add("s3:PutObject", refuse(403, "AccessDenied"), name="*/cutouts/*")
        _wait_for(app, lambda found: bool(found["attention"]), "the failure")
        time.sleep(_OUTAGE_S)
        _photograph(browser, app, "ops-failure.png", dark=True)
        proxy.remove(rule)
        *_, status = app.follow(monitor)
        _wait_for(app, lambda found: found["backlog"]["drained_in_s"] == 0, "the end")
        found = _ask(app)
        # A message that SQS delivers twice has two records, of which the run's status counts one.
        records = read_outcomes(RunFolder(app.store, app.ledger, status.run_id))
        recorded = dict(Counter(outcome.status for outcome in records))
        print(f"run: {status.counts}, records: {recorded}, page: {found['outcomes']}")
        assert found["outcomes"] == recorded, "the page and the ledger do not agree"
        assert found["failures_by_code"] == {"unsupported_format": status.counts["failed"]}
        browser.close()


def _ask(app: App) -> dict[str, Any]:
    answer = app.http.get("/v1/ops")
    answer.raise_for_status()
    found: dict[str, Any] = answer.json()
    return found


def _wait_for(app: App, condition: Callable[[dict[str, Any]], bool], what: str) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not condition(found := _ask(app)):
        assert time.monotonic() < deadline, f"{what} did not come: {found['replicas']}"
        time.sleep(0.5)


def _photograph(
    browser: Browser, app: App, name: str, width: int = 1280, *, dark: bool = False
) -> None:
    """Write a screenshot of the whole page as it is now."""
    context = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme="dark" if dark else "light",
        timezone_id="UTC",
    )
    page: Page = context.new_page()
    page.goto(f"{app.url}/ops")
    page.wait_for_selector("#facts-now:not([hidden])")
    shot = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
    context.close()
    # The page has few colours, and a palette takes a third of the bytes.
    path = FOLDER / name
    shot.quantize(_COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    size = path.stat().st_size
    print(f"{path.name}: {shot.width} x {shot.height}, {size} bytes")
    assert size < MOST_BYTES, "too large for the documents"


if __name__ == "__main__":
    main()
