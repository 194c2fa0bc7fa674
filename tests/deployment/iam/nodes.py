"""What a node on EC2 does with its role before the application runs: Docker's calls, and Ray's."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import boto3
from botocore.exceptions import ClientError
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

from tests.deployment.iam.account import QUEUE, REGION

_TAGS = {"ray-node-type": "worker", "ray-user-node-type": "spot", "ray-launch-config": "0"}


def pull(sender: Connection, repository: str) -> None:
    """Ask the registry for what Docker needs to pull an image, and send its error."""
    ecr = boto3.client("ecr", region_name=REGION)
    digest = f"sha256:{'0' * 64}"
    calls: list[Callable[[], Any]] = [
        lambda: ecr.get_authorization_token(),
        lambda: ecr.batch_get_image(repositoryName=repository, imageIds=[{"imageDigest": digest}]),
        lambda: ecr.get_download_url_for_layer(repositoryName=repository, layerDigest=digest),
    ]
    try:
        for call in calls:
            call()
    except ClientError as error:
        sender.send(str(error))
        # There is no image, which is no denial.
        sys.exit("AccessDenied" in str(error))
    sender.send("")


def scale(sender: Connection, image: str, subnet: str, group: str) -> None:
    """Start, tag, find and end a node with Ray's own provider, and send its error.

    Args:
        sender: Connection for the error, or an empty text.
        image: Identifier of an AMI.
        subnet: Identifier of a subnet.
        group: Identifier of a security group.
    """
    os.environ["AWS_DEFAULT_REGION"] = REGION
    settings = {"type": "aws", "region": REGION, "cache_stopped_nodes": False}
    provider = AWSNodeProvider(settings, QUEUE)
    node: dict[str, Any] = {
        "InstanceType": "c8g.2xlarge",
        "ImageId": image,
        "SubnetIds": [subnet],
        "SecurityGroupIds": [group],
    }
    try:
        [made] = provider.create_node(node, _TAGS, 1)
        assert made in provider.non_terminated_nodes({"ray-node-type": "worker"})
        provider.set_node_tags(made, {"ray-node-status": "up-to-date"})
        provider.terminate_node(made)
    except ClientError as error:
        sender.send(str(error))
        sys.exit(1)
    sender.send("")
