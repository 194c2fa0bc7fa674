"""What stands between a client and Serve: ASGI middleware on both sides of the way to a replica.

Serve's proxy acts on headers of a client on its own, and answers in its own words, without a code,
where a replica does not answer. And a refusal that comes from a replica has cost both of them
milliseconds, which many clients at once make into seconds. ``ProxyFront`` runs in the proxy and
puts all three right; Serve finds it through ``middlewares``, which an environment variable names
where Ray is started (``ray_environment``). Without it everything works but for those three things.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.errors import (
    DeadlineExceeded,
    ForeedgeError,
    ModelUnavailable,
    Overloaded,
    ReplicaLost,
)
from serve_app.http_admission import retry_after_s
from serve_app.http_problems import problem, unknown_path

CALLBACK = "serve_app.http_front.middlewares"

# Serve's proxy would answer a deadline itself, just before the replica does, with 408 and no code.
_TIMEOUT = b"x-request-timeout-seconds"
_TIMEOUT_INSIDE = b"foreedge-request-timeout-seconds"
# A client must not decide that its going away does not count, nor to which replica it goes.
_DROPPED = {
    b"x-request-disconnect-disabled",
    b"serve_multiplexed_model_id",
    b"serve-multiplexed-model-id",
    b"x-session-id",
    _TIMEOUT_INSIDE,
}
_PROXY_ERRORS: dict[int, type[ForeedgeError]] = {
    408: DeadlineExceeded,
    500: ReplicaLost,
    503: Overloaded,
}


# What a replica tells the proxy: how many images all replicas take, and for how long.
_LOAD = b"foreedge-load"
_LOAD_VALID_S = 60.0
# For how long a body is waited for before its request goes on to a replica.
_READ_AHEAD_S = 0.05


def middlewares() -> list[Middleware]:
    """Return what Serve puts around its proxy."""
    return [Middleware(ProxyFront)]


@dataclass(frozen=True, slots=True)
class Load:
    """What a replica told with an answer."""

    images: int
    stay_s: float
    valid_until: float


class ProxyFront:
    """Runs in Serve's proxy: keeps headers from it, gives its errors a code, refuses at once.

    It refuses on its own only what a replica would: images, while as many requests with their whole
    body as all replicas take are here. How many that is it learns from their answers. For a moment
    each body counts as whole, so that many clients who come together are not all passed on.
    """

    def __init__(self, app: ASGIApp, clock: Callable[[], float] = time.monotonic) -> None:
        self._app = app
        self._clock = clock
        self._whole = self._arriving = 0
        self._loads: dict[str, Load] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path: str = scope["path"]
        load = self._load(path) if scope["method"] == "POST" else None
        request = _Passage(receive, send, self)
        try:
            if load is not None:
                if self._whole + self._arriving >= load.images:
                    message = f"all {load.images} places are taken (http.max_concurrent)"
                    error = Overloaded(message, retry_after_s(load.stay_s))
                    await problem(error, path)(scope, receive, send)
                    return
                await self._read_ahead(request)
            await self._app(_inside(scope), request.receive, request.send)
        finally:
            self.leave(request)
        if request.load is not None:
            images, stay_s = request.load
            self._loads[path] = Load(images, stay_s, self._clock() + _LOAD_VALID_S)
        if not request.started:
            await _answer_for_proxy(request.refused or 500, scope, receive, send)

    async def _read_ahead(self, request: _Passage) -> None:
        self._arriving += 1
        try:
            await request.read_ahead()
        finally:
            self._arriving -= 1

    def _load(self, path: str) -> Load | None:
        load = self._loads.get(path)
        if load is not None and self._clock() >= load.valid_until:
            del self._loads[path]
            return None
        return load

    def enter(self, request: _Passage) -> None:
        """Count a request whose body is here to its end."""
        if not request.whole:
            request.whole = True
            self._whole += 1

    def leave(self, request: _Passage) -> None:
        """Count it no longer."""
        if request.whole and not request.left:
            request.left = True
            self._whole -= 1


class _Passage:
    """One request on its way through the proxy."""

    def __init__(self, receive: Receive, send: Send, front: ProxyFront) -> None:
        self._receive = receive
        self._send = send
        self._front = front
        self.whole = self.left = False
        self.started = False
        self.refused = 0
        """Status of the proxy's own error, which is not passed on."""
        self.load: tuple[int, float] | None = None
        self._ahead: deque[Message] = deque()

    async def read_ahead(self) -> None:
        """Read the body, as far as it comes at once."""
        try:
            async with asyncio.timeout(_READ_AHEAD_S):
                while not self.whole:
                    message = await self._read()
                    self._ahead.append(message)
                    if message["type"] != "http.request":
                        return
        except TimeoutError:
            return

    async def receive(self) -> Message:
        return self._ahead.popleft() if self._ahead else await self._read()

    async def _read(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request" and not message.get("more_body"):
            self._front.enter(self)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            if _of_proxy(message):
                self.refused = message["status"]
                return
            self.started = True
            message = self._without_load(message)
        elif not message.get("more_body"):
            # Before the client has it all: its next request must find the place free.
            self._front.leave(self)
        if not self.refused:
            await self._send(message)

    def _without_load(self, start: Message) -> Message:
        headers = start.get("headers", [])
        for name, value in headers:
            if name == _LOAD:
                images, stay_s = value.split()
                self.load = int(images), float(stay_s)
                kept = [item for item in headers if item[0] != _LOAD]
                return dict(start, headers=kept)
        return start


def tell_load(request: Request, images: int, stay_s: float) -> None:
    """Let the answer to a request for an image tell the proxy how much there is room for.

    Args:
        request: In the replica.
        images: That all replicas of the endpoint take.
        stay_s: Mean time that an image takes, in seconds.
    """
    request.state.load = f"{images} {stay_s:.3f}".encode()


class ReplicaFront:
    """Runs in the replica: the deadline gets its name back, and HEAD is a GET without a body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state: dict[str, Any] = dict(scope.get("state", {}))
        headers = [_restored(*item) for item in scope["headers"]]
        head = scope["method"] == "HEAD"
        method = "GET" if head else scope["method"]

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start" and "load" in state:
                load = (_LOAD, state["load"])
                message = dict(message, headers=[*message["headers"], load])
            elif message["type"] == "http.response.body" and head:
                message = dict(message, body=b"")
            await send(message)

        await self._app(dict(scope, headers=headers, method=method, state=state), receive, answer)


def _inside(scope: Scope) -> Scope:
    renamed = (_renamed(*item) for item in scope["headers"])
    return dict(scope, headers=[item for item in renamed if item is not None])


def _renamed(name: bytes, value: bytes) -> tuple[bytes, bytes] | None:
    if name in _DROPPED:
        return None
    return (_TIMEOUT_INSIDE if name == _TIMEOUT else name), value


def _restored(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    return (_TIMEOUT if name == _TIMEOUT_INSIDE else name), value


def _of_proxy(start: Message) -> bool:
    """Return whether an answer's head is one of the proxy's own errors."""
    if start["status"] not in {404, *_PROXY_ERRORS}:
        return False
    types = [value for name, value in start["headers"] if name.lower() == b"content-type"]
    return not types or types[0].startswith(b"text/plain")


async def _answer_for_proxy(status: int, scope: Scope, receive: Receive, send: Send) -> None:
    path = Request(scope).url.path
    if status == 404:
        await unknown_path(path)(scope, receive, send)
        return
    messages = {
        408: "no answer within the time that the proxy allows",
        500: "the replica ended while it held the request; try again",
        503: "every replica of the endpoint is busy or being replaced; try again",
    }
    error = _PROXY_ERRORS.get(status, ModelUnavailable)(messages.get(status, "try again"))
    await problem(error, path)(scope, receive, send)
