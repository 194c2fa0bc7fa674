"""An HTTP server that answers ``POST /v1/cutout`` as it is asked to, for tests of clients."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from serve_app.errors import ForeedgeError


class Answer(NamedTuple):
    """An answer of the server."""

    status: int
    body: bytes
    headers: dict[str, str]


def refusal(error: ForeedgeError, **headers: str) -> Answer:
    """Return the answer that reports an error as the endpoint does."""
    problem = {"code": error.code, "detail": error.message}
    return Answer(error.http_status, json.dumps(problem).encode(), headers)


class CutoutServer(ThreadingHTTPServer):
    """Answers an image with ``cut:`` and its bytes, after the answers that are prepared for it."""

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.prepared: dict[bytes, list[Answer]] = {}
        """Answers by the image, of which each is given once. The last one is given again."""
        self.models = Answer(200, b'{"models": []}', {})
        self.received: list[tuple[bytes, dict[str, Any]]] = []
        """Images with the headers and the recipe of their requests."""
        self.most_at_once = 0
        self.hold = threading.Event()
        """Answers wait for this event. It is set."""
        self.hold.set()
        self._now = 0
        self._lock = threading.Lock()

    def answer(self, image: bytes, request: dict[str, Any]) -> Answer:
        with self._lock:
            self.received.append((image, request))
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
            prepared = self.prepared.get(image)
            found = prepared.pop(0) if prepared else Answer(200, b"cut:" + image, {})
            if prepared == [] and found.status != 200:
                prepared.append(found)
        self.hold.wait(30)
        with self._lock:
            self._now -= 1
        return found


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: CutoutServer

    def do_GET(self) -> None:
        self._send(self.server.models)

    def do_POST(self) -> None:
        image = self.rfile.read(int(self.headers["Content-Length"]))
        url = urlsplit(self.path)
        assert url.path == "/v1/cutout"
        [recipe] = parse_qs(url.query)["recipe"]
        self._send(self.server.answer(image, {**self.headers, "recipe": recipe}))

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


@contextmanager
def cutout_server(port: int = 0) -> Iterator[CutoutServer]:
    """Run a server while the context lasts."""
    with CutoutServer(port) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.hold.set()
            server.shutdown()
            thread.join()
