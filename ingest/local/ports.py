"""TCP ports of this machine: which are free, and who answers on them."""

from __future__ import annotations

import itertools
import random
import socket
import urllib.error
import urllib.request

from serve_app.errors import InternalError

_PORTS = range(20_000, 30_000)
"""Ray's workers have those below, Serve's replicas those above; from 32768 on Linux gives them to
whoever asks for any."""
_ports = itertools.cycle(random.SystemRandom().sample(_PORTS, len(_PORTS)))


def free_port(host: str = "127.0.0.1") -> int:
    """Return a TCP port that nobody listens on at the moment; another one each time.

    Not one that the kernel would give: those it gives to all who ask for any, and Ray's processes
    ask for dozens before HAProxy is up.

    Raises:
        InternalError: There is none.
    """
    for port in itertools.islice(_ports, len(_PORTS)):
        if is_free(host, port):
            return port
    raise InternalError(f"no port from {_PORTS[0]} to {_PORTS[-1]} is free on {host}")


def is_free(host: str, port: int) -> bool:
    """Return whether a TCP port can be listened on."""
    with socket.socket() as probe:
        # As servers do: a port whose connections are only winding down counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def answers(url: str, timeout_s: float = 2.0) -> bool:
    """Return whether a URL answers with status 200."""
    # A proxy that the environment names has no way to this machine's own ports.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=timeout_s) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError, ValueError):
        return False
