"""Job: one image, the place of its result, and the recipe."""

from __future__ import annotations

import re
import uuid
from functools import lru_cache
from typing import Annotated, Self

from pydantic import AfterValidator, Field, field_validator

from serve_app.contracts.base import Contract
from serve_app.contracts.object_names import (
    BucketName,
    ObjectKey,
    VersionId,
    check_etag,
    check_prefix,
)
from serve_app.contracts.recipe import Recipe

RUN_ID_PATTERN = r"^[A-Za-z0-9._-]{1,100}$"
"""Regular expression of run ids. ``check_run_id`` refuses two more."""
MAX_JOB_ID_LENGTH = 200
"""Longest id of a job, in characters."""
DERIVED_ID_HEX_DIGITS = 32
"""Length of an id that is the beginning of a SHA-256, as hex digits."""
JobId = Annotated[str, Field(min_length=1, max_length=MAX_JOB_ID_LENGTH)]
"""Identifier of a job."""
DEFAULT_RUN = "live"
"""Run of the jobs whose producer names none."""


_RUN_ID = re.compile(RUN_ID_PATTERN)
_RUNS_REMEMBERED = 256


# The messages of a run follow one another.
@lru_cache(_RUNS_REMEMBERED)
def check_run_id(run_id: str) -> str:
    """Return the id of a run if it can be the name of a folder, or raise ``ValueError``."""
    if not _RUN_ID.fullmatch(run_id) or run_id in {".", ".."}:
        raise ValueError(
            "must be 1 to 100 letters, digits, dots, hyphens and underscores, and not '.' or '..'"
        )
    return run_id


_RowId = Annotated[int, Field(strict=True, ge=1, le=2**31 - 1)]


def _canonical_uuid(value: str) -> str:
    try:
        return str(uuid.UUID(value))
    except ValueError:
        raise ValueError("must be a UUID") from None


RunId = Annotated[str, Field(pattern=RUN_ID_PATTERN), AfterValidator(check_run_id)]
"""Identifier of a run, which is the name of a folder in the ledger."""


class Source(Contract):
    """The image to process, as an object or as one version of an object."""

    bucket: BucketName
    """Name of the bucket."""
    key: ObjectKey
    """Key of the object."""
    version_id: VersionId | None = None
    """Version of the object. None stands for the current one."""
    etag: str | None = None
    """Expected ETag, without quotation marks. If the object has another one, the job fails with
    ``source_changed``. None accepts any."""

    @field_validator("etag")
    @classmethod
    def _strip_quotes(cls, value: str | None) -> str | None:
        bare = value.strip('"') if value else ""
        return check_etag(bare) if bare else None

    @property
    def content_id(self) -> str | None:
        """What no other content of the object has: its version or else its ETag, if one is known.

        The version ``null`` is an exception. An object gets it while the versioning of its bucket
        is off or suspended, and S3 then replaces its content.
        """
        return self.etag if self.version_id in {None, "null"} else self.version_id


class Output(Contract):
    """The place of the result."""

    bucket: BucketName
    """Name of the bucket."""
    prefix: Annotated[str, Field(max_length=512), AfterValidator(check_prefix)] = "cutouts/"
    """Key prefix of the result. A slash is added if it does not end in one."""

    @field_validator("prefix")
    @classmethod
    def _end_in_slash(cls, value: str) -> str:
        return value if not value or value.endswith("/") else value + "/"


class NamedOutput(Output):
    """The place of a result that is named by its job, and not by the key of its source."""

    name: str
    """Beginning of the result's name. The fingerprint and the extension follow."""


class Job(Contract):
    """One image to process, the place of its result, and the recipe."""

    job_id: JobId = Field(default_factory=lambda: uuid.uuid4().hex)
    """Identifier of the job, by which its records in the ledger are found."""
    run_id: RunId = DEFAULT_RUN
    """Identifier of the run that the job belongs to."""
    source: Source
    """Image to process."""
    output: Output
    """Place of the result."""
    recipe: Recipe = Recipe()
    """Description of the result."""


class CatalogJob(Contract):
    """A job of a book collection. Its image is known only once the collection's tables were read.

    The ids are those of the tables: 32-bit integers.
    """

    job_id: Annotated[str, AfterValidator(_canonical_uuid)]
    """Identifier of the job, a UUID."""
    run_id: RunId = DEFAULT_RUN
    """Identifier of the run that the job belongs to."""
    book_id: _RowId
    """Id of the book."""
    image_id: _RowId | None = None
    """Id of the image that is asked for. None if it was deleted after the job was queued."""


class EventJob(Job):
    """A job that an event of S3 asks for, whose image may be deleted or replaced meanwhile."""

    def of_present_content(self) -> Self:
        """Return the same job of whatever the object holds when it is read."""
        return self.model_copy(update={"source": self.source.model_copy(update={"etag": None})})


AnyJob = Job | CatalogJob
"""What a message of the queue asks for."""
