"""ASGI middleware around Serve's proxy (outer) and around our routes (inner).

Before a request reaches our routes, Serve acts on some headers of the client. If a replica does not
answer, Serve answers itself, in plain text and without an error code. ``ServeErrorMiddleware``
corrects both. It runs in Serve's proxy or, behind HAProxy, in the replica. Serve finds it through
``middlewares``, which an environment variable names (see ``serving.ray_environment``).
``DeadlineHeaderMiddleware`` is its counterpart in the replica. Without ``ServeErrorMiddleware``
everything else works.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import Any

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
from serve_app.http.problems import not_found_response, problem_response
from serve_app.http.request_metrics import record_error_of_serve
from serve_app.serving.metrics import Metrics
from serve_app.serving.ray_metrics import process_metrics

# Serve would enforce this deadline itself, just before the replica does, with 408 and no code.
_TIMEOUT = b"x-request-timeout-seconds"
_TIMEOUT_INSIDE = b"foreedge-request-timeout-seconds"
# A client must neither disable the detection of disconnects nor choose its replica.
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
_SERVE_MESSAGES = {
    408: "The request was not answered within the time limit of Ray Serve.",
    500: "The replica ended while it processed the request. Try again.",
    503: "Every replica of the endpoint is busy or being replaced. Try again later.",
}


_READABLE_HEADERS = [
    "ETag",
    "Foreedge-Crop",
    "Foreedge-Fingerprint",
    "Foreedge-Mask-Confidence",
    "Foreedge-Model",
    "Foreedge-Subject",
    "Retry-After",
    "Server-Timing",
]
"""Headers of an answer that a page of another origin may read."""


def middlewares() -> list[Middleware]:
    """Return the middleware for Serve to wrap around its proxy."""
    return [Middleware(ServeErrorMiddleware)]


class ServeErrorMiddleware:
    """Hides some request headers from Serve, and gives Serve's own errors a code."""

    def __init__(self, app: ASGIApp, metrics: Metrics | None = None) -> None:
        """Wrap an application.

        Args:
            app: Application to wrap.
            metrics: What to record Serve's errors to. None stands for those of this process.
        """
        self._app = app
        self._metrics = process_metrics() if metrics is None else metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False
        disconnected = False
        replaced_status = 0

        async def receive_noted() -> Message:
            nonlocal disconnected
            message = await receive()
            disconnected = disconnected or message["type"] == "http.disconnect"
            return message

        async def send_unless_replaced(message: Message) -> None:
            nonlocal started, replaced_status
            if message["type"] == "http.response.start":
                if _is_serve_error(message):
                    replaced_status = message["status"]
                else:
                    started = True
            if not replaced_status:
                await send(message)

        await self._app(_scope_for_serve(scope), receive_noted, send_unless_replaced)
        # Serve answers a client that is gone with nothing, and so do we.
        if not started and (replaced_status or not disconnected):
            await self._send_problem(replaced_status or 500, scope, receive, send)

    async def _send_problem(self, status: int, scope: Scope, receive: Receive, send: Send) -> None:
        path = Request(scope).url.path
        if status == 404:
            await not_found_response(path)(scope, receive, send)
            return
        message = _SERVE_MESSAGES.get(status, "The endpoint failed. Try again.")
        error = _SERVE_ERRORS.get(status, ModelUnavailable)(message)
        record_error_of_serve(self._metrics, error)
        await problem_response(error, path)(scope, receive, send)


class DeadlineHeaderMiddleware:
    """Restores the name of the deadline header, and answers HEAD as GET without a body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = [_restored_header(*item) for item in scope["headers"]]
        is_head = scope["method"] == "HEAD"
        method = "GET" if is_head else scope["method"]

        async def send_without_body(message: Message) -> None:
            if message["type"] == "http.response.body" and is_head:
                message = dict(message, body=b"")
            await send(message)

        await self._app(dict(scope, headers=headers, method=method), receive, send_without_body)


class RembgCorsMiddleware:
    """Lets web pages of every origin post images to rembg's API, as rembg's server does.

    Only POST is open to them. With GET the server fetches a URL, and the hosts it fetches from may
    be reachable for the server only, so no web page may read the result.
    """

    def __init__(self, app: ASGIApp, *, path: str) -> None:
        """Wrap an application.

        Args:
            app: Application to wrap.
            path: Path of the route that is opened to every origin.
        """
        self._app = app
        self._path = path
        self._app_with_cors = CORSMiddleware(
            app,
            allow_origins=["*"],
            allow_methods=["POST"],
            allow_headers=["*"],
            expose_headers=["Server-Timing"],
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        posted = scope["type"] == "http" and scope["method"] in {"POST", "OPTIONS"}
        app = self._app_with_cors if posted and scope["path"] == self._path else self._app
        await app(scope, receive, send)


class CorsMiddleware:
    """Lets web pages of the configured origins call some routes."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        paths: Collection[str],
        configured_origins: Callable[[Any], Awaitable[tuple[str, ...]]],
    ) -> None:
        """Wrap an application.

        Args:
            app: Application to wrap.
            paths: Paths of the routes that pages may call.
            configured_origins: Function from the FastAPI application to the origins. The
                configuration is not known yet when the application is made.
        """
        self._app = app
        self._paths = frozenset(paths)
        self._configured_origins = configured_origins
        self._with_cors: dict[tuple[str, ...], ASGIApp] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        app = self._app
        if scope["type"] == "http" and scope["path"] in self._paths:
            origins = await self._configured_origins(scope["app"])
            if origins:
                if origins not in self._with_cors:
                    self._with_cors[origins] = self._allowing(origins)
                app = self._with_cors[origins]
        await app(scope, receive, send)

    def _allowing(self, origins: tuple[str, ...]) -> ASGIApp:
        return CORSMiddleware(
            self._app,
            allow_origins=origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=_READABLE_HEADERS,
        )


def _scope_for_serve(scope: Scope) -> Scope:
    headers = (_hidden_header(*item) for item in scope["headers"])
    return dict(scope, headers=[item for item in headers if item is not None])


def _hidden_header(name: bytes, value: bytes) -> tuple[bytes, bytes] | None:
    """Return a header under a name that Serve does not act on, or None to drop it."""
    if name in _DROPPED:
        return None
    return (_TIMEOUT_INSIDE if name == _TIMEOUT else name), value


def _restored_header(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    return (_TIMEOUT if name == _TIMEOUT_INSIDE else name), value


def _is_serve_error(start: Message) -> bool:
    """Return whether the start of a response is one of Serve's own errors."""
    if start["status"] not in {404, *_SERVE_ERRORS}:
        return False
    types = [value for name, value in start["headers"] if name.lower() == b"content-type"]
    return not types or types[0].startswith(b"text/plain")
