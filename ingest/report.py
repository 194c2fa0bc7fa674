"""The report of a run: what became of each job, and a page that a person can judge it by.

The first half makes data from the run's records, which may be millions; the second half fetches
the pictures of a few hundred of them and renders them. Whatever the size of the run, the page
stays small, and ``report.json`` has every job.
"""

from __future__ import annotations

import base64
import io
import itertools
import statistics
import warnings
from array import array
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import jinja2
import orjson
from PIL import Image, ImageOps

from ingest.ledger import RunManifest, read_manifest
from ingest.progress import Standing, standing
from ingest.records import DONE, FAILED, REDRIVEN, STATUSES, Record, Records
from serve_app.config import AppConfig, ImageLimits, LedgerConfig
from serve_app.errors import ForeedgeError
from serve_app.imaging.decode import FORMATS
from serve_app.storage import ObjectStore

DOUBTFUL_BELOW = 0.8
"""Mask confidence under which a mask counts as doubtful."""

FAILURES_SHOWN = 200
"""Most failed jobs in the page, with their pictures; some of every code."""

DOUBTFUL_SHOWN = 200
"""Most doubtful masks in the page, with their pictures; the least confident ones."""

PICTURE_SIDE_PX = 320
"""Longest side of a picture in the page."""

_FAILURE_SIDE_PX = 96
_HISTOGRAM_BINS = 20
_MEDIAN_OF = 20_000
_THREADS = 8


