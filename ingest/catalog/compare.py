"""A comparison of the results of a run with the cut-outs that a collection had before."""

from __future__ import annotations

import heapq
import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from ingest.catalog.database import Database
from ingest.catalog.former_results import FormerResult, former_results
from ingest.catalog.result_difference import find_background, mask_difference, shown_mask
from ingest.runs.record_table import REDRIVEN
from ingest.runs.records import Record, Records
from serve_app.config import ImageLimits
from serve_app.errors import ForeedgeError
from serve_app.imaging.decode import DecodedImage, decode_image
from serve_app.storage.protocol import ObjectStore

DIFFERENT_ABOVE = 0.05
"""Difference of two masks above which a result is doubtful: an intersection over union below 0.95.
It is a choice: the histogram of the page shows what another one would mean."""
_AT_ONCE = 64
_THREADS = min(4, os.cpu_count() or 1)
"""Number of images that are decoded at a time, each with two cut-outs."""


@dataclass(frozen=True, slots=True)
class ComparedResult:
    """One cut-out, as its object is."""

    bucket: str
    """Bucket of the object."""
    key: str
    """Key of the object."""
    model: str | None
    """Name of the model, if it is known."""
    file_bytes: int | None
    """Size of the object, in bytes. None if it cannot be read."""
    size: tuple[int, int] | None = None
    """Width and height, in pixels. None if it cannot be decoded."""
    background: str | None = None
    """``black``, ``white``, ``transparent``, or ``none`` if the subject fills all of it."""


@dataclass(frozen=True, slots=True)
class ResultComparison:
    """Our result of one job next to the former one."""

    job_id: str
    """Id of the job."""
    book_id: int
    """Id of the book."""
    source: tuple[str, str]
    """Bucket and key of the image."""
    former: ComparedResult
    """The former cut-out."""
    ours: ComparedResult
    """Our cut-out."""
    difference: float | None
    """Difference of the masks, 0 to 1. None if they cannot be compared."""
    doubts: tuple[str, ...]
    """Why a person should look at it. Empty if nothing is doubtful."""

    @property
    def doubt_rank(self) -> tuple[int, float]:
        """What to sort by, so that the most doubtful comparison comes last."""
        unknown = self.difference is None and bool(self.doubts)
        return (2 if unknown else int(bool(self.doubts)), self.difference or 0.0)


@dataclass(slots=True)
class ComparedRun:
    """The comparison of a whole run. Only the comparisons that are shown are kept."""

    compared: int = 0
    """Number of results that were compared."""
    without_former: int = 0
    """Number of results whose book had no former cut-out."""
    doubtful: int = 0
    """Number of doubtful comparisons."""
    doubts: Counter[str] = field(default_factory=Counter)
    """Number of comparisons with each reason of doubt."""
    histogram: list[int] = field(default_factory=lambda: [0] * 20)
    """Number of comparisons in each of 20 equal bins of the difference from 0 to 1."""
    worst: list[ResultComparison] = field(default_factory=list)
    """The most doubtful comparisons, the worst one first."""
    others: list[ResultComparison] = field(default_factory=list)
    """Some of the comparisons without a doubt."""


@dataclass(frozen=True, slots=True)
class ComparedPlaces:
    """What a comparison reads."""

    database: Database
    """Database of the application."""
    store: ObjectStore
    """Object store of the images and of both results."""
    images_bucket: str
    """Bucket of the images and of the former cut-outs."""
    limits: ImageLimits
    """Limits beyond which an image is not decoded."""


def compare_run(
    places: ComparedPlaces,
    records: Records,
    shown: int,
    on_compared: Callable[[ResultComparison], None] = lambda _: None,
) -> ComparedRun:
    """Compare every result of a run with the former one of its book. Blocks.

    Args:
        places: What is read.
        records: Records of the run, with those of results kept.
        shown: Number of comparisons of each kind that are kept.
        on_compared: Function to call with each comparison.

    Raises:
        DatabaseUnavailable: The database does not answer.
    """
    run = ComparedRun()
    worst: list[tuple[tuple[int, float], int, ResultComparison]] = []
    results = records.kept("rank > ?", [REDRIVEN])
    with ThreadPoolExecutor(_THREADS, "compare") as pool:
        while batch := list(itertools.islice(results, _AT_ONCE)):
            for comparison in _compared(places, pool, batch, run):
                _count(run, comparison)
                on_compared(comparison)
                entry = (comparison.doubt_rank, run.compared, comparison)
                if not comparison.doubts:
                    if len(run.others) < shown:
                        run.others.append(comparison)
                elif len(worst) < shown:
                    heapq.heappush(worst, entry)
                else:
                    heapq.heappushpop(worst, entry)
    run.worst = [comparison for *_, comparison in sorted(worst, reverse=True)]
    return run


