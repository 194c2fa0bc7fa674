"""Facts about the machine that a report of ``foreedge smoke`` names."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from serve_app.models.engines.cpuinfo import CPUINFO, read_features


def describe_machine() -> dict[str, object]:
    """Return the architecture, the Python and the CPU of this machine."""
    return {
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "cpu_features": cpu_features(CPUINFO),
    }


def cpu_features(path: Path) -> list[str]:
    """Return the features of the CPU that choose the kernels of an engine, in alphabetical order.

    Args:
        path: File with the lines of Linux's ``/proc/cpuinfo``. Without it, none is known.
    """
    return sorted(
        read_features(path.read_text("utf-8", errors="replace") if path.is_file() else "")
    )


def explain_crash(path: Path, machine: str) -> str:
    """Return what a crash of ONNX Runtime may have to do with the files about the CPU.

    On arm64, ONNX Runtime 1.32 ends with a segmentation fault when it is imported if it cannot
    make out the CPU from ``/proc/cpuinfo``.

    Args:
        path: ``/proc/cpuinfo``.
        machine: Architecture, as ``uname -m`` spells it.
    """
    try:
        fields = _fields(path)
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


def _fields(path: Path) -> dict[str, str]:
    """Return the lines of the first processor."""
    first = path.read_text("utf-8", errors="replace").split("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}
