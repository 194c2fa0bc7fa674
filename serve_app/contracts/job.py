"""Job: one image, the place of its result, and the recipe."""

from __future__ import annotations

import uuid
from typing import Annotated

from pydantic import Field, field_validator

from serve_app.contracts.base import Contract
from serve_app.contracts.recipe import Recipe

RUN_ID_PATTERN = r"^[A-Za-z0-9._-]{1,100}$"
"""Regular expression of run ids, which are names of folders in the ledger."""


class Source(Contract):
    """The image to process, as an object or as one version of an object."""

    bucket: Annotated[str, Field(min_length=1)]
    """Name of the bucket."""
    key: Annotated[str, Field(min_length=1, max_length=1024)]
    """Key of the object."""
    version_id: str | None = None
    """Version of the object. None stands for the current one."""
    etag: str | None = None
    """Expected ETag, without quotation marks. If the object has another one, the job fails with
    ``source_changed``. None accepts any."""

    @field_validator("etag")
    @classmethod
    def _strip_quotes(cls, value: str | None) -> str | None:
        return value.strip('"') if value else None


class Output(Contract):
    """The place of the result."""

    bucket: Annotated[str, Field(min_length=1)]
    """Name of the bucket."""
    prefix: Annotated[str, Field(max_length=512)] = "cutouts/"
    """Key prefix of the result. A slash is added if it does not end in one."""

    @field_validator("prefix")
    @classmethod
    def _end_in_slash(cls, value: str) -> str:
        return value if not value or value.endswith("/") else value + "/"


class Job(Contract):
    """One image to process, the place of its result, and the recipe."""

    job_id: Annotated[str, Field(min_length=1, max_length=200)] = Field(
        default_factory=lambda: uuid.uuid4().hex
    )
    """Identifier of the job, by which its records in the ledger are found."""
    run_id: Annotated[str, Field(pattern=RUN_ID_PATTERN)] = "live"
    """Identifier of the run that the job belongs to."""
    source: Source
    """Image to process."""
    output: Output
    """Place of the result."""
    recipe: Recipe = Recipe()
    """Description of the result."""
