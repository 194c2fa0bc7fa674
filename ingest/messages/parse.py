"""Parse the body of a queue message into jobs.

A producer may send a message in one of these shapes:

- the native shape, one job: ``{"source": {"bucket": …, "key": …}, …}``
- an S3 event notification with any number of records
- S3's "Object Created" event from EventBridge
- the job of a book collection: ``{"job_id": …, "book_id": …, "image_id": …}``, if a catalog is
  configured
- any of them in the envelope of an SNS topic

A job has the same id at every delivery of its message, since S3, SNS and SQS all deliver at least
once. The ids of an event's jobs are a function of the event. A native message without one gets that
of its SQS message.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import ValidationError

from ingest.messages.build import SCHEMA_VERSION
from ingest.messages.events import CreatedObject, created_by_eventbridge, created_by_records
from serve_app.config import QueueConfig
from serve_app.contracts.base import describe_validation_error
from serve_app.contracts.job import (
    DERIVED_ID_HEX_DIGITS,
    AnyJob,
    CatalogJob,
    EventJob,
    Job,
    Output,
)
from serve_app.contracts.json_text import parse_json
from serve_app.contracts.recipe import Recipe, parse_recipe
from serve_app.errors import InvalidMessage

ParsedJob = TypeVar("ParsedJob", Job, EventJob, CatalogJob)

_NESTED_FIELDS = 3
"""Depth of a job's fields: those of ``recipe.thumbnail`` are the deepest."""
_SHORT_LENGTH = 16 * 1024
"""Length of a body that is parsed on the event loop, within 5 ms. 1 MiB takes up to 0.3 s."""
_FOREIGN_SHAPES = {
    "TopicArn": "an SNS notification",
    "detail-type": "an EventBridge event",
    "Records": "an S3 event notification",
}
"""Shapes other than the native one, by a field that only they have."""


def parse_message(
    body: str, defaults: QueueConfig, message_id: str | None = None
) -> Sequence[AnyJob]:
    """Return the jobs that a message asks for.

    Args:
        body: Body of the message.
        defaults: Recipe and output of a message that names none.
        message_id: Id of the job of a native message that has none. None stands for a function of
            the body.

    Returns:
        The jobs. There are none if the message is valid and asks for nothing: S3's test event, an
        event other than a creation, or the creation of an object that is no image, such as a folder
        or one of this application's own results.

    Raises:
        InvalidMessage: The body has none of the shapes. The text says what is wrong.
        InvalidRecipe: The recipe is unknown or has an invalid field.
    """
    content = open_message(body)
    if is_catalog(content):
        return [_catalog_job(content)]
    if is_native(content):
        # Most messages have no null, and are not searched for one.
        fields = without_nulls(content) if "null" in body else content
        return [_native(fields, defaults, message_id or _digest(body))]
    if "Records" in content:
        created = created_by_records(content["Records"])
    elif content.get("Event") == "s3:TestEvent":
        return []
    elif content.get("source") == "aws.s3":
        created = created_by_eventbridge(content)
    else:
        raise InvalidMessage(
            "the message is neither a job with a 'source' nor an S3 event notification; "
            f"its fields are: {_shortened(', '.join(content)) or 'none'}"
        )
    return [_event_job(item, defaults) for item in created if item.is_to_be_processed(defaults)]


async def parse_off_loop(
    body: str, defaults: QueueConfig, message_id: str | None = None
) -> Sequence[AnyJob]:
    """Return what ``parse_message`` returns, without holding the event loop for long.

    Args:
        body: Body of the message.
        defaults: Recipe and output of a message that names none.
        message_id: See ``parse_message``.

    Raises:
        PermanentError: See ``parse_message``.
    """
    if len(body) <= _SHORT_LENGTH:
        return parse_message(body, defaults, message_id)
    return await asyncio.to_thread(parse_message, body, defaults, message_id)


def parse_native_message(body: str, defaults: QueueConfig) -> Job:
    """Return the job that a message in the native shape asks for.

    Events and envelopes are refused. Whoever posts a job sends the job itself, so that one message
    is one job with the ids that it names.

    Args:
        body: Body of the message, as JSON.
        defaults: Recipe and output of a message that names none.

    Raises:
        InvalidMessage: The body is not a native message. The text says what is wrong.
        InvalidRecipe: The recipe is unknown or has an invalid field.
    """
    content = _object(body, "the message")
    foreign = next((name for field, name in _FOREIGN_SHAPES.items() if field in content), None)
    if foreign is not None:
        raise InvalidMessage(
            f"{foreign} is not accepted here; send the job itself, with a 'source'"
        )
    if "source" not in content:
        raise InvalidMessage("the message is not a job: it has no 'source'")
    return _native(without_nulls(content), defaults, _digest(body))


