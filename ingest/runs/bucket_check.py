"""The check of a bucket for results: that it can be listed and written to."""

from __future__ import annotations

from collections.abc import Iterator
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
    found = tried(
        "s3:ListBucket",
        url,
        lambda: client.list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1),
    )
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
