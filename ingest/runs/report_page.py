"""The report as one HTML page: a few hundred previews, whatever the size of the run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import jinja2

from ingest.runs.previews import Preview, PreviewReader
from ingest.runs.records import Record
from ingest.runs.report import DOUBTFUL_BELOW, RunReport, source_url, write_report_json
from ingest.units import format_duration
from serve_app.config import AppConfig, ImageLimits
from serve_app.errors import ForeedgeError
from serve_app.storage.protocol import ObjectStore

FAILURES_SHOWN = 200
"""Maximum number of failed jobs on the page, with some of every error code."""

DOUBTFUL_SHOWN = 200
"""Maximum number of doubtful masks on the page, which are the least confident ones."""

PREVIEW_SIDE_PX = 320
"""Longest side of a preview in pixels."""

_FAILURE_SIDE_PX = 96
_THREADS = 8


def write_report(
    report: RunReport,
    store: ObjectStore,
    config: AppConfig,
    folder: Path,
    sample_size: int,
    on_refused: Callable[[ForeedgeError], None] = lambda _: None,
) -> Path:
    """Write ``report.json`` and ``report.html``, and return the path of the page. Blocks.

    Args:
        report: The run.
        store: Object store of its images and cut-outs.
        config: Settings, which limit the images that are decoded.
        folder: Folder to write to. It is created if it does not exist.
        sample_size: See ``render_report_page``.
        on_refused: See ``render_report_page``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_report_json(report, folder / "report.json")
    page = folder / "report.html"
    html = render_report_page(report, store, config.limits, sample_size, on_refused)
    page.write_text(html, encoding="utf-8")
    return page


@dataclass(frozen=True, slots=True)
class ResultCard:
    """A result as the page shows it."""

    record: Record
    before: Preview | None
    """Preview of the image. None if it cannot be read."""
    after: Preview | None
    """Preview of the cut-out. None if it cannot be read."""


def render_report_page(
    report: RunReport,
    store: ObjectStore,
    limits: ImageLimits,
    sample_size: int,
    on_refused: Callable[[ForeedgeError], None] = lambda _: None,
) -> str:
    """Return the page, one file that needs no network. Blocks while images are read.

    Args:
        report: The run.
        store: Object store of its images and cut-outs.
        limits: Limits beyond which an image is not decoded.
        sample_size: Number of results in the sample. Failures and doubtful masks are shown as
            well, up to 200 of each. With 0, the page has no previews.
        on_refused: Function to call, in any thread, with the error of each image or cut-out that
            the store refuses to read. The page lacks its preview.
    """
    reader = PreviewReader(store, limits, on_refused)
    failures = report.failures(FAILURES_SHOWN)
    doubtful = report.doubtful(DOUBTFUL_SHOWN if sample_size else 0)
    sample = report.sample(sample_size)
    with ThreadPoolExecutor(_THREADS, "previews") as pool:
        small = partial(reader.source, side_px=_FAILURE_SIDE_PX)
        shown = pool.map(small, failures) if sample_size else [None] * len(failures)
        return (
            page_environment()
            .get_template("report.html.j2")
            .render(
                report=report,
                status=report.status,
                failures=list(zip(failures, shown, strict=True)),
                doubtful=list(_cards(pool, reader, doubtful)),
                sample=list(_cards(pool, reader, sample)),
                doubtful_below=DOUBTFUL_BELOW,
                written_at=datetime.now(UTC),
            )
        )


def _cards(
    pool: ThreadPoolExecutor, reader: PreviewReader, records: list[Record]
) -> Iterator[ResultCard]:
    before = pool.map(partial(reader.source, side_px=PREVIEW_SIDE_PX), records)
    after = pool.map(partial(reader.result, side_px=PREVIEW_SIDE_PX), records)
    return map(ResultCard, records, before, after)


def page_environment() -> jinja2.Environment:
    """Return the templates of pages, which share a style."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ingest.runs"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.globals["source_url"] = source_url
    environment.filters["duration"] = format_duration
    environment.filters["bytes"] = _format_bytes
    environment.filters["number"] = lambda value: f"{value:,}"
    return environment


def _format_bytes(size: int | None) -> str:
    if size is None:
        return ""
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"
