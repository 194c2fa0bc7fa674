"""Parse the body of a queue message into jobs.

A producer may send a message in one of these shapes:

- the native shape, one job: ``{"source": {"bucket": …, "key": …}, …}``
- an S3 event notification with any number of records
- S3's "Object Created" event from EventBridge
- any of them in the envelope of an SNS topic

The ids of an event's jobs are a function of the event, so that a second delivery of it has the same
ids. S3, SNS and SQS all deliver at least once.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote_plus

from pydantic import ValidationError

from ingest.messages.build import SCHEMA_VERSION
from serve_app.config import QueueConfig
from serve_app.contracts.base import describe_validation_error
from serve_app.contracts.job import Job, Output
from serve_app.contracts.json_text import parse_json
from serve_app.contracts.recipe import Recipe, parse_recipe
from serve_app.errors import InvalidMessage

_ID_HEX_DIGITS = 32
_SHORT_LENGTH = 16 * 1024
"""Length of a body that is parsed on the event loop, within 5 ms. 1 MiB takes up to 0.3 s."""
_FOREIGN_SHAPES = {
    "TopicArn": "an SNS notification",
    "detail-type": "an EventBridge event",
    "Records": "an S3 event notification",
}
"""Shapes other than the native one, by a field that only they have."""


def parse_message(body: str, defaults: QueueConfig) -> list[Job]:
    """Return the jobs that a message asks for.

    Args:
        body: Body of the message.
        defaults: Recipe and output of a message that names none.

    Returns:
        The jobs. There are none if the message is valid and asks for nothing: S3's test event, an
        event other than a creation, or the creation of one of this application's own results.

    Raises:
        InvalidMessage: The body has none of the shapes. The text says what is wrong.
        InvalidRecipe: The recipe is unknown or has an invalid field.
    """
    content = _object(body, "the message")
    if "TopicArn" in content and "Message" in content:
        content = _object(content["Message"], "the SNS message")
    if "source" in content and "detail-type" not in content:
        return [_native(content, defaults)]
    if "Records" in content:
        return list(_from_records(content["Records"], defaults))
    if content.get("Event") == "s3:TestEvent":
        return []
    if content.get("source") == "aws.s3":
        return list(_from_eventbridge(content, defaults))
    raise InvalidMessage(
        "the message is neither a job with a 'source' nor an S3 event notification; "
        f"its fields are: {_shortened(', '.join(content)) or 'none'}"
    )


async def parse_off_loop(body: str, defaults: QueueConfig) -> list[Job]:
    """Return the jobs that a message asks for, without holding the event loop for long.

    Args:
        body: Body of the message.
        defaults: Recipe and output of a message that names none.

    Raises:
        PermanentError: See ``parse_message``.
    """
    if len(body) <= _SHORT_LENGTH:
        return parse_message(body, defaults)
    return await asyncio.to_thread(parse_message, body, defaults)


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
    return _native(content, defaults)


def _native(content: dict[str, Any], defaults: QueueConfig) -> Job:
    # Producers in typed languages often write null for a field that they leave out.
    fields = {name: value for name, value in content.items() if value is not None}
    version = fields.pop("schema", SCHEMA_VERSION)
    if version != SCHEMA_VERSION or isinstance(version, bool):
        raise InvalidMessage(
            f"unknown schema {_shortened(repr(version))}; this version reads {SCHEMA_VERSION}"
        )
    if "output" not in fields:
        fields["output"] = _default_output(defaults)
    fields["recipe"] = _recipe(fields.get("recipe"), defaults)
    return _job(fields)


def _from_records(records: object, defaults: QueueConfig) -> Iterator[Job]:
    """Yield the jobs of the records of an S3 event notification."""
    if not isinstance(records, list):
        raise InvalidMessage("Records: is not a list")
    for index, record in enumerate(records):
        where = f"Records.{index}"
        try:
            if record["eventSource"] != "aws:s3":
                raise InvalidMessage(f"{where}: eventSource is not aws:s3")
            # Some notifications have "s3:" before the event's name.
            if not record["eventName"].removeprefix("s3:").startswith("ObjectCreated:"):
                continue
            bucket, entity = record["s3"]["bucket"]["name"], record["s3"]["object"]
            key = unquote_plus(entity["key"])
            version_id = entity.get("versionId")
            etag, sequencer = entity.get("eTag"), entity.get("sequencer")
        except (KeyError, TypeError, AttributeError) as error:
            raise InvalidMessage(f"{where}: is not a record of an S3 event: {error!r}") from error
        yield from _created(bucket, key, version_id, etag, sequencer, defaults)


def _from_eventbridge(content: dict[str, Any], defaults: QueueConfig) -> Iterator[Job]:
    """Yield the job of an S3 event from EventBridge."""
    if content["detail-type"] != "Object Created":
        return
    try:
        detail = content["detail"]
        bucket, entity = detail["bucket"]["name"], detail["object"]
        # Unlike notifications, EventBridge does not encode the key.
        key, version_id = entity["key"], entity.get("version-id")
        etag, sequencer = entity.get("etag"), entity.get("sequencer")
    except (KeyError, TypeError, AttributeError) as error:
        raise InvalidMessage(f"detail: is not the detail of an S3 event: {error!r}") from error
    yield from _created(bucket, key, version_id, etag, sequencer, defaults)


def _created(
    bucket: object,
    key: object,
    version_id: object,
    etag: object,
    sequencer: object,
    defaults: QueueConfig,
) -> Iterator[Job]:
    """Yield the job for a new object, unless it is one of this application's own results."""
    output = _default_output(defaults)
    own = bucket == output.bucket and isinstance(key, str) and key.startswith(output.prefix)
    # With an empty prefix, every object of the bucket would look like a result of ours.
    if own and output.prefix:
        return
    digest = hashlib.sha256()
    for part in (bucket, key, version_id, etag, sequencer):
        digest.update(f"{part}\0".encode(errors="surrogatepass"))
    yield _job(
        {
            "job_id": digest.hexdigest()[:_ID_HEX_DIGITS],
            "source": {"bucket": bucket, "key": key, "version_id": version_id, "etag": etag},
            "output": output,
            "recipe": _recipe(None, defaults),
        }
    )


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


def _job(fields: dict[str, Any]) -> Job:
    try:
        return Job.model_validate(fields)
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
