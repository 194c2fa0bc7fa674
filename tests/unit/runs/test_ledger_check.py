"""A ledger is checked before it is relied on, against a stand-in for S3 that keeps objects."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ingest.runs.folder import RunFolder
from ingest.runs.ledger_check import PROBE_RUN, check_ledger
from serve_app.config import LedgerConfig
from serve_app.contracts.own_keys import is_own_key
from serve_app.errors import ForeedgeError, InvalidConfig, SourceForbidden, SourceNotFound
from serve_app.storage.s3 import S3Store
from tests.support.fault_effects import refuse
from tests.support.fault_proxy import Answer, Forward, Proxy, Request, refusal
from tests.support.stand_in_s3 import store_behind

LEDGER = LedgerConfig(bucket="ledger")


class Objects:
    """An effect that stores and returns objects as S3 does, with or without conditions."""

    def __init__(self, *, conditions: bool = True) -> None:
        self.stored: dict[str, bytes] = {}
        self._conditions = conditions

    async def __call__(self, request: Request, forward: Forward) -> Answer:
        if request.method == "PUT":
            conditional = self._conditions and "if-none-match" in request.headers
            if conditional and request.name in self.stored:
                return refusal(request, 412, "PreconditionFailed")
            self.stored[request.name] = request.body
            return Answer(200, {"etag": '"e"'}, b"")
        if request.name not in self.stored:
            return refusal(request, 404, "NoSuchKey")
        return Answer(200, {"etag": '"e"'}, self.stored[request.name])


@pytest.fixture(scope="module")
def proxy() -> Iterator[Proxy]:
    with Proxy("http://127.0.0.1:9") as started:
        yield started


@pytest.fixture(scope="module")
def store(proxy: Proxy) -> S3Store:
    return store_behind(proxy)


def test_a_sound_ledger_passes_again_and_again(store: S3Store, proxy: Proxy) -> None:
    proxy.clear()
    objects = Objects()
    proxy.add("s3:*", objects)
    for _ in range(3):
        check_ledger(store, LEDGER)
    key = RunFolder(store, LEDGER, PROBE_RUN).key("probe.json")
    assert list(objects.stored) == [f"ledger/{key}"], "restarts leave nothing behind"
    assert is_own_key(key), "an event for the probe is no job"


def test_a_store_that_ignores_conditions_is_refused(store: S3Store, proxy: Proxy) -> None:
    proxy.clear()
    proxy.add("s3:*", Objects(conditions=False))
    for _ in range(2):
        with pytest.raises(InvalidConfig, match="in spite of If-None-Match"):
            check_ledger(store, LEDGER)


def test_a_store_without_conditions_is_refused(store: S3Store, proxy: Proxy) -> None:
    proxy.clear()
    objects = Objects()

    async def unconditional(request: Request, forward: Forward) -> Answer:
        if "if-none-match" in request.headers:
            return refusal(request, 501, "NotImplemented")
        return await objects(request, forward)

    proxy.add("s3:*", unconditional)
    with pytest.raises(InvalidConfig, match=r"does not support conditional writes.*NotImplemented"):
        check_ledger(store, LEDGER)


def test_a_role_that_may_not_list_does_not_pass(store: S3Store, proxy: Proxy) -> None:
    """S3 denies what does not exist to it, so that it would cancel no run."""
    proxy.clear()
    objects = Objects()

    async def unlisted(request: Request, forward: Forward) -> Answer:
        if request.method != "PUT" and request.name not in objects.stored:
            return refusal(request, 403, "AccessDenied")
        return await objects(request, forward)

    proxy.add("s3:*", unlisted)
    with pytest.raises(SourceForbidden, match="s3:ListBucket on the bucket"):
        check_ledger(store, LEDGER)


@pytest.mark.parametrize(
    ("action", "status", "code", "expected"),
    [
        ("s3:PutObject", 403, "AccessDenied", SourceForbidden),
        ("s3:GetObject", 403, "AccessDenied", SourceForbidden),
        ("s3:*", 404, "NoSuchBucket", SourceNotFound),
    ],
)
def test_a_ledger_that_refuses_does_not_pass(
    store: S3Store,
    proxy: Proxy,
    action: str,
    status: int,
    code: str,
    expected: type[ForeedgeError],
) -> None:
    proxy.clear()
    proxy.add(action, refuse(status, code))
    proxy.add("s3:*", Objects())
    with pytest.raises(expected):
        check_ledger(store, LEDGER)
