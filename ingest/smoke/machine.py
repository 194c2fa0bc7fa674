"""Facts about the machine that a report of ``foreedge smoke`` names."""

from __future__ import annotations

import os
import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")

_FAST_PATHS = {
    "asimd", "asimddp", "asimdhp", "bf16", "i8mm", "sve", "sve2",
    "sse4_1", "avx", "avx2", "f16c", "fma", "avx512f", "avx512_vnni", "avx_vnni", "amx_tile",
}  # fmt: skip
"""Features for which ONNX Runtime, OpenCV or isal have code of their own, as Linux spells them."""


def describe_machine() -> dict[str, object]:
    """Return the architecture, the Python and the CPU of this machine."""
    return {
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "cpu_features": cpu_features(CPUINFO),
    }


def cpu_features(path: Path) -> list[str]:
    """Return the features of the CPU that make a difference in speed, in alphabetical order.

    Args:
        path: File with the lines of Linux's ``/proc/cpuinfo``. Without it, none is known.
    """
    return sorted(_FAST_PATHS & set(_fields(path).get(_features_field(), "").split()))


def explain_crash(path: Path, machine: str) -> str:
    """Return what a crash of ONNX Runtime may have to do with the files about the CPU.

    On arm64, ONNX Runtime 1.32 ends with a segmentation fault when it is imported if it cannot
    make out the CPU from ``/proc/cpuinfo``.

    Args:
        path: ``/proc/cpuinfo``.
        machine: Architecture, as ``uname -m`` spells it.
    """
    try:
        fields = _fields(path, required=True)
    except OSError as error:
        return f"{path} cannot be read ({error.strerror}), which names the CPU. Mount /proc"
    if machine in {"aarch64", "arm64"} and "CPU implementer" not in fields:
        return (
            f"{path} does not describe an arm64 CPU (it has no line 'CPU implementer'), and "
            "ONNX Runtime does not start without. Mount the /proc of this machine"
        )
    return (
        f"{path} describes the CPU, so that is not the reason. Run the command on another machine "
        "with the same image, and compare"
    )


def _features_field() -> str:
    return "Features" if platform.machine() in {"aarch64", "arm64"} else "flags"


def _fields(path: Path, *, required: bool = False) -> dict[str, str]:
    """Return the lines of the first processor. No file means no lines, unless it is required."""
    if not required and not path.is_file():
        return {}
    first = path.read_text("utf-8", errors="replace").split("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}
