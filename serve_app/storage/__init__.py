"""Object stores: S3 or local files, as the configuration says."""

from __future__ import annotations

from serve_app.aws import aws_client
from serve_app.config import AppConfig
from serve_app.errors import SourceNotAllowed
from serve_app.storage.local import LocalStore
from serve_app.storage.protocol import ObjectStore
from serve_app.storage.s3 import S3Store

__all__ = ["check_allowed", "open_store"]


def open_store(config: AppConfig) -> ObjectStore:
    """Return the configured object store."""
    if config.storage.local_root is not None:
        return LocalStore(config.storage.local_root)
    return S3Store(aws_client("s3", config.aws))


def check_allowed(bucket: str, allowed: tuple[str, ...]) -> None:
    """Check that a bucket is on the allow-list. An empty list allows every bucket.

    Raises:
        SourceNotAllowed: The bucket is not on the list.
    """
    if allowed and bucket not in allowed:
        raise SourceNotAllowed(
            f"bucket {bucket!r} is not one of storage.allowed_buckets; choose one, or extend them"
        )
