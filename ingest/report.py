"""The report of a run: what became of each job, and a page that a person can judge it by.

The first half makes data from outcomes and is pure; the second half fetches the pictures and
renders them.
"""

from __future__ import annotations

import base64
import io
import statistics
import warnings
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
import orjson
from PIL import Image, ImageOps

from ingest.ledger import RunManifest, fold, read_manifest, read_outcomes
from ingest.progress import Standing, standing
from serve_app.config import AppConfig, ImageLimits, LedgerConfig
from serve_app.contracts import Outcome
from serve_app.errors import ForeedgeError
from serve_app.imaging.decode import FORMATS
from serve_app.storage import ObjectStore

DOUBTFUL_BELOW = 0.8
"""Mask confidence under which the page marks a picture as doubtful."""

PICTURE_SIDE_PX = 320
"""Longest side of a picture in the page."""

_FAILURES_SHOWN = 200
_FAILURE_PICTURES = 12
_FAILURE_SIDE_PX = 96
_HISTOGRAM_BINS = 20
_THREADS = 8


@dataclass(frozen=True, slots=True)
class Report:
    """What is known of a run, without its pictures."""

    manifest: RunManifest
    standing: Standing
    stages_ms: dict[str, float]
    """Median milliseconds of each stage, in the order in which they ran."""
    outcomes: list[Outcome]
    """One for each job that ended, failures first, then the least confident masks."""

    def as_dict(self) -> dict[str, Any]:
        """Return the content of ``report.json``."""
        manifest = self.manifest
        return {
            **self.standing.as_dict(),
            "created_at": manifest.created_at.isoformat(),
            "description": manifest.description,
            "output": manifest.output.model_dump(),
            "recipe": manifest.recipe.model_dump(mode="json"),
            "stages_ms": self.stages_ms,
            "jobs_expected": manifest.jobs,
            "jobs": [job_entry(outcome) for outcome in self.outcomes],
        }


def summarize(manifest: RunManifest, outcomes: Iterable[Outcome]) -> Report:
    """Return the report of a run.

    Args:
        manifest: What was asked for.
        outcomes: The run's records; duplicates are folded.
    """
    folded = list(fold(outcomes).values())
    counts: Counter[str] = Counter(outcome.status for outcome in folded)
    codes = Counter(item.code or "unknown" for item in folded if item.status == "failed")
    last = max((outcome.finished_at for outcome in folded), default=None)
    return Report(
        manifest=manifest,
        standing=standing(manifest, counts, codes, last),
        stages_ms=median_stages(folded),
        outcomes=sorted(folded, key=_doubt),
    )


def median_stages(outcomes: Iterable[Outcome]) -> dict[str, float]:
    """Return the median milliseconds of each stage, in the order in which they ran."""
    stages: dict[str, list[float]] = {}
    for outcome in outcomes:
        if outcome.cutout is not None:
            for stage, milliseconds in outcome.cutout.stages_ms.items():
                stages.setdefault(stage, []).append(milliseconds)
    return {stage: round(statistics.median(times), 2) for stage, times in stages.items()}


def confidence_histogram(outcomes: Iterable[Outcome]) -> list[int]:
    """Return the number of masks in each of 20 equal bins of confidence from 0 to 1."""
    bins = [0] * _HISTOGRAM_BINS
    for outcome in outcomes:
        if outcome.cutout is not None:
            position = int(outcome.cutout.mask_confidence * _HISTOGRAM_BINS)
            bins[min(position, _HISTOGRAM_BINS - 1)] += 1
    return bins


def job_entry(outcome: Outcome) -> dict[str, Any]:
    """Return one job of ``report.json``."""
    source, cutout = outcome.source, outcome.cutout
    return {
        "job_id": outcome.job_id,
        "source": f"s3://{source.bucket}/{source.key}" if source else None,
        "status": outcome.status,
        "code": outcome.code,
        "message": outcome.message,
        "model": cutout.model if cutout else None,
        "mask_confidence": cutout.mask_confidence if cutout else None,
        "width": cutout.width if cutout else None,
        "height": cutout.height if cutout else None,
        "output_bucket": outcome.output_bucket,
        "output_key": outcome.output_key,
        "thumbnail_key": outcome.thumbnail_key,
        "output_bytes": outcome.output_bytes,
        "receive_count": outcome.receive_count,
        "stages_ms": cutout.stages_ms if cutout else {},
        "finished_at": outcome.finished_at.isoformat(),
    }


