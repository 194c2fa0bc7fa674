"""The page that a person can judge a run by: a few hundred pictures, whatever the run's size."""

from __future__ import annotations

import base64
import io
import itertools
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import jinja2
from PIL import Image, ImageOps

from ingest.runs.records import Record
from ingest.runs.report import DOUBTFUL_BELOW, Report, source_url, write_json
from ingest.units import format_duration
from serve_app.config import AppConfig, ImageLimits
from serve_app.errors import ForeedgeError
from serve_app.imaging.decode import FORMATS
from serve_app.storage.protocol import ObjectStore

FAILURES_SHOWN = 200
"""Most failed jobs in the page, with their pictures; some of every code."""

DOUBTFUL_SHOWN = 200
"""Most doubtful masks in the page, with their pictures; the least confident ones."""

PICTURE_SIDE_PX = 320
"""Longest side of a picture in the page."""

_FAILURE_SIDE_PX = 96
_THREADS = 8


def write_report(
    report: Report, store: ObjectStore, config: AppConfig, folder: Path, pictures: int
) -> Path:
    """Write ``report.json`` and ``report.html``; return the path of the page; blocks.

    Args:
        report: The run.
        store: Where its pictures are.
        config: Its limits bound what is decoded.
        folder: Where the two files go; made if it does not exist.
        pictures: See ``render``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_json(report, folder / "report.json")
    page = folder / "report.html"
    page.write_text(render(report, store, config.limits, pictures), encoding="utf-8")
    return page


@dataclass(frozen=True, slots=True)
class Picture:
    """A small picture, ready for the page."""

    uri: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Card:
    """A result as the page shows it."""

    record: Record
    before: Picture | None
    after: Picture | None


def render(report: Report, store: ObjectStore, limits: ImageLimits, pictures: int) -> str:
    """Return the page: one file that needs no network; blocks while pictures are read.

    Args:
        report: The run.
        store: Where its pictures are.
        limits: Of what is decoded.
        pictures: How many results the sample has. Failures and doubtful masks are shown beside
            it, up to 200 of each; 0 leaves every picture out.
    """
    failures = report.failures(FAILURES_SHOWN)
    doubtful = report.doubtful(DOUBTFUL_SHOWN if pictures else 0)
    sample = report.sample(pictures)
    with ThreadPoolExecutor(_THREADS, "pictures") as pool:

        def before(record: Record, side_px: int = PICTURE_SIDE_PX) -> Picture | None:
            source = record.get("source") or {}
            place = (source.get("bucket"), source.get("key"))
            return _picture(store, *place, limits=limits, side_px=side_px)

        def after(record: Record) -> Picture | None:
            place = (record.get("output_bucket"), record.get("output_key"))
            return _picture(store, *place, limits=limits, side_px=PICTURE_SIDE_PX)

        def cards(records: list[Record]) -> list[Card]:
            pairs = zip(pool.map(before, records), pool.map(after, records), strict=True)
            return [Card(record, *pair) for record, pair in zip(records, pairs, strict=True)]

        small = pool.map(before, failures, itertools.repeat(_FAILURE_SIDE_PX))
        shown = list(small) if pictures else [None] * len(failures)
        return (
            _environment()
            .get_template("report.html.j2")
            .render(
                report=report,
                standing=report.standing,
                failures=list(zip(failures, shown, strict=True)),
                doubtful=cards(doubtful),
                sample=cards(sample),
                doubtful_below=DOUBTFUL_BELOW,
                written_at=datetime.now(UTC),
            )
        )


def _picture(
    store: ObjectStore,
    bucket: str | None,
    key: str | None,
    *,
    limits: ImageLimits,
    side_px: int,
) -> Picture | None:
    """Return a small picture of an object; None where it cannot be had."""
    if bucket is None or key is None:
        return None
    try:
        return shrink(store.get(bucket, key, max_bytes=limits.max_bytes), limits, side_px)
    except ForeedgeError:
        return None


def shrink(data: bytes, limits: ImageLimits, side_px: int) -> Picture | None:
    """Return a small picture as a data URI; None where the bytes are no image within the limits.

    Args:
        data: An image file.
        limits: Pixels and sides over which it is not decoded.
        side_px: Longest side of the result.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
            width, height = image.size
            if width * height > limits.max_pixels or max(width, height) > limits.max_side_px:
                return None
            image.draft("RGB", (2 * side_px, 2 * side_px))
            image = ImageOps.exif_transpose(image)
            image = image.convert("RGBA" if image.has_transparency_data else "RGB")
            image.thumbnail((side_px, side_px), Image.Resampling.LANCZOS)
            buffer = io.BytesIO()
            # A cut-out in PNG takes ten times the room.
            image.save(buffer, "WEBP", quality=80, method=4)
    # Pillow's plugins raise nearly anything on a broken file; the page only lacks a picture then.
    except Exception:  # noqa: BLE001
        return None
    encoded = base64.b64encode(buffer.getvalue()).decode()
    return Picture(f"data:image/webp;base64,{encoded}", image.width, image.height)


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ingest.runs"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.globals["source_url"] = source_url
    environment.filters["duration"] = format_duration
    environment.filters["bytes"] = _bytes
    environment.filters["number"] = lambda value: f"{value:,}"
    return environment


def _bytes(size: int | None) -> str:
    if size is None:
        return ""
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"
