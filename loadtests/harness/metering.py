"""What a measurement cost: CPU seconds and memory of a tree of processes, by what they are."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import psutil

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


def run_workers_beside_others() -> None:
    """Let Ray's workers, where it is started from here, run at the priority of everything else.

    Ray gives them niceness 15: clients, peers and whatever this machine does would go first.
    """
    os.environ.setdefault("RAY_worker_niceness", "0")
