"""Keys of results.

A key is a pure function of the source, the recipe, the model files, and what runs them: an engine
in a precision. A job that runs twice therefore writes the same object twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import PurePosixPath

from serve_app.contracts.job import Job, NamedOutput, Source
from serve_app.contracts.object_names import MAX_KEY_BYTES
from serve_app.contracts.recipe import Recipe

PIPELINE_VERSION = 3
"""Version of the pipeline, a part of every fingerprint. It is raised when the same inputs begin to
give other bytes, and when the default of a recipe's field changes."""

_THUMBNAIL_SUFFIX = "_thumb.jpg"
_THUMBNAIL_PREFIX = "thumb_"
"""Beginning of a thumbnail's name if the job names its result."""
_FINGERPRINT_HEX_DIGITS = 20


def fingerprint(source: Source, recipe: Recipe, model_digests: Sequence[str]) -> str:
    """Return the fingerprint of the result of an object.

    Args:
        source: The object. It needs an ETag or a version, so that changed content gets another
            fingerprint.
        recipe: The recipe, with its models resolved.
        model_digests: ``ModelInfo.result_digest`` of the recipe's models, in the recipe's order.

    Returns:
        20 hexadecimal digits, which are 80 bits: among 10 million results the probability of any
        collision is below 1e-10.

    Raises:
        ValueError: The source has neither an ETag nor a version.
    """
    content = source.content_id
    if content is None:
        raise ValueError(f"s3://{source.bucket}/{source.key} has neither an ETag nor a version")
    return _digest(source.bucket, source.key, content, recipe.canonical(), *model_digests)


def content_fingerprint(data: bytes, recipe: Recipe, model_digests: Sequence[str]) -> str:
    """Return the fingerprint of the result of an image that is in no object store.

    Args:
        data: The image file.
        recipe: The recipe, with its models resolved.
        model_digests: ``ModelInfo.result_digest`` of the recipe's models, in the recipe's order.
    """
    return _digest(hashlib.sha256(data).hexdigest(), recipe.canonical(), *model_digests)


def _digest(*parts: str) -> str:
    digest = hashlib.sha256()
    for part in [*parts, str(PIPELINE_VERSION)]:
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()[:_FINGERPRINT_HEX_DIGITS]


def output_key(job: Job, name: str) -> str:
    """Return the key of a job's result.

    Args:
        job: The job.
        name: Fingerprint of the result.
    """
    if isinstance(job.output, NamedOutput):
        return f"{job.output.prefix}{_own_name(job, job.output, name)}"
    return f"{_result_folder(job)}/{name}{_result_suffix(job)}"


def thumbnail_key(job: Job, name: str) -> str:
    """Return the key of a job's thumbnail.

    Args:
        job: The job.
        name: Fingerprint of the result.
    """
    if isinstance(job.output, NamedOutput):
        # It keeps the extension of the result, whatever its own format is.
        return f"{job.output.prefix}{_THUMBNAIL_PREFIX}{_own_name(job, job.output, name)}"
    return f"{_result_folder(job)}/{name}{_THUMBNAIL_SUFFIX}"


def _own_name(job: Job, output: NamedOutput, name: str) -> str:
    return f"{output.name}{name}{_result_suffix(job)}"


def _result_suffix(job: Job) -> str:
    return f".{job.recipe.extension}"


def _result_folder(job: Job) -> str:
    """Return the folder of a job's results, whose keys fit into S3's limit."""
    suffix = _THUMBNAIL_SUFFIX if job.recipe.thumbnail else _result_suffix(job)
    taken = len(job.output.prefix.encode()) + len("/") + _FINGERPRINT_HEX_DIGITS + len(suffix)
    return job.output.prefix + _shortened(_stem(job.source.key), MAX_KEY_BYTES - taken)


def _stem(key: str) -> str:
    """Return a key without its extension, as a path."""
    path = PurePosixPath(key)
    # A key of slashes and dots alone has no name.
    return path.with_suffix("").as_posix().lstrip("/") if path.name else "_"


def _shortened(stem: str, room: int) -> str:
    """Return a stem that has at most ``room`` bytes, which are 33 or more.

    A stem that is too long ends in a folder that is named by its hash. It is a folder of its own,
    because a name of a local file has 255 bytes at most.
    """
    data = stem.encode()
    if len(data) <= room:
        return stem
    digest = hashlib.sha256(data).hexdigest()[:_FINGERPRINT_HEX_DIGITS]
    # A character that is cut in two is left out, as are dots and slashes at the end.
    kept = data[: room - len(digest) - 1].decode(errors="ignore").rstrip("./")
    return f"{kept}/{digest}" if kept else digest
