"""Fetching an image that a client names by its URL: from hosts on a list, and nowhere inside.

A name is resolved once. Every address that it has must be one that may be reached, and the
connection goes to one of these addresses, so that a name which resolves to another one a moment
later (DNS rebinding) gains nothing. Each redirect begins anew: list, name, addresses.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable
from http import HTTPStatus
from urllib.parse import urljoin

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from serve_app.config import HttpConfig
from serve_app.errors import (
    DeadlineExceeded,
    ImageTooLarge,
    InvalidParameters,
    SourceForbidden,
    SourceNotAllowed,
    SourceNotFound,
    StorageUnavailable,
)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve = Callable[[str, int], Awaitable[list[str]]]

MAX_REDIRECTS = 3

_CHUNK_BYTES = 64 * 1024
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# Python's own lists, which differ from version to version, have these as public or did so.
_NOT_PUBLIC: tuple[Network, ...] = (
    ipaddress.ip_network("192.0.0.0/24"),
    ipaddress.ip_network("192.88.99.0/24"),
    ipaddress.ip_network("64:ff9b:1::/48"),
    ipaddress.ip_network("fec0::/10"),
)
_REDIRECTS = {301, 302, 303, 307, 308}


async def fetch(
    url: str,
    config: HttpConfig,
    max_bytes: int,
    hold: Callable[[int], None],
    resolve: Resolve | None = None,
) -> bytes:
    """Return what is at a URL.

    Args:
        url: Of a host that the configuration allows.
        config: Hosts, networks and time.
        max_bytes: What is longer is not read to its end.
        hold: Told of the bytes as they come; may refuse.
        resolve: From a name and a port to addresses; the system's way where it is None.

    Raises:
        InvalidParameters: Not a URL of HTTP or HTTPS.
        SourceNotAllowed: A host that is not on the list, or an address that may not be reached.
        SourceForbidden: The host denies it.
        SourceNotFound: The host does not have it, or there is no such host.
        StorageUnavailable: The host fails, or does not answer.
        ImageTooLarge: It is longer than ``max_bytes``.
        DeadlineExceeded: It did not arrive in time.
    """
    try:
        async with asyncio.timeout(config.fetch_timeout_s) as scope:
            for _ in range(1 + MAX_REDIRECTS):
                found = await _get(_parse(url), config, max_bytes, hold, resolve or _system)
                if isinstance(found, bytes):
                    return found
                url = urljoin(url, found)
    except TimeoutError as error:
        if not scope.expired():
            raise
        raise DeadlineExceeded(
            f"{url} did not arrive within {config.fetch_timeout_s:g} s (http.fetch_timeout_s)"
        ) from error
    raise SourceNotFound(f"more than {MAX_REDIRECTS} redirects, the last one to {url}")


def check_host(url: URL, hosts: Iterable[str]) -> None:
    """Return if a URL's host is on the list.

    Args:
        url: Of HTTP or HTTPS.
        hosts: Names in lower case; ``*.`` stands for every name below, and ``:PORT`` allows that
            port instead of those of HTTP and HTTPS.

    Raises:
        SourceNotAllowed: It is not.
    """
    name = (url.host or "").rstrip(".").lower()
    for entry in hosts:
        host, _, port = entry.partition(":")
        below = host.startswith("*.") and name.endswith(host[1:])
        if (name == host or below) and url.port == (int(port) if port else _usual_port(url)):
            return
    raise SourceNotAllowed(
        f"{url.host}:{url.port} is not a host that images are fetched from (http.fetch_hosts)"
    )


def is_public(address: Address) -> bool:
    """Return whether an address is one of the open internet.

    Addresses that carry another one (IPv4-mapped, 6to4, Teredo, NAT64) are as public as both are.
    """
    if isinstance(address, ipaddress.IPv6Address):
        carried = _carried(address)
        if carried is not None and not is_public(carried):
            return False
        if address.ipv4_mapped is not None or address in _NAT64:
            return True
    return address.is_global and not (
        any(address in network for network in _NOT_PUBLIC)
        or address.is_multicast
        or address.is_reserved
        or address.is_unspecified
        or address.is_loopback
        or address.is_link_local
    )


def check_addresses(host: str, addresses: Iterable[str], networks: Iterable[Network]) -> None:
    """Return if every address of a host may be reached.

    Args:
        host: For the message.
        addresses: All that it has.
        networks: That may be reached although they are not public.

    Raises:
        SourceNotAllowed: One may not be.
    """
    known = tuple(networks)
    for text in addresses:
        address = ipaddress.ip_address(text)
        if not is_public(address) and not any(address in network for network in known):
            raise SourceNotAllowed(
                f"{host} has the address {address}, which is not public (http.fetch_networks)"
            )


def _parse(url: str) -> URL:
    try:
        parsed = URL(url)
        usable = parsed.scheme in {"http", "https"} and bool(parsed.host) and parsed.port
    except ValueError as error:
        raise InvalidParameters(f"url: {error}") from error
    if not usable or parsed.user or parsed.password:
        raise InvalidParameters("url: must be one of http or https, without a user")
    return parsed


def _usual_port(url: URL) -> int:
    return 443 if url.scheme == "https" else 80


def _carried(address: ipaddress.IPv6Address) -> Address | None:
    if address.teredo is not None:
        return address.teredo[1]
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour


async def _get(
    url: URL,
    config: HttpConfig,
    max_bytes: int,
    hold: Callable[[int], None],
    resolve: Resolve,
) -> bytes | str:
    """Return the body at a URL, or where it redirects to."""
    check_host(url, config.fetch_hosts)
    host, port = url.host or "", url.port or 0
    try:
        addresses = await resolve(host, port)
    except OSError as error:
        raise SourceNotFound(f"{host} cannot be resolved: {error}") from error
    check_addresses(host, addresses, config.fetch_networks)
    connector = aiohttp.TCPConnector(resolver=_Pinned(addresses), force_close=True)
    try:
        async with (
            # The bytes as they are: what is compressed could be any size.
            aiohttp.ClientSession(connector=connector, auto_decompress=False) as session,
            session.get(
                url,
                allow_redirects=False,
                headers={"Accept": "image/*", "Accept-Encoding": "identity"},
                timeout=aiohttp.ClientTimeout(total=config.fetch_timeout_s),
            ) as response,
        ):
            if response.status in _REDIRECTS and "Location" in response.headers:
                return response.headers["Location"]
            _check_status(url, response.status)
            return await _read(response, max_bytes, hold)
    except (aiohttp.ClientError, OSError) as error:
        if isinstance(error, TimeoutError):
            raise DeadlineExceeded(f"{url} did not arrive in time") from error
        raise StorageUnavailable(f"{url} cannot be fetched: {error}") from error


def _check_status(url: URL, status: int) -> None:
    if status == HTTPStatus.OK:
        return
    message = f"{url} answers {status}"
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        raise SourceForbidden(message)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.TOO_MANY_REQUESTS:
        raise StorageUnavailable(message)
    raise SourceNotFound(message)


async def _read(
    response: aiohttp.ClientResponse, max_bytes: int, hold: Callable[[int], None]
) -> bytes:
    too_large = ImageTooLarge(
        f"{response.url} has more than {max_bytes:,} bytes, the limit (limits.max_bytes)"
    )
    if (response.content_length or 0) > max_bytes:
        raise too_large
    data = bytearray()
    async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
        hold(len(chunk))
        data += chunk
        if len(data) > max_bytes:
            raise too_large
    return bytes(data)


async def _system(host: str, port: int) -> list[str]:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(sockaddr[0]) for *_, sockaddr in found]


class _Pinned(AbstractResolver):
    """Knows the addresses that were checked, and no others."""

    def __init__(self, addresses: list[str]) -> None:
        self._addresses = addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in self._addresses
        ]

    async def close(self) -> None:
        """See AbstractResolver."""