def _compared(
    places: ComparedPlaces, pool: ThreadPoolExecutor, batch: Sequence[Record], run: ComparedRun
) -> Iterator[ResultComparison]:
    made = {record["job_id"]: record.get("output_key") for record in batch}
    former = places.database.run(partial(former_results, made=made))
    present = [record for record in batch if record["job_id"] in former]
    run.without_former += len(batch) - len(present)
    return pool.map(lambda record: _compare(places, record, former[record["job_id"]]), present)


def _count(run: ComparedRun, comparison: ResultComparison) -> None:
    run.compared += 1
    run.doubtful += bool(comparison.doubts)
    run.doubts.update(doubt.partition(":")[0] for doubt in comparison.doubts)
    if comparison.difference is not None:
        bins = len(run.histogram)
        run.histogram[min(bins - 1, int(comparison.difference * bins))] += 1


def _compare(places: ComparedPlaces, record: Record, former: FormerResult) -> ResultComparison:
    """Return the comparison of one result. What cannot be read is a doubt of its own."""
    source = record.get("source") or {}
    bucket = places.images_bucket
    image = _read(places, "the image", source.get("bucket", bucket), source.get("key", ""))
    old = _read(places, "the former cut-out", bucket, former.key)
    new_bucket, new_key = record.get("output_bucket") or bucket, record.get("output_key") or ""
    new = _read(places, "our cut-out", new_bucket, new_key)
    doubts = [each.trouble for each in (image, old, new) if each.trouble is not None]
    difference = None
    if image.pixels is not None and old.pixels is not None and new.pixels is not None:
        difference = _difference(image.pixels, old.pixels, new.pixels)
        doubts += _doubts(old.pixels, new.pixels, difference)
    return ResultComparison(
        job_id=record["job_id"],
        book_id=former.book_id,
        source=(source.get("bucket", bucket), source.get("key", "")),
        former=_result(old, bucket, former.key, former.model),
        ours=_result(new, new_bucket, new_key, (record.get("cutout") or {}).get("model")),
        difference=difference,
        doubts=tuple(doubts),
    )


@dataclass(frozen=True, slots=True)
class _ReadImage:
    pixels: DecodedImage | None
    file_bytes: int | None
    trouble: str | None = None


def _read(places: ComparedPlaces, what: str, bucket: str, key: str) -> _ReadImage:
    data = None
    try:
        data = places.store.get(bucket, key, max_bytes=places.limits.max_bytes)
        return _ReadImage(decode_image(data, places.limits), len(data))
    except ForeedgeError as error:
        size = None if data is None else len(data)
        return _ReadImage(None, size, f"unreadable: {what}: {error.code}: {error.message}")


def _difference(image: DecodedImage, old: DecodedImage, new: DecodedImage) -> float | None:
    before, now = shown_mask(image, old), shown_mask(image, new)
    if before is None or now is None:
        return None
    return mask_difference(before.alpha, now.alpha)


def _doubts(old: DecodedImage, new: DecodedImage, difference: float | None) -> Iterator[str]:
    """Yield why a person should look at two cut-outs."""
    sizes = [f"{each.width}x{each.height}" for each in (old, new)]
    if sizes[0] != sizes[1]:
        yield f"size: {sizes[0]} before, {sizes[1]} now"
    elif difference is None:
        yield f"size: both are {sizes[0]}, and the image is not"
    backgrounds = [find_background(each) for each in (old, new)]
    if backgrounds[0] != backgrounds[1]:
        yield f"background: {backgrounds[0]} before, {backgrounds[1]} now"
    if difference is not None and difference > DIFFERENT_ABOVE:
        yield f"mask: {100 * difference:.1f} % of the subject differ"


def _result(found: _ReadImage, bucket: str, key: str, model: str | None) -> ComparedResult:
    if found.pixels is None:
        return ComparedResult(bucket, key, model, found.file_bytes)
    size, background = (found.pixels.width, found.pixels.height), find_background(found.pixels)
    return ComparedResult(bucket, key, model, found.file_bytes, size, background)
