"""Outcome: the end of a job, as the ledger records it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import Field

from serve_app.contracts.base import Contract
from serve_app.contracts.job import AnyJob, CatalogJob, Source
from serve_app.contracts.place import Place
from serve_app.errors import ForeedgeError, Retry


class Box(Contract):
    """A rectangle in an image."""

    left: int
    """First column, in pixels."""
    top: int
    """First row, in pixels."""
    right: int
    """Column after the last one, in pixels."""
    bottom: int
    """Row after the last one, in pixels."""

    @property
    def width(self) -> int:
        """Width in pixels."""
        return self.right - self.left

    @property
    def height(self) -> int:
        """Height in pixels."""
        return self.bottom - self.top


class Cutout(Contract):
    """Facts about a finished cut-out, without its bytes."""

    model: str
    """Name of the model whose mask was used."""
    width: int
    """Width of the result, in pixels."""
    height: int
    """Height of the result, in pixels."""
    subject: Box
    """Bounding box of the subject, in pixels of the upright image."""
    crop: Box | None = None
    """Part of the upright image that the result shows, in pixels. None if it shows all of it."""
    mask_confidence: Annotated[float, Field(ge=0, le=1)]
    """Share of the subject that the model was sure of (``imaging.mask.mask_confidence``)."""
    stages_ms: dict[str, float] = Field(default_factory=dict)
    """Time of each stage in milliseconds, in the order in which the stages ran."""


class Outcome(Contract):
    """The end of one job, which is one record of the ledger."""

    job_id: str
    """Identifier of the job."""
    run_id: str
    """Identifier of the run that the job belongs to."""
    status: Literal["done", "skipped_existing", "failed"]
    """Whether the result was made, existed already, or could not be made."""
    source: Source | None = None
    """Image of the job. None if the message could not be read."""
    book_id: int | None = None
    """Id of the book, if the job is one of a collection."""
    image_id: int | None = None
    """Id of the image that such a job asks for. None if it was deleted."""
    output_bucket: str | None = None
    """Bucket of the result."""
    output_key: str | None = None
    """Key of the result."""
    thumbnail_key: str | None = None
    """Key of the thumbnail. None if the recipe has no thumbnail."""
    output_bytes: int | None = None
    """Size of the result, in bytes."""
    cutout: Cutout | None = None
    """Facts about the cut-out. None unless this job made it."""
    code: str | None = None
    """Code of the error (``serve_app.errors``)."""
    message: str | None = None
    """Message of the error."""
    retry: Retry | None = None
    """Whether another attempt can help."""
    receive_count: int = 1
    """Number of times that SQS delivered the message."""
    finished_at: datetime = Field(default_factory=lambda: datetime.now(UTC))
    """Time at which the job ended."""
    made_with: Annotated[str | None, Field(exclude=True)] = None
    """Name of the model of a result that existed already. None if the store does not know it. It is
    not recorded."""
    refused_by: Annotated[Place | None, Field(exclude=True)] = None
    """Place because of which the job failed if that need not be the image's fault. It is for the
    consumer only, and not recorded."""
    answered_by: Annotated[tuple[Place, ...], Field(exclude=True)] = ()
    """Places that did their part of the job. They are not recorded."""

    @classmethod
    def failed(cls, job: AnyJob, error: ForeedgeError) -> Outcome:
        """Return the outcome of a job that failed with an error."""
        if isinstance(job, CatalogJob):
            failure = cls.of_error(error, job_id=job.job_id, run_id=job.run_id, source=None)
            return failure.of_book(job)
        return cls.of_error(error, job_id=job.job_id, run_id=job.run_id, source=job.source)

    @classmethod
    def of_error(
        cls,
        error: ForeedgeError,
        *,
        job_id: str,
        run_id: str,
        source: Source | None,
        receives: int = 1,
    ) -> Outcome:
        """Return the failure of a job that may not be known any further.

        Args:
            error: Reason of the failure.
            job_id: Id of the job.
            run_id: Id of its run.
            source: Image of the job. None if it is not known.
            receives: Number of times that SQS delivered the message.
        """
        return cls(
            job_id=job_id,
            run_id=run_id,
            status="failed",
            source=source,
            code=error.code,
            message=error.message,
            retry=error.retry,
            receive_count=receives,
        )

    def of_book(self, job: CatalogJob) -> Outcome:
        """Return the same outcome as that of a job of a collection."""
        return self.model_copy(update={"book_id": job.book_id, "image_id": job.image_id})
