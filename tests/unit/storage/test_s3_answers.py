"""S3Store against a stand-in that gives each documented answer, for sources, results and ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ingest.runs.folder import RunFolder
from serve_app.config import LedgerConfig
from serve_app.errors import (
    ForeedgeError,
    SourceArchived,
    SourceChanged,
    SourceEncrypted,
    SourceForbidden,
    SourceNotFound,
    StorageRejected,
    StorageUnavailable,
)
from serve_app.storage.s3 import S3Store
from serve_app.storage.s3_answers import ROWS
from tests.support.fault_proxy import Answer, Effect, Forward, Proxy, Request
from tests.support.stand_in_s3 import store_behind

Kind = type[ForeedgeError]

SSE_C = (
    "The object was stored using a form of Server Side Encryption. The correct parameters must be "
    "provided to retrieve the object."
)
OBJECT: list[tuple[int, str, str, Kind]] = [
    (404, "NoSuchKey", "", SourceNotFound),
    (404, "NoSuchVersion", "", SourceNotFound),
    (400, "KeyTooLongError", "", SourceNotFound),
    (400, "KeyTooLong", "", SourceNotFound),
    (400, "InvalidURI", "", SourceNotFound),
    (400, "InvalidArgument", "Invalid version id specified", SourceNotFound),
    (403, "InvalidObjectState", "", SourceArchived),
    (403, "ObjectNotInActiveTierError", "", SourceArchived),
    (400, "InvalidRequest", SSE_C, SourceEncrypted),
    (412, "PreconditionFailed", "", SourceChanged),
]
"""Answers about one object: status, code, text and our error."""

PLACE: list[tuple[int, str, str, Kind]] = [
    (404, "NoSuchBucket", "", SourceNotFound),
    (301, "PermanentRedirect", "", SourceNotFound),
    (307, "TemporaryRedirect", "", SourceNotFound),
    (400, "AuthorizationHeaderMalformed", "", SourceNotFound),
    (400, "IllegalLocationConstraintException", "", SourceNotFound),
    (403, "AccessDenied", "", SourceForbidden),
    (403, "AccountProblem", "", SourceForbidden),
    (403, "AllAccessDisabled", "", SourceForbidden),
    (403, "InvalidPayer", "", SourceForbidden),
    (403, "NotSignedUp", "", SourceForbidden),
    (403, "UserSuspended", "", SourceForbidden),
    (403, "Unheard", "", SourceForbidden),
    (400, "KMS.DisabledException", "", SourceForbidden),
    (400, "KMS.NotFoundException", "", SourceForbidden),
    (400, "KMS.KMSInvalidStateException", "", SourceForbidden),
    (501, "NotImplemented", "A header you provided implies", StorageRejected),
    (405, "MethodNotAllowed", "", StorageRejected),
    (400, "EntityTooLarge", "", StorageRejected),
    (400, "InvalidDigest", "", StorageRejected),
    (400, "InvalidStorageClass", "", StorageRejected),
    (400, "InvalidEncryptionAlgorithmError", "", StorageRejected),
    (400, "MetadataTooLarge", "", StorageRejected),
    (411, "MissingContentLength", "", StorageRejected),
    (400, "InvalidRequest", "something else", StorageRejected),
    (400, "Unheard", "", StorageRejected),
    (400, "ExpiredToken", "", StorageUnavailable),
    (400, "TokenRefreshRequired", "", StorageUnavailable),
    (400, "InvalidToken", "", StorageUnavailable),
    (403, "InvalidAccessKeyId", "", StorageUnavailable),
    (403, "SignatureDoesNotMatch", "", StorageUnavailable),
    (403, "RequestTimeTooSkewed", "", StorageUnavailable),
    (409, "ConditionalRequestConflict", "", StorageUnavailable),
    (409, "OperationAborted", "", StorageUnavailable),
    (400, "RequestTimeout", "", StorageUnavailable),
    (400, "BadDigest", "", StorageUnavailable),
    (400, "IncompleteBody", "", StorageUnavailable),
    (503, "SlowDown", "", StorageUnavailable),
    (503, "ServiceUnavailable", "", StorageUnavailable),
    (500, "InternalError", "", StorageUnavailable),
    (509, "BandwidthLimitExceeded", "", StorageUnavailable),
    (429, "TooManyRequests", "", StorageUnavailable),
    (507, "XMinioStorageFull", "", StorageUnavailable),
    (502, "Unheard", "", StorageUnavailable),
]
"""Answers that need not be the fault of the object: status, code, text and our error."""


def answer(status: int, code: str, text: str) -> Effect:
    async def effect(request: Request, forward: Forward) -> Answer:
        body = f"<Error><Code>{code}</Code><Message>{text}</Message></Error>".encode()
        # The answer to a HEAD request has no body, and so no code.
        headers = {"x-amz-bucket-region": "eu-west-1"} if 300 <= status < 400 else {}
        return Answer(status, headers, b"" if request.method == "HEAD" else body)

    return effect


@pytest.fixture(scope="module")
def proxy() -> Iterator[Proxy]:
    # Every request is answered by a rule: there is no server behind the proxy.
    with Proxy("http://127.0.0.1:9") as started:
        yield started


@pytest.fixture(scope="module")
def store(proxy: Proxy) -> S3Store:
    return store_behind(proxy)


def write_part(store: S3Store) -> None:
    folder = RunFolder(store, LedgerConfig(bucket="ledger"), "r")
    folder.write_part(folder.new_part_key("results", "w"), [b"{}"])


READS: dict[str, Callable[[S3Store], Any]] = {
    "a source": lambda store: store.get("sources", "k"),
    "the facts of a source": lambda store: store.head("sources", "k"),
    "a source in chunks": lambda store: list(store.chunks("sources", "k")),
}
WRITES: dict[str, Callable[[S3Store], Any]] = {
    "a result": lambda store: store.put_if_absent("results", "k", b"", "image/png"),
    "a manifest": lambda store: store.put("ledger", "k", b"", "image/png"),
    "a part": write_part,
}


def error_for(proxy: Proxy, effect: Effect, call: Callable[[], Any]) -> ForeedgeError | None:
    proxy.clear()
    proxy.add("*", effect)
    try:
        call()
    except ForeedgeError as error:
        return error
    return None


@pytest.mark.parametrize("what", READS)
def test_answers_to_reads(store: S3Store, proxy: Proxy, what: str) -> None:
    for status, code, text, expected in OBJECT + PLACE:
        if what == "the facts of a source" and status in {404, 412}:
            continue
        error = error_for(proxy, answer(status, code, text), lambda: READS[what](store))
        assert type(error) is expected, (status, code, error)
        assert error is not None
        assert error.refusal == ((status, code, text, expected) in PLACE), (status, code)
        assert "s3://sources/k" in error.message


@pytest.mark.parametrize("what", WRITES)
def test_answers_to_writes(store: S3Store, proxy: Proxy, what: str) -> None:
    for status, code, text, expected in PLACE:
        error = error_for(proxy, answer(status, code, text), lambda: WRITES[what](store))
        assert type(error) is expected, (status, code, error)
        assert error is not None
        assert error.refusal, (status, code)


def test_advice_is_in_the_text(store: S3Store, proxy: Proxy) -> None:
    says = {
        (403, "InvalidObjectState"): "restore the object",
        (400, "InvalidRequest"): "without the customer's key",
        (404, "NoSuchBucket"): "create the bucket",
        (301, "PermanentRedirect"): "aws.region",
        (403, "AccessDenied"): "policies",
        (400, "KMS.DisabledException"): "enable the KMS key",
        (400, "ExpiredToken"): "renew the credentials",
        (403, "RequestTimeTooSkewed"): "clock",
        (501, "NotImplemented"): "aws.endpoint_url",
    }
    for (status, code), text in says.items():
        error = error_for(proxy, answer(status, code, SSE_C), lambda: store.get("sources", "k"))
        assert error is not None
        assert text in error.message


def test_a_denial_names_the_action_that_it_needs(store: S3Store, proxy: Proxy) -> None:
    calls = {
        "s3:GetObject (for a version s3:GetObjectVersion), or s3:ListBucket": lambda: store.head(
            "sources", "k"
        ),
        "s3:PutObject": lambda: store.put("sources", "k", b"", "text/plain"),
        "s3:ListBucket": lambda: list(store.keys("sources", "k")),
        "s3:DeleteObject": lambda: store.delete("sources", ["k"]),
    }
    for action, call in calls.items():
        error = error_for(proxy, answer(403, "AccessDenied", ""), call)
        assert error is not None
        assert f"; it needs {action}" in error.message
    error = error_for(
        proxy, answer(400, "KMS.AccessDeniedException", ""), lambda: store.get("sources", "k")
    )
    assert error is not None
    assert "it needs" not in error.message


def test_every_row_has_a_source_and_every_code_one_row() -> None:
    assert all(row.source.startswith("https://") for row in ROWS.values())
    codes = [code for row in set(ROWS.values()) for code in row.codes.split()]
    assert len(codes) == len(set(codes))


def test_a_server_that_redirects_everything_has_no_such_bucket(
    store: S3Store, proxy: Proxy
) -> None:
    async def redirect(request: Request, forward: Forward) -> Answer:
        return Answer(301, {}, b"<Error><Code>PermanentRedirect</Code></Error>")

    error = error_for(proxy, redirect, lambda: store.get("sources", "k"))
    assert type(error) is SourceNotFound
    assert error.refusal


@pytest.mark.parametrize("key", ["\ud800.jpg", ""])
def test_a_key_that_no_request_can_carry_does_not_exist(store: S3Store, key: str) -> None:
    for call in (store.get, store.head):
        with pytest.raises(SourceNotFound, match="cannot exist"):
            call("sources", key)
    with pytest.raises(SourceNotFound, match="cannot exist"):
        store.put_if_absent("results", key, b"", "image/png")
