"""The outer and the inner middleware, around applications of a few lines."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from ray.serve._private.http_util import validate_http_proxy_callback_return
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import Message, Receive, Scope, Send

from serve_app.http.middleware import (
    DeadlineHeaderMiddleware,
    ServeErrorMiddleware,
    middlewares,
)
from serve_app.serving.metrics import HTTP_REFUSALS, HTTP_REQUESTS
from serve_app.serving.ray_environment import ENVIRONMENT
from tests.support.recorded_metrics import RecordedMetrics


async def ask(app: Any, method: str = "GET", **options: Any) -> httpx.Response:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.request(method, "/some/path", **options)


def app_of(response: Response | None) -> Any:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if response is not None:
            await response(scope, receive, send)

    return app


async def headers_seen(scope: Scope, receive: Receive, send: Send) -> None:
    await JSONResponse(dict(Request(scope).headers))(scope, receive, send)


@pytest.mark.parametrize(
    ("response", "status", "code"),
    [
        (PlainTextResponse("Request x timed out after 1s.", 408), 504, "deadline_exceeded"),
        (PlainTextResponse("no capacity", 503), 503, "overloaded"),
        (PlainTextResponse("Path not found", 404), 404, "not_found"),
        (None, 503, "replica_lost"),
    ],
)
async def test_errors_of_serve_get_a_code(
    response: Response | None, status: int, code: str
) -> None:
    metrics = RecordedMetrics()
    answer = await ask(ServeErrorMiddleware(app_of(response), metrics))
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    counted = {} if status == 404 else {("none", str(status), code): 1}
    assert metrics.counts(HTTP_REQUESTS) == counted
    refused = {("overloaded", "ray_serve", ""): 1} if code == "overloaded" else {}
    assert metrics.counts(HTTP_REFUSALS) == refused
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["instance"] == "/some/path"
    assert ("retry-after" in answer.headers) == (status == 503)


@pytest.mark.parametrize("status", [200, 404, 408, 503])
async def test_responses_of_a_replica_are_unchanged(status: int) -> None:
    own = JSONResponse({"code": "own"}, status, media_type="application/problem+json")
    metrics = RecordedMetrics()
    answer = await ask(ServeErrorMiddleware(app_of(own), metrics))
    assert metrics.names == frozenset(), "the routes record their own answers"
    assert (answer.status_code, answer.json()) == (status, {"code": "own"})


async def test_a_client_that_is_gone_is_no_error() -> None:
    sent: list[Message] = []

    async def proxy(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    async def disconnected() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    metrics = RecordedMetrics()
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b""}
    await ServeErrorMiddleware(proxy, metrics)(scope, disconnected, send)
    assert sent == []
    assert metrics.names == frozenset()


async def test_a_text_response_without_an_error_is_unchanged() -> None:
    assert (await ask(ServeErrorMiddleware(app_of(PlainTextResponse("success"))))).text == "success"


async def test_headers_that_serve_acts_on_do_not_reach_it() -> None:
    sent = {
        "x-request-timeout-seconds": "3",
        "x-request-disconnect-disabled": "?1",
        "serve_multiplexed_model_id": "m",
        "x-session-id": "s",
        "x-request-id": "r",
    }
    seen = (await ask(ServeErrorMiddleware(headers_seen), headers=sent)).json()
    assert sent.keys() & seen.keys() == {"x-request-id"}
    # The replica sees the deadline under its usual name, with and without a proxy.
    for app in (
        ServeErrorMiddleware(DeadlineHeaderMiddleware(headers_seen)),
        DeadlineHeaderMiddleware(headers_seen),
    ):
        assert (await ask(app, headers=sent)).json()["x-request-timeout-seconds"] == "3"


async def test_a_client_cannot_set_the_inner_header() -> None:
    forged = {"foreedge-request-timeout-seconds": "9"}
    seen = (
        await ask(ServeErrorMiddleware(DeadlineHeaderMiddleware(headers_seen)), headers=forged)
    ).json()
    assert "x-request-timeout-seconds" not in seen


async def test_head_is_a_get_without_a_body() -> None:
    async def method(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse(scope["method"])(scope, receive, send)

    assert (await ask(DeadlineHeaderMiddleware(method))).text == "GET"
    answer = await ask(DeadlineHeaderMiddleware(method), "HEAD")
    assert (answer.content, answer.headers["content-length"]) == (b"", "3")


def test_serve_accepts_the_middleware() -> None:
    assert validate_http_proxy_callback_return(middlewares())
    module, _, name = ENVIRONMENT["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"].rpartition(".")
    assert (module, name) == (middlewares.__module__, middlewares.__name__)
