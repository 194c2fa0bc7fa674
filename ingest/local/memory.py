"""The memory of this machine."""

from __future__ import annotations

import os
from pathlib import Path

_CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")
"""Limit of a container's memory in bytes, or ``max`` (cgroup v2)."""


def machine_memory() -> int:
    """Return the memory of this machine in bytes, or of the container if that has less."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        limit = _CONTAINER_LIMIT.read_text("ascii").strip()
    except OSError:
        # Not Linux, or a kernel without cgroup v2.
        return total
    return min(total, int(limit)) if limit.isdecimal() else total
