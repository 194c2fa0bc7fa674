"""A clock that only moves when nothing else can happen."""

from __future__ import annotations

import asyncio
import functools
import heapq
from collections.abc import Callable, Coroutine
from typing import Any


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time jumps to the next timer as soon as there is nothing to do."""

    _now = 0.0

    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        while self._scheduled and self._scheduled[0]._cancelled:
            self._timer_cancelled_count -= 1
            heapq.heappop(self._scheduled)._scheduled = False
        if not self._ready:
            assert self._scheduled, "nothing will ever happen again"
            self._now = max(self._now, self._scheduled[0]._when)
        super()._run_once()


def run(scenario: Coroutine[Any, Any, None]) -> None:
    """Run a scenario in virtual time, of which it has a day."""

    async def limited() -> None:
        async with asyncio.timeout(86_400):
            await scenario

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(limited())


def virtual(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        run(test(*args, **kwargs))

    return wrapper


def now() -> float:
    return asyncio.get_running_loop().time()
