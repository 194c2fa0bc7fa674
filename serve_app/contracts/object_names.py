"""Names that S3 can have: buckets, keys, prefixes, versions and ETags.

A name that no object can have is refused before it is sent to S3, with what is wrong with it. Every
function raises ``ValueError``, whose message is a predicate for the name of the field.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Annotated

from pydantic import AfterValidator, Field

MAX_KEY_BYTES = 1024
"""Longest key of an object, in bytes of UTF-8.

Source: "Naming Amazon S3 objects" in the S3 user guide,
https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-keys.html
"""
MAX_PREFIX_BYTES = 960
"""Longest prefix of results, in bytes of UTF-8. It leaves room for the shortest name of a result
(``result_keys``)."""
_MAX_VERSION_BYTES = 1024
"""Longest version id, in bytes. Source: "Retaining multiple versions of objects with S3
Versioning", https://docs.aws.amazon.com/AmazonS3/latest/userguide/Versioning.html"""
_MAX_ETAG_LENGTH = 1024
_SHOWN_CHARACTERS = 60
_NAMES_REMEMBERED = 256

# General-purpose buckets, with the capitals, underscores and 255 characters that buckets made in
# us-east-1 before March 2018 may have. S3 itself wants three characters at least, which local
# folders and other servers do not.
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
_BUCKET = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,253}[A-Za-z0-9])?")
_ADDRESS = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}")
# The ARNs that botocore takes for a bucket (botocore.handlers.VALID_S3_ARN).
_ACCESS_POINT = re.compile(
    r"arn:aws[a-z-]*:(?:s3|s3-object-lambda):[a-z0-9-]*:\d{12}:accesspoint[/:][A-Za-z0-9.-]{1,63}"
    r"|arn:aws[a-z-]*:s3-outposts:[a-z0-9-]+:\d{12}:outpost[/:][A-Za-z0-9-]{1,63}"
    r"[/:]accesspoint[/:][A-Za-z0-9-]{1,63}"
)
_BUCKET_ARN = re.compile(r"arn:[^:]+:s3:::([^/]+)")
# RFC 9110, section 8.8.3: the characters of an entity tag, without those beyond ASCII, which a
# header of HTTP cannot carry safely.
_ETAG = re.compile(r"[\x21\x23-\x7e]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


# The messages of a run name the same bucket or two, and the same prefix.
@lru_cache(_NAMES_REMEMBERED)
def check_bucket(name: str) -> str:
    """Return the name of a bucket, or the ARN of an access point, if S3 can have it."""
    if _BUCKET.fullmatch(name) and ".." not in name and not _ADDRESS.fullmatch(name):
        return name
    if _ACCESS_POINT.fullmatch(name):
        return name
    if found := _BUCKET_ARN.fullmatch(name):
        raise ValueError(f"is an ARN; give the name of the bucket alone: {_shown(found[1])}")
    if "/" in name or ":" in name:
        raise ValueError(
            f"{_shown(name)} is no name of a bucket; give the name alone, without s3:// and "
            "without a path"
        )
    raise ValueError(
        f"{_shown(name)} is no name of a bucket: it consists of letters, digits, hyphens and "
        "dots, begins and ends with a letter or digit, has no two dots in a row and is no IP "
        "address"
    )


def check_key(key: str) -> str:
    """Return the key of an object if S3 can have it."""
    return _check_bytes(key, MAX_KEY_BYTES)


@lru_cache(_NAMES_REMEMBERED)
def check_prefix(prefix: str) -> str:
    """Return a prefix of results if the keys of results below it fit into S3's limit."""
    return _check_bytes(prefix, MAX_PREFIX_BYTES)


def check_version(version: str) -> str:
    """Return a version id if S3 can have it."""
    if _CONTROL.search(version):
        raise ValueError(f"{_shown(version)} is no version of an object")
    return _check_bytes(version, _MAX_VERSION_BYTES)


def check_etag(etag: str) -> str:
    """Return an ETag without quotation marks if a header of HTTP can carry it."""
    if not _ETAG.fullmatch(etag) or len(etag) > _MAX_ETAG_LENGTH:
        raise ValueError(
            f"{_shown(etag)} is no ETag of S3, which consists of visible ASCII characters"
        )
    return etag


BucketName = Annotated[str, Field(min_length=1), AfterValidator(check_bucket)]
"""Name of a bucket, or ARN of an access point."""
ObjectKey = Annotated[str, Field(min_length=1), AfterValidator(check_key)]
"""Key of an object."""
KeyPrefix = Annotated[str, AfterValidator(check_prefix)]
"""Beginning of the keys of results."""
VersionId = Annotated[str, AfterValidator(check_version)]
"""Version of an object."""


def _check_bytes(name: str, limit: int) -> str:
    # Most names are ASCII, in which a character is a byte.
    if (size := len(name) if name.isascii() else len(name.encode())) > limit:
        raise ValueError(f"has {size:,} bytes of UTF-8; S3 allows {limit:,} here")
    return name


def _shown(name: str) -> str:
    """Return a name for an error, bounded and without control characters."""
    return repr(name if len(name) <= _SHOWN_CHARACTERS else name[:_SHOWN_CHARACTERS] + "…")
