"""What stands between a client and Serve: ASGI middleware on both sides of what Serve does itself.

Before a request gets to our routes, Serve acts on headers of a client on its own, and it answers in
its own words, without a code, where a replica does not answer. ``ServeErrorMiddleware`` is around
that, in Serve's proxy or, behind HAProxy, in the replica itself, and puts both right; Serve finds
it through ``middlewares``, named by an environment variable (``serving.ray_environment``).
``DeadlineHeaderMiddleware`` is within. Without ``ServeErrorMiddleware`` everything works but for
those two things.
"""

from __future__ import annotations

from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.errors import (
    DeadlineExceeded,
    ForeedgeError,
    ModelUnavailable,
    Overloaded,
    ReplicaLost,
)
from serve_app.http.problems import problem, unknown_path

# Serve would answer a deadline itself, just before the replica does, with 408 and no code.
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
_SERVE_ERRORS: dict[int, type[ForeedgeError]] = {
    408: DeadlineExceeded,
    500: ReplicaLost,
    503: Overloaded,
}


def middlewares() -> list[Middleware]:
    """Return what Serve puts around itself."""
    return [Middleware(ServeErrorMiddleware)]


class ServeErrorMiddleware:
    """Keeps headers from Serve, and gives its own errors a code."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False
        refused = 0

        async def answer(message: Message) -> None:
            nonlocal started, refused
            if message["type"] == "http.response.start":
                if _of_serve(message):
                    refused = message["status"]
                else:
                    started = True
            if not refused:
                await send(message)

        await self._app(_inside(scope), receive, answer)
        if not started:
            await _answer_for_serve(refused or 500, scope, receive, send)


class DeadlineHeaderMiddleware:
    """Runs in the replica: the deadline gets its name back, and HEAD is a GET without a body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = [_restored(*item) for item in scope["headers"]]
        head = scope["method"] == "HEAD"
        method = "GET" if head else scope["method"]

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.body" and head:
                message = dict(message, body=b"")
            await send(message)

        await self._app(dict(scope, headers=headers, method=method), receive, answer)


def _inside(scope: Scope) -> Scope:
    renamed = (_renamed(*item) for item in scope["headers"])
    return dict(scope, headers=[item for item in renamed if item is not None])


def _renamed(name: bytes, value: bytes) -> tuple[bytes, bytes] | None:
    if name in _DROPPED:
        return None
    return (_TIMEOUT_INSIDE if name == _TIMEOUT else name), value


def _restored(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    return (_TIMEOUT if name == _TIMEOUT_INSIDE else name), value


def _of_serve(start: Message) -> bool:
    """Return whether an answer's head is one of Serve's own errors."""
    if start["status"] not in {404, *_SERVE_ERRORS}:
        return False
    types = [value for name, value in start["headers"] if name.lower() == b"content-type"]
    return not types or types[0].startswith(b"text/plain")


async def _answer_for_serve(status: int, scope: Scope, receive: Receive, send: Send) -> None:
    path = Request(scope).url.path
    if status == 404:
        await unknown_path(path)(scope, receive, send)
        return
    messages = {
        408: "no answer within the time that Serve allows",
        500: "the replica ended while it held the request; try again",
        503: "every replica of the endpoint is busy or being replaced; try again",
    }
    error = _SERVE_ERRORS.get(status, ModelUnavailable)(messages.get(status, "try again"))
    await problem(error, path)(scope, receive, send)


class RembgCorsMiddleware:
    """Lets web pages of every origin post images to rembg's API, as rembg's server does.

    No page may read what the server fetches by itself: those hosts may be open to the server alone.
    """

    def __init__(self, app: ASGIApp, *, path: str) -> None:
        """Wrap an application.

        Args:
            app: The application.
            path: Path of the route that is opened to every origin.
        """
        self._app = app
        self._path = path
        self._open = CORSMiddleware(
            app,
            allow_origins=["*"],
            allow_methods=["POST"],
            allow_headers=["*"],
            expose_headers=["Server-Timing"],
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        posted = scope["type"] == "http" and scope["method"] in {"POST", "OPTIONS"}
        app = self._open if posted and scope["path"] == self._path else self._app
        await app(scope, receive, send)
