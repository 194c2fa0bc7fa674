"""Metrics of the requests, and the middleware that records them."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve_app.error_text import visible
from serve_app.errors import (
    ForeedgeError,
    InternalError,
    LimitReached,
    Overloaded,
    RateLimited,
    Unauthenticated,
)
from serve_app.http.problems import ERROR_IN_SCOPE
from serve_app.serving.metrics import (
    HTTP_REFUSALS,
    HTTP_REQUEST_SECONDS,
    HTTP_REQUESTS,
    IMAGES,
    BoundedLabel,
    Metrics,
)
from serve_app.serving.recent_metrics import MOST_FAILURES, RecentFailure

KEY_IN_SCOPE = "foreedge.api_key"
"""Key of an ASGI scope under which the name of the API key is left for the metrics."""

_CANCELLED = "cancelled"
"""Code of an image whose client left, or whose request took longer than its time limit."""
_NO_ROUTE = "none"
_LIMIT_OF_SERVE = "ray_serve"
_MOST_KEYS = 50
_MOST_CHARACTERS = 200
_REFUSALS = (Overloaded, RateLimited, Unauthenticated)


class RequestMetrics:
    """Records the requests of one replica, and the images that come with them."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._keys = BoundedLabel(_MOST_KEYS)
        self.failures: deque[RecentFailure] = deque(maxlen=MOST_FAILURES)

    @contextmanager
    def image(self) -> Iterator[Callable[[str], None]]:
        """Count an image by how the context ends.

        Yields:
            Function that takes the name of the model whose mask was used.
        """
        used = ""

        def note_model(name: str) -> None:
            nonlocal used
            used = name

        outcome, code = "failed", InternalError.code
        try:
            yield note_model
            outcome, code = "done", ""
        except ForeedgeError as error:
            code = error.code
            raise
        except asyncio.CancelledError:
            code = _CANCELLED
            raise
        finally:
            self._metrics.add(IMAGES, 1, "http", outcome, code, used)

    def record(self, scope: Scope, status: int, seconds: float) -> None:
        """Record a request that has ended.

        Args:
            scope: Scope of the request, with its route, its error and its API key if it has them.
            status: HTTP status. 0 if there was no answer.
            seconds: Time that the request took.
        """
        route = getattr(scope.get("route"), "path", _NO_ROUTE)
        error = scope.get(ERROR_IN_SCOPE)
        code = error.code if isinstance(error, ForeedgeError) else ""
        self._metrics.add(HTTP_REQUESTS, 1, route, str(status), code)
        self._metrics.observe(HTTP_REQUEST_SECONDS, seconds, route)
        if isinstance(error, ForeedgeError) and not isinstance(error, _REFUSALS):
            self.failures.append(_describe_failure(scope, error))
        if isinstance(error, _REFUSALS):
            limit = error.limit if isinstance(error, LimitReached) else ""
            key = self._keys.value(scope.get(KEY_IN_SCOPE, ""))
            self._metrics.add(HTTP_REFUSALS, 1, code, limit, key)


def record_error_of_serve(metrics: Metrics, error: ForeedgeError) -> None:
    """Record a request that Ray Serve answered itself, so that it reached no route.

    Args:
        metrics: What to record to.
        error: Error that the answer carries.
    """
    metrics.add(HTTP_REQUESTS, 1, _NO_ROUTE, str(error.http_status), error.code)
    if isinstance(error, _REFUSALS):
        metrics.add(HTTP_REFUSALS, 1, error.code, _LIMIT_OF_SERVE, "")


def _describe_failure(scope: Scope, error: ForeedgeError) -> RecentFailure:
    return RecentFailure(
        at_s=time.time(),
        way_in="http",
        code=error.code,
        message=error.message,
        subject=visible(f"{scope['method']} {scope['path']}")[:_MOST_CHARACTERS],
    )


class MetricsMiddleware:
    """Records each request when its last byte is sent, or when it fails."""

    def __init__(
        self, app: ASGIApp, *, find_metrics: Callable[[Any], Awaitable[RequestMetrics]]
    ) -> None:
        """Wrap an application.

        Args:
            app: Application to wrap. No other middleware may be between it and the routes.
            find_metrics: Function from the FastAPI application to what records its requests.
        """
        self._app = app
        self._find_metrics = find_metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_s = time.perf_counter()
        status = 0

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        except Exception as error:
            # Its answer is made outside of this middleware.
            status = InternalError.http_status
            scope[ERROR_IN_SCOPE] = InternalError(type(error).__name__)
            raise
        finally:
            metrics = await self._find_metrics(scope["app"])
            metrics.record(scope, status, time.perf_counter() - started_s)
