"""Object stores: S3, and local files behind the same protocol.

Every method blocks; asynchronous callers use threads. Both stores are safe to share among
threads. Failures of the store become errors of our tree here, and nowhere else.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from serve_app.config import AppConfig, AwsConfig
from serve_app.errors import (
    ForeedgeError,
    ImageTooLarge,
    SourceChanged,
    SourceForbidden,
    SourceNotAllowed,
    SourceNotFound,
    StorageUnavailable,
)

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_NOT_FOUND = {"404", "NoSuchKey", "NoSuchBucket", "NoSuchVersion", "NotFound"}
_FORBIDDEN = {"403", "AccessDenied", "Forbidden", "AllAccessDisabled", "InvalidObjectState"}
_PRECONDITION = {"412", "PreconditionFailed"}
_UNTOLD = {"400", "403"}
"""What the refusal of a HEAD says, whatever the reason is."""
_CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What a listing or a HEAD says of an object."""

    key: str
    size: int
    """In bytes."""
    etag: str
    """Without quotation marks."""


class ObjectStore(Protocol):
    """Buckets of immutable objects."""

    def head(self, bucket: str, key: str, version_id: str | None = None) -> ObjectInfo | None:
        """Return what is known of an object, or None where it does not exist."""
        ...

    def get(
        self,
        bucket: str,
        key: str,
        *,
        etag: str | None = None,
        version_id: str | None = None,
        max_bytes: int | None = None,
    ) -> bytes:
        """Return an object's bytes.

        Raises:
            SourceNotFound: It does not exist.
            SourceForbidden: The store denies the read.
            SourceChanged: ``etag`` is given, and the object's is another.
            ImageTooLarge: It has more than ``max_bytes``; nothing was read then.
            StorageUnavailable: The store does not answer.
        """
        ...

    def put(self, bucket: str, key: str, data: bytes, media_type: str) -> None:
        """Write an object, or write it anew."""
        ...

    def put_if_absent(self, bucket: str, key: str, data: bytes, media_type: str) -> bool:
        """Write an object unless it exists; return whether this call wrote it."""
        ...

    def chunks(self, bucket: str, key: str) -> Iterator[bytes]:
        """Yield an object's bytes piece by piece, for objects that do not fit in memory.

        Raises:
            SourceNotFound: It does not exist.
            SourceForbidden: The store denies the read.
            StorageUnavailable: The store does not answer, or stopped in the middle.
        """
        ...

    def list(self, bucket: str, prefix: str, after: str | None = None) -> Iterator[ObjectInfo]:
        """Yield the objects under a prefix in the order of their keys, from past ``after`` on."""
        ...

    def keys(self, bucket: str, prefix: str, after: str | None = None) -> Iterator[str]:
        """Yield only the keys of what ``list`` yields, which a local store has for less."""
        ...


def open_store(config: AppConfig) -> ObjectStore:
    """Return the store that the configuration names."""
    if config.storage.local_root is not None:
        return LocalStore(config.storage.local_root)
    return S3Store(aws_client("s3", config.aws))


def check_allowed(bucket: str, allowed: tuple[str, ...]) -> None:
    """Raise SourceNotAllowed unless ``bucket`` is on the allow-list, or the list is empty."""
    if allowed and bucket not in allowed:
        raise SourceNotAllowed(
            f"bucket {bucket!r} is not on the allow-list (storage.allowed_buckets)"
        )


def aws_client(service: str, aws: AwsConfig, *, connections: int = 32) -> Any:
    """Return a boto3 client with the configured endpoint, time-outs and retries.

    Args:
        service: ``s3`` or ``sqs``.
        aws: How AWS is reached.
        connections: Size of the pool: the threads that share the client.
    """
    config = Config(
        region_name=aws.region,
        connect_timeout=aws.connect_timeout_s,
        read_timeout=aws.read_timeout_s,
        max_pool_connections=connections,
        retries={"mode": "standard", "total_max_attempts": aws.max_attempts},
        # A local server has no DNS name for each bucket.
        s3={"addressing_style": "path" if aws.endpoint_url else "auto"},
        tcp_keepalive=True,
    )
    session = boto3.session.Session(region_name=aws.region)
    return session.client(service, endpoint_url=aws.endpoint_url, config=config)  # type: ignore[call-overload]


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
                yield from body.iter_chunks(_CHUNK_BYTES)
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


