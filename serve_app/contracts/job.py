"""Job: one photograph, where its result goes, and the recipe."""

from __future__ import annotations

import uuid
from typing import Annotated

from pydantic import Field, field_validator

from serve_app.contracts.base import Contract
from serve_app.contracts.recipe import Recipe


class Source(Contract):
    """The photograph: one object, or one version of it."""

    bucket: Annotated[str, Field(min_length=1)]
    key: Annotated[str, Field(min_length=1, max_length=1024)]
    version_id: str | None = None
    etag: str | None = None
    """Without quotation marks; where it is given, another ETag is ``source_changed``."""

    @field_validator("etag")
    @classmethod
    def _unquoted(cls, value: str | None) -> str | None:
        return value.strip('"') if value else None


class Output(Contract):
    """Where the result goes."""

    bucket: Annotated[str, Field(min_length=1)]
    prefix: Annotated[str, Field(max_length=512)] = "cutouts/"

    @field_validator("prefix")
    @classmethod
    def _is_a_folder(cls, value: str) -> str:
        return value if not value or value.endswith("/") else value + "/"


class Job(Contract):
    """One photograph to process: where it is, where its result goes, and how it is made."""

    job_id: Annotated[str, Field(min_length=1, max_length=200)] = Field(
        default_factory=lambda: uuid.uuid4().hex
    )
    run_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,100}$")] = "live"
    """The run that the job belongs to; the name of a folder in the ledger."""
    source: Source
    output: Output
    recipe: Recipe = Recipe()
