"""The ids under which the failure of a refused message is recorded."""

from __future__ import annotations

from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

from ingest.messages.build import INVALID_RUN
from ingest.messages.parse import (
    check_schema,
    is_catalog,
    is_native,
    open_message,
    without_nulls,
)
from serve_app.contracts.job import DEFAULT_RUN, JobId, RunId, Source
from serve_app.errors import InvalidMessage, InvalidRecipe, PermanentError

_JOB_ID: TypeAdapter[str] = TypeAdapter(JobId)
_RUN_ID: TypeAdapter[str] = TypeAdapter(RunId)
_SOURCE: TypeAdapter[Source] = TypeAdapter(Source)


class Identity(NamedTuple):
    """The run, the job and the image under which a failure is recorded."""

    run_id: str
    job_id: str
    source: Source | None = None
    """Image of the job. None if the message does not name one that can exist."""


def identify_refused(body: str, error: PermanentError, message_id: str) -> Identity:
    """Return the identity of a message that was refused.

    A message in the native shape, or of a book collection, is recorded under the ids that it names,
    so that its run ends and its failure can be redriven. Everything else belongs to the run
    ``invalid``.

    Args:
        body: Body of the message.
        error: Error because of which it was refused.
        message_id: Id of the job of a message that names none.
    """
    unread = Identity(INVALID_RUN, message_id)
    try:
        content = open_message(body)
        if not is_native(content) and not is_catalog(content):
            return unread
        fields = without_nulls(content)
        if "schema" in fields:
            check_schema(fields["schema"])
    except InvalidMessage:
        return unread
    # A job of no run whose recipe alone is wrong was read in every other respect.
    default_run = DEFAULT_RUN if isinstance(error, InvalidRecipe) else INVALID_RUN
    return Identity(
        _valid(_RUN_ID, fields.get("run_id", default_run)) or INVALID_RUN,
        _valid(_JOB_ID, fields.get("job_id")) or message_id,
        _valid(_SOURCE, fields.get("source")),
    )


def _valid(kind: TypeAdapter[Any], value: object) -> Any:
    """Return a value if it is of a kind, or None."""
    try:
        return kind.validate_python(value)
    except ValidationError:
        return None
