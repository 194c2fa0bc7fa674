"""A head that does not answer takes neither ``/v1/ops`` nor the threads of other requests."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ray.exceptions import RayActorError
from ray.serve.exceptions import RayServeException

from serve_app.config import AppConfig
from serve_app.http.endpoint import Endpoint
from serve_app.http.operations import describe_replicas
from serve_app.http.operations_answer import Replicas
from serve_app.http.served_application import ServedApplication
from serve_app.serving.metrics import IMAGES
from serve_app.serving.recent_metrics import RecentMetrics, RecentReport
from tests.support.http_client import NoQueue

LIMIT_S = 0.05
NOW_S = 1_000_000.0
RUNNING = [describe_replicas("HttpApi", {"RUNNING": 1})]


class OneReplica:
    """A handle to a deployment with one replica, which has processed an image."""

    def broadcast(self, method: str) -> OneReplica:
        assert method == "recent"
        return self

    async def results_async(self, *, timeout_s: float, return_exceptions: bool) -> list[Any]:
        recent = RecentMetrics(lambda: NOW_S)
        recent.note([(IMAGES, ("http", "done", "", "folio"), 1)])
        return [RecentReport(recent.values(), replica="r")]


class Controller:
    """A controller that answers when it is let."""

    def __init__(self) -> None:
        self.may_answer = threading.Event()
        self.asked = 0

    def count(self) -> list[Replicas]:
        self.asked += 1
        self.may_answer.wait()
        return RUNNING


@pytest.fixture
def controller() -> Iterator[Controller]:
    stuck = Controller()
    yield stuck
    stuck.may_answer.set()


def endpoint_of(count: Callable[[], list[Replicas]], limit_s: float = LIMIT_S) -> Endpoint:
    handle: Any = OneReplica()
    application = ServedApplication("foreedge", handle, count, limit_s)
    return Endpoint(AppConfig.load({}), handle, None, NoQueue(), application=application)


async def test_an_answer_comes_although_the_controller_does_not_answer(
    controller: Controller,
) -> None:
    found = await endpoint_of(controller.count).operations()
    assert found.replicas == []
    assert found.outcomes == {"done": 2}
    [said] = found.attention
    assert said.startswith("Serve's controller does not answer")


async def test_questions_that_nobody_waits_for_take_one_thread(controller: Controller) -> None:
    endpoint = endpoint_of(controller.count, limit_s=60)
    threads = threading.active_count()
    for _ in range(20):
        question = asyncio.create_task(endpoint.operations())
        await asyncio.sleep(0.002)
        question.cancel()
        with pytest.raises(asyncio.CancelledError):
            await question
    assert threading.active_count() <= threads + 1
    assert controller.asked == 1
    # Whoever asks now gets the answer to the first question.
    question = asyncio.create_task(endpoint.operations())
    await asyncio.sleep(0.002)
    controller.may_answer.set()
    found = await question
    assert (found.replicas, found.attention) == (RUNNING, [])
    assert controller.asked == 1


@pytest.mark.parametrize(
    "error", [RayActorError(), RayServeException("no controller")], ids=["lost", "none"]
)
async def test_a_controller_that_is_lost_is_one_that_does_not_answer(error: Exception) -> None:
    def count() -> list[Replicas]:
        raise error

    found = await endpoint_of(count).operations()
    assert found.replicas == []
    assert "Serve's controller does not answer" in found.attention[0]


async def test_a_controller_that_answers_later_is_asked_again(controller: Controller) -> None:
    handle: Any = OneReplica()
    application = ServedApplication("foreedge", handle, controller.count, LIMIT_S)
    assert await application.replicas() is None
    assert await application.replicas() is None
    assert controller.asked == 1
    controller.may_answer.set()
    async with asyncio.timeout(30):
        while (found := await application.replicas()) is None:
            pass
    assert found == RUNNING
