"""The client of a running server: what it waits for, and what it reports."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.local.cutout_client import CutoutClient
from ingest.local.ports import free_port
from serve_app.errors import (
    CorruptImage,
    ImageTooLarge,
    InvalidConfig,
    InvalidRecipe,
    ModelUnavailable,
    Overloaded,
    RateLimited,
    ReplicaLost,
    Unauthenticated,
)
from tests.support.cutout_server import Answer, CutoutServer, cutout_server, refusal

BUSY = refusal(Overloaded("busy"), Retry_After="1")


@pytest.fixture
def server() -> Iterator[CutoutServer]:
    with cutout_server() as running:
        yield running


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "1.jpg"
    path.write_bytes(b"one")
    return path


def test_an_image_is_sent_with_its_recipe_and_key(server: CutoutServer, image: Path) -> None:
    recipe = '{"background": "#fff & more"}'
    client = CutoutClient(f"{server.url}/", recipe, api_key="secret")
    client.check()

    assert client.cut_out(image) == b"cut:one"

    [(body, request)] = server.received
    assert (body, request["recipe"], request["X-API-Key"]) == (b"one", recipe, "secret")
    assert request["Content-Length"] == "3"


def test_a_busy_server_is_asked_again_after_the_time_that_it_names(
    server: CutoutServer, image: Path
) -> None:
    server.prepared[b"one"] = [BUSY, BUSY, Answer(200, b"done", {})]
    begun_at = time.monotonic()

    assert CutoutClient(server.url, "cutout").cut_out(image) == b"done"

    assert 2 <= time.monotonic() - begun_at < 10
    assert len(server.received) == 3


def test_patience_ends(server: CutoutServer, image: Path) -> None:
    server.prepared[b"one"] = [BUSY]
    with pytest.raises(Overloaded, match="busy"):
        CutoutClient(server.url, "cutout", patience_s=1.5).cut_out(image)
    assert len(server.received) == 2


def test_no_image_is_given_up_while_the_server_is_busy_with_others(
    server: CutoutServer, image: Path, tmp_path: Path
) -> None:
    other = tmp_path / "2.jpg"
    other.write_bytes(b"two")
    server.prepared[b"one"] = [BUSY] * 4 + [Answer(200, b"done", {})]
    server.prepared[b"two"] = []
    client = CutoutClient(server.url, "cutout", connections=2, patience_s=1.9)
    ended = threading.Event()

    def send_the_other() -> None:
        while not ended.wait(0.2):
            client.cut_out(other)

    thread = threading.Thread(target=send_the_other)
    thread.start()
    try:
        assert client.cut_out(image) == b"done"
    finally:
        ended.set()
        thread.join()


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (refusal(CorruptImage("cut short")), CorruptImage),
        (refusal(InvalidRecipe("no such field")), InvalidRecipe),
        (Answer(413, b"<html>", {}), ImageTooLarge),
        (Answer(401, b"<html>", {}), InvalidConfig),
        (Answer(403, b"<html>", {}), InvalidConfig),
        (Answer(404, b"<html>", {}), InvalidConfig),
        (Answer(405, b"<html>", {}), InvalidConfig),
        (Answer(302, b"", {"Location": "http://127.0.0.1:1/"}), InvalidConfig),
    ],
)
def test_what_would_be_refused_again_is_sent_once(
    server: CutoutServer, image: Path, answer: Answer, kind: type[Exception]
) -> None:
    server.prepared[b"one"] = [answer]
    with pytest.raises(kind):
        CutoutClient(server.url, "cutout").cut_out(image)
    assert len(server.received) == 1


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
def test_what_a_proxy_says_of_the_server_is_not_the_images(
    server: CutoutServer, image: Path, status: int
) -> None:
    passing = Answer(status, b"<html>", {"Retry-After": "1"})
    server.prepared[b"one"] = [passing, Answer(200, b"done", {})]
    assert CutoutClient(server.url, "cutout").cut_out(image) == b"done"


def test_the_limit_of_a_proxy_is_obeyed_for_the_time_that_it_names(
    server: CutoutServer, image: Path
) -> None:
    server.prepared[b"one"] = [Answer(429, b"<html>", {"Retry-After": "60"})]
    with pytest.raises(RateLimited, match="limits the requests"):
        CutoutClient(server.url, "cutout", patience_s=50).cut_out(image)
    assert len(server.received) == 1


def test_patience_begins_when_the_first_attempt_ends(server: CutoutServer, image: Path) -> None:
    # A connection that hangs for longer than the patience lasts.
    server.hold.clear()
    timer = threading.Timer(3, server.hold.set)
    timer.start()
    client = CutoutClient(server.url, "cutout", patience_s=2.1, answer_s=1)
    assert client.cut_out(image) == b"cut:one"
    timer.join()


def test_a_server_that_restarts_is_waited_for(image: Path) -> None:
    port = free_port()
    client = CutoutClient(f"http://127.0.0.1:{port}", "cutout", patience_s=30)
    found: list[bytes] = []
    thread = threading.Thread(target=lambda: found.append(client.cut_out(image)))
    thread.start()
    time.sleep(0.5)
    with cutout_server(port):
        thread.join()
    assert found == [b"cut:one"]


def test_a_server_that_is_gone_is_given_up(image: Path) -> None:
    client = CutoutClient(f"http://127.0.0.1:{free_port()}", "cutout", patience_s=0)
    with pytest.raises(ReplicaLost, match="did not answer"):
        client.cut_out(image)


def test_a_client_that_is_stopped_waits_no_more(server: CutoutServer, image: Path) -> None:
    server.prepared[b"one"] = [refusal(Overloaded("busy"), Retry_After="60")]
    client = CutoutClient(server.url, "cutout")
    assert client.stop() == 0
    begun_at = time.monotonic()
    with pytest.raises(Overloaded):
        client.cut_out(image)
    assert time.monotonic() - begun_at < 10


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}", "ftp://x", "http://[", "no such"])
def test_an_address_without_a_server_is_refused_with_advice(url: str) -> None:
    with pytest.raises(InvalidConfig, match=r"no server answers at .*foreedge serve.*--url"):
        CutoutClient(url.format(port=free_port()), "cutout").check()


def test_a_server_that_is_another_or_wants_a_key_is_refused(server: CutoutServer) -> None:
    client = CutoutClient(server.url, "cutout")
    server.models = Answer(404, b"not here", {})
    with pytest.raises(InvalidConfig, match=r"is no server of Foreedge.*--url"):
        client.check()
    server.models = refusal(Unauthenticated("This server needs an API key."))
    with pytest.raises(Unauthenticated, match="--api-key-file"):
        client.check()
    # One that is not ready yet is waited for.
    server.models = refusal(ModelUnavailable("starting"))
    client.check()
