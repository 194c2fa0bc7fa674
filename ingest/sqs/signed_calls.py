"""The calls of SQS that a consumer makes for every batch of messages, without boto3's cost.

A call of boto3 takes more than a millisecond of processor time, of which the network needs little
(``docs/decisions/0024-hot-calls-without-boto3.md``). What decides how a call behaves is still
botocore's: the endpoint, the credentials, the signature, and the reading of an error. The request
is JSON, and aiohttp sends it from the event loop of the consumer.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from typing import Any

import aiohttp
import orjson
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    ReadTimeoutError,
    SSLError,
)
from botocore.exceptions import ConnectionError as EndpointError
from botocore.parsers import create_parser

from ingest.sqs.backoff import RETRY_BASE_S, RETRY_MAX_S, backoff_s
from ingest.sqs.sqs_endpoint import SqsEndpoint
from serve_app.config import AwsConfig

_FIRST_ERROR_STATUS = 300
_REPEATED_STATUSES = {429, 500, 502, 503, 504}
"""Answers after which botocore's standard mode repeats a call, whatever their code."""


class SignedCalls:
    """Makes calls of SQS. Belongs to one event loop, and has connections of its own."""

    def __init__(self, endpoint: SqsEndpoint, aws: AwsConfig, connections: int) -> None:
        """Start without connections.

        Args:
            endpoint: SqsEndpoint that is called.
            aws: Time-outs of an attempt, and the maximum number of attempts for a call.
            connections: Maximum number of calls at the same time. Others wait for them, and a wait
                that exceeds the time-out of a connection fails.
        """
        self._endpoint = endpoint
        self._attempts = aws.max_attempts
        self._errors: Any = create_parser("json")
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=connections, ssl=endpoint.tls),
            timeout=aiohttp.ClientTimeout(
                connect=aws.connect_timeout_s, sock_read=aws.read_timeout_s
            ),
            proxy=endpoint.proxy,
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def call(self, action: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Make a call, and repeat it if it failed for a reason that may pass.

        Args:
            action: Name of the call, such as ``ReceiveMessage``.
            arguments: Arguments as the JSON protocol names them.

        Returns:
            The answer. Binary values are in base64, as they were sent.

        Raises:
            ClientError: SQS has refused the call.
            BotoCoreError: SQS was not reached, or did not answer in time.
        """
        body = orjson.dumps(arguments)
        for attempt in itertools.count(1):
            try:
                return await self._attempt(action, body)
            except (ClientError, BotoCoreError) as error:
                if attempt >= self._attempts or not _may_pass(error):
                    raise
            await asyncio.sleep(backoff_s(RETRY_BASE_S, attempt, RETRY_MAX_S))
        raise AssertionError("unreachable")

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def _attempt(self, action: str, body: bytes) -> dict[str, Any]:
        url = self._endpoint.url
        headers = await self._endpoint.signed_headers(action, body)
        try:
            async with self._session.post(url, data=body, headers=headers) as response:
                content = await response.read()
        except (aiohttp.ClientError, OSError) as error:
            raise transport_error(error, url) from error
        if response.status < _FIRST_ERROR_STATUS:
            answer: dict[str, Any] = orjson.loads(content)
            return answer
        raise self._refusal(action, response, content)

    def _refusal(
        self, action: str, response: aiohttp.ClientResponse, content: bytes
    ) -> ClientError:
        answer = {
            "status_code": response.status,
            "headers": {name.lower(): value for name, value in response.headers.items()},
            "body": content,
        }
        return ClientError(self._errors.parse(answer, None), action)


def transport_error(error: aiohttp.ClientError | OSError, url: str) -> BotoCoreError:
    """Return botocore's error for a failure of aiohttp, so that both are advised on alike.

    Args:
        error: Failure of aiohttp.
        url: URL that was called.
    """
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return ConnectTimeoutError(endpoint_url=url, error=error)
    if isinstance(error, TimeoutError):
        return ReadTimeoutError(endpoint_url=url, error=error)
    if isinstance(error, aiohttp.ClientSSLError):
        return SSLError(endpoint_url=url, error=error)
    if isinstance(error, aiohttp.ClientConnectorError):
        return EndpointConnectionError(endpoint_url=url, error=error)
    if isinstance(error, aiohttp.ClientConnectionError | aiohttp.ClientPayloadError):
        return ConnectionClosedError(endpoint_url=url, error=error)
    return HTTPClientError(error=error)


def _may_pass(error: ClientError | BotoCoreError) -> bool:
    """Return whether a call is repeated after an error, as in botocore's standard mode."""
    if isinstance(error, ClientError):
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        return status in _REPEATED_STATUSES or "Throttl" in error.response["Error"]["Code"]
    # Of others, such as missing credentials, another attempt says nothing new.
    return isinstance(error, HTTPClientError | EndpointError)
