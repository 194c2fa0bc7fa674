"""TCP ports of this machine: which ones are free, and which URLs answer."""

from __future__ import annotations

import errno
import itertools
import random
import socket
import urllib.error
import urllib.request

from serve_app.errors import InternalError, InvalidConfig

_PORTS = range(20_000, 30_000)
"""Ports that neither Ray's workers (below) nor Serve's replicas (above) use. Linux gives those from
32768 on to programs that ask for any port."""
_ports = itertools.cycle(random.SystemRandom().sample(_PORTS, len(_PORTS)))


def free_port(host: str = "127.0.0.1") -> int:
    """Return a TCP port on which nothing listens. Each call returns another one.

    The kernel is not asked for a port. It would return one of those that Ray's processes, too, ask
    it for, by the dozen and before the caller listens on it.

    Raises:
        InternalError: No port is free.
    """
    for port in itertools.islice(_ports, len(_PORTS)):
        if is_free(host, port):
            return port
    raise InternalError(f"no TCP port from {_PORTS[0]} to {_PORTS[-1]} is free on {host}")


def is_free(host: str, port: int) -> bool:
    """Return whether nothing listens on a TCP port of an IPv4 address.

    Raises:
        OSError: The port cannot be used for another reason.
    """
    with socket.socket() as probe:
        # Servers set this too. A port with nothing but closing connections counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return False
    return True


def check_address(host: str, port: int) -> None:
    """Check that this process can listen on a TCP port of a host. Blocks.

    Raises:
        InvalidConfig: It cannot, and why: Serve would say so much later, or never.
    """
    try:
        found = socket.getaddrinfo(host, port, socket.AF_INET, socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidConfig(
            f"cannot listen on host {host}, which is no IPv4 address and no name of one: {reason}. "
            "Choose another --host, such as 127.0.0.1, or 0.0.0.0 for all addresses"
        ) from error
    address = str(found[0][4][0])
    try:
        free = is_free(address, port)
    except OSError as error:
        raise InvalidConfig(
            f"cannot listen on host {host}, port {port}: {error.strerror}. Choose another --host "
            "or --port"
        ) from error
    if not free:
        raise InvalidConfig(f"port {port} of {host} is in use. Choose another --port")


def answers(url: str, timeout_s: float = 2.0) -> bool:
    """Return whether a URL answers with status 200."""
    # A proxy named by the environment cannot reach the ports of this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=timeout_s) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError, ValueError):
        return False
