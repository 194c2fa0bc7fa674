"""Results of benchmarks: statistics, the machine, JSON files, and tables in documents."""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from serve_app.models.engines.cpuinfo import cpu_name
from serve_app.models.engines.network import GATED
from serve_app.models.engines.processor import Machine, kernel_features

OUT = Path("out/bench")
"""Folder of result files."""

DOCS = Path("docs/performance.md")
"""Document with the tables of the benchmarks."""

README = Path("README.md")
"""Document with the first numbers that a reader sees."""

_AMX = "amx_bf16"

_VERSIONS = ("foreedge", "ray", "onnxruntime", "numpy", "Pillow", "isal", "opencv-python-headless")


def describe_machine() -> dict[str, Any]:
    """Return the properties of this machine that results depend on."""
    return {
        "cpu": cpu_name(),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in _VERSIONS},
    }


def describe_measurement(module: str) -> dict[str, Any]:
    """Return the machine, the time and the command line of a measurement.

    Args:
        module: Name of the module that ``python -m`` runs.
    """
    return {
        "machine": describe_machine(),
        "measured_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": " ".join([f"python -m {module}", *sys.argv[1:]]),
    }


def processor_marker(marker: str, machine: Machine) -> str:
    """Return the marker of a table on a kind of processor, so that no other kind replaces it.

    Processors differ most by the kernels of bfloat16.

    Args:
        marker: Marker of the table of a processor with AMX.
        machine: Machine that measures.
    """
    kernels = "-".join(kernel_features(GATED[0], machine))
    return marker if kernels == _AMX else f"{marker}-{kernels or machine.architecture}"


def measure_busy_cores() -> float:
    """Return how many cores other work keeps busy, measured over a second."""
    share = float(psutil.cpu_percent(interval=1)) / 100
    return round(share * (os.cpu_count() or 1), 2)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which a share of the values lies."""
    if len(values) < 2:
        return values[0]
    return statistics.quantiles(values, n=100, method="inclusive")[round(share * 100) - 1]


def median_of(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the median of each number over rounds. A missing number counts as 0."""
    names = {name for numbers in rounds for name in numbers}
    return {n: statistics.median(one.get(n, 0.0) for one in rounds) for n in sorted(names)}


def write_result(name: str, content: dict[str, Any]) -> Path:
    """Write a result as JSON into ``out/bench``, and return the file's path."""
    path = OUT / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")
    return path


def write_between_markers(document: Path, name: str, content: str) -> None:
    """Replace the text between two markers of a document in place.

    Raises:
        ValueError: The document has no such markers.
    """
    document.write_text(replace_between_markers(document.read_text(), name, content))


def replace_between_markers(text: str, name: str, content: str) -> str:
    """Return a document with the text between the two markers of a name replaced.

    Raises:
        ValueError: The document has no such markers.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"the document lacks the markers {begin} and {end}")
    return f"{before}{begin}\n{content}\n{end}{after}"
