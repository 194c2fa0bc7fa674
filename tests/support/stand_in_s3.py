"""An S3 store whose every answer is a test's: no server is behind the proxy."""

from __future__ import annotations

import pytest

from serve_app.aws import aws_client
from serve_app.config import AwsConfig
from serve_app.storage.s3 import S3Store
from tests.support.fault_proxy import Proxy


def store_behind(proxy: Proxy) -> S3Store:
    """Return a store that asks a proxy once, with credentials of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "stand-in")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "stand-in")
        aws = AwsConfig(endpoint_url=proxy.endpoint_url, max_attempts=1)
        return S3Store(aws_client("s3", aws))
