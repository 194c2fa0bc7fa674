"""The endpoint of SQS, and the signatures of its requests, both as botocore makes them."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, cast
from urllib.parse import urlsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials, RefreshableCredentials
from botocore.exceptions import NoCredentialsError
from botocore.httpsession import get_cert_path
from botocore.session import get_session
from botocore.utils import get_environ_proxies

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

_TARGET = "AmazonSQS."
_HEADERS = {
    "Content-Type": "application/x-amz-json-1.0",
    # Errors have the codes of SQS's older protocol too, as botocore asks for them.
    "x-amzn-query-mode": "true",
}


@dataclass(frozen=True, slots=True)
class SqsEndpoint:
    """The address of SQS, and what a request to it needs."""

    url: str
    """URL to which every call is posted."""
    region: str
    """Region for which requests are signed."""
    user_agent: str
    """User agent, as boto3 gives it."""
    credentials: Credentials | None
    """Credentials of the process, which may renew themselves. None if there are none."""
    tls: ssl.SSLContext
    """Certificates that are trusted: those of ``AWS_CA_BUNDLE``, or botocore's own."""
    proxy: str | None
    """URL of the proxy that the environment names for the endpoint, or None."""

    @classmethod
    def of_client(cls, client: SQSClient) -> Self:
        """Return the endpoint that a client of boto3 calls. Blocks: credentials may be fetched."""
        session, config = get_session(), cast(Any, client.meta.config)
        url = client.meta.endpoint_url.rstrip("/") + "/"
        authorities = session.get_config_variable("ca_bundle") or get_cert_path(True)
        return cls(
            url=url,
            region=client.meta.region_name,
            user_agent=config.user_agent,
            credentials=session.get_credentials(),
            tls=ssl.create_default_context(cafile=authorities),
            proxy=get_environ_proxies(url).get(urlsplit(url).scheme),
        )

    async def signed_headers(self, action: str, body: bytes) -> dict[str, str]:
        """Return the headers of a call, with its signature.

        Args:
            action: Name of the call, such as ``ReceiveMessage``.
            body: Arguments of the call as JSON.

        Raises:
            NoCredentialsError: There are no credentials.
            BotoCoreError: The credentials cannot be renewed.
        """
        if self.credentials is None:
            raise NoCredentialsError
        if isinstance(self.credentials, RefreshableCredentials) and (
            self.credentials.refresh_needed()
        ):
            # This asks another service over the network.
            frozen = await asyncio.to_thread(self.credentials.get_frozen_credentials)
        else:
            frozen = self.credentials.get_frozen_credentials()
        headers = {**_HEADERS, "User-Agent": self.user_agent, "X-Amz-Target": f"{_TARGET}{action}"}
        request = AWSRequest("POST", self.url, headers, body)
        SigV4Auth(frozen, "sqs", self.region).add_auth(request)
        return dict(request.headers.items())
