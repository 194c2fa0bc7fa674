"""Memory of a process that works on pictures: freed pages are kept for the next one."""

from __future__ import annotations

import ctypes
import logging
import sys

_logger = logging.getLogger(__name__)

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3

_MMAP_FROM_BYTES = 32 * 1024 * 1024
"""glibc's own limit for it; what is larger (over 8 million pixels as RGBA) is mapped each time."""
_KEPT_BYTES = 256 * 1024 * 1024
_GROWN_BY_BYTES = 64 * 1024 * 1024


def keep_freed_memory() -> None:
    """Tell malloc not to give every freed picture back to the kernel.

    A picture is a few MB, for each of which glibc maps memory anew: the kernel then clears every
    page of every step of every image. That took 7 to 12 % of the CPU time of a 1600 x 1200 image
    (docs/performance.md). Does nothing where the C library is another one.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    settings = (
        (_M_MMAP_THRESHOLD, _MMAP_FROM_BYTES),
        (_M_TRIM_THRESHOLD, _KEPT_BYTES),
        (_M_TOP_PAD, _GROWN_BY_BYTES),
    )
    if mallopt is None or not all(mallopt(name, value) for name, value in settings):
        _logger.info("this C library's malloc cannot be told to keep freed memory")
