"""Where objects are: the store that the configuration names, and the buckets that it allows."""

from __future__ import annotations

from serve_app.aws import aws_client
from serve_app.config import AppConfig
from serve_app.errors import SourceNotAllowed
from serve_app.storage.local import LocalStore
from serve_app.storage.protocol import ObjectStore
from serve_app.storage.s3 import S3Store

__all__ = ["check_allowed", "open_store"]


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
