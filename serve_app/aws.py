"""Clients of AWS, or of servers that speak its protocols."""

from __future__ import annotations

from functools import cache
from typing import Any

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import (
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)
from botocore.loaders import Loader

from serve_app.config import AwsConfig
from serve_app.errors import InvalidConfig

CREDENTIAL_ERRORS = (
    CredentialRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    SSOError,
    TokenRetrievalError,
)
"""Exceptions of a call for which botocore has found no usable credentials."""

CREDENTIALS_ADVICE = (
    "renew the credentials, or give the process a role. On your own machine, name a profile in "
    "AWS_PROFILE, and sign in with 'aws sso login' or 'aws configure'"
)
"""What to do about them."""


class _Services(Loader):
    """What botocore knows of AWS's services, which all clients of a process share.

    botocore would read it again for each client, which takes most of the time that a client needs:
    .16 of .19 s of processor for S3.
    """

    @property
    def search_paths(self) -> list[str]:
        """Folders of the descriptions. A copy, since every session adds one of boto3 to it."""
        return [*super().search_paths]


@cache
def _services() -> _Services:
    return _Services()


def aws_client(service: str, aws: AwsConfig, *, connections: int = 32) -> Any:
    """Return a boto3 client with the configured endpoint, timeouts and retries.

    Args:
        service: Name of the service, such as ``s3`` or ``sqs``.
        aws: Settings of the client.
        connections: Number of threads that share the client, for which it keeps connections open.

    Raises:
        InvalidConfig: The profile that AWS_PROFILE names does not exist.
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
    # A session for each client, so that it finds the credentials of its time.
    core = botocore.session.get_session()
    core.register_component("data_loader", _services())
    try:
        session = boto3.session.Session(botocore_session=core, region_name=aws.region)
        return session.client(service, endpoint_url=aws.endpoint_url, config=config)  # type: ignore[call-overload]
    except ProfileNotFound as error:
        raise InvalidConfig(f"{error}. Correct AWS_PROFILE, or add the profile") from error
