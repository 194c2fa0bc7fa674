"""MemoryBudget: a limit on the memory of all images that are decoded at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from serve_app.contracts.priority import Priority
from serve_app.scheduling.turns import TwoClassQueue

_KEPT_SHARE = 8
"""One of so many bytes is never given to bulk images."""


@dataclass(frozen=True, slots=True, eq=False)
class _Request:
    """An image that waits for its bytes."""

    size: int
    granted: asyncio.Future[None]


class MemoryBudget:
    """Limits the bytes that images hold, in the order of arrival within each class.

    Bulk images leave an eighth of the budget free, so that a request of usual size never waits for
    one of them to end. A request that does not fit waits, and no bulk image passes it. When bulk
    images are due (``TwoClassQueue``), requests only get what is left of that eighth until the
    first of them fits. Belongs to one event loop.
    """

    def __init__(self, size: int) -> None:
        """Make a budget.

        Args:
            size: Number of bytes. An image that needs more is processed alone in its class: then
                the memory exceeds the budget by what the image needs beyond it.
        """
        self._kept = size // _KEPT_SHARE
        self._most: dict[Priority, int] = {"interactive": size, "bulk": size - self._kept}
        self._size = size
        self._held: dict[Priority, int] = {"interactive": 0, "bulk": 0}
        self._waiting: TwoClassQueue[_Request] = TwoClassQueue()

    @property
    def held(self) -> int:
        """Bytes that images hold."""
        return sum(self._held.values())

    @asynccontextmanager
    async def hold(self, size: int, priority: Priority) -> AsyncIterator[Share]:
        """Wait until an image fits, and hold its bytes until the context ends.

        Args:
            size: Bytes that the image needs. More than the budget count as all of it.
            priority: Class of the image.

        Yields:
            The share, which can be returned for a while.
        """
        share = Share(self, min(size, self._most[priority]), priority)
        await share.take()
        try:
            yield share
        finally:
            share.give_back()

    async def acquire(self, size: int, priority: Priority, *, first: bool) -> None:
        """Wait until bytes are free and take them.

        Args:
            size: Number of bytes, at most what the class may hold.
            priority: Class of the image.
            first: Whether the image goes before all others of its class.
        """
        request = _Request(size, asyncio.get_running_loop().create_future())
        add = self._waiting.prepend if first else self._waiting.append
        add(request, priority)
        self._grant()
        try:
            await request.granted
        except asyncio.CancelledError:
            if request.granted.cancelled():
                self._waiting.discard(request, priority)
                self._grant()
            else:
                self.release(size, priority)
            raise

    def release(self, size: int, priority: Priority) -> None:
        """Give bytes back."""
        self._held[priority] -= size
        self._grant()

    def _grant(self) -> None:
        while (priority := self._next()) is not None:
            request = self._waiting.pop(priority)
            if not request.granted.cancelled():
                self._held[priority] += request.size
                request.granted.set_result(None)

    def _next(self) -> Priority | None:
        """Return the class whose first image goes now, or None if all must wait."""
        order = self._waiting.order()
        for priority in order:
            size = self._waiting.first(priority).size
            bound = self._most[priority]
            if priority == "interactive" and order[0] == "bulk":
                bound = self._kept
            if self._held[priority] + size <= bound and self.held + size <= self._size:
                return priority
            if priority == "interactive":
                return None
        return None


class Share:
    """The bytes of a budget that one image holds."""

    def __init__(self, budget: MemoryBudget, size: int, priority: Priority) -> None:
        self._budget = budget
        self._size = size
        self._priority = priority
        self._held = False

    async def take(self, *, first: bool = False) -> None:
        """Wait for the bytes. See ``MemoryBudget.acquire``."""
        await self._budget.acquire(self._size, self._priority, first=first)
        self._held = True

    def give_back(self) -> None:
        """Give the bytes back, unless that has been done."""
        if self._held:
            self._held = False
            self._budget.release(self._size, self._priority)

    @asynccontextmanager
    async def returned(self) -> AsyncIterator[None]:
        """Give the bytes back for the duration of the context, and wait for them at its end.

        The image goes before all others of its class then. It keeps some memory meanwhile, so the
        number of such images needs a limit of its own. If the context raises, the bytes stay
        returned.
        """
        self.give_back()
        yield
        await self.take(first=True)
