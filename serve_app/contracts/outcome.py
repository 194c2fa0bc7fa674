"""Outcome: how a job ended, as the ledger records it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import Field

from serve_app.contracts.base import Contract
from serve_app.contracts.job import Job, Source
from serve_app.errors import ForeedgeError, Retry


class Box(Contract):
    """A rectangle of pixels; ``right`` and ``bottom`` are exclusive."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        """Width in pixels."""
        return self.right - self.left

    @property
    def height(self) -> int:
        """Height in pixels."""
        return self.bottom - self.top


class Cutout(Contract):
    """What is known of a finished cut-out, apart from its bytes."""

    model: str
    width: int
    """Of the result, in pixels."""
    height: int
    subject: Box
    """In pixels of the oriented source."""
    mask_confidence: Annotated[float, Field(ge=0, le=1)]
    """Share of the subject that the model was decided about; see ``imaging.mask.confidence``."""
    stages_ms: dict[str, float] = Field(default_factory=dict)
    """Milliseconds of each stage, in the order in which they ran."""


class Outcome(Contract):
    """How one job ended; one record of the ledger."""

    job_id: str
    run_id: str
    status: Literal["done", "skipped_existing", "failed"]
    source: Source | None = None
    """None where the message could not be read."""
    output_bucket: str | None = None
    output_key: str | None = None
    thumbnail_key: str | None = None
    output_bytes: int | None = None
    cutout: Cutout | None = None
    code: str | None = None
    message: str | None = None
    retry: Retry | None = None
    receive_count: int = 1
    finished_at: datetime = Field(default_factory=lambda: datetime.now(UTC))

    @classmethod
    def failed(cls, job: Job, error: ForeedgeError) -> Outcome:
        """Return the outcome of a job that ended with ``error``."""
        return cls(
            job_id=job.job_id,
            run_id=job.run_id,
            status="failed",
            source=job.source,
            code=error.code,
            message=error.message,
            retry=error.retry,
        )
