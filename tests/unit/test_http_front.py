"""The middleware on both sides of the way to a replica, around applications of a few lines."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from ray.serve._private.http_util import validate_http_proxy_callback_return
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from serve_app.errors import Overloaded
from serve_app.http_front import CALLBACK, ProxyFront, ReplicaFront, middlewares, tell_load
from serve_app.http_problems import problem


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
async def test_what_the_proxy_says_gets_a_code(
    response: Response | None, status: int, code: str
) -> None:
    answer = await ask(ProxyFront(app_of(response)))
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["instance"] == "/some/path"
    assert ("retry-after" in answer.headers) == (status == 503)


@pytest.mark.parametrize("status", [200, 404, 408, 503])
async def test_what_a_replica_says_is_left_alone(status: int) -> None:
    own = JSONResponse({"code": "own"}, status, media_type="application/problem+json")
    answer = await ask(ProxyFront(app_of(own)))
    assert (answer.status_code, answer.json()) == (status, {"code": "own"})


async def test_text_of_a_replica_that_is_no_error_is_left_alone() -> None:
    assert (await ask(ProxyFront(app_of(PlainTextResponse("success"))))).text == "success"


async def test_headers_that_serve_would_act_on_do_not_reach_it() -> None:
    sent = {
        "x-request-timeout-seconds": "3",
        "x-request-disconnect-disabled": "?1",
        "serve_multiplexed_model_id": "m",
        "x-session-id": "s",
        "x-request-id": "r",
    }
    seen = (await ask(ProxyFront(headers_seen), headers=sent)).json()
    assert sent.keys() & seen.keys() == {"x-request-id"}
    # The replica finds the deadline under its own name, whether a proxy was before it or not.
    for app in (ProxyFront(ReplicaFront(headers_seen)), ReplicaFront(headers_seen)):
        assert (await ask(app, headers=sent)).json()["x-request-timeout-seconds"] == "3"


async def test_nobody_can_forge_the_inner_name() -> None:
    forged = {"foreedge-request-timeout-seconds": "9"}
    seen = (await ask(ProxyFront(ReplicaFront(headers_seen)), headers=forged)).json()
    assert "x-request-timeout-seconds" not in seen


class Busy:
    """A replica with one place, behind both middlewares; knows what reached it."""

    def __init__(self) -> None:
        self.reached = 0
        self.taken = False
        self.release = asyncio.Event()
        self.now = 0.0
        self.front = ProxyFront(ReplicaFront(self), lambda: self.now)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.reached += 1
        request = Request(scope)
        if self.taken:
            tell_load(request, 1, 4.0)
            error = problem(Overloaded("full", 5), scope["path"])
            await error(scope, receive, send)
            return
        self.taken = True
        while (await receive()).get("more_body"):
            pass
        await self.release.wait()
        self.taken = False
        await PlainTextResponse("done")(scope, receive, send)


async def test_what_a_replica_has_refused_the_proxy_refuses_at_once() -> None:
    busy = Busy()
    first = asyncio.create_task(ask(busy.front, "POST", content=b"x"))
    while not busy.taken:  # noqa: ASYNC110 - it is told by nobody
        await asyncio.sleep(0)
    refused = await ask(busy.front, "POST", content=b"x")
    assert (refused.status_code, busy.reached) == (503, 2)
    assert "foreedge-load" not in refused.headers
    for _ in range(5):
        again = await ask(busy.front, "POST", content=b"x")
        assert (again.status_code, again.json()["code"]) == (503, "overloaded")
        assert 4 <= int(again.headers["retry-after"]) <= 8
    assert busy.reached == 2, "they cost the replica nothing"
    assert (await ask(busy.front)).status_code == 503
    assert busy.reached == 3, "what posts no image is not counted"
    busy.now = 61
    assert (await ask(busy.front, "POST", content=b"x")).status_code == 503
    assert busy.reached == 4, "what was told is not believed for ever"
    busy.release.set()
    assert (await first).text == "done"
    assert (await ask(busy.front, "POST", content=b"x")).text == "done"


async def test_of_many_that_come_together_only_as_many_as_fit_reach_a_replica() -> None:
    busy = Busy()
    busy.taken = True
    assert (await ask(busy.front, "POST", content=b"x")).status_code == 503
    busy.taken = False
    asking = [asyncio.create_task(ask(busy.front, "POST", content=b"x")) for _ in range(9)]
    while sum(task.done() for task in asking) < 8:  # noqa: ASYNC110 - as above
        await asyncio.sleep(0)
    busy.release.set()
    statuses = sorted([(await task).status_code for task in asking])
    assert (statuses, busy.reached) == ([200, *[503] * 8], 2)


async def test_a_body_that_is_still_arriving_takes_no_place() -> None:
    busy = Busy()
    go_on = asyncio.Event()

    async def slow() -> Any:
        yield b"x"
        await go_on.wait()

    first = asyncio.create_task(ask(busy.front, "POST", content=slow()))
    while not busy.taken:  # noqa: ASYNC110 - as above
        await asyncio.sleep(0)
    for reached in (2, 3):
        assert (await ask(busy.front, "POST", content=b"x")).status_code == 503
        assert busy.reached == reached, "the replica decides"
    go_on.set()
    busy.release.set()
    assert (await first).text == "done"


async def test_head_is_a_get_without_a_body() -> None:
    async def method(scope: Scope, receive: Receive, send: Send) -> None:
        await PlainTextResponse(scope["method"])(scope, receive, send)

    assert (await ask(ReplicaFront(method))).text == "GET"
    answer = await ask(ReplicaFront(method), "HEAD")
    assert (answer.content, answer.headers["content-length"]) == (b"", "3")


def test_serve_takes_it() -> None:
    assert validate_http_proxy_callback_return(middlewares())
    module, _, name = CALLBACK.rpartition(".")
    assert (module, name) == (middlewares.__module__, middlewares.__name__)
