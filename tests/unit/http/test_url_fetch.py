"""Fetching by URL: hosts, addresses, redirects, sizes and time limits, on this machine only."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from yarl import URL

from serve_app.config import AppConfig, HttpConfig
from serve_app.errors import (
    DeadlineExceeded,
    ForeedgeError,
    ImageTooLarge,
    InvalidConfig,
    InvalidParameters,
    SourceForbidden,
    SourceNotAllowed,
    SourceNotFound,
    StorageUnavailable,
)
from serve_app.http.url_fetch import check_addresses, check_host, fetch_image, is_public_address

LIMIT = 100_000


PRIVATE = """
    0.0.0.0 10.1.2.3 100.64.0.1 127.0.0.1 127.9.9.9 169.254.169.254 172.16.0.1 192.0.0.8
    192.0.2.1 192.168.1.1 198.18.0.1 203.0.113.5 224.0.0.1 240.0.0.1 255.255.255.255
    :: ::1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::127.0.0.1 fe80::1 fe80::1%eth0 fc00::1 fd00:ec2::254
    fec0::1 ff02::1 2001:db8::1 2002:7f00:1:: 2002:c0a8:101:: 64:ff9b::10.0.0.1 64:ff9b::7f00:1
    64:ff9b:1::1 2001:0:4136:e378:8000:63bf:3fff:fdd2 100::1
