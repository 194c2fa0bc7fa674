"""CPU seconds and memory of a tree of processes, by the part of the system they belong to."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import psutil

_REPLICA = re.compile(r"ray::ServeReplica:[^:]*:([A-Za-z]+)")
_LOCAL_AWS = "local S3 and SQS"

REPLICA_PARTS = ("HttpApi", "CutoutPipeline", "Segmenter", "SqsIngest")
"""Parts that run Foreedge's own code, as ``ray_part`` names them."""

NOT_IN_PRODUCTION = (_LOCAL_AWS,)
"""Parts that a deployment on AWS does not run."""


def ray_part(command: str) -> str:
    """Return the part of a local application that a process is, from its command line."""
    if found := _REPLICA.match(command):
        return found[1]
    if command.startswith(("ray::Proxy", "ray::HAProxy")) or "/bin/haproxy " in command:
        return "Serve's proxy"
    if command.startswith("ray::ServeController"):
        return "Serve's controller"
    if "moto.server" in command:
        return _LOCAL_AWS
    return "Ray"


class Meter:
    """Meter of the CPU seconds that the descendants of a process use from now on.

    A process that both starts and ends in between is not counted.
    """

    def __init__(
        self, pid: int, part: Callable[[str], str] = lambda _: "all", *, itself: bool = False
    ) -> None:
        """Start measuring.

        Args:
            pid: Process whose descendants are measured.
            part: Function that returns the part of a process from its command line.
            itself: Measure the process itself too.
        """
        self._root = psutil.Process(pid)
        self._part = part
        self._itself = itself
        self._cpu_s_at_start = self._cpu_s_by_process()

    def cpu_s(self) -> dict[str, float]:
        """Return the CPU seconds since the start, by part."""
        spent: defaultdict[str, float] = defaultdict(float)
        for (pid, part), seconds in self._cpu_s_by_process().items():
            spent[part] += seconds - self._cpu_s_at_start.get((pid, part), 0.0)
        return dict(spent)

    def peak_mb(self) -> dict[str, float]:
        """Return the peak resident memory of the processes so far, by part.

        Pages that processes share are counted in each of them.
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

    def _cpu_s_by_process(self) -> dict[tuple[int, str], float]:
        found = {}
        for process in self._processes():
            try:
                times = process.cpu_times()
                found[process.pid, self._part(_command(process))] = times.user + times.system
            except psutil.NoSuchProcess:
                continue
        return found

    def _processes(self) -> list[psutil.Process]:
        descendants = self._root.children(recursive=True)
        return [self._root, *descendants] if self._itself else descendants


def _command(process: psutil.Process) -> str:
    return " ".join(process.cmdline())


def run_workers_at_normal_priority() -> None:
    """Run the workers of a Ray that this process starts at the priority of all other processes.

    Ray gives them niceness 15, so that clients and peers on this machine would go first.
    """
    os.environ.setdefault("RAY_worker_niceness", "0")
