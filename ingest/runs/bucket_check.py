"""The checks of buckets: that one for results can be written to, and that each can be listed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ingest.findings import Finding, tried
from serve_app.aws import aws_client
from serve_app.config import AwsConfig

_PROBE = "0_foreedge_check"
_ABSENT = ("404", "NoSuchKey", "NotFound")


def check_result_bucket(aws: AwsConfig, bucket: str, prefix: str) -> Iterator[Finding]:
    """Yield whether a bucket can be listed and written to. Blocks. Nothing is written.

    Args:
        aws: Settings of the connection.
        bucket: Name of the bucket.
        prefix: Beginning of the keys of the results.
    """
    client: Any = aws_client("s3", aws)
    key = f"{prefix}{_PROBE}"
    url = f"s3://{bucket}"
    found = _try_list(client, bucket, key)
    yield found
    if found.problem is None:
        found = tried(
            "s3:GetObject",
            f"{url}/{prefix}*",
            lambda: client.head_object(Bucket=bucket, Key=key),
            _ABSENT,
            # With a condition on the prefix, S3 answers 403 for each object that is missing.
            advice="allow it in its policy, and s3:ListBucket without a condition",
        )
        yield found
    if found.problem is None:
        yield from _try_upload(client, bucket, key, f"{url}/{prefix}*")


def check_listed_bucket(aws: AwsConfig, bucket: str) -> Iterator[Finding]:
    """Yield whether a bucket can be listed, without which missing objects look denied. Blocks.

    Which of its objects may be read is not asked: roles have rights to prefixes, and no setting
    names them.

    Args:
        aws: Settings of the connection.
        bucket: Name of the bucket.
    """
    yield _try_list(aws_client("s3", aws), bucket, _PROBE)


def _try_list(client: Any, bucket: str, prefix: str) -> Finding:
    found = tried(
        "s3:ListBucket",
        f"s3://{bucket}",
        lambda: client.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1),
    )
    return found if found.problem else replace(found, detail=f"s3://{bucket} can be listed")


def _try_upload(client: Any, bucket: str, key: str, where: str) -> Iterator[Finding]:
    """Begin an upload in parts and abort it, which needs the right to write and writes nothing.

    AWS allows the second to whoever began the upload
    (https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html), unless a policy denies
    it.
    """
    begun: list[str] = []

    def begin() -> None:
        begun.append(client.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"])

    yield tried("s3:PutObject", where, begin)
    if begun:
        upload = {"Bucket": bucket, "Key": key, "UploadId": begun[0]}
        aborted = tried(
            "s3:AbortMultipartUpload", where, lambda: client.abort_multipart_upload(**upload)
        )
        if aborted.problem is not None:
            yield aborted
