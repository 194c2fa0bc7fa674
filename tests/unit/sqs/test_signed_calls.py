"""Calls of SQS without boto3, which behave as boto3's do: errors, repeats, signatures, TLS."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import json
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import ReadOnlyCredentials, RefreshableCredentials
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    ReadTimeoutError,
    SSLError,
)
from botocore.session import get_session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ingest.sqs.errors import is_timeout, map_sqs_errors
from ingest.sqs.signed_calls import SignedCalls
from ingest.sqs.sqs_endpoint import SqsEndpoint
from serve_app.aws import aws_client
from serve_app.config import AwsConfig
from serve_app.errors import QueueUnavailable
from tests.support.library_errors import Kind, exceptions_in, instance_of, raising

JSON = "application/x-amz-json-1.0"
AIOHTTP = {kind for kind in exceptions_in(aiohttp) if issubclass(kind, aiohttp.ClientError)}


@dataclass
class Server:
    """An HTTP server that keeps its requests, and answers each of them in one way."""

    url: str = ""
    delay_s: float = 0
    answers: dict[str, tuple[int, dict[str, str], bytes]] = field(default_factory=dict)
    """Status, headers and body by the name of a queue, with 0 to close the connection."""
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        content = await request.read()
        self.requests.append((str(request.url), headers, content))
        await asyncio.sleep(self.delay_s)
        queue = json.loads(content).get("QueueUrl", "").rpartition("/")[2]
        status, headers, body = self.answers.get(queue, (200, {}, b"{}"))
        if status == 0:
            assert request.transport is not None
            request.transport.close()
        return web.Response(status=status or 200, headers=headers, body=body)

    async def start(self, tls: ssl.SSLContext | None = None) -> web.ServerRunner:
        runner = web.ServerRunner(web.Server(self.answer))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
        return runner


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    started = Server()
    runner = await started.start()
    yield started
    await runner.cleanup()


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "AKIATEST",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_SESSION_TOKEN": "token",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
    }.items():
        monkeypatch.setenv(name, value)


def settings(url: str, **changes: Any) -> AwsConfig:
    return AwsConfig(**{"endpoint_url": url, "region": "eu-west-1", "max_attempts": 1, **changes})


async def endpoint_of(aws: AwsConfig) -> SqsEndpoint:
    return await asyncio.to_thread(lambda: SqsEndpoint.of_client(aws_client("sqs", aws)))


Open = Callable[..., Any]


@pytest.fixture
async def opened() -> AsyncIterator[Open]:
    """Return a function that opens the calls of an endpoint, which are closed at the end."""
    all_calls: list[SignedCalls] = []

    async def open_calls(aws: AwsConfig, **changes: Any) -> SignedCalls:
        calls = SignedCalls(replace(await endpoint_of(aws), **changes), aws, 4)
        all_calls.append(calls)
        return calls

    yield open_calls
    for calls in all_calls:
        await calls.close()


def refusal(code: str) -> bytes:
    return f'{{"__type": "com.amazonaws.sqs#{code}", "message": "because"}}'.encode()


ANSWERS: dict[str, tuple[int, dict[str, str], bytes]] = {
    "no queue": (
        400,
        {"x-amzn-query-error": "AWS.SimpleQueueService.NonExistentQueue;Sender"},
        refusal("QueueDoesNotExist"),
    ),
    "no queue, without the older code": (400, {}, refusal("QueueDoesNotExist")),
    "denied": (403, {}, refusal("AccessDeniedException")),
    "expired": (403, {}, refusal("ExpiredTokenException")),
    "too many in flight": (403, {}, refusal("OverLimit")),
    "throttled": (400, {}, refusal("ThrottlingException")),
    "throttled by SQS": (403, {}, refusal("RequestThrottled")),
    "too many requests": (429, {}, refusal("TooManyRequests")),
    "failed": (500, {}, refusal("InternalError")),
    "unavailable": (503, {}, b"<html>away</html>"),
    "a bad gateway without a body": (502, {}, b""),
    "closed": (0, {}, b""),
}


def described(error: Exception) -> tuple[str, ...]:
    """Return what the advice on an error and its text are made of."""
    if isinstance(error, ClientError):
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        text = str(error).replace(" (reached max retries: 1)", "")
        return "ClientError", text, str(error.response["Error"]), str(status)
    return type(error).__name__, str(error)


async def test_errors_and_repeats_are_those_of_boto3(
    server: Server, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda _: None)
    aws = settings(server.url, max_attempts=2)
    client, calls = aws_client("sqs", aws), await opened(aws)
    server.answers = ANSWERS

    async def outcome(name: str, url: str, call: Awaitable[Any]) -> tuple[str, list[Any]]:
        with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever boto3 raises
            await call
        attempts = sum(f'"{url}"'.encode() in body for _, _, body in server.requests)
        return name, [attempts, *described(caught.value)]

    theirs: dict[str, list[Any]] = {}
    for name in ANSWERS:
        url = f"{server.url}/theirs/{name}"
        call = asyncio.to_thread(client.receive_message, QueueUrl=url)
        theirs.update([await outcome(name, url, call)])
    urls = {name: f"{server.url}/ours/{name}" for name in ANSWERS}
    repeated = [
        outcome(name, url, calls.call("ReceiveMessage", {"QueueUrl": url}))
        for name, url in urls.items()
    ]
    ours = dict(await asyncio.gather(*repeated))
    assert ours == theirs
    assert {attempts for attempts, *_ in ours.values()} == {1, 2}


async def test_what_is_sent_is_what_was_signed(server: Server, opened: Open) -> None:
    calls = await opened(settings(server.url))
    assert await calls.call("DeleteMessageBatch", {"QueueUrl": "q", "Entries": []}) == {}
    [(url, headers, body)] = server.requests
    assert body == b'{"QueueUrl":"q","Entries":[]}'
    assert headers["x-amz-target"] == "AmazonSQS.DeleteMessageBatch"
    assert headers["x-amz-security-token"] == "token"
    assert headers["content-type"] == JSON
    assert headers["user-agent"].startswith("Boto3/")
    _, _, names = headers["authorization"].partition("SignedHeaders=")
    names, _, signature = names.partition(", Signature=")
    assert {"host", "x-amz-date", "x-amz-security-token", "x-amz-target"} <= {*names.split(";")}
    arrived = AWSRequest("POST", url, {each: headers[each] for each in names.split(";")}, body)
    arrived.context["timestamp"] = headers["x-amz-date"]
    again = SigV4Auth(ReadOnlyCredentials("AKIATEST", "secret", "token"), "sqs", "eu-west-1")
    text = again.string_to_sign(arrived, again.canonical_request(arrived))
    assert again.signature(text, arrived) == signature


async def test_aiohttps_exceptions_become_botocores(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = await opened(settings("http://127.0.0.1:9"))
    found: dict[Kind, Kind] = {}
    for kind in {*AIOHTTP, OSError, TimeoutError}:
        monkeypatch.setattr(aiohttp.TCPConnector, "connect", raising(instance_of(kind)))
        with pytest.raises(QueueUnavailable) as caught, map_sqs_errors("q: ReceiveMessage"):
            await calls.call("ReceiveMessage", {})
        assert is_timeout(caught.value) is issubclass(kind, TimeoutError)
        assert caught.value.__cause__ is not None
        found[kind] = type(caught.value.__cause__)
    assert set(found.values()) == {
        ConnectTimeoutError,
        SSLError,
        EndpointConnectionError,
        ConnectionClosedError,
        HTTPClientError,
    }


async def test_a_server_that_does_not_answer(server: Server, opened: Open) -> None:
    server.delay_s = 0.4
    calls = await opened(settings(server.url, read_timeout_s=0.1))
    with pytest.raises(ReadTimeoutError, match="Read timeout on endpoint URL"):
        await calls.call("ReceiveMessage", {})


async def test_credentials_that_expire_are_renewed_beside_the_event_loop(
    server: Server, opened: Open
) -> None:
    threads = []

    def renew() -> dict[str, str]:
        threads.append(threading.current_thread())
        expiry = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
        return {
            "access_key": f"KEY{len(threads)}",
            "secret_key": "s",
            "token": "t",
            "expiry_time": expiry.isoformat(),
        }

    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=30)
    renewed = RefreshableCredentials("KEY0", "s", "t", soon, renew, "test")
    calls = await opened(settings(server.url), credentials=renewed)
    for _ in range(2):
        await calls.call("ReceiveMessage", {})
    keys = [
        headers["authorization"].partition("Credential=")[2][:5]
        for _, headers, _ in server.requests
    ]
    assert keys == ["KEY1/", "KEY1/"]
    assert len(threads) == 1
    assert threads[0] is not threading.main_thread()


async def test_the_environment_names_a_proxy(
    server: Server, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", server.url)
    calls = await opened(settings("http://sqs.example:81"))
    await calls.call("ReceiveMessage", {})
    assert server.requests[0][1]["host"] == "sqs.example:81"
    # Python prefers the name in small letters, which the environment may have.
    monkeypatch.setenv("no_proxy", "sqs.example")
    assert (await endpoint_of(settings("http://sqs.example:81"))).proxy is None


@pytest.mark.parametrize(
    "options", [{}, {"use_fips_endpoint": True}, {"use_dualstack_endpoint": True}]
)
@pytest.mark.parametrize("region", ["eu-west-1", "us-east-1", "cn-north-1", "us-gov-west-1"])
def test_the_endpoint_is_the_one_that_boto3_calls(
    region: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    client: Any = get_session().create_client("sqs", region, config=Config(**options))
    called = []
    client.meta.events.register("before-send", lambda request, **_: called.append(request.url))
    monkeypatch.setattr("botocore.httpsession.URLLib3Session.send", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        client.receive_message(QueueUrl=f"https://sqs.{region}.amazonaws.com/123456789012/q")
    endpoint = SqsEndpoint.of_client(client)
    assert (endpoint.url, endpoint.region) == (called[0], region)


async def test_the_authorities_of_the_environment_are_trusted(
    opened: Open, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    certificate = self_signed(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate)
    server = Server()
    runner = await server.start(tls)
    strange = await opened(settings(server.url))
    with pytest.raises(SSLError, match="certificate"):
        await strange.call("ReceiveMessage", {})
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
    trusting = await opened(settings(server.url))
    assert await trusting.call("ReceiveMessage", {}) == {}
    await runner.cleanup()


def self_signed(folder: Path) -> Path:
    """Return a file with a key for 127.0.0.1 and its certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / "server.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    return path
