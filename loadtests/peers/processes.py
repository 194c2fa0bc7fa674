"""Processes of peers: how they are started, measured and stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ingest.local.ports import is_free
from loadtests.harness.application import Round
from loadtests.harness.metering import Meter
from serve_app.errors import DeadlineExceeded, InternalError

PYTHON = Path(".venv-peers/bin/python")
"""Python of the peers' environment."""

REMBG = str(PYTHON.parent.absolute() / "rembg")
"""The command of rembg."""

PROGRAMS = Path(__file__).parent / "programs"
"""Folder of the programs that run in the peers' environment."""

Measure = Callable[[Sequence[Path]], Round]
"""Function that takes images through a running system and returns the measurements."""

_START_TIMEOUT_S = 180.0
_STOP_TIMEOUT_S = 10.0


class PeerMeter:
    """Meter of the CPU seconds and the memory of several processes and their descendants."""

    def __init__(self, processes: Sequence[subprocess.Popen[str]]) -> None:
        self._meters = [Meter(process.pid, itself=True) for process in processes]

    def cpu_s(self) -> dict[str, float]:
        """Return the CPU seconds since the start."""
        return {"all": sum(sum(meter.cpu_s().values()) for meter in self._meters)}

    def peak_mb(self) -> dict[str, float]:
        """Return the peak resident memory so far."""
        return {"all": sum(sum(meter.peak_mb().values()) for meter in self._meters)}


@dataclass(slots=True)
class PeerProcesses:
    """Running processes of a peer."""

    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def meter(self) -> PeerMeter:
        """Return a meter that starts now."""
        return PeerMeter(self.processes)

    def wait_for_port(self, port: int) -> None:
        """Wait until a process listens on a port of this machine.

        Raises:
            InternalError: A process ended.
            DeadlineExceeded: No process listens in time.
        """
        deadline = time.monotonic() + _START_TIMEOUT_S
        while is_free("127.0.0.1", port):
            if any(process.poll() is not None for process in self.processes):
                raise InternalError("the server ended before it listened on its port")
            if time.monotonic() > deadline:
                raise DeadlineExceeded(f"the server did not start in {_START_TIMEOUT_S:.0f} s")
            time.sleep(0.2)


@contextmanager
def running_processes(
    commands: Sequence[Sequence[str]],
    model_path: str,
    *,
    threads: int | None = None,
    pipes: bool = False,
    environment: dict[str, str] | None = None,
) -> Iterator[PeerProcesses]:
    """Run commands with the peers' Python until the context ends.

    Args:
        commands: Programs with their arguments, one for each process.
        model_path: Model file. Its folder becomes rembg's home.
        threads: ONNX Runtime threads of a process, or None for rembg's default.
        pipes: Keep the standard output as a pipe, for programs that answer on it.
        environment: Other variables of the processes' environment.
    """
    variables = {**os.environ, "U2NET_HOME": str(Path(model_path).parent), **(environment or {})}
    variables.pop("OMP_NUM_THREADS", None)
    if threads is not None:
        # rembg has no other setting for it.
        variables["OMP_NUM_THREADS"] = str(threads)
    found = PeerProcesses()
    try:
        with tempfile.TemporaryFile("w+") as log:
            for command in commands:
                found.processes.append(
                    subprocess.Popen(
                        [str(PYTHON.absolute()), *command],
                        env=variables,
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE if pipes else log,
                        stderr=log,
                        text=True,
                        start_new_session=True,
                    )
                )
            try:
                yield found
            except BaseException:
                log.seek(0)
                print(log.read()[-3000:])
                raise
    finally:
        for process in found.processes:
            _stop(process)


def _stop(process: subprocess.Popen[str]) -> None:
    """Terminate a process and its session, and kill it if it does not end in time."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            continue
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
