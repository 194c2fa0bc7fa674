"""Settings of glibc's malloc that suit a process which allocates many large images."""

from __future__ import annotations

import ctypes
import logging
import sys

_logger = logging.getLogger(__name__)

# Parameters of mallopt in glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3

_MMAP_FROM_BYTES = 32 * 1024 * 1024
"""Size from which glibc maps each allocation on its own, in bytes. This is glibc's maximum, and
equals 8 million pixels as RGBA."""
_KEPT_BYTES = 256 * 1024 * 1024
_GROWN_BY_BYTES = 64 * 1024 * 1024


def keep_freed_memory() -> None:
    """Keep freed memory in the process, instead of returning it to the kernel.

    By default, glibc maps fresh memory for every array of a few MB, and the kernel must clear all
    of its pages. That took 7 to 12 % of the CPU time of a 1600 x 1200 image (docs/performance.md).
    With another C library, this function does nothing.
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
        _logger.info("The malloc of this C library has no setting to keep freed memory")
