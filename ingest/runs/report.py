"""The report of a run: what became of each job, from records which may be millions."""

from __future__ import annotations

import itertools
import statistics
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import orjson

from ingest.runs.folder import RunFolder
from ingest.runs.manifest import RunManifest, read_manifest
from ingest.runs.records import DONE, FAILED, REDRIVEN, STATUSES, Record, Records
from ingest.runs.status import RunStatus, run_status

DOUBTFUL_BELOW = 0.8
"""Mask confidence under which a mask counts as doubtful."""

_HISTOGRAM_BINS = 20
_MEDIAN_OF = 20_000


class Report:
    """What is known of a run, without its pictures. A context manager: it has temporary files."""

    def __init__(
        self,
        folder: RunFolder,
        manifest: RunManifest,
        on_read: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Read the run's ledger; blocks. See ``read_report``."""
        self.manifest = manifest
        self._records = Records(folder, keep=STATUSES)
        try:
            self._records.update(on_read)
            self.standing: RunStatus = run_status(manifest, self._records.counts())
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
    folder: RunFolder,
    on_read: Callable[[int], None] = lambda _: None,
) -> Report:
    """Return the report of a run from its ledger; blocks.

    Args:
        folder: Folder of the run.
        on_read: Called with a number of records as they are read.

    Raises:
        SourceNotFound: There is no such run.
        InvalidMessage: A part of the ledger cannot be read.
    """
    return Report(folder, read_manifest(folder), on_read)


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
