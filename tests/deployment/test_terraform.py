"""cluster/terraform makes what the application needs (`make check-terraform`)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from serve_app.aws import aws_client
from serve_app.config import AwsConfig, QueueConfig
from tests.deployment.terraform import Terraform


@pytest.fixture(scope="module")
def outputs(terraform: Terraform) -> dict[str, Any]:
    """Return the outputs of the module once everything is made."""
    terraform.apply()
    return terraform.outputs()


def client(terraform: Terraform, service: str) -> Any:
    aws = AwsConfig(endpoint_url=terraform.endpoint_url, region="eu-central-1")
    return aws_client(service, aws)


def test_a_second_apply_changes_nothing(terraform: Terraform, outputs: dict[str, Any]) -> None:
    assert terraform.planned() == []


def test_the_queue_is_the_one_of_the_settings(
    terraform: Terraform, outputs: dict[str, Any]
) -> None:
    sqs = client(terraform, "sqs")
    url = outputs["environment"]["FOREEDGE_QUEUE__URL"]
    found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    settings = QueueConfig(url=url)
    assert found["VisibilityTimeout"] == str(settings.visibility_timeout_s)
    assert found["ReceiveMessageWaitTimeSeconds"] == str(settings.long_poll_s)
    assert json.loads(found["RedrivePolicy"]) == {
        "deadLetterTargetArn": outputs["dead_letter_queue_arn"],
        "maxReceiveCount": settings.default_max_receives,
    }
