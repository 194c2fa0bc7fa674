"""A client of SQS whose answers the test gives."""

from __future__ import annotations

from collections.abc import Iterator

import boto3
import pytest
from botocore.stub import Stubber
from mypy_boto3_sqs import SQSClient


@pytest.fixture(scope="package")
def client() -> SQSClient:
    return boto3.client(
        "sqs", region_name="eu-west-1", aws_access_key_id="x", aws_secret_access_key="x"
    )


@pytest.fixture
def sqs(client: SQSClient) -> Iterator[Stubber]:
    """Answer the calls of ``client``, each of which the test must expect."""
    with Stubber(client) as stubber:
        yield stubber
        stubber.assert_no_pending_responses()
