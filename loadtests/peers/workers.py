"""Peers without a server: programs that read paths from a pipe, and ``rembg p``."""

from __future__ import annotations

import itertools
import json
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loadtests.harness.application import Round
from loadtests.peers.processes import PROGRAMS, REMBG, Measure, running_processes
from loadtests.peers.servers import CUSTOM_MODEL
from serve_app.errors import InternalError


@contextmanager
def piped_programs(
    name: str, command: Sequence[str], workers: int, threads: int | None
) -> Iterator[dict[str, Measure]]:
    """Run programs that read lists of images and answer with their times.

    Args:
        name: Name of the system.
        command: File of the program in ``programs``, path of the model, other arguments.
        workers: Number of processes, which share the images.
        threads: ONNX Runtime threads of a process, or None for rembg's default.
    """
    full = [str(PROGRAMS / command[0]), *command[1:]]
    with running_processes([full] * workers, command[1], threads=threads, pipes=True) as programs:

        def measure(paths: Sequence[Path]) -> Round:
            meter = programs.meter()
            for number, process in enumerate(programs.processes):
                names = [str(path.resolve()) for path in paths[number::workers]]
                assert process.stdin is not None
                process.stdin.write(json.dumps(names) + "\n")
                process.stdin.flush()
            answers = [_read_answer(process) for process in programs.processes]
            return Round(
                len(paths),
                max(answer["wall_s"] for answer in answers),
                [latency for answer in answers for latency in answer["latencies_s"]],
                meter.cpu_s(),
                meter.peak_mb(),
                sum(answer["output_bytes"] for answer in answers),
            )

        yield {name: measure}


def _read_answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Return a program's next answer, without the advice that pymatting prints in between."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("{"):
            found: dict[str, Any] = json.loads(line)
            return found
    raise InternalError(f"the program {process.args!r} ended without an answer")


@contextmanager
def rembg_p(model_path: str) -> Iterator[dict[str, Measure]]:
    """Yield how to measure ``rembg p``.

    The command runs once for each measurement, which begins with its first result, so that the
    start of the process does not count.
    """

    def measure(paths: Sequence[Path]) -> Round:
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder, "in"), Path(folder, "out")
            source.mkdir()
            for number, path in enumerate(paths):
                (source / f"{number}.jpg").symlink_to(path.resolve())
            extras = json.dumps({"model_path": model_path})
            command = [REMBG, "p", "-m", CUSTOM_MODEL, "-x", extras, str(source), str(target)]
            with running_processes([command], model_path) as running:
                (process,) = running.processes
                _wait_for_first_file(target, process)
                meter = running.meter()
                cpu_s, peak_mb = meter.cpu_s(), meter.peak_mb()
                while process.poll() is None and len(list(target.glob("*.png"))) < len(paths):
                    cpu_s, peak_mb = meter.cpu_s(), meter.peak_mb()
                    time.sleep(0.05)
                files = sorted(target.glob("*.png"), key=lambda file: file.stat().st_mtime_ns)
                if len(files) != len(paths):
                    raise InternalError(f"rembg p wrote {len(files)} of {len(paths)} files")
            times = [file.stat().st_mtime for file in files]
            latencies = [after - before for before, after in itertools.pairwise(times)]
            written = sum(file.stat().st_size for file in files[1:])
        return Round(len(paths) - 1, times[-1] - times[0], latencies, cpu_s, peak_mb, written)

    yield {"rembg-p": measure}


def _wait_for_first_file(folder: Path, process: subprocess.Popen[str]) -> None:
    while not list(folder.glob("*.png")):
        if process.poll() is not None:
            raise InternalError("rembg p ended without a result")
        time.sleep(0.01)
