"""What a measurement cost: CPU seconds and memory of a tree of processes, by what they are."""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

OUT = Path("out/bench")
DOCS = Path("docs/performance.md")

_VERSIONS = ("foreedge", "ray", "onnxruntime", "numpy", "Pillow", "isal", "opencv-python-headless")
_REPLICA = re.compile(r"ray::ServeReplica:[^:]*:([A-Za-z]+)")


def ray_part(command: str) -> str:
    """Return what a process of a local Foreedge is, from its command line."""
    if found := _REPLICA.match(command):
        return found[1]
    if command.startswith(("ray::Proxy", "ray::HAProxy")) or "/bin/haproxy " in command:
        return "Serve's proxy"
    if command.startswith("ray::ServeController"):
        return "Serve's controller"
    if "moto.server" in command:
        return "local S3 and SQS"
    return "Ray"


REPLICAS = ("HttpApi", "CutoutPipeline", "Segmenter", "SqsIngest")
"""What ``ray_part`` calls the processes that run our code."""

NOT_OURS = ("local S3 and SQS",)
"""What a deployment on AWS does not run."""


class Meter:
    """CPU seconds that the processes below one spend between two moments.

    What a process spends that both begins and ends in between is not seen.
    """

    def __init__(
        self, pid: int, part: Callable[[str], str] = lambda _: "all", *, itself: bool = False
    ) -> None:
        """Begin.

        Args:
            pid: Process whose children, and theirs, are measured.
            part: What a process is counted as, from its command line.
            itself: Whether the process itself is measured too.
        """
        self._root = psutil.Process(pid)
        self._part = part
        self._itself = itself
        self._before = self._cpu_s()

    def cpu_s(self) -> dict[str, float]:
        """Return the CPU seconds since the beginning, by part."""
        spent: defaultdict[str, float] = defaultdict(float)
        for (pid, part), seconds in self._cpu_s().items():
            spent[part] += seconds - self._before.get((pid, part), 0.0)
        return dict(spent)

    def peak_mb(self) -> dict[str, float]:
        """Return the peak resident memory that the processes have had so far, by part.

        Pages that processes share are counted in each.
        """
        found: defaultdict[str, float] = defaultdict(float)
        for process in self._processes():
            try:
                status = Path(f"/proc/{process.pid}/status").read_text()
                peak = re.search(r"VmHWM:\s+(\d+) kB", status)
                found[self._part(_command(process))] += int(peak[1]) / 1024 if peak else 0.0
            except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
                continue
        return dict(found)

    def _cpu_s(self) -> dict[tuple[int, str], float]:
        found = {}
        for process in self._processes():
            try:
                times = process.cpu_times()
                found[process.pid, self._part(_command(process))] = times.user + times.system
            except psutil.NoSuchProcess:
                continue
        return found

    def _processes(self) -> list[psutil.Process]:
        below = self._root.children(recursive=True)
        return [self._root, *below] if self._itself else below


def _command(process: psutil.Process) -> str:
    return " ".join(process.cmdline())


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


def run_workers_beside_others() -> None:
    """Let Ray's workers, where it is started from here, run at the priority of everything else.

    Ray gives them niceness 15: clients, peers and whatever this machine does would go first.
    """
    os.environ.setdefault("RAY_worker_niceness", "0")


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
