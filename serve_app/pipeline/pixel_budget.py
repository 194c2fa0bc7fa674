"""A limit on the pixels that are decoded at the same time, and thereby on memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class PixelBudget:
    """Limits the pixels that are decoded at the same time, in the order of the requests.

    Belongs to one event loop.
    """

    def __init__(self, pixels: int) -> None:
        self._total = self._free = pixels
        self._turn = asyncio.Lock()
        self._freed = asyncio.Event()

    @asynccontextmanager
    async def hold(self, pixels: int) -> AsyncIterator[None]:
        """Wait until an image fits the budget, and hold its pixels until the context ends.

        Args:
            pixels: Number of pixels of the image. If it exceeds the whole budget, the image waits
                until it is the only one.
        """
        pixels = min(pixels, self._total)
        async with self._turn:
            while self._free < pixels:
                self._freed.clear()
                await self._freed.wait()
            self._free -= pixels
        try:
            yield
        finally:
            self._free += pixels
            self._freed.set()
