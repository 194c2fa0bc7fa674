"""Names of buckets, keys, versions, ETags and runs that S3 cannot have, refused in the job."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from serve_app.contracts.base import describe_validation_error
from serve_app.contracts.job import Job, Output, Source


def refusal(kind: type[Source] | type[Output] | type[Job], **fields: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        kind(**fields)
    return describe_validation_error(caught.value)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("s3://photos", "without s3://"),
        ("photos/2024", "without a path"),
        ("https://photos.s3.amazonaws.com", "give the name alone"),
        ("arn:aws:s3:::photos", "the name of the bucket alone: 'photos'"),
        ("arn:aws-cn:s3:::photos", "the name of the bucket alone: 'photos'"),
        ("", "at least 1 character"),
        (" photos", "no name of a bucket"),
        ("photos\n", "no name of a bucket"),
        ("pho tos", "no name of a bucket"),
        ("phötos", "no name of a bucket"),
        ("photos\x1b[31m", r"\x1b"),
        (".photos", "no name of a bucket"),
        ("photos-", "no name of a bucket"),
        ("pho..tos", "no name of a bucket"),
        ("192.168.5.4", "no name of a bucket"),
        ("..", "no name of a bucket"),
        ("b" * 256, "no name of a bucket"),
        ("x" * 5_000 + "/", "…"),
    ],
)
def test_a_name_that_no_bucket_has_is_refused(name: str, says: str) -> None:
    for text in (refusal(Source, bucket=name, key="k"), refusal(Output, bucket=name)):
        assert says in text
        assert len(text) < 400
        assert "\x1b" not in text


@pytest.mark.parametrize(
    "name",
    [
        "photos",
        "my.photos-2024",
        "1-photos",
        "Photos_of_2012",
        "b",
        "b" * 255,
        "photos--use1-az4--x-s3",
        "photos-abcdefghijklmnopqrstuvwxyz-s3alias",
        "arn:aws:s3:eu-west-1:123456789012:accesspoint/photos",
        "arn:aws-us-gov:s3-outposts:us-gov-west-1:123456789012:outpost/op-1/accesspoint/photos",
    ],
)
def test_a_name_that_a_bucket_may_have_is_accepted(name: str) -> None:
    assert Source(bucket=name, key="k").bucket == Output(bucket=name).bucket == name


@pytest.mark.parametrize(
    "key", ["k" * 1024, "ü" * 512, "\U0001f4f7" * 256, "a\nb\x00\ufffe", "/", "../x", " "]
)
def test_a_key_is_any_text_of_up_to_1024_bytes(key: str) -> None:
    assert Source(bucket="b", key=key).key == key


@pytest.mark.parametrize("key", ["k" * 1025, "ü" * 513, "\U0001f4f7" * 257, "", "half \ud800"])
def test_other_keys_are_refused(key: str) -> None:
    assert refusal(Source, bucket="b", key=key).startswith("key: ")


def test_a_prefix_leaves_room_for_a_result() -> None:
    assert Output(bucket="b", prefix="p" * 512).prefix == "p" * 512 + "/"
    assert "1,024 bytes" in refusal(Output, bucket="b", prefix="ü" * 512)


@pytest.mark.parametrize("etag", ["d41d8cd98f00b204e9800998ecf8427e", '"abc-12"', "0x8D", ""])
def test_an_etag_is_visible_ascii(etag: str) -> None:
    assert Source(bucket="b", key="k", etag=etag).etag == (etag.strip('"') or None)


@pytest.mark.parametrize("etag", ["a\r\nX-Amz-Acl: public", "é", 'W/"a"', "a b", "x" * 2_000])
def test_an_etag_that_no_header_can_carry_is_refused(etag: str) -> None:
    assert "no ETag" in refusal(Source, bucket="b", key="k", etag=etag)


@pytest.mark.parametrize("version", ["v\n", "v" * 1025, "\x7f"])
def test_a_version_that_no_object_has_is_refused(version: str) -> None:
    assert "version_id" in refusal(Source, bucket="b", key="k", version_id=version)


@pytest.mark.parametrize("run_id", [".", "..", "", "a/b", "a\n", "r" * 101, "ü"])
def test_an_id_that_is_no_folder_is_no_run(run_id: str) -> None:
    place = {"source": {"bucket": "b", "key": "k"}, "output": {"bucket": "b"}}
    assert "run_id" in refusal(Job, run_id=run_id, **place)


@pytest.mark.parametrize("run_id", ["r", "...", "..r", ".r", "-", "_.", "r" * 100])
def test_other_ids_are_runs_as_before(run_id: str) -> None:
    source, output = Source(bucket="b", key="k"), Output(bucket="b")
    assert Job(run_id=run_id, source=source, output=output).run_id == run_id
