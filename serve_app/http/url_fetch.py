"""Fetching an image by URL from allowed hosts only, safe against server-side request forgery.

A host name is resolved once per request. Every address that it has must be allowed, and the
connection goes to one of exactly these addresses, so that a name that resolves differently a moment
later (DNS rebinding) gains nothing. Each redirect passes the same checks: host, name and addresses.
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
    ForeedgeError,
    ImageTooLarge,
    InvalidParameters,
    SourceForbidden,
    SourceNotAllowed,
    SourceNotFound,
    StorageUnavailable,
)
from serve_app.http.admission import Reserve

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve = Callable[[str, int], Awaitable[list[str]]]
"""Function from a host name and a port to the addresses of the host."""

MAX_REDIRECTS = 3

_CHUNK_BYTES = 64 * 1024
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# Networks that some versions of Python count as public.
_NOT_PUBLIC: tuple[Network, ...] = (
    ipaddress.ip_network("192.0.0.0/24"),
    ipaddress.ip_network("192.88.99.0/24"),
    ipaddress.ip_network("64:ff9b:1::/48"),
    ipaddress.ip_network("fec0::/10"),
)
_REDIRECTS = {301, 302, 303, 307, 308}
_REDIRECTED: dict[type[ForeedgeError], str] = {
    InvalidParameters: "its target is not an http or https URL.",
    SourceNotAllowed: "its target is not allowed (http.fetch_hosts, http.fetch_networks).",
    SourceForbidden: "the host of its target denies access.",
    SourceNotFound: "its target does not exist.",
    StorageUnavailable: "the host of its target fails or does not answer.",
    ImageTooLarge: "the image has too many bytes (limits.max_bytes).",
    DeadlineExceeded: "the image did not arrive in time (http.fetch_timeout_s).",
}
"""What is said of a redirect's target, by the error there. A target is never named: it may be
internal, or carry a signature that the client does not have."""


async def fetch_image(
    url: str,
    config: HttpConfig,
    max_bytes: int,
    reserve: Reserve,
    resolve: Resolve | None = None,
) -> bytes:
    """Return the content at a URL.

    Args:
        url: HTTP or HTTPS URL on an allowed host.
        config: Allowed hosts and networks, and the time limit.
        max_bytes: Maximum size of the content. Reading stops once it is exceeded.
        reserve: Called with the size of each chunk. Raises Overloaded when the buffer is full.
        resolve: Function that looks up a host. The resolver of the system if None.

    Raises:
        InvalidParameters: The URL is not a valid HTTP or HTTPS URL.
        SourceNotAllowed: The host or one of its addresses is not allowed.
        SourceForbidden: The host denies access.
        SourceNotFound: The host does not have the content, or does not exist.
        StorageUnavailable: The host fails or does not answer.
        ImageTooLarge: The content has more than ``max_bytes`` bytes.
        DeadlineExceeded: The content did not arrive in time.
    """
    first = _parse_url(url)
    shown = _shown(first)
    resolve = resolve or _resolve_with_system
    try:
        async with asyncio.timeout(config.fetch_timeout_s) as scope:
            found = await _request(first, config, max_bytes, reserve, resolve)
            for _ in range(MAX_REDIRECTS):
                if isinstance(found, bytes):
                    return found
                try:
                    url = _target(url, found)
                    found = await _request(_parse_url(url), config, max_bytes, reserve, resolve)
                except tuple(_REDIRECTED) as error:
                    # Not chained, since the original error names the target.
                    raise type(error)(
                        f"{shown} redirects, and {_REDIRECTED[type(error)]}"
                    ) from None
            if isinstance(found, bytes):
                return found
    except TimeoutError as error:
        if not scope.expired():
            raise
        raise DeadlineExceeded(
            f"{shown} did not arrive within {config.fetch_timeout_s:g} s (http.fetch_timeout_s)."
        ) from error
    raise SourceNotFound(f"{shown} has more than {MAX_REDIRECTS} redirects.")


def check_host(url: URL, hosts: Iterable[str]) -> None:
    """Check that images may be fetched from the host of a URL.

    Args:
        url: HTTP or HTTPS URL.
        hosts: Allowed host names in lower case. ``*.`` stands for every subdomain, and ``:PORT``
            allows that port instead of the default ports of HTTP and HTTPS.

    Raises:
        SourceNotAllowed: The host is not allowed.
    """
    name = (url.host or "").rstrip(".").lower()
    for entry in hosts:
        host, _, port = entry.partition(":")
        is_subdomain = host.startswith("*.") and name.endswith(host[1:])
        expected_port = int(port) if port else _default_port(url)
        if (name == host or is_subdomain) and url.port == expected_port:
            return
    raise SourceNotAllowed(
        f"This server does not fetch images from {url.host}:{url.port}. "
        "Its operator can allow the host (http.fetch_hosts)."
    )


def is_public_address(address: Address) -> bool:
    """Return whether an address belongs to the public internet.

    An address that embeds another one (IPv4-mapped, 6to4, Teredo, NAT64) is public only if the
    embedded one is, too.
    """
    if isinstance(address, ipaddress.IPv6Address):
        embedded = _embedded_address(address)
        if embedded is not None and not is_public_address(embedded):
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
    """Check that every address of a host may be connected to.

    Args:
        host: Name of the host, for the error message.
        addresses: All addresses of the host.
        networks: Networks that are allowed although they are not public.

    Raises:
        SourceNotAllowed: One of the addresses is not allowed.
    """
    allowed = tuple(networks)
    for text in addresses:
        address = ipaddress.ip_address(text)
        if not is_public_address(address) and not any(address in network for network in allowed):
            raise SourceNotAllowed(
                f"{host} has the address {address}, which is not public. "
                "The operator of this server can allow its network (http.fetch_networks)."
            )


def _parse_url(url: str) -> URL:
    try:
        parsed = URL(url)
        usable = parsed.scheme in {"http", "https"} and bool(parsed.host) and parsed.port
    except ValueError:
        # Not chained: the message of the original error may quote the URL.
        raise InvalidParameters("url: is not a valid URL") from None
    if not usable or parsed.user or parsed.password:
        raise InvalidParameters("url: must be an http or https URL without user name and password")
    return parsed


def _target(url: str, location: str) -> str:
    """Return the URL that a redirect leads to."""
    try:
        return urljoin(url, location)
    except ValueError:
        # Not chained: the message of the original error may quote the target.
        raise InvalidParameters("url: is not a valid URL") from None


def _shown(url: URL) -> str:
    """Return a URL for messages. Its query may be a signature."""
    return str(url.with_query(None).with_fragment(None))


def _default_port(url: URL) -> int:
    return 443 if url.scheme == "https" else 80


def _embedded_address(address: ipaddress.IPv6Address) -> Address | None:
    if address.teredo is not None:
        return address.teredo[1]
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour


async def _request(
    url: URL, config: HttpConfig, max_bytes: int, reserve: Reserve, resolve: Resolve
) -> bytes | str:
    """Return the body at a URL as bytes, or the target of its redirect as text."""
    check_host(url, config.fetch_hosts)
    host, port = url.host or "", url.port or 0
    try:
        addresses = await resolve(host, port)
    # A label that is empty or too long is no name, which the codec of names says in its own way.
    except (OSError, UnicodeError) as error:
        raise SourceNotFound(f"The host {host} cannot be resolved: {error}") from error
    check_addresses(host, addresses, config.fetch_networks)
    connector = aiohttp.TCPConnector(resolver=_CheckedAddresses(addresses), force_close=True)
    try:
        async with (
            # Never decompress: a small body could become one of any size.
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
            return await _read_limited(response, max_bytes, reserve)
    except (aiohttp.ClientError, OSError) as error:
        if isinstance(error, TimeoutError):
            raise DeadlineExceeded(
                f"{_shown(url)} did not arrive within {config.fetch_timeout_s:g} s "
                "(http.fetch_timeout_s)."
            ) from error
        # The texts of aiohttp's errors may quote the URL.
        reason = error.strerror if isinstance(error, OSError) else None
        raise StorageUnavailable(
            f"{_shown(url)} cannot be fetched: {reason or type(error).__name__}"
        ) from error


def _check_status(url: URL, status: int) -> None:
    if status == HTTPStatus.OK:
        return
    message = f"{_shown(url)} cannot be fetched: its host answered with status {status}."
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        raise SourceForbidden(message)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.TOO_MANY_REQUESTS:
        raise StorageUnavailable(message)
    raise SourceNotFound(message)


async def _read_limited(
    response: aiohttp.ClientResponse, max_bytes: int, reserve: Reserve
) -> bytes:
    too_large = ImageTooLarge(
        f"The image at {_shown(response.url)} has more than {max_bytes:,} bytes, the limit of this "
        "server (limits.max_bytes)."
    )
    if (response.content_length or 0) > max_bytes:
        raise too_large
    data = bytearray()
    async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
        reserve(len(chunk))
        data += chunk
        if len(data) > max_bytes:
            raise too_large
    return bytes(data)


async def _resolve_with_system(host: str, port: int) -> list[str]:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(sockaddr[0]) for *_, sockaddr in found]


class _CheckedAddresses(AbstractResolver):
    """A resolver that returns the addresses that were checked, whatever the name."""

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
        """Do nothing: there is nothing to close."""
