"""Every shape of message, and the errors of bodies that have none of them."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.messages.parse import parse_message, parse_native_message, parse_off_loop
from serve_app.config import QueueConfig
from serve_app.contracts.result_keys import output_key
from serve_app.errors import InvalidMessage, InvalidRecipe
from tests.support.image_messages import parse_image_message

BARE = QueueConfig(url="https://sqs/q")
DEFAULTS = QueueConfig(
    url="https://sqs/q", output_bucket="out", output_prefix="cut/", recipe="mask"
)

NATIVE: dict[str, Any] = {
    "schema": 1,
    "job_id": "j1",
    "run_id": "r1",
    "source": {"bucket": "b", "key": "in/1.jpg", "version_id": None, "etag": '"abc"'},
    "output": {"bucket": "o", "prefix": "p"},
    "recipe": "mask",
}


def s3_record(key: str = "in/a b+ü.jpg", *, bucket: str = "b", **changes: Any) -> dict[str, Any]:
    return {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "eventName": "ObjectCreated:Put",
        "s3": {
            "bucket": {"name": bucket},
            "object": {
                "key": quote_plus(key, safe="/"),
                "size": 3,
                "eTag": "d41d",
                "versionId": "v7",
                "sequencer": "0055AED6",
            },
        },
    } | changes


def eventbridge(key: str = "in/a b+ü.jpg", detail_type: str = "Object Created") -> dict[str, Any]:
    return {
        "version": "0",
        "detail-type": detail_type,
        "source": "aws.s3",
        "detail": {
            "bucket": {"name": "b"},
            "object": {"key": key, "etag": "d41d", "version-id": "v7", "sequencer": "0055AED6"},
        },
    }


def sns(body: str) -> str:
    return json.dumps({"Type": "Notification", "TopicArn": "arn:aws:sns:x:1:t", "Message": body})


def events(*records: dict[str, Any]) -> str:
    return json.dumps({"Records": list(records)})


def test_native() -> None:
    [job] = parse_image_message(json.dumps(NATIVE), BARE)
    assert (job.job_id, job.run_id) == ("j1", "r1")
    assert (job.source.bucket, job.source.key, job.source.etag) == ("b", "in/1.jpg", "abc")
    assert (job.output.bucket, job.output.prefix) == ("o", "p/")
    assert job.recipe.mask_only


def test_native_takes_defaults_for_what_is_left_out_or_null() -> None:
    body = {"source": {"bucket": "b", "key": "k"}, "output": None, "recipe": None, "schema": None}
    [job] = parse_image_message(json.dumps(body), DEFAULTS)
    assert (job.output.bucket, job.output.prefix) == ("out", "cut/")
    assert job.recipe.mask_only
    assert job.run_id == "live"
    assert job.job_id


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("output", {"bucket": "b", "prefix": None}),
        ("source", {"bucket": "b", "key": "k", "version_id": None, "etag": None}),
        ("recipe", {"format": None, "checks": {"min_subject_px": None}, "matting": None}),
        ("recipe", {"thumbnail": {"size_px": None, "quality": 80}, "quality": None}),
    ],
)
def test_null_in_a_nested_field_is_left_out(field: str, value: dict[str, Any]) -> None:
    [job] = parse_image_message(json.dumps(NATIVE | {field: value}), BARE)
    left_out = {
        name: {n: v for n, v in item.items() if v is not None} if isinstance(item, dict) else item
        for name, item in value.items()
        if item is not None
    }
    assert [job] == parse_image_message(json.dumps(NATIVE | {field: left_out}), BARE)


def test_null_for_what_a_message_needs_is_missing() -> None:
    with pytest.raises(InvalidMessage, match=r"source\.key: Field required"):
        parse_image_message(json.dumps(NATIVE | {"source": {"bucket": "b", "key": None}}), BARE)


def test_messages_of_users() -> None:
    def file(name: str) -> str:
        return (Path(__file__).parent / "files" / f"{name}.json").read_text()

    [job] = parse_image_message(file("null_prefix"), BARE)
    assert job.output.prefix == "cutouts/"
    [job] = parse_image_message(file("key_of_1024_bytes"), DEFAULTS)
    assert len(output_key(job, "0" * 20)) <= 1024
    with pytest.raises(InvalidMessage, match=r"source\.bucket: 's3://photos' is no name"):
        parse_image_message(file("bucket_as_a_url"), BARE)


def test_a_message_without_ids_is_one_job_however_often_it_is_parsed() -> None:
    body = json.dumps({"source": {"bucket": "b", "key": "k"}})
    [first], [again] = (parse_image_message(body, DEFAULTS) for _ in range(2))
    assert first == again
    [named] = parse_image_message(body, DEFAULTS, "sqs-1")
    assert named.job_id == "sqs-1"


def test_native_through_sns() -> None:
    assert parse_image_message(sns(json.dumps(NATIVE)), BARE) == parse_image_message(
        json.dumps(NATIVE), BARE
    )


def test_native_with_a_recipe_in_place() -> None:
    [job] = parse_image_message(
        json.dumps(NATIVE | {"recipe": {"format": "webp", "quality": 50}}), BARE
    )
    assert (job.recipe.format, job.recipe.quality) == ("webp", 50)


@pytest.mark.parametrize("body", [events(s3_record()), sns(events(s3_record()))])
def test_s3_event(body: str) -> None:
    [job] = parse_image_message(body, DEFAULTS)
    assert job.source.key == "in/a b+ü.jpg"
    assert (job.source.version_id, job.source.etag) == ("v7", "d41d")
    assert job.output.bucket == "out"
    assert job.recipe.mask_only


def test_eventbridge_does_not_encode_keys() -> None:
    [job] = parse_image_message(json.dumps(eventbridge("in/100%25+a.jpg")), DEFAULTS)
    assert job.source.key == "in/100%25+a.jpg"
    assert (job.source.version_id, job.source.etag) == ("v7", "d41d")


def test_a_second_delivery_has_the_same_ids_and_another_event_has_others() -> None:
    [first] = parse_image_message(events(s3_record()), DEFAULTS)
    [again] = parse_image_message(sns(events(s3_record())), DEFAULTS)
    [through_eventbridge] = parse_image_message(json.dumps(eventbridge()), DEFAULTS)
    later = s3_record()
    later["s3"]["object"]["sequencer"] = "0055AED7"
    [overwritten] = parse_image_message(events(later), DEFAULTS)
    assert first == again == through_eventbridge
    assert overwritten.job_id != first.job_id


def test_several_records_are_several_jobs() -> None:
    jobs = parse_image_message(events(*(s3_record(f"in/{n}.jpg") for n in range(3))), DEFAULTS)
    assert [job.source.key for job in jobs] == ["in/0.jpg", "in/1.jpg", "in/2.jpg"]
    assert len({job.job_id for job in jobs}) == 3


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b"}),
        sns(json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b"})),
        events(s3_record(eventName="ObjectRemoved:Delete")),
        events(s3_record(eventName="s3:ObjectRestore:Completed")),
        json.dumps(eventbridge(detail_type="Object Deleted")),
        events(s3_record("cut/in/1/abc.png", bucket="out")),
        events(),
    ],
)
def test_nothing_to_do(body: str) -> None:
    assert parse_image_message(body, DEFAULTS) == []


def test_the_guard_against_loops_spares_other_prefixes_and_buckets() -> None:
    assert len(parse_image_message(events(s3_record("in/1.jpg", bucket="out")), DEFAULTS)) == 1
    assert len(parse_image_message(events(s3_record("cut/1.jpg", bucket="b")), DEFAULTS)) == 1
    no_slash = DEFAULTS.model_copy(update={"output_prefix": "cut"})
    assert len(parse_image_message(events(s3_record("cutting/1.jpg", bucket="out")), no_slash)) == 1


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ("{}", "neither a job"),
        ('{"hello": 1}', "hello"),
        (json.dumps(NATIVE | {"schema": 2}), "schema 2"),
        (json.dumps(NATIVE | {"schema": True}), "schema True"),
        (json.dumps(NATIVE | {"extra": 2}), "extra"),
        (json.dumps(NATIVE | {"source": {"bucket": "b"}}), "source.key"),
        (json.dumps(NATIVE | {"source": "s3://b/k"}), "source"),
        (json.dumps(NATIVE | {"run_id": "../x"}), "run_id"),
        (json.dumps(NATIVE | {"recipe": 7}), "recipe"),
        (json.dumps(NATIVE | {"output": None}), "queue.output_bucket"),
        (events(s3_record()), "queue.output_bucket"),
        ('{"Records": 1}', "Records"),
        ('{"Records": [1]}', "Records.0"),
        (events({"eventSource": "aws:ses"}), "Records.0"),
        (events(s3_record(s3={})), "Records.0"),
        (events(s3_record(eventName=7)), "Records.0"),
        (sns("hello"), "SNS message is not JSON"),
        ("[" + "[]," * 60_000 + "[]]", "the message has more than 50,000 values"),
        ('{"TopicArn": "t", "Message": 1}', "not a string"),
        ('{"source": "aws.s3", "detail-type": "Object Created", "detail": 1}', "detail"),
    ],
)
def test_what_was_wrong_is_said(body: str, says: str) -> None:
    with pytest.raises(InvalidMessage) as caught:
        parse_image_message(body, BARE)
    assert says in caught.value.message


def test_a_native_message_alone_is_the_same_job() -> None:
    body = json.dumps(NATIVE)
    assert [parse_native_message(body, BARE)] == parse_image_message(body, BARE)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (sns(json.dumps(NATIVE)), "an SNS notification is not accepted here"),
        (json.dumps(NATIVE | json.loads(sns("{}"))), "an SNS notification is not accepted here"),
        (events(s3_record()), "an S3 event notification is not accepted here"),
        (json.dumps(NATIVE | {"Records": []}), "an S3 event notification is not accepted here"),
        (json.dumps(eventbridge()), "an EventBridge event is not accepted here"),
        ('{"Event": "s3:TestEvent"}', "no 'source'"),
        ("[]", "not a JSON object"),
        (json.dumps(NATIVE | {"source": "aws.s3"}), "source"),
    ],
)
def test_a_native_message_is_no_event_and_has_no_envelope(body: str, says: str) -> None:
    with pytest.raises(InvalidMessage) as caught:
        parse_native_message(body, DEFAULTS)
    assert says in caught.value.message


@pytest.mark.parametrize("recipe", ["nonsense", {"format": "bmp"}, {"unknown": 1}])
def test_recipe_errors_keep_their_code(recipe: object) -> None:
    with pytest.raises(InvalidRecipe):
        parse_image_message(json.dumps(NATIVE | {"recipe": recipe}), BARE)


def test_a_long_message_gives_a_short_reason() -> None:
    with pytest.raises(InvalidMessage) as caught:
        parse_image_message(json.dumps(NATIVE | {f"field{n}": n for n in range(10_000)}), BARE)
    assert len(caught.value.message) < 600


_SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
_WORDS = """schema job_id run_id source output recipe Records TopicArn Message Event detail s3
object bucket key name eventName eventSource detail-type"""
_NAMES = st.text() | st.sampled_from(_WORDS.split())
_JSON = st.recursive(
    _SCALARS | st.sampled_from(["aws:s3", "aws.s3", "ObjectCreated:Put", "Object Created"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=6),
    max_leaves=20,
)


@settings(max_examples=100, deadline=None)
@given(st.text() | _JSON.map(json.dumps))
def test_any_text_is_jobs_or_a_permanent_error(body: str) -> None:
    with contextlib.suppress(InvalidMessage, InvalidRecipe):
        assert isinstance(parse_message(body, DEFAULTS), list)


async def test_a_long_message_does_not_hold_the_event_loop() -> None:
    body = events(*[s3_record()] * 1_200)
    assert len(body) > 256 * 1024
    began = time.thread_time()
    jobs = await parse_off_loop(body, DEFAULTS)
    assert time.thread_time() - began < 0.01
    assert jobs == parse_image_message(body, DEFAULTS)