class Report:
    """What is known of a run, without its pictures. A context manager: it has temporary files."""

    def __init__(
        self,
        store: ObjectStore,
        ledger: LedgerConfig,
        manifest: RunManifest,
        on_read: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Read the run's ledger; blocks. See ``read_report``."""
        self.manifest = manifest
        self._records = Records(store, ledger, manifest.run_id, keep=STATUSES)
        try:
            self._records.update(on_read)
            self.standing: Standing = standing(manifest, *self._records.counts())
            self.stages_ms = self._median_stages()
            """Median milliseconds of each stage, in the order in which they ran; in runs of more
            than 20,000 images that of so many, chosen by chance."""
            self.histogram = self._histogram()
            """Masks in each of 20 equal bins of confidence from 0 to 1."""
            self.doubtful_total = self._count("confidence < ?", DOUBTFUL_BELOW)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the temporary files."""
        self.close()

    def close(self) -> None:
        """Remove the temporary files."""
        self._records.close()

    def jobs(self) -> Iterator[Record]:
        """Yield a record for each job that ended: failures, then the least confident masks."""
        return self._records.kept(
            f"WHERE rank != {REDRIVEN} ORDER BY rank != {FAILED}, coalesce(confidence, 1), position"
        )

    def failures(self, most: int) -> list[Record]:
        """Return failed jobs: of every code as many, as far as there are so many."""
        return list(
            self._records.kept(
                "JOIN (SELECT job_id AS id, row_number() OVER (PARTITION BY code ORDER BY position)"
                f" AS place FROM job WHERE rank = {FAILED} ORDER BY place LIMIT ?)"
                " ON job_id = id ORDER BY code, place",
                [most],
            )
        )

    def doubtful(self, most: int) -> list[Record]:
        """Return jobs with doubtful masks, the least confident first."""
        where = "WHERE confidence < ? ORDER BY confidence, position LIMIT ?"
        return list(self._records.kept(where, [DOUBTFUL_BELOW, most]))

    def sample(self, most: int) -> list[Record]:
        """Return some of the other results, chosen by their job's id, which is as good as chance.

        What a model worked on in this run comes before what an earlier run had left.
        """
        found: list[Record] = []
        for kind in (
            f"confidence >= {DOUBTFUL_BELOW}",
            f"rank > {REDRIVEN} AND confidence IS NULL",
        ):
            wanted = most - len(found)
            stride = max(1, self._count(kind) // wanted) if wanted else 1
            found += self._records.kept(
                "JOIN (SELECT job_id AS id, row_number() OVER (ORDER BY job_id) AS place FROM job"
                f" WHERE {kind}) ON job_id = id WHERE place % ? = 0 LIMIT ?",
                [stride, wanted],
            )
        return found

    def head(self) -> dict[str, Any]:
        """Return the content of ``report.json`` without its jobs."""
        manifest = self.manifest
        return {
            **self.standing.as_dict(),
            "created_at": manifest.created_at.isoformat(),
            "description": manifest.description,
            "output": manifest.output.model_dump(),
            "recipe": manifest.recipe.model_dump(mode="json"),
            "stages_ms": self.stages_ms,
            "doubtful_masks": self.doubtful_total,
            "jobs_expected": manifest.jobs,
        }

    def _count(self, where: str, *parameters: object) -> int:
        [(number,)] = self._records.query(f"SELECT count(*) FROM job WHERE {where}", parameters)
        return int(number)

    def _median_stages(self) -> dict[str, float]:
        where = f"rank = {DONE} AND confidence IS NOT NULL"
        stride = max(1, self._count(where) // _MEDIAN_OF)
        places = self._records.query(f"SELECT position, length FROM job WHERE {where}")
        stages: dict[str, array[float]] = {}
        for position, length in itertools.islice(places, 0, None, stride):
            record = self._records.kept_at(position, length)
            for stage, milliseconds in record["cutout"].get("stages_ms", {}).items():
                stages.setdefault(stage, array("d")).append(milliseconds)
        return {stage: round(statistics.median(times), 2) for stage, times in stages.items()}

    def _histogram(self) -> list[int]:
        bins = [0] * _HISTOGRAM_BINS
        counted = self._records.query(
            "SELECT CAST(confidence * ? AS INTEGER), count(*) FROM job"
            " WHERE confidence IS NOT NULL GROUP BY 1",
            [_HISTOGRAM_BINS],
        )
        for position, number in counted:
            bins[min(position, _HISTOGRAM_BINS - 1)] += number
        return bins


def job_entry(record: Record) -> dict[str, Any]:
    """Return one job of ``report.json``."""
    source, cutout = record.get("source"), record.get("cutout") or {}
    return {
        "job_id": record["job_id"],
        "source": source_url(record),
        "etag": source.get("etag") if source else None,
        "status": record["status"],
        "code": record.get("code"),
        "message": record.get("message"),
        "model": cutout.get("model"),
        "mask_confidence": cutout.get("mask_confidence"),
        "width": cutout.get("width"),
        "height": cutout.get("height"),
        "output_bucket": record.get("output_bucket"),
        "output_key": record.get("output_key"),
        "thumbnail_key": record.get("thumbnail_key"),
        "output_bytes": record.get("output_bytes"),
        "receive_count": record.get("receive_count", 1),
        "stages_ms": cutout.get("stages_ms", {}),
        "finished_at": record["finished_at"],
    }


def source_url(record: Record) -> str | None:
    """Return where a job's photograph is; None where its message could not be read."""
    source = record.get("source")
    return f"s3://{source['bucket']}/{source['key']}" if source else None


def read_report(
    store: ObjectStore,
    ledger: LedgerConfig,
    run_id: str,
    on_read: Callable[[int], None] = lambda _: None,
) -> Report:
    """Return the report of a run from its ledger; blocks.

    Args:
        store: Where the ledger is.
        ledger: Its place.
        run_id: The run.
        on_read: Called with a number of records as they are read.

    Raises:
        SourceNotFound: There is no such run.
        InvalidMessage: A part of the ledger cannot be read.
    """
    return Report(store, ledger, read_manifest(store, ledger, run_id), on_read)


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


def write_json(report: Report, path: Path) -> None:
    """Write ``report.json``: one object, with each of its jobs on a line of its own."""
    head = orjson.dumps(report.head(), option=orjson.OPT_INDENT_2)
    with path.open("wb", buffering=1024 * 1024) as file:
        file.write(head.rstrip(b"}\n") + b',\n  "jobs": [')
        separator = b"\n    "
        for record in report.jobs():
            file.write(separator + orjson.dumps(job_entry(record)))
            separator = b",\n    "
        file.write(b"\n  ]\n}\n")


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
        loader=jinja2.PackageLoader("ingest"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.globals["source_url"] = source_url
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