def _doubt(outcome: Outcome) -> tuple[int, float, str]:
    """Sort failures first, then the least confident masks; then by name, to be stable."""
    confidence = outcome.cutout.mask_confidence if outcome.cutout else 1.0
    name = outcome.source.key if outcome.source else ""
    return (0 if outcome.status == "failed" else 1, confidence, name)


def read_report(store: ObjectStore, ledger: LedgerConfig, run_id: str) -> Report:
    """Return the report of a run from its ledger; blocks.

    Raises:
        SourceNotFound: There is no such run.
    """
    manifest = read_manifest(store, ledger, run_id)
    return summarize(manifest, read_outcomes(store, ledger, run_id))


def write_report(
    report: Report, store: ObjectStore, config: AppConfig, folder: Path, pictures: int
) -> Path:
    """Write ``report.json`` and ``report.html``; return the path of the page; blocks.

    Args:
        report: The run.
        store: Where its pictures are.
        config: Its limits bound what is decoded.
        folder: Where the two files go; made if it does not exist.
        pictures: How many results are shown, the least confident first.
    """
    folder.mkdir(parents=True, exist_ok=True)
    data = orjson.dumps(report.as_dict(), option=orjson.OPT_INDENT_2)
    (folder / "report.json").write_bytes(data)
    page = folder / "report.html"
    page.write_text(render(report, store, config.limits, pictures), encoding="utf-8")
    return page


@dataclass(frozen=True, slots=True)
class Picture:
    """A small picture, ready for the page."""

    uri: str
    width: int
    height: int


def render(report: Report, store: ObjectStore, limits: ImageLimits, pictures: int) -> str:
    """Return the page: one file that needs no network; blocks while pictures are read.

    Args:
        report: The run.
        store: Where its pictures are.
        limits: Of what is decoded.
        pictures: How many results are shown, the least confident first.
    """
    failed = [item for item in report.outcomes if item.status == "failed"]
    shown = [item for item in report.outcomes if item.status != "failed" and item.output_key]
    # What a model worked on in this run comes before what an earlier run had left.
    shown = sorted(shown, key=lambda item: item.cutout is None)[:pictures]
    small = min(pictures, _FAILURE_PICTURES)
    with ThreadPoolExecutor(_THREADS, "pictures") as pool:

        def fetch(items: list[Outcome], side_px: int, result: bool) -> list[Picture | None]:
            def one(item: Outcome) -> Picture | None:
                if result:
                    place = (item.output_bucket, item.output_key)
                else:
                    place = (item.source.bucket, item.source.key) if item.source else (None, None)
                return _picture(store, *place, limits=limits, side_px=side_px)

            return list(pool.map(one, items))

        failed_before = fetch(failed[:small], _FAILURE_SIDE_PX, False)
        before = fetch(shown, PICTURE_SIDE_PX, False)
        after = fetch(shown, PICTURE_SIDE_PX, True)
    padding = [None] * (len(failed) - len(failed_before))
    histogram = confidence_histogram(report.outcomes)
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            report=report,
            standing=report.standing,
            failures=list(zip(failed, [*failed_before, *padding], strict=True))[:_FAILURES_SHOWN],
            failures_total=len(failed),
            cards=list(zip(shown, before, after, strict=True)),
            results_total=len(report.outcomes) - len(failed),
            doubtful_below=DOUBTFUL_BELOW,
            doubtful_total=sum(
                1
                for item in report.outcomes
                if item.cutout and item.cutout.mask_confidence < DOUBTFUL_BELOW
            ),
            histogram=histogram,
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
            transparent = image.has_transparency_data
            image = image.convert("RGBA" if transparent else "RGB")
            image.thumbnail((side_px, side_px), Image.Resampling.LANCZOS)
            buffer = io.BytesIO()
            if transparent:
                image.save(buffer, "PNG", optimize=True)
            else:
                image.save(buffer, "JPEG", quality=82)
    # Pillow's plugins raise nearly anything on a broken file; the page only lacks a picture then.
    except Exception:  # noqa: BLE001
        return None
    media_type = "image/png" if transparent else "image/jpeg"
    encoded = base64.b64encode(buffer.getvalue()).decode()
    return Picture(f"data:{media_type};base64,{encoded}", image.width, image.height)


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ingest"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["duration"] = _duration
    environment.filters["bytes"] = _bytes
    environment.filters["number"] = lambda value: f"{value:,}"
    return environment


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def _bytes(size: int | None) -> str:
    if size is None:
        return ""
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"
