"""docs/schemas describes what the parser accepts, and what a dead letter carries."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from docs.generate_schemas import FOLDER, schema_files
from ingest.messages.parse import parse_message
from ingest.messages.schemas import message_schemas
from ingest.sqs.dead_letters import dead_letter_attributes
from serve_app.config import QueueConfig
from serve_app.errors import PermanentError

DEFAULTS = QueueConfig(url="https://sqs.local/1/q", output_bucket="results")
SOURCE = {"bucket": "photos", "key": "in/1.jpg"}
JOB_ID = "6a1f0c9e-4b7c-4d52-9d3e-0a1b2c3d4e5f"
RECORD = {
    "eventSource": "aws:s3",
    "eventName": "ObjectCreated:Put",
    "s3": {"bucket": {"name": "photos"}, "object": {"key": "in/1.jpg", "size": 7}},
}
EVENT = {
    "source": "aws.s3",
    "detail-type": "Object Created",
    "detail": {"bucket": {"name": "photos"}, "object": {"key": "in/1.jpg"}},
}
BODIES: dict[str, tuple[list[Any], list[Any]]] = {
    "native-message": (
        [
            {"source": SOURCE},
            {"source": SOURCE, "output": None, "recipe": None, "job_id": None, "run_id": None},
            {"source": {**SOURCE, "etag": None, "version_id": "v1"}, "recipe": "catalog"},
            {"source": SOURCE, "schema": 1, "recipe": {"format": "webp", "thumbnail": None}},
            {"source": SOURCE, "output": {"bucket": "results", "prefix": "x/"}, "run_id": "r.1"},
        ],
        [
            {"source": None},
            {"source": {"bucket": "photos"}},
            {"source": {"bucket": "photos", "key": 7}},
            {"source": SOURCE, "schema": 2},
            {"source": SOURCE, "recipe": "unknown"},
            {"source": SOURCE, "recipe": {"unknown": 1}},
            {"source": SOURCE, "recipe": 7},
            {"source": SOURCE, "job_id": ""},
            {"source": SOURCE, "run_id": "a/b"},
            {"source": SOURCE, "output": {"prefix": "x/"}},
            {"source": SOURCE, "more": 1},
        ],
    ),
    "catalog-message": (
        [
            {"job_id": JOB_ID, "book_id": 7, "image_id": 12},
            {"job_id": JOB_ID, "book_id": 7, "image_id": None, "run_id": None},
            {"job_id": JOB_ID, "book_id": 7, "run_id": "r1", "more": [1]},
        ],
        [
            {"job_id": JOB_ID, "book_id": 0},
            {"job_id": JOB_ID, "book_id": "7"},
            {"job_id": JOB_ID, "book_id": 2**31},
            {"job_id": 7, "book_id": 7},
            {"book_id": 7, "image_id": 12},
            {"job_id": JOB_ID, "book_id": 7, "image_id": 1.5},
            {"job_id": JOB_ID, "book_id": 7, "run_id": "a/b"},
        ],
    ),
    "s3-event": (
        [{"Records": []}, {"Records": [RECORD, {**RECORD, "eventName": "ObjectRemoved:Delete"}]}],
        [
            {"Records": {}},
            {"Records": [{**RECORD, "eventSource": "aws:sns"}]},
            {"Records": [{**RECORD, "s3": {"bucket": {"name": "photos"}}}]},
            {"Records": [{"eventSource": "aws:s3", "s3": RECORD["s3"]}]},
        ],
    ),
    "eventbridge-event": (
        [EVENT, {**EVENT, "detail-type": "Object Deleted"}],
        [
            {**EVENT, "source": "aws.ec2"},
            {**EVENT, "detail": {"bucket": {"name": "photos"}}},
            {**EVENT, "detail": {"bucket": "photos", "object": {"key": "a.jpg"}}},
        ],
    ),
    "sns-envelope": (
        [{"TopicArn": "arn:aws:sns:x", "Message": json.dumps({"source": SOURCE})}],
        [{"TopicArn": "arn:aws:sns:x", "Message": {"source": SOURCE}}],
    ),
}


def accepted(body: Any) -> bool:
    try:
        parse_message(json.dumps(body), DEFAULTS)
    except PermanentError:
        return False
    return True


@pytest.mark.parametrize("shape", BODIES)
def test_a_schema_accepts_what_the_parser_accepts(shape: str) -> None:
    validator = Draft202012Validator(message_schemas()[shape])
    right, wrong = BODIES[shape]
    assert [body for body in right if not accepted(body)] == []
    assert [(body, validator.is_valid(body)) for body in right] == [(body, True) for body in right]
    assert [body for body in wrong if accepted(body)] == []
    assert [body for body in wrong if validator.is_valid(body)] == []


def test_every_shape_is_tested() -> None:
    assert BODIES.keys() | {"dead-letter-attributes"} == message_schemas().keys()
    for schema in message_schemas().values():
        Draft202012Validator.check_schema(schema)


def test_the_attributes_of_a_dead_letter_are_as_described() -> None:
    validator = Draft202012Validator(message_schemas()["dead-letter-attributes"])
    producers = {f"p{n}": {"DataType": "String", "StringValue": "x"} for n in range(10)}
    written = dead_letter_attributes("{}", producers, "no_subject", "nothing\n" * 500, JOB_ID)
    texts = {name: value["StringValue"] for name, value in written.items()}
    assert {name for name in texts if name.startswith("foreedge.")} == {
        name for name in validator.schema["properties"]
    }
    validator.validate(texts)
    assert not validator.is_valid({**texts, "foreedge.code": "unknown"})
    del texts["foreedge.code"]
    assert not validator.is_valid(texts)


def test_the_files_are_what_make_docs_writes() -> None:
    files = schema_files()
    assert {path: path.read_text("utf-8") for path in sorted(FOLDER.iterdir())} == files
