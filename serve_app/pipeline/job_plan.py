"""The plan of a job: its source and the keys of its results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from serve_app.contracts.job import Job, Source
from serve_app.contracts.outcome import Outcome


@dataclass(frozen=True, slots=True)
class JobPlan:
    """A job whose source is identified and whose results have keys."""

    job: Job
    source: Source
    """Source of the job, with the ETag or version of its content."""
    models: tuple[str, ...]
    """Models to try, in order of preference."""
    output_key: str
    thumbnail_key: str | None

    def outcome(self, status: Literal["done", "skipped_existing"], **fields: Any) -> Outcome:
        """Return the outcome of the job if it did not fail."""
        return Outcome(
            job_id=self.job.job_id,
            run_id=self.job.run_id,
            status=status,
            source=self.source,
            output_bucket=self.job.output.bucket,
            output_key=self.output_key,
            thumbnail_key=self.thumbnail_key,
            **fields,
        )
