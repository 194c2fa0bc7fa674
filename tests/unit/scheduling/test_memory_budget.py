"""MemoryBudget: who gets bytes, who waits, and that none is lost."""

from __future__ import annotations

import asyncio
import random

import pytest

from serve_app.contracts.priority import Priority
from serve_app.scheduling.memory_budget import MemoryBudget
from serve_app.scheduling.turns import MOST_PASSES


class Images:
    """Images that hold bytes of a budget until they end."""

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self._ends: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.holding: list[str] = []

    async def add(self, name: str, size: int, priority: Priority) -> bool:
        """Add an image, and return whether it got its bytes at once."""
        self._ends[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._hold(name, size, priority))
        await asyncio.sleep(0.001)
        return name in self.holding

    async def end(self, name: str) -> None:
        self._ends[name].set()
        await asyncio.sleep(0.001)

    async def _hold(self, name: str, size: int, priority: Priority) -> None:
        async with self._budget.hold(size, priority):
            self.holding.append(name)
            await self._ends[name].wait()
        self.holding.remove(name)


async def test_bulk_images_leave_an_eighth_free_for_requests() -> None:
    images = Images(MemoryBudget(800))
    assert await images.add("b1", 400, "bulk")
    assert await images.add("b2", 300, "bulk")
    assert not await images.add("b3", 1, "bulk")
    assert await images.add("i1", 60, "interactive")
    assert await images.add("i2", 40, "interactive")
    assert not await images.add("i3", 1, "interactive")
    # A request that waits goes before the bulk image that waits for longer.
    await images.end("b2")
    assert images.holding == ["b1", "i1", "i2", "i3", "b3"]


async def test_a_large_request_is_not_passed_by_bulk_images() -> None:
    images = Images(MemoryBudget(800))
    await images.add("b1", 350, "bulk")
    await images.add("b2", 350, "bulk")
    assert not await images.add("large", 800, "interactive")
    await images.add("b3", 10, "bulk")
    await images.end("b1")
    assert images.holding == ["b2"]
    await images.end("b2")
    assert images.holding == ["large"]
    await images.end("large")
    assert images.holding == ["b3"]


async def test_an_image_larger_than_the_budget_is_alone_in_its_class() -> None:
    images = Images(MemoryBudget(800))
    assert await images.add("huge", 5_000, "bulk")
    assert not await images.add("b1", 1, "bulk")
    assert await images.add("i1", 100, "interactive")
    await images.end("huge")
    assert images.holding == ["i1", "b1"]


async def test_requests_cannot_starve_bulk_images() -> None:
    budget = MemoryBudget(800)
    images = Images(budget)
    await images.add("first", 500, "interactive")
    assert not await images.add("bulk", 700, "bulk")
    previous = "first"
    for number in range(10 * MOST_PASSES):
        name = f"i{number}"
        await images.add(name, 500, "interactive")
        await images.end(previous)
        if "bulk" in images.holding:
            break
        assert name in images.holding
        previous = name
    assert number == MOST_PASSES
    # Meanwhile small requests still go, in the eighth that bulk images leave.
    assert await images.add("small", 100, "interactive") is False
    await images.end("bulk")
    assert "small" in images.holding


async def test_a_share_can_be_returned_for_a_while_and_comes_back_first() -> None:
    budget, order = MemoryBudget(800), list[str]()
    images = Images(budget)

    async def matted() -> None:
        async with budget.hold(700, "bulk") as share:
            async with share.returned():
                order.append("returned")
                await images.add("other", 700, "bulk")
                await images.add("later", 700, "bulk")
                order.extend(images.holding)
            order.append("back")

    task = asyncio.create_task(matted())
    await asyncio.sleep(0.01)
    assert not task.done()
    await images.end("other")
    await task
    assert order == ["returned", "other", "back"]
    await asyncio.sleep(0.001)
    assert images.holding == ["later"]
    await images.end("later")
    assert budget.held == 0


async def test_a_share_that_was_returned_when_its_image_failed_is_not_returned_twice() -> None:
    budget = MemoryBudget(800)
    with pytest.raises(ValueError, match="matting"):
        async with budget.hold(700, "bulk") as share, share.returned():
            raise ValueError("matting")
    assert budget.held == 0


async def test_no_byte_is_lost_or_given_twice_when_images_are_cancelled() -> None:
    rng = random.Random(7)
    budget, most = MemoryBudget(1_000), 0
    classes: list[Priority] = ["interactive", "bulk"]

    async def image() -> None:
        nonlocal most
        async with budget.hold(rng.randrange(1, 1_500), rng.choice(classes)) as share:
            most = max(most, budget.held)
            await asyncio.sleep(rng.random() / 500)
            if rng.random() < 0.3:
                async with share.returned():
                    await asyncio.sleep(rng.random() / 500)
            most = max(most, budget.held)

    tasks = [asyncio.create_task(image()) for _ in range(400)]
    for task in rng.sample(tasks, 200):
        await asyncio.sleep(0)
        task.cancel()
    async with asyncio.timeout(60):
        await asyncio.gather(*tasks, return_exceptions=True)
    assert budget.held == 0
    assert most <= 1_000
    assert sum(task.cancelled() for task in tasks) > 100
    async with asyncio.timeout(1), budget.hold(1_000, "interactive"):
        assert budget.held == 1_000
