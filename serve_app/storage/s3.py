"""Objects in S3; its failures become errors of our tree here, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from serve_app.errors import (
    ForeedgeError,
    ImageTooLarge,
    SourceChanged,
    SourceForbidden,
    SourceNotFound,
    StorageUnavailable,
)
from serve_app.storage.protocol import CHUNK_BYTES, ObjectInfo

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_NOT_FOUND = {"404", "NoSuchKey", "NoSuchBucket", "NoSuchVersion", "NotFound"}
_FORBIDDEN = {"403", "AccessDenied", "Forbidden", "AllAccessDisabled", "InvalidObjectState"}
_PRECONDITION = {"412", "PreconditionFailed"}
_UNTOLD = {"400", "403"}
"""What the refusal of a HEAD says, whatever the reason is."""


def map_s3_error(error: ClientError | BotoCoreError, where: str) -> ForeedgeError:
    """Return the error of our tree for one of botocore's.

    Args:
        error: What botocore raised.
        where: The object or bucket, for the message.
    """
    if isinstance(error, ClientError):
        code = _code(error)
        if code in _NOT_FOUND:
            return SourceNotFound(f"{where} does not exist")
        if code in _FORBIDDEN:
            return SourceForbidden(f"{where}: access denied ({code}); check the role's policy")
        if code in _PRECONDITION:
            return SourceChanged(f"{where} is no longer the object that the job names (ETag)")
    # Expired credentials come and go, as do throttles and broken connections: all else is retried.
    return StorageUnavailable(f"{where}: {error}")


def _code(error: ClientError) -> str:
    return error.response.get("Error", {}).get("Code", "")


class S3Store:
    """Objects in S3, or in a server that speaks its protocol."""

    def __init__(self, client: S3Client) -> None:
        self._client = client

    def head(self, bucket: str, key: str, version_id: str | None = None) -> ObjectInfo | None:
        """See ObjectStore."""
        version: Any = {"VersionId": version_id} if version_id else {}
        try:
            answer = self._client.head_object(Bucket=bucket, Key=key, **version)
        except (ClientError, BotoCoreError) as error:
            mapped = map_s3_error(error, f"s3://{bucket}/{key}")
            if isinstance(mapped, SourceNotFound):
                return None
            if isinstance(error, ClientError) and _code(error) in _UNTOLD:
                mapped = self._why_refused(bucket, key, version)
            raise mapped from error
        return ObjectInfo(key, answer["ContentLength"], answer["ETag"].strip('"'))

    def get(
        self,
        bucket: str,
        key: str,
        *,
        etag: str | None = None,
        version_id: str | None = None,
        max_bytes: int | None = None,
    ) -> bytes:
        """See ObjectStore."""
        where = f"s3://{bucket}/{key}"
        condition: Any = {"VersionId": version_id} if version_id else {}
        if etag:
            condition["IfMatch"] = f'"{etag}"'
        try:
            answer = self._client.get_object(Bucket=bucket, Key=key, **condition)
            # As a context manager it would give the bare stream, whose errors are not botocore's.
            with closing(answer["Body"]) as body:
                if max_bytes is not None and answer["ContentLength"] > max_bytes:
                    raise ImageTooLarge(
                        f"{where} has {answer['ContentLength']:,} bytes; the limit is "
                        f"{max_bytes:,} (limits.max_bytes)"
                    )
                return body.read()
        except (ClientError, BotoCoreError) as error:
            raise map_s3_error(error, where) from error

    def _why_refused(self, bucket: str, key: str, version: Any) -> ForeedgeError:
        """Return why a HEAD was refused, which an answer without a body cannot say.

        Keys that have expired or are not valid yet, and a clock that is wrong, pass: they must
        not count as a denial.
        """
        where = f"s3://{bucket}/{key}"
        try:
            self._client.get_object(Bucket=bucket, Key=key, **version)["Body"].close()
        except (ClientError, BotoCoreError) as error:
            return map_s3_error(error, where)
        return StorageUnavailable(f"{where}: HEAD was refused, and GET is not; try again")

    def put(self, bucket: str, key: str, data: bytes, media_type: str) -> None:
        """See ObjectStore."""
        self._put(bucket, key, data, media_type, {})

    def put_if_absent(self, bucket: str, key: str, data: bytes, media_type: str) -> bool:
        """See ObjectStore."""
        try:
            self._put(bucket, key, data, media_type, {"IfNoneMatch": "*"})
        except SourceChanged:
            return False
        return True

    def _put(self, bucket: str, key: str, data: bytes, media_type: str, condition: Any) -> None:
        try:
            self._client.put_object(
                Bucket=bucket, Key=key, Body=data, ContentType=media_type, **condition
            )
        except (ClientError, BotoCoreError) as error:
            raise map_s3_error(error, f"s3://{bucket}/{key}") from error

    def chunks(self, bucket: str, key: str) -> Iterator[bytes]:
        """See ObjectStore."""
        try:
            answer = self._client.get_object(Bucket=bucket, Key=key)
            with closing(answer["Body"]) as body:
                yield from body.iter_chunks(CHUNK_BYTES)
        except (ClientError, BotoCoreError) as error:
            raise map_s3_error(error, f"s3://{bucket}/{key}") from error

    def list(self, bucket: str, prefix: str, after: str | None = None) -> Iterator[ObjectInfo]:
        """See ObjectStore."""
        for item in self._items(bucket, prefix, after):
            yield ObjectInfo(item["Key"], item["Size"], item["ETag"].strip('"'))

    def keys(self, bucket: str, prefix: str, after: str | None = None) -> Iterator[str]:
        """See ObjectStore."""
        for item in self._items(bucket, prefix, after):
            yield item["Key"]

    def _items(self, bucket: str, prefix: str, after: str | None) -> Iterator[Any]:
        start: Any = {"StartAfter": after} if after else {}
        pages = self._client.get_paginator("list_objects_v2")
        try:
            for page in pages.paginate(Bucket=bucket, Prefix=prefix, **start):
                yield from page.get("Contents", [])
        except (ClientError, BotoCoreError) as error:
            raise map_s3_error(error, f"s3://{bucket}/{prefix}") from error
