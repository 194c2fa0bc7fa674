"""glibc's malloc in a process that allocates many large images: what it keeps, and how long."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_logger = logging.getLogger(__name__)

# Parameters of mallopt in glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3

_MMAP_FROM_BYTES = 32 * 1024 * 1024
"""Size from which glibc maps each allocation on its own, in bytes. This is glibc's maximum, and
equals 8 million pixels as RGBA."""
_KEPT_BYTES = 256 * 1024 * 1024
_GROWN_BY_BYTES = 64 * 1024 * 1024
_IDLE_S = 10.0
"""Time, in seconds, after the last image, in which freed memory is kept for the next one."""


def keep_freed_memory() -> None:
    """Keep freed memory in the process, instead of returning it to the kernel.

    By default, glibc maps fresh memory for every array of a few MB, and the kernel must clear all
    of its pages. That took 7 to 12 % of the CPU time of a 1600 x 1200 image (docs/performance.md).
    With another C library, this function does nothing.
    """
    mallopt = _find_function("mallopt")
    settings = (
        (_M_MMAP_THRESHOLD, _MMAP_FROM_BYTES),
        (_M_TRIM_THRESHOLD, _KEPT_BYTES),
        (_M_TOP_PAD, _GROWN_BY_BYTES),
    )
    if mallopt is None or not all(mallopt(name, value) for name, value in settings):
        _logger.info("The malloc of this C library has no setting to keep freed memory")


def return_freed_memory() -> None:
    """Return freed memory of all threads to the kernel. With another C library, it does nothing.

    It takes some milliseconds for each GB, during which no thread can allocate.
    """
    trim = _find_function("malloc_trim")
    if trim is not None:
        trim(0)


class IdleMemory:
    """Returns freed memory to the kernel when a replica has been idle. Belongs to one event loop.

    Without it, a replica keeps the most memory that its images ever took at once.
    """

    def __init__(self, idle_s: float = _IDLE_S) -> None:
        """Wait for the first image.

        Args:
            idle_s: Time without an image, in seconds, after which freed memory is returned.
        """
        self._idle_s = idle_s
        self._images = 0
        self._timer: asyncio.TimerHandle | None = None
        self._returning: asyncio.Future[None] | None = None

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep freed memory until the context ends, and for a while after that."""
        self._images += 1
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        try:
            yield
        finally:
            self._images -= 1
            if not self._images:
                loop = asyncio.get_running_loop()
                self._timer = loop.call_later(self._idle_s, self._return_memory)

    def _return_memory(self) -> None:
        self._timer = None
        # In a thread, because the event loop answers health checks. The event loop keeps only a
        # weak reference to what it waits for.
        loop = asyncio.get_running_loop()
        self._returning = loop.run_in_executor(None, return_freed_memory)


def _find_function(name: str) -> Any:
    """Return a function of the C library, or None if it has none of this name."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
