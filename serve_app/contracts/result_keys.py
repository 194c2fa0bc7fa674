"""Keys of results: pure functions of source, recipe and model, so that duplicates are harmless."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import PurePosixPath

from serve_app.contracts.job import Job, Source
from serve_app.contracts.recipe import Recipe

PIPELINE_VERSION = 2
"""Part of every fingerprint: raised when the same inputs begin to give other bytes."""


_EXTENSIONS = {"png": "png", "webp": "webp", "jpeg": "jpg"}


_FINGERPRINT_HEX_DIGITS = 20


def fingerprint(source: Source, recipe: Recipe, model_digests: Sequence[str]) -> str:
    """Return the name of a result: the same for the same input, recipe and model files.

    Args:
        source: Must have an ETag or a version, or else changed content would keep its name.
        recipe: With its models resolved.
        model_digests: sha256 of the recipe's model files, in the recipe's order.

    Returns:
        20 hexadecimal digits (80 bits: at 10 million results the chance of any collision is
        below 1e-10).
    """
    content = source.version_id or source.etag
    if content is None:
        raise ValueError(f"s3://{source.bucket}/{source.key} has neither an ETag nor a version")
    return _name(source.bucket, source.key, content, recipe.canonical(), *model_digests)


def content_fingerprint(data: bytes, recipe: Recipe, model_digests: Sequence[str]) -> str:
    """Return the name of the result of an image that is in no object store.

    Args:
        data: The image file.
        recipe: With its models resolved.
        model_digests: sha256 of the recipe's model files, in the recipe's order.
    """
    return _name(hashlib.sha256(data).hexdigest(), recipe.canonical(), *model_digests)


def _name(*parts: str) -> str:
    digest = hashlib.sha256()
    for part in [*parts, str(PIPELINE_VERSION)]:
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()[:_FINGERPRINT_HEX_DIGITS]


def output_key(job: Job, name: str) -> str:
    """Return the key of a job's result, given its fingerprint."""
    return f"{_folder(job)}/{name}.{_EXTENSIONS[job.recipe.format]}"


def thumbnail_key(job: Job, name: str) -> str:
    """Return the key of a job's thumbnail, given its fingerprint."""
    return f"{_folder(job)}/{name}_thumb.jpg"


def _folder(job: Job) -> str:
    stem = PurePosixPath(job.source.key).with_suffix("").as_posix().lstrip("/")
    return f"{job.output.prefix}{stem}"
