"""Clients of AWS, or of servers that speak its protocols."""

from __future__ import annotations

from typing import Any

import boto3
from botocore.config import Config

from serve_app.config import AwsConfig


def aws_client(service: str, aws: AwsConfig, *, connections: int = 32) -> Any:
    """Return a boto3 client with the configured endpoint, timeouts and retries.

    Args:
        service: Name of the service, such as ``s3`` or ``sqs``.
        aws: Settings of the client.
        connections: Number of threads that share the client, for which it keeps connections open.
    """
    config = Config(
        region_name=aws.region,
        connect_timeout=aws.connect_timeout_s,
        read_timeout=aws.read_timeout_s,
        max_pool_connections=connections,
        retries={"mode": "standard", "total_max_attempts": aws.max_attempts},
        # A local server has no DNS name for each bucket, so the bucket goes into the path.
        s3={"addressing_style": "path" if aws.endpoint_url else "auto"},
        tcp_keepalive=True,
    )
    session = boto3.session.Session(region_name=aws.region)
    return session.client(service, endpoint_url=aws.endpoint_url, config=config)  # type: ignore[call-overload]
