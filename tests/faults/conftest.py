"""A local SQS and S3 for all fault tests, with a new proxy and a new queue for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ingest.local.aws import LocalAws, use_dummy_credentials
from tests.support.fault_proxy import Proxy
from tests.support.fault_rig import Rig


@pytest.fixture(scope="session")
def server() -> Iterator[LocalAws]:
    use_dummy_credentials()
    with LocalAws() as started:
        yield started


@pytest.fixture
def rig(server: LocalAws) -> Iterator[Rig]:
    with Proxy(server.endpoint_url) as proxy:
        yield Rig(server, proxy)
