"""JSON Schemas of what is on the queue, made from the contracts and from what the parser reads.

``python -m docs.generate_schemas`` writes them to ``docs/schemas``.
"""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter

from ingest.messages.build import SCHEMA_VERSION
from ingest.sqs.dead_letters import (
    CODE_ATTRIBUTE,
    DROPPED_ATTRIBUTE,
    JOB_ID_ATTRIBUTE,
    MAX_ATTRIBUTE_CHARACTERS,
    REASON_ATTRIBUTE,
)
from serve_app.contracts.job import MAX_JOB_ID_LENGTH, CatalogJob, Job, Output, Source
from serve_app.contracts.recipe import PRESETS, Recipe
from serve_app.errors import BY_CODE

Schema = dict[str, Any]

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_TEXT: Schema = {"type": "string", "minLength": 1}
_S3_KEY = "Key of the object."


def message_schemas() -> dict[str, Schema]:
    """Return the schema of each shape of a message, and of a dead letter, by its name."""
    shapes = {
        "native-message": _native(),
        "catalog-message": _catalog(),
        "s3-event": _s3_event(),
        "eventbridge-event": _eventbridge_event(),
        "sns-envelope": _sns_envelope(),
        "dead-letter-attributes": _dead_letter_attributes(),
    }
    return {name: {"$schema": _DIALECT, **shape} for name, shape in shapes.items()}


def _native() -> Schema:
    """Return the schema of a native message: a job, whose fields but the source have defaults."""
    job = Job.model_json_schema()["properties"]
    parts: dict[str, Schema] = {
        "source": TypeAdapter(Source).json_schema(),
        "output": TypeAdapter(Output).json_schema(),
        "recipe": TypeAdapter(Recipe).json_schema(ref_template="#/$defs/{model}"),
    }
    shared = {}
    for part in parts.values():
        shared.update(part.pop("$defs", {}))
    parts["recipe"]["required"] = []
    by_name = {"enum": sorted(PRESETS), "description": "Name of a preset."}
    return {
        "title": "Native message",
        "description": "One image to process. A field that is null counts as left out.",
        "type": "object",
        "required": ["source"],
        "properties": {
            "schema": _or_null({"const": SCHEMA_VERSION, "description": "Version of this shape."}),
            "job_id": _or_null(_without_default(job["job_id"])),
            "run_id": _or_null(_without_default(job["run_id"])),
            "source": _with_nulls(parts["source"]),
            "output": _or_null(_with_nulls(parts["output"])),
            "recipe": {"anyOf": [by_name, _with_nulls(parts["recipe"]), {"type": "null"}]},
        },
        "additionalProperties": False,
        "$defs": shared,
    }


def _catalog() -> Schema:
    """Return the schema of a catalog job, to which the application may add fields."""
    schema = CatalogJob.model_json_schema()
    fields = schema["properties"]
    fields["job_id"]["format"] = "uuid"
    fields["run_id"] = _or_null(_without_default(fields["run_id"]))
    return {
        "title": "Catalog message",
        "description": "A job of a book collection, if a catalog is configured. Other fields are "
        "ignored.",
        "type": "object",
        "required": schema["required"],
        "properties": fields,
        # What has them is another shape.
        "not": {"anyOf": [{"required": ["source"]}, {"required": ["Records"]}]},
    }


def _s3_event() -> Schema:
    named = {"type": "object", "required": ["name"], "properties": {"name": _TEXT}}
    entity = {
        "type": "object",
        "required": ["key"],
        "properties": {
            "key": {**_TEXT, "description": f"{_S3_KEY} It is URL-encoded."},
            "size": {"type": "integer", "minimum": 0},
            "eTag": {"type": "string"},
            "versionId": {"type": "string"},
            "sequencer": {"type": "string"},
        },
    }
    record = {
        "type": "object",
        "required": ["eventSource", "eventName", "s3"],
        "properties": {
            "eventSource": {"const": "aws:s3"},
            "eventName": {
                "type": "string",
                "description": "Events other than ObjectCreated are ignored.",
            },
            "s3": {
                "type": "object",
                "required": ["bucket", "object"],
                "properties": {"bucket": named, "object": entity},
            },
        },
    }
    return {
        "title": "S3 event notification",
        "description": "One job for each image that was created.",
        "type": "object",
        "required": ["Records"],
        "properties": {"Records": {"type": "array", "items": record}},
    }


def _eventbridge_event() -> Schema:
    entity = {
        "type": "object",
        "required": ["key"],
        "properties": {
            "key": {**_TEXT, "description": f"{_S3_KEY} It is not encoded."},
            "size": {"type": "integer", "minimum": 0},
            "etag": {"type": "string"},
            "version-id": {"type": "string"},
            "sequencer": {"type": "string"},
        },
    }
    bucket = {"type": "object", "required": ["name"], "properties": {"name": _TEXT}}
    return {
        "title": "Event of S3 from EventBridge",
        "description": "One job if an image was created. Other events are ignored.",
        "type": "object",
        "required": ["source", "detail-type", "detail"],
        "properties": {
            "source": {"const": "aws.s3"},
            "detail-type": {"type": "string"},
            "detail": {
                "type": "object",
                "required": ["bucket", "object"],
                "properties": {"bucket": bucket, "object": entity},
            },
        },
    }


def _sns_envelope() -> Schema:
    return {
        "title": "Envelope of an SNS topic",
        "description": "Any of the other shapes, as SNS delivers it without raw delivery.",
        "type": "object",
        "required": ["TopicArn", "Message"],
        "properties": {
            "TopicArn": _TEXT,
            "Message": {
                "type": "string",
                "contentMediaType": "application/json",
                "description": "Message of another shape, as JSON.",
            },
        },
    }


def _dead_letter_attributes() -> Schema:
    """Return the schema of what we write on a dead letter, as names with their texts."""
    text: Schema = {"type": "string", "minLength": 1, "maxLength": MAX_ATTRIBUTE_CHARACTERS}
    return {
        "title": "Attributes of a dead letter",
        "description": "Message attributes of the type String, by name. The body is that of the "
        "message, and the attributes of its producer are kept.",
        "type": "object",
        "required": [CODE_ATTRIBUTE],
        "properties": {
            CODE_ATTRIBUTE: {"enum": sorted(BY_CODE), "description": "Code of the error."},
            JOB_ID_ATTRIBUTE: {
                **text,
                "maxLength": MAX_JOB_ID_LENGTH,
                "description": "Id of the job.",
            },
            REASON_ATTRIBUTE: {**text, "description": "Text of the error, if there was room."},
            DROPPED_ATTRIBUTE: {
                **text,
                "description": "Names of the producer's attributes that SQS had no room for.",
            },
        },
    }


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _with_nulls(schema: Schema) -> Schema:
    """Return the schema of an object whose fields may be null, unless they are required."""
    required = schema.get("required", [])
    fields = {
        name: field if name in required or _takes_null(field) else _or_null(field)
        for name, field in schema["properties"].items()
    }
    return {**schema, "properties": fields}


def _takes_null(schema: Schema) -> bool:
    return {"type": "null"} in schema.get("anyOf", [])


def _without_default(schema: Schema) -> Schema:
    return {name: value for name, value in schema.items() if name != "default"}
