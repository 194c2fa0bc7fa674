"""Permits: a limit on how many images are at a place, requests first. Nothing is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from serve_app.contracts.priority import Priority
from serve_app.scheduling.slots import SlotQueue


class Permits:
    """A number of permits. Belongs to one event loop."""

    def __init__(self, permits: int) -> None:
        self._slots: SlotQueue[asyncio.Future[None]] = SlotQueue(permits, overlap=False)

    @asynccontextmanager
    async def hold(self, priority: Priority) -> AsyncIterator[None]:
        """Wait for a permit, and hold it until the context ends.

        Args:
            priority: Class of the image.
        """
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._slots.append(granted, priority)
        self._grant()
        try:
            await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled():
                self._give_back(priority)
            raise
        try:
            yield
        finally:
            self._give_back(priority)

    def _give_back(self, priority: Priority) -> None:
        self._slots.end(priority)
        self._grant()

    def _grant(self) -> None:
        while started := self._slots.start_next():
            granted, priority = started
            if granted.cancelled():
                self._slots.end(priority)
            else:
                granted.set_result(None)
