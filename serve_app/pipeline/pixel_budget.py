"""A bound on the pixels that are decoded at the same time, and so on memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class PixelBudget:
    """Bounds the pixels that are decoded at the same time, and so the memory; first come first.

    Belongs to one event loop.
    """

    def __init__(self, pixels: int) -> None:
        self._total = self._free = pixels
        self._turn = asyncio.Lock()
        self._freed = asyncio.Event()

    @asynccontextmanager
    async def hold(self, pixels: int) -> AsyncIterator[None]:
        """Wait until this many pixels fit; an image over the whole budget goes alone."""
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