def no_catalog() -> InvalidMessage:
    """Return the error for the job of a book collection if no catalog is configured."""
    return InvalidMessage(
        "the message is a catalog job, with a 'book_id', and no catalog is configured; set "
        "catalog.database_url or catalog.database_secret, or send it to another queue"
    )


def open_message(body: str) -> dict[str, Any]:
    """Return the content of a message, without the envelope of SNS.

    Raises:
        InvalidMessage: The body, or what the envelope holds, is not a JSON object.
    """
    content = _object(body, "the message")
    if "TopicArn" in content and "Message" in content:
        return _object(content["Message"], "the SNS message")
    return content


def is_native(content: dict[str, Any]) -> bool:
    """Return whether a message has the native shape."""
    return "source" in content and "detail-type" not in content


def is_catalog(content: dict[str, Any]) -> bool:
    """Return whether a message has the shape of a book collection's job."""
    return "book_id" in content and not any(name in content for name in ("source", "Records"))


def without_nulls(value: Any, depth: int = _NESTED_FIELDS) -> Any:
    """Return an object without its fields that are null, which counts as "left out".

    Producers in typed languages often write null for a field that they leave out.
    """
    if not isinstance(value, dict) or depth == 0:
        return value
    if None in value.values():
        value = {name: item for name, item in value.items() if item is not None}
    nested = [(name, item) for name, item in value.items() if type(item) is dict]
    for name, item in nested:
        if (kept := without_nulls(item, depth - 1)) is not item:
            value = {**value, name: kept}
    return value


def check_schema(version: object) -> None:
    """Raise InvalidMessage if this version does not read a schema."""
    if version != SCHEMA_VERSION or isinstance(version, bool):
        raise InvalidMessage(
            f"unknown schema {_shortened(repr(version))}; this version reads {SCHEMA_VERSION}"
        )


def _native(content: dict[str, Any], defaults: QueueConfig, default_id: str) -> Job:
    fields = {**content}
    check_schema(fields.pop("schema", SCHEMA_VERSION))
    fields.setdefault("job_id", default_id)
    if "output" not in fields:
        fields["output"] = _default_output(defaults)
    fields["recipe"] = _recipe(fields.get("recipe"), defaults)
    return _job(Job, fields)


def _event_job(created: CreatedObject, defaults: QueueConfig) -> Job:
    fields = {
        "job_id": created.job_id,
        "source": {
            "bucket": created.bucket,
            "key": created.key,
            "version_id": created.version_id,
            "etag": created.etag,
        },
        "output": _default_output(defaults),
        "recipe": _recipe(None, defaults),
    }
    return _job(EventJob, fields)


def _catalog_job(content: dict[str, Any]) -> CatalogJob:
    # The application may add fields. The worker that Foreedge replaces ignores them too.
    known = {name: content[name] for name in CatalogJob.model_fields if name in content}
    return _job(CatalogJob, without_nulls(known))


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode(errors="surrogatepass")).hexdigest()[:DERIVED_ID_HEX_DIGITS]


def _recipe(value: object, defaults: QueueConfig) -> Recipe:
    if value is None:
        value = defaults.recipe
    if not isinstance(value, (str, dict)):
        raise InvalidMessage("recipe: is neither a preset's name nor an object")
    return parse_recipe(value)


def _default_output(defaults: QueueConfig) -> Output:
    if not defaults.output_bucket:
        raise InvalidMessage("the message has no 'output', and queue.output_bucket is not set")
    try:
        return Output(bucket=defaults.output_bucket, prefix=defaults.output_prefix)
    except ValidationError as error:
        raise InvalidMessage(f"queue.output_{describe_validation_error(error)}") from error


def _job(kind: type[ParsedJob], fields: dict[str, Any]) -> ParsedJob:
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise InvalidMessage(_shortened(describe_validation_error(error), 500)) from error


def _object(text: object, what: str) -> dict[str, Any]:
    """Return the object that a JSON text holds, or raise InvalidMessage if it holds none."""
    if not isinstance(text, str):
        raise InvalidMessage(f"{what} is not a string")
    try:
        content = parse_json(text)
    except ValueError as error:
        raise InvalidMessage(f"{what} {error}") from error
    if not isinstance(content, dict):
        raise InvalidMessage(f"{what} is not a JSON object")
    return content


def _shortened(text: str, limit: int = 80) -> str:
    """Return the start of a text from a message, short enough for an error."""
    return text if len(text) <= limit else text[:limit] + "…"
