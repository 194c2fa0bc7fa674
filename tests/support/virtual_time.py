"""A clock that moves only when the event loop has nothing else to do."""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine
from typing import Any


class ClockSelector(selectors.SelectSelector):
    """A selector that moves its clock by the time that it is asked to wait, and does not wait."""

    now = 0.0
    """Virtual time in seconds."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "nothing will ever happen again"
            self.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time jumps to the next timer as soon as there is nothing to do."""

    def __init__(self) -> None:
        self._clock = ClockSelector()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now


def run(scenario: Coroutine[Any, Any, None]) -> None:
    """Run a scenario, which has a day of virtual time."""

    async def limited() -> None:
        async with asyncio.timeout(86_400):
            await scenario

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(limited())


def virtual(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an asynchronous test in virtual time."""

    @functools.wraps(test)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        run(test(*args, **kwargs))

    return wrapper


def now() -> float:
    """Return the virtual time in seconds."""
    return asyncio.get_running_loop().time()
