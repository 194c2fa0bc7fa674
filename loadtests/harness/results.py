"""Results of benchmarks: files, medians, the machine, and tables in documents."""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

OUT = Path("out/bench")


DOCS = Path("docs/performance.md")


_VERSIONS = ("foreedge", "ray", "onnxruntime", "numpy", "Pillow", "isal", "opencv-python-headless")


def machine() -> dict[str, Any]:
    """Return what the numbers of this machine depend on."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file() and (found := re.search(r"model name\s*: (.*)", cpuinfo.read_text())):
        model = found[1]
    return {
        "cpu": model,
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in _VERSIONS},
    }


def busy_elsewhere() -> float:
    """Return how many cores are busy now with something else, over a second."""
    share = float(psutil.cpu_percent(interval=1)) / 100
    return round(share * (os.cpu_count() or 1), 2)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which a share of the values lies."""
    if len(values) < 2:
        return values[0]
    return statistics.quantiles(values, n=100, method="inclusive")[round(share * 100) - 1]


def median_of(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the median of each number over rounds that all have the same ones."""
    names = {name for one in rounds for name in one}
    return {n: statistics.median(one.get(n, 0.0) for one in rounds) for n in sorted(names)}


def write(name: str, content: dict[str, Any]) -> Path:
    """Write a result into ``out/bench`` as JSON."""
    path = OUT / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")
    return path


def between_markers(text: str, name: str, content: str) -> str:
    """Return a document with what is between its two markers of a name replaced.

    Raises:
        ValueError: The document has no such markers.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"no {begin} … {end} in the document")
    return f"{before}{begin}\n{content}\n{end}{after}"
