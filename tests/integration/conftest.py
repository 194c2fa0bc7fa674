"""A local SQS and S3, and a Ray with the application, for the whole session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ingest.local.application import serving
from ingest.local.aws import LocalAws, use_dummy_credentials
from ingest.local.ports import free_port
from serve_app.config import AppConfig
from tests.support.running_app import App, Aws


@pytest.fixture(scope="session")
def local_aws() -> Iterator[Aws]:
    use_dummy_credentials()
    with LocalAws() as server:
        yield Aws(server)


@pytest.fixture(scope="session")
def app(local_aws: Aws) -> Iterator[App]:
    bucket = local_aws.bucket()
    url, dead_url = local_aws.queue()
    args = {
        "aws": {"endpoint_url": local_aws.endpoint_url},
        "storage": {"allowed_buckets": [bucket]},
        "queue": {
            "url": url,
            "long_poll_s": 1,
            "visibility_timeout_s": 30,
            "max_in_flight": 16,
            "retry_base_s": 0.5,
        },
        "ledger": {"bucket": bucket, "part_interval_s": 0.3},
    }
    with serving(args, port=free_port(), quiet=True) as endpoints:
        running = App(endpoints.http, AppConfig.load(args), dead_url, local_aws)
        yield running
        running.http.close()
