"""What stands between a client and Serve: ASGI middleware on both sides of the way to a replica.

Serve's proxy acts on headers of a client on its own, and answers in its own words, without a code,
where a replica does not answer. ``ProxyFront`` runs in the proxy and puts both right; Serve finds
it through ``middlewares``, whose name is the value of the environment variable ``CALLBACK_NAME``
where Ray is started. Without it everything works but for those two things.
"""

from __future__ import annotations

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
from serve_app.http_problems import problem, unknown_path

CALLBACK_NAME = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
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


def middlewares() -> list[Middleware]:
    """Return what Serve puts around its proxy."""
    return [Middleware(ProxyFront)]


class ProxyFront:
    """Runs in Serve's proxy: keeps headers from it, and turns its errors into problem documents."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        inside = dict(scope, headers=[_renamed(*item) for item in scope["headers"]])
        inside["headers"] = [item for item in inside["headers"] if item is not None]
        started = False
        replaced: Message | None = None

        async def checked(message: Message) -> None:
            nonlocal started, replaced
            if message["type"] == "http.response.start":
                if _of_proxy(message):
                    replaced = message
                    return
                started = True
            if replaced is None:
                await send(message)

        await self._app(inside, receive, checked)
        if not started:
            status = replaced["status"] if replaced else 500
            await _answer_for_proxy(status, scope, receive, send)


class ReplicaFront:
    """Runs in the replica: the deadline gets its name back, and HEAD is a GET without a body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope = dict(scope, headers=[_restored(*item) for item in scope["headers"]])
        if scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def without_body(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = dict(message, body=b"")
            await send(message)

        await self._app(dict(scope, method="GET"), receive, without_body)


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
