"""Broken and malicious clients on raw sockets. The endpoint stays correct after each of them."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import BinaryIO
from urllib.parse import urlsplit

import pytest

from tests.support.images import book, jpeg
from tests.support.running_app import App

BOOK = jpeg(book().image)
TINY_REQUESTS = 10_000
CONNECTIONS = 8
PIPELINED = 25


def connect(app: App) -> socket.socket:
    where = urlsplit(app.url)
    return socket.create_connection((where.hostname or "", where.port or 0), timeout=60)


def head(length: int | None, *more: str) -> bytes:
    lines = ["POST /v1/cutout?min_subject_px=1 HTTP/1.1", "Host: x", *more]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def read_to_end(connection: socket.socket) -> bytes:
    found = b""
    while chunk := connection.recv(65_536):
        found += chunk
    return found


def next_answer(stream: BinaryIO) -> tuple[int, bytes]:
    """Return the status and the body of the next response on a connection that stays open."""
    status = int(stream.readline().split(b" ")[1])
    length = 0
    while (line := stream.readline().strip()) != b"":
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    return status, stream.read(length)


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


@pytest.fixture(autouse=True)
def still_correct(app: App) -> Iterator[None]:
    """Check that the result of an image is the same before and after the test."""
    before = app.post(BOOK)
    assert before.status_code == 200
    yield
    after = app.post(BOOK)
    assert after.status_code == 200
    assert after.content == before.content
    assert app.http.get("/readyz").json()["status"] == "ready"


def test_slow_clients_block_nobody(app: App) -> None:
    """More connections than slots send a head or a body byte by byte, while others are served."""
    with ExitStack() as stack:
        heads = [stack.enter_context(connect(app)) for _ in range(100)]
        bodies = [stack.enter_context(connect(app)) for _ in range(100)]
        for connection in heads:
            connection.sendall(b"POST /v1/cutout HTTP/1.1\r\nHost: x\r\n")
        for connection in bodies:
            connection.sendall(head(len(BOOK)) + BOOK[:10])
        for step in range(5):
            for connection in heads:
                connection.sendall(f"X-Slow-{step}: 1\r\n".encode())
            for connection in bodies:
                connection.sendall(BOOK[10 + step : 11 + step])
            assert app.post(BOOK).status_code == 200
            time.sleep(0.2)
        # A slow client that completes its request gets a response.
        bodies[0].sendall(BOOK[15:])
        assert next_answer(bodies[0].makefile("rb"))[0] == 200


def test_a_slow_body_ends_with_its_deadline(app: App) -> None:
    with connect(app) as connection:
        connection.sendall(head(len(BOOK), "X-Request-Timeout-Seconds: 0.5") + BOOK[:10])
        status, body = next_answer(connection.makefile("rb"))
        assert status == 504
        assert b"deadline_exceeded" in body


def test_half_a_body_is_discarded(app: App) -> None:
    for _ in range(50):
        with connect(app) as connection:
            connection.sendall(head(len(BOOK)) + BOOK[: len(BOOK) // 2])
    for _ in range(10):
        with connect(app) as connection:
            connection.sendall(head(len(BOOK)) + BOOK[: len(BOOK) // 2])
            connection.shutdown(socket.SHUT_WR)
            read_to_end(connection)


def test_half_a_form_is_discarded(app: App) -> None:
    start = b'--y\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    for _ in range(20):
        with connect(app) as connection:
            form = "Content-Type: multipart/form-data; boundary=y"
            connection.sendall(head(100_000, form) + start + BOOK[:5000])


def test_excess_bytes_of_a_body_are_not_read(app: App) -> None:
    """The excess is neither part of the image nor another request, so the connection ends."""
    with connect(app) as connection:
        answer = b""
        with suppress(ConnectionResetError):
            connection.sendall(head(len(BOOK)) + BOOK + bytes(100_000))
            answer = read_to_end(connection)
        assert not answer or status_of(answer) in {200, 400}
    with connect(app) as connection:
        connection.sendall(head(100, "Connection: close") + BOOK)
        answer = read_to_end(connection)
        assert status_of(answer) == 422
        assert b"corrupt_image" in answer


def test_an_enormous_announced_body_is_rejected(app: App) -> None:
    with connect(app) as connection:
        connection.sendall(head(10**15) + BOOK)
        status, body = next_answer(connection.makefile("rb"))
        assert status == 413
        assert b"image_too_large" in body


def test_malformed_chunks_are_rejected(app: App) -> None:
    for chunk in (
        b"zz\r\nabc\r\n",
        b"-5\r\nabc\r\n",
        b"ffffffffffffffffff\r\nabc\r\n",
        b"5\r\nabc",
    ):
        with connect(app) as connection:
            connection.sendall(head(None, "Transfer-Encoding: chunked") + chunk)
            connection.shutdown(socket.SHUT_WR)
            answer = read_to_end(connection)
            assert not answer or status_of(answer) in {400, 408, 415}, (chunk, answer)


def test_malformed_heads_are_rejected(app: App) -> None:
    for line in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/cutout HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/cutout HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\n\r\n",
        b"\0" * 1000,
        b"GET /%ff%fe%00 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    ):
        with connect(app) as connection, ExitStack() as stack:
            stack.callback(connection.close)
            try:
                connection.sendall(line)
                connection.shutdown(socket.SHUT_WR)
                answer = read_to_end(connection)
            except (BrokenPipeError, ConnectionResetError, OSError):
                continue
            assert not answer or 400 <= status_of(answer) < 500, (line[:60], answer[:200])


@pytest.mark.slow
def test_ten_thousand_pipelined_requests_are_answered(app: App) -> None:
    """Each has an image of one byte and is rejected with the code for it."""

    def send(share: int) -> dict[int, int]:
        counts: dict[int, int] = {}
        with connect(app) as connection:
            stream = connection.makefile("rb")
            for _ in range(share // PIPELINED):
                connection.sendall((head(1) + b"x") * PIPELINED)
                for _ in range(PIPELINED):
                    status, body = next_answer(stream)
                    assert b'"code"' in body
                    counts[status] = counts.get(status, 0) + 1
        return counts

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        shares = list(pool.map(send, [TINY_REQUESTS // CONNECTIONS] * CONNECTIONS))
    total: dict[int, int] = {}
    for counts in shares:
        for status, count in counts.items():
            total[status] = total.get(status, 0) + count
    assert sum(total.values()) == TINY_REQUESTS
    assert set(total) <= {415, 503}, total
    assert total[415] > 0
