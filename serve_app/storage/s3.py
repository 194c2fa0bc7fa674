"""Objects in S3, and the mapping of botocore's exceptions to our errors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError
from urllib3.exceptions import HTTPError

from serve_app.aws import CREDENTIAL_ERRORS, CREDENTIALS_ADVICE
from serve_app.errors import (
    ForeedgeError,
    ImageTooLarge,
    SourceChanged,
    SourceNotFound,
    StorageUnavailable,
)
from serve_app.storage.protocol import CHUNK_BYTES, ObjectInfo
from serve_app.storage.s3_answers import explain_answer

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_ERRORS = (ClientError, BotoCoreError, HTTPError, UnicodeError, RecursionError)
"""Exceptions of a call to S3. botocore wraps most errors of urllib3 in classes of its own, but not
those of TLS in the middle of a body. It asks for the region of a bucket again and again if a server
redirects every request without naming one."""

_BAD_NAMES = (ParamValidationError, UnicodeError)
"""Exceptions for a bucket, key or version that no request can carry."""
_ABSENT = {"404", "NoSuchKey", "NoSuchVersion", "NotFound"}
_UNEXPLAINED = range(300, 500)
"""Statuses of a rejected HEAD, whose answer has no body that could contain the reason."""

_MODEL = "foreedge-model"
"""Name under which the metadata of a result names its model."""

_DELETED_AT_ONCE = 1_000
"""Most keys that one DeleteObjects takes."""


_ACTIONS = {
    "GetObject": "s3:GetObject (for a version s3:GetObjectVersion), or s3:ListBucket on the bucket "
    "if the object does not exist",
    "PutObject": "s3:PutObject",
    "ListObjectsV2": "s3:ListBucket",
    "DeleteObjects": "s3:DeleteObject",
}
"""Actions of IAM that the calls of ``S3Store`` need, for the text of a denial."""


def map_s3_error(error: Exception, where: str) -> ForeedgeError:
    """Return our error for an exception of botocore.

    Args:
        error: The exception, which is botocore's, or urllib3's from the middle of a body.
        where: URL of the object or bucket, for the message.
    """
    if isinstance(error, _BAD_NAMES):
        reason = " ".join(str(error).split())
        return SourceNotFound(f"{where} cannot exist, correct the bucket, key or version: {reason}")
    if isinstance(error, RecursionError):
        return explain_answer("PermanentRedirect", 301, "it redirects every request", where)
    if isinstance(error, ClientError):
        text = error.response.get("Error", {}).get("Message") or str(error)
        action = _ACTIONS.get(error.operation_name, "")
        return explain_answer(_code(error), _status(error), text, where, action)
    if isinstance(error, CREDENTIAL_ERRORS):
        return StorageUnavailable(f"{where}: {error}; {CREDENTIALS_ADVICE}")
    # Everything else is retried: credentials are renewed, outages end.
    return StorageUnavailable(f"{where}: {error}")


def _code(error: ClientError) -> str:
    return error.response.get("Error", {}).get("Code", "")


def _status(error: ClientError) -> int:
    status: int = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code = _code(error)
    return int(code) if not status and code.isdecimal() else status


class S3Store:
    """Objects in S3, or in a server that speaks its protocol."""

    def __init__(self, client: S3Client) -> None:
        self._client = client

    def head(self, bucket: str, key: str, version_id: str | None = None) -> ObjectInfo | None:
        """See ObjectStore."""
        version: Any = {"VersionId": version_id} if version_id else {}
        try:
            answer = self._client.head_object(Bucket=bucket, Key=key, **version)
        except _ERRORS as error:
            if isinstance(error, ClientError):
                if _code(error) in _ABSENT:
                    return None
                if _status(error) in _UNEXPLAINED:
                    raise self._explain_refusal(bucket, key, version) from error
            raise map_s3_error(error, f"s3://{bucket}/{key}") from error
        model = answer.get("Metadata", {}).get(_MODEL)
        etag = answer["ETag"].strip('"')
        return ObjectInfo(
            key,
            answer["ContentLength"],
            etag,
            unquote(model) if model else None,
            answer.get("ContentType"),
        )

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
            # As a context manager, the body yields the bare stream, which raises urllib3's errors.
            with closing(answer["Body"]) as body:
                if max_bytes is not None and answer["ContentLength"] > max_bytes:
                    raise ImageTooLarge(
                        f"{where} has {answer['ContentLength']:,} bytes; the limit is "
                        f"{max_bytes:,} (limits.max_bytes)"
                    )
                return body.read()
        except _ERRORS as error:
            raise map_s3_error(error, where) from error

    def _explain_refusal(self, bucket: str, key: str, version: Any) -> ForeedgeError:
        """Return the error for a rejected HEAD, by asking again with a GET.

        Only the answer to a GET says whether access is denied, or whether credentials have expired
        or the clock is wrong. The latter two are transient.
        """
        where = f"s3://{bucket}/{key}"
        try:
            self._client.get_object(Bucket=bucket, Key=key, **version)["Body"].close()
        except _ERRORS as error:
            return map_s3_error(error, where)
        return StorageUnavailable(f"{where}: S3 rejected HEAD but accepted GET; try again")

    def put(self, bucket: str, key: str, data: bytes, media_type: str) -> None:
        """See ObjectStore."""
        self._put(bucket, key, data, media_type, {})

    def put_if_absent(
        self, bucket: str, key: str, data: bytes, media_type: str, *, model: str | None = None
    ) -> bool:
        """See ObjectStore."""
        options: Any = {"IfNoneMatch": "*"}
        if model is not None:
            # Metadata travels in headers, which are ASCII.
            options["Metadata"] = {_MODEL: quote(model)}
        try:
            self._put(bucket, key, data, media_type, options)
        except SourceChanged:
            return False
        return True

    def _put(self, bucket: str, key: str, data: bytes, media_type: str, options: Any) -> None:
        try:
            self._client.put_object(
                Bucket=bucket, Key=key, Body=data, ContentType=media_type, **options
            )
        except _ERRORS as error:
            raise map_s3_error(error, f"s3://{bucket}/{key}") from error

    def chunks(self, bucket: str, key: str) -> Iterator[bytes]:
        """See ObjectStore."""
        try:
            answer = self._client.get_object(Bucket=bucket, Key=key)
            with closing(answer["Body"]) as body:
                yield from body.iter_chunks(CHUNK_BYTES)
        except _ERRORS as error:
            raise map_s3_error(error, f"s3://{bucket}/{key}") from error

    def list(self, bucket: str, prefix: str, after: str | None = None) -> Iterator[ObjectInfo]:
        """See ObjectStore."""
        for item in self._list_items(bucket, prefix, after):
            etag = item["ETag"].strip('"')
            yield ObjectInfo(item["Key"], item["Size"], etag, written_at=item["LastModified"])

    def keys(self, bucket: str, prefix: str, after: str | None = None) -> Iterator[str]:
        """See ObjectStore."""
        for item in self._list_items(bucket, prefix, after):
            yield item["Key"]

    def folders(self, bucket: str, prefix: str) -> Iterator[str]:
        """See ObjectStore."""
        pages = self._client.get_paginator("list_objects_v2")
        try:
            for page in pages.paginate(Bucket=bucket, Prefix=prefix, Delimiter="/"):
                for item in page.get("CommonPrefixes", []):
                    yield item["Prefix"].removeprefix(prefix).removesuffix("/")
        except _ERRORS as error:
            raise map_s3_error(error, f"s3://{bucket}/{prefix}") from error

    def delete(self, bucket: str, keys: Sequence[str]) -> None:
        """See ObjectStore."""
        for start in range(0, len(keys), _DELETED_AT_ONCE):
            batch = keys[start : start + _DELETED_AT_ONCE]
            entries: Any = [{"Key": key} for key in batch]
            try:
                answer = self._client.delete_objects(
                    Bucket=bucket, Delete={"Objects": entries, "Quiet": True}
                )
            except _ERRORS as error:
                raise map_s3_error(error, f"s3://{bucket}/{batch[0]}") from error
            if refused := answer.get("Errors"):
                # Each object has an error of its own, in an answer that is a success.
                where = f"s3://{bucket}/{refused[0].get('Key', '')}"
                raise map_s3_error(ClientError({"Error": refused[0]}, "DeleteObjects"), where)

    def _list_items(self, bucket: str, prefix: str, after: str | None) -> Iterator[Any]:
        start: Any = {"StartAfter": after} if after else {}
        pages = self._client.get_paginator("list_objects_v2")
        try:
            for page in pages.paginate(Bucket=bucket, Prefix=prefix, **start):
                yield from page.get("Contents", [])
        except _ERRORS as error:
            raise map_s3_error(error, f"s3://{bucket}/{prefix}") from error
