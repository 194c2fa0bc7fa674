"""What the tests of several deployments share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ingest.local.aws import LocalAws, use_dummy_credentials
from tests.deployment.terraform import STATE_BUCKET, Terraform, missing_tools


@pytest.fixture(scope="module")
def terraform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terraform]:
    """Yield an initialised copy of cluster/terraform, with a local AWS of its own."""
    if reason := missing_tools():
        pytest.skip(reason)
    use_dummy_credentials()
    with LocalAws() as aws:
        aws.create_bucket(STATE_BUCKET)
        yield Terraform(tmp_path_factory.mktemp("terraform") / "module", aws.endpoint_url).init()
