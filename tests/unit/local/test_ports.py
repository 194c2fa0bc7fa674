"""Addresses to listen on, and why a process cannot."""

from __future__ import annotations

import socket

import pytest

from ingest.local.application import serving
from ingest.local.ports import check_address, free_port, is_free
from serve_app.errors import InvalidConfig


def test_a_port_in_use_is_not_free() -> None:
    port = free_port()
    check_address("localhost", port)
    with socket.create_server(("127.0.0.1", port)):
        assert not is_free("127.0.0.1", port)
        with pytest.raises(InvalidConfig, match=f"^port {port} of localhost is in use"):
            check_address("localhost", port)


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("::1", "host ::1, which is no IPv4 address"),
        ("no-such-host.invalid", "host no-such-host.invalid, which is no IPv4 address"),
        ("two..dots", "host two..dots, which is no IPv4 address"),
        # Of the network for documents (RFC 5737), so that it is no address of this machine.
        ("192.0.2.1", "host 192.0.2.1, port 8000: Cannot assign requested address"),
    ],
)
def test_what_is_wrong_with_a_host_is_said_before_ray_starts(host: str, reason: str) -> None:
    with (
        pytest.raises(InvalidConfig, match=f"^cannot listen on {reason}") as error,
        serving({"models": ["folio"]}, host=host, port=8000),
    ):
        pass
    assert "in use" not in error.value.message
