"""What Linux says of the processor, read without loading an engine.

``foreedge smoke`` reports it before ONNX Runtime is imported, which may crash.
"""

from __future__ import annotations

import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
"""File in which Linux describes the processors."""

_LISTS = ("flags", "Features")
"""Keys of the list of features, on x86-64 and on arm64."""
_OF_INTEREST = {
    "avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "avx512_fp16",
    "amx_bf16", "amx_int8",
    "asimdhp", "asimddp", "bf16", "i8mm", "sve", "sve2",
}  # fmt: skip
"""Features that choose the kernels of an engine, as Linux spells them."""


def read_cpuinfo() -> str:
    """Return the text of ``/proc/cpuinfo``, or nothing if there is none."""
    return CPUINFO.read_text("utf-8", errors="replace") if CPUINFO.is_file() else ""


def cpu_name() -> str:
    """Return the name of the processor. Linux on arm64 only knows the architecture."""
    return read_value(read_cpuinfo(), "model name") or platform.processor() or platform.machine()


def read_features(cpuinfo: str) -> frozenset[str]:
    """Return the features of interest in the text of ``/proc/cpuinfo``."""
    return frozenset(_OF_INTEREST.intersection(read_value(cpuinfo, *_LISTS).split()))


def read_value(cpuinfo: str, *keys: str) -> str:
    """Return the first value of one of the keys, or nothing."""
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in keys:
            return value.strip()
    return ""