"""
PUBLIC = "1.1.1.1 93.184.216.34 2606:4700::1111 ::ffff:1.1.1.1 64:ff9b::1.1.1.1"


@pytest.mark.parametrize("address", PRIVATE.split())
def test_private_addresses(address: str) -> None:
    assert not is_public_address(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", PUBLIC.split())
def test_public_addresses(address: str) -> None:
    assert is_public_address(ipaddress.ip_address(address))


def test_every_address_must_be_public_or_in_an_allowed_network() -> None:
    check_addresses("h", ["1.1.1.1"], [])
    with pytest.raises(SourceNotAllowed, match=r"10\.0\.0\.1"):
        check_addresses("h", ["1.1.1.1", "10.0.0.1"], [])
    check_addresses("h", ["1.1.1.1", "10.0.0.1"], [ipaddress.ip_network("10.0.0.0/24")])
    with pytest.raises(SourceNotAllowed):
        check_addresses("h", ["10.0.1.1"], [ipaddress.ip_network("10.0.0.0/24")])


HOSTS = ("images.example", "*.cdn.example", "local.example:8080")


@pytest.mark.parametrize(
    "url",
    [
        "https://images.example/1.jpg",
        "http://IMAGES.example./1.jpg",
        "https://a.b.cdn.example/",
        "http://local.example:8080/",
    ],
)
def test_allowed_hosts(url: str) -> None:
    check_host(URL(url), HOSTS)


@pytest.mark.parametrize(
    "url",
    [
        "https://other.example/",
        "https://images.example.other/",
        "https://notimages.example/",
        "https://cdn.example/",
        "https://evilcdn.example/",
        "https://images.example:8443/",
        "http://images.example:443/",
        "http://local.example/",
        "http://127.0.0.1/",
    ],
)
def test_other_hosts_are_rejected(url: str) -> None:
    with pytest.raises(SourceNotAllowed, match="fetch_hosts"):
        check_host(URL(url), HOSTS)


@pytest.mark.parametrize("host", ["", "HTTP://x", "a b", "*", "*.*.x", "https://x/", "x:y"])
def test_an_invalid_host_in_the_configuration_is_rejected(host: str) -> None:
    with pytest.raises(InvalidConfig, match="fetch_hosts"):
        AppConfig.load({"http": {"fetch_hosts": [host]}})


class Site:
    """A server on this machine, reachable under any name."""

    def __init__(self) -> None:
        self.hosts: list[str] = []
        self.names: list[str] = []
        self.addresses = [["127.0.0.1"]]
        self.port = 0

    @property
    def config(self) -> HttpConfig:
        # This machine answers at 127.0.0.1 and 127.0.0.2. Only the first is allowed.
        return HttpConfig.model_validate(
            {
                "fetch_hosts": [f"site.example:{self.port}"],
                "fetch_networks": ["127.0.0.1/32"],
                "fetch_timeout_s": 1,
            }
        )

    async def resolve(self, name: str, port: int) -> list[str]:
        """Return the next list of addresses, as DNS would."""
        self.names.append(name)
        return self.addresses.pop(0) if len(self.addresses) > 1 else self.addresses[0]

    async def fetch(self, path: str, host: str = "site.example") -> bytes:
        url = f"http://{host}:{self.port}{path}"
        return await fetch_image(url, self.config, LIMIT, lambda _: None, self.resolve)


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    found = Site()

    async def answer(request: web.Request) -> web.StreamResponse:
        found.hosts.append(request.headers["Host"])
        path = request.path
        if path.startswith("/status/"):
            return web.Response(status=int(path.rpartition("/")[2]))
        if path == "/to":
            return web.Response(status=302, headers={"Location": request.query["url"]})
        if path.startswith("/hop/"):
            left = int(path.rpartition("/")[2])
            raise web.HTTPFound(f"/hop/{left - 1}" if left else "/image")
        response = web.StreamResponse()
        if path == "/announced":
            response.content_length = LIMIT + 1
        await response.prepare(request)
        chunk = b"x" if path == "/trickle" else bytes(10_000)
        for _ in range(1 if path == "/image" else 10_000):
            await response.write(chunk)
            if path == "/trickle":
                await asyncio.sleep(0.05)
        return response

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    listener = web.TCPSite(runner, "127.0.0.1", 0)
    await listener.start()
    assert runner.addresses
    found.port = runner.addresses[0][1]
    yield found
    await runner.cleanup()


async def test_an_image_is_fetched_from_an_allowed_host(site: Site) -> None:
    assert await site.fetch("/image") == bytes(10_000)
    assert site.hosts == [f"site.example:{site.port}"]


async def test_a_name_is_resolved_once_and_the_connection_goes_to_the_checked_address(
    site: Site,
) -> None:
    # The name changes between requests. Within one request it is resolved only once.
    site.addresses = [["127.0.0.1"], ["127.0.0.2"]]
    assert await site.fetch("/image")
    assert site.names == ["site.example"]
    with pytest.raises(SourceNotAllowed, match=r"127\.0\.0\.2"):
        await site.fetch("/image")
    assert len(site.hosts) == 1


async def test_one_private_address_among_others_is_rejected(site: Site) -> None:
    site.addresses = [["127.0.0.1", "10.0.0.1"]]
    with pytest.raises(SourceNotAllowed, match=r"10\.0\.0\.1"):
        await site.fetch("/image")
    assert site.hosts == []


async def test_every_redirect_is_checked(site: Site) -> None:
    assert await site.fetch("/hop/2") == bytes(10_000)
    assert site.names == ["site.example"] * 4
    with pytest.raises(SourceNotFound, match="redirects"):
        await site.fetch("/hop/3")
    for target in ("http://169.254.169.254/latest", f"http://localhost:{site.port}/image"):
        with pytest.raises(SourceNotAllowed, match="fetch_hosts"):
            await site.fetch(f"/to?url={target}")
    site.addresses = [["127.0.0.1"], ["127.0.0.2"]]
    with pytest.raises(SourceNotAllowed, match="redirects, and its target is not allowed"):
        await site.fetch("/hop/0")
    site.addresses = [["127.0.0.1"]]
    for target in ("file:///etc/passwd", "http://["):
        with pytest.raises(InvalidParameters):
            await site.fetch(f"/to?url={target}")


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/status/404", SourceNotFound),
        ("/status/403", SourceForbidden),
        ("/status/204", SourceNotFound),
        ("/status/302", SourceNotFound),
        ("/status/500", StorageUnavailable),
        ("/status/429", StorageUnavailable),
        ("/announced", ImageTooLarge),
        ("/endless", ImageTooLarge),
        ("/trickle", DeadlineExceeded),
    ],
)
async def test_failures_of_the_host_have_a_code(
    site: Site, path: str, error: type[ForeedgeError]
) -> None:
    with pytest.raises(error):
        await site.fetch(path)


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://site.example/1.jpg",
        "http://",
        "http://user:secret@site.example/",
        "site.example/1.jpg",
        "http://[::1",
        "http://site.example:99999/",
        "gopher://site.example:70/",
    ],
)
async def test_invalid_urls_are_rejected(site: Site, url: str) -> None:
    with pytest.raises(InvalidParameters):
        await fetch_image(url, site.config, LIMIT, lambda _: None, site.resolve)
    assert site.names == []


async def test_a_host_that_does_not_answer_is_unavailable(site: Site) -> None:
    config = site.config.model_copy(update={"fetch_hosts": ("site.example:1",)})
    with pytest.raises(StorageUnavailable):
        await fetch_image("http://site.example:1/", config, LIMIT, lambda _: None, site.resolve)


@pytest.mark.parametrize("name", ["a..example", "a" * 64 + ".example"], ids=["empty", "long"])
async def test_a_name_that_no_host_can_have_is_not_found(site: Site, name: str) -> None:
    config = site.config.model_copy(update={"fetch_hosts": (name,)})
    with pytest.raises(SourceNotFound, match="cannot be resolved"):
        await fetch_image(f"http://{name}/1.jpg", config, LIMIT, lambda _: None)


async def test_the_default_resolver_is_that_of_the_system(site: Site) -> None:
    hosts = (f"localhost:{site.port}",)
    config = site.config.model_copy(update={"fetch_hosts": hosts})
    url = f"http://localhost:{site.port}/image"
    networks = tuple(ipaddress.ip_network(text) for text in ("127.0.0.0/8", "::1/128"))
    config = config.model_copy(update={"fetch_networks": networks})
    assert await fetch_image(url, config, LIMIT, lambda _: None) == bytes(10_000)
    public = config.model_copy(update={"fetch_networks": ()})
    with pytest.raises(SourceNotAllowed):
        await fetch_image(url, public, LIMIT, lambda _: None)


@pytest.mark.parametrize(
    "path",
    [
        "/status/404",
        "/status/403",
        "/status/500",
        "/announced",
        "/endless",
        "/trickle",
        "/hop/9",
        "/to?url=http://10.9.8.7/inside%3FX-Amz-Signature=abc",
        "/to?url=http://user:abc@site.example/inside",
        "/to?url=gopher://site.example/inside",
        "/to?url=/status/403%3FX-Amz-Signature=abc",
        "/to?url=/status/500%3FX-Amz-Signature=abc",
        "/to?url=/trickle%3FX-Amz-Signature=abc",
        "/to?url=/endless%3FX-Amz-Signature=abc",
    ],
)
async def test_no_message_shows_a_query_or_the_target_of_a_redirect(site: Site, path: str) -> None:
    signed = f"{path}{'&' if '?' in path else '?'}X-Amz-Signature=abc#part"
    with pytest.raises(ForeedgeError) as caught:
        await site.fetch(signed)
    message = caught.value.message
    assert f"http://site.example:{site.port}/" in message
    for hidden in ("Signature", "abc", "?", "#", "inside", "10.9.8.7", "gopher"):
        assert hidden not in message
    # Nor does a traceback, if one is logged.
    assert caught.value.__cause__ is None or "abc" not in str(caught.value.__cause__)


async def test_no_message_shows_the_user_of_a_url(site: Site) -> None:
    for url in ("http://user:secret@site.example/", "http://user:secret@[::1/"):
        with pytest.raises(InvalidParameters) as caught:
            await fetch_image(url, site.config, LIMIT, lambda _: None, site.resolve)
        assert "secret" not in caught.value.message
