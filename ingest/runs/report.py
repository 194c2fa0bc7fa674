"""The report of a run: what became of each job, from records that may be millions."""

from __future__ import annotations

import itertools
import statistics
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import orjson

from ingest.runs.folder import RunFolder
from ingest.runs.job_list import JobList
from ingest.runs.manifest import RunManifest, manifest_of
from ingest.runs.record_table import DONE, FAILED, REDRIVEN, STATUSES
from ingest.runs.records import Record, Records
from ingest.runs.status import RunStatus, run_status

DOUBTFUL_BELOW = 0.8
"""Mask confidence below which a mask counts as doubtful."""

_HISTOGRAM_BINS = 20
_MEDIAN_OF = 20_000


class RunReport:
    """The content of a report, without images. A context manager, because of temporary files."""

    def __init__(
        self,
        folder: RunFolder,
        manifest: RunManifest | None,
        on_read: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Read the ledger of a run. Blocks. See ``read_report``."""
        self.manifest = manifest
        """Manifest of the run. None for messages that name no run."""
        self._records = Records(folder, keep=STATUSES)
        try:
            self._records.update(on_read)
            sent = None if manifest is None else JobList(folder).sent()
            self.status: RunStatus = run_status(folder, manifest, sent, self._records.counts())
            self.stages_ms = self._median_stages()
            """Median milliseconds of each stage, in the order in which the stages ran. For a run
            of more than 20,000 images, the median of a random sample of that size."""
            self.histogram = self._histogram()
            """Number of masks in each of 20 equal bins of confidence from 0 to 1."""
            self.doubtful_total = self._count("confidence < ?", DOUBTFUL_BELOW)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        """Return the report itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the temporary files."""
        self.close()

    def close(self) -> None:
        """Remove the temporary files."""
        self._records.close()

    def jobs(self) -> Iterator[Record]:
        """Yield a record for each job that ended: failures, then the least confident masks."""
        order = f"rank != {FAILED}, coalesce(confidence, 1), position"
        return self._records.kept("rank != ?", [REDRIVEN], order=order)

    def failures(self, most: int) -> list[Record]:
        """Return at most so many failed jobs, as evenly spread over the error codes as possible."""
        condition = (
            "job_id IN (SELECT job_id FROM (SELECT job_id,"
            " row_number() OVER (PARTITION BY code ORDER BY position) AS place"
            f" FROM job WHERE rank = {FAILED} ORDER BY place LIMIT ?))"
        )
        return list(self._records.kept(condition, [most], order="code, position"))

    def doubtful(self, most: int) -> list[Record]:
        """Return at most so many jobs with doubtful masks, the least confident first."""
        doubtful = self._records.kept(
            "confidence < ?", [DOUBTFUL_BELOW], order="confidence, position"
        )
        return list(itertools.islice(doubtful, most))

    def sample(self, most: int) -> list[Record]:
        """Return at most so many of the other results, chosen by job id, as good as at random.

        Results that a model produced in this run come before those that an earlier run left.
        """
        found: list[Record] = []
        for kind in (
            f"confidence >= {DOUBTFUL_BELOW}",
            f"rank > {REDRIVEN} AND confidence IS NULL",
        ):
            wanted = most - len(found)
            stride = max(1, self._count(kind) // wanted) if wanted else 1
            condition = (
                "job_id IN (SELECT job_id FROM (SELECT job_id,"
                f" row_number() OVER (ORDER BY job_id) AS place FROM job WHERE {kind})"
                " WHERE place % ? = 0 ORDER BY place LIMIT ?)"
            )
            found += self._records.kept(condition, [stride, wanted], order="job_id")
        return found

    def summary(self) -> dict[str, Any]:
        """Return the content of ``report.json`` without its jobs."""
        manifest = self.manifest
        asked: dict[str, Any] = {}
        if manifest is not None:
            asked = {
                "created_at": manifest.created_at.isoformat(),
                "description": manifest.description,
                "output": manifest.output.model_dump(),
                "recipe": manifest.recipe.model_dump(mode="json"),
            }
        return {
            **self.status.as_dict(),
            **asked,
            "stages_ms": self.stages_ms,
            "doubtful_masks": self.doubtful_total,
            "jobs_expected": self.status.expected,
        }

    def _count(self, condition: str, *parameters: object) -> int:
        sql = f"SELECT count(*) FROM job WHERE {condition}"
        [(number,)] = self._records.query(sql, parameters)
        return int(number)

    def _median_stages(self) -> dict[str, float]:
        condition = f"rank = {DONE} AND confidence IS NOT NULL"
        stride = max(1, self._count(condition) // _MEDIAN_OF)
        places = self._records.query(f"SELECT position, length FROM job WHERE {condition}")
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
    """Return the URL of a job's image, or None if its message could not be read."""
    source = record.get("source")
    return f"s3://{source['bucket']}/{source['key']}" if source else None


def read_report(folder: RunFolder, on_read: Callable[[int], None] = lambda _: None) -> RunReport:
    """Return the report of a run from its ledger. Blocks.

    Args:
        folder: Folder of the run.
        on_read: Function to call with the number of results after each part.

    Raises:
        SourceNotFound: The run does not exist.
        InvalidMessage: A part of the ledger is damaged.
    """
    return RunReport(folder, manifest_of(folder), on_read)


def write_report_json(report: RunReport, path: Path) -> None:
    """Write ``report.json``: one object, with each of its jobs on a line of its own."""
    summary = orjson.dumps(report.summary(), option=orjson.OPT_INDENT_2)
    with path.open("wb", buffering=1024 * 1024) as file:
        file.write(summary.rstrip(b"}\n") + b',\n  "jobs": [')
        separator = b"\n    "
        for record in report.jobs():
            file.write(separator + orjson.dumps(job_entry(record)))
            separator = b",\n    "
        file.write(b"\n  ]\n}\n")