class LocalStore:
    """Objects as files: each bucket is a folder under the root. ETags are MD5, as in S3."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def head(self, bucket: str, key: str, version_id: str | None = None) -> ObjectInfo | None:
        """See ObjectStore."""
        try:
            data = self._path(bucket, key).read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None
        except OSError as error:
            _raise_local(error, bucket, key)
        return ObjectInfo(key, len(data), _md5(data))

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
        path = self._path(bucket, key)
        try:
            size = path.stat().st_size
            if max_bytes is not None and size > max_bytes:
                raise ImageTooLarge(
                    f"{path} has {size:,} bytes; the limit is {max_bytes:,} (limits.max_bytes)"
                )
            data = path.read_bytes()
        except OSError as error:
            _raise_local(error, bucket, key)
        if etag and _md5(data) != etag:
            raise SourceChanged(f"{path} is no longer the object that the job names (ETag)")
        return data

    def put(self, bucket: str, key: str, data: bytes, media_type: str) -> None:
        """See ObjectStore."""
        temporary, path = self._write_temporary(bucket, key, data)
        temporary.replace(path)

    def put_if_absent(self, bucket: str, key: str, data: bytes, media_type: str) -> bool:
        """See ObjectStore."""
        temporary, path = self._write_temporary(bucket, key, data)
        try:
            # A hard link fails where the name exists, which a rename does not.
            os.link(temporary, path)
        except FileExistsError:
            return False
        finally:
            temporary.unlink()
        return True

    def chunks(self, bucket: str, key: str) -> Iterator[bytes]:
        """See ObjectStore."""
        try:
            with self._path(bucket, key).open("rb") as file:
                while chunk := file.read(_CHUNK_BYTES):
                    yield chunk
        except OSError as error:
            _raise_local(error, bucket, key)

    def list(self, bucket: str, prefix: str, after: str | None = None) -> Iterator[ObjectInfo]:
        """See ObjectStore."""
        for key in self.keys(bucket, prefix, after):
            if (info := self.head(bucket, key)) is not None:
                yield info

    def keys(self, bucket: str, prefix: str, after: str | None = None) -> Iterator[str]:
        """See ObjectStore."""
        return _walk(str(self._root / bucket), "", prefix, after or "")

    def _path(self, bucket: str, key: str) -> Path:
        # A key is a name, not a path: one that climbs out of its bucket is nobody's object.
        if ".." in PurePosixPath(bucket).parts + PurePosixPath(key).parts:
            raise SourceNotAllowed(f"{bucket}/{key}: '..' is not allowed in a local key")
        return self._root / bucket / key.lstrip("/")

    def _write_temporary(self, bucket: str, key: str, data: bytes) -> tuple[Path, Path]:
        path = self._path(bucket, key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(dir=self._root, prefix=".writing-")
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
        except OSError as error:
            _raise_local(error, bucket, key)
        return Path(name), path


def _walk(folder: str, at: str, prefix: str, after: str) -> Iterator[str]:
    """Yield the keys below a folder in order; enters no folder that can hold none of them.

    Args:
        folder: Its path.
        at: The part of every key that leads to it; empty, or ends in a slash.
        prefix: Of the keys.
        after: Keys up to this one are left out.
    """
    try:
        with os.scandir(folder) as found:
            # A folder's place among its neighbours is that of its keys, which go on with a slash.
            names = [f"{item.name}/" if item.is_dir() else item.name for item in found]
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise StorageUnavailable(f"{folder}: {error}") from error
    for name in sorted(names):
        key = at + name
        if name.endswith("/"):
            leads_there = key.startswith(prefix) or prefix.startswith(key)
            if leads_there and (key > after or after.startswith(key)):
                yield from _walk(f"{folder}/{name[:-1]}", key, prefix, after)
        elif key.startswith(prefix) and key > after:
            yield key


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _raise_local(error: OSError, bucket: str, key: str) -> NoReturn:
    where = f"{bucket}/{key}"
    if isinstance(error, (FileNotFoundError, IsADirectoryError, NotADirectoryError)):
        raise SourceNotFound(f"{where} does not exist") from error
    if isinstance(error, PermissionError):
        raise SourceForbidden(f"{where}: permission denied") from error
    raise StorageUnavailable(f"{where}: {error}") from error
