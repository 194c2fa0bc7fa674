"""S3Store, with a real client that sends nothing."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from serve_app.aws import aws_client
from serve_app.config import AwsConfig
from serve_app.errors import SourceForbidden, SourceNotFound
from serve_app.storage.s3 import S3Store


@pytest.fixture(scope="module")
def store() -> S3Store:
    return S3Store(aws_client("s3", AwsConfig(endpoint_url="http://127.0.0.1:9", max_attempts=1)))


@pytest.mark.parametrize("bucket", ["Bad Bucket!", "a/b", "arn:aws:s3:::b"])
def test_a_bucket_that_cannot_exist_is_not_an_outage(store: S3Store, bucket: str) -> None:
    with pytest.raises(SourceNotFound, match="cannot exist"):
        store.get(bucket, "1.jpg")
    with pytest.raises(SourceNotFound, match="cannot exist"):
        store.head(bucket, "1.jpg")
    with pytest.raises(SourceNotFound, match="cannot exist"):
        store.put(bucket, "1.png", b"", "image/png")


@pytest.mark.parametrize("code", ["InvalidBucketName", "KeyTooLongError", "InvalidArgument"])
def test_a_name_that_s3_rejects_is_not_an_outage(
    store: S3Store, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(client: object, operation: str, arguments: dict[str, Any]) -> None:
        # The answer to a HEAD has no body, so its only code is the HTTP status.
        reason = "400" if operation == "HeadObject" else code
        raise ClientError({"Error": {"Code": reason, "Message": "rejected"}}, operation)

    monkeypatch.setattr("botocore.client.BaseClient._make_api_call", refuse)
    with pytest.raises(SourceNotFound, match=f"cannot exist.*{code}"):
        store.get("bucket", "1.jpg", version_id="nonsense")
    with pytest.raises(SourceNotFound, match=f"cannot exist.*{code}"):
        store.head("bucket", "1.jpg", version_id="nonsense")


def test_an_object_that_does_not_exist_has_no_head(
    store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(client: object, operation: str, arguments: dict[str, Any]) -> None:
        raise ClientError({"Error": {"Code": "404", "Message": "Not Found"}}, operation)

    monkeypatch.setattr("botocore.client.BaseClient._make_api_call", refuse)
    assert store.head("bucket", "1.jpg") is None


def test_objects_are_deleted_a_thousand_at_a_time_and_each_refusal_counts(
    store: S3Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    deleted: list[int] = []
    refused: list[dict[str, str]] = []

    def answer(client: object, operation: str, arguments: dict[str, Any]) -> dict[str, Any]:
        deleted.append(len(arguments["Delete"]["Objects"]))
        return {"Errors": refused}

    monkeypatch.setattr("botocore.client.BaseClient._make_api_call", answer)
    store.delete("b", [str(number) for number in range(2_500)])
    assert deleted == [1_000, 1_000, 500]
    refused.append({"Key": "7", "Code": "AccessDenied", "Message": "no"})
    with pytest.raises(SourceForbidden, match="s3://b/7"):
        store.delete("b", ["7"])
