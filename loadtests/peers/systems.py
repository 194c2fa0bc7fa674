"""The systems that are compared: how each is started, driven and stopped."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rich.console import Console

from ingest.local.ports import free_port, is_free
from loadtests.harness.application import Round, on_one_machine, post_all, running
from loadtests.harness.corpus import corpus
from loadtests.harness.metering import Meter
from loadtests.harness.results import OUT
from loadtests.harness.shaped_models import BenchmarkModel
from serve_app.errors import DeadlineExceeded, InternalError

PYTHON = Path(".venv-peers/bin/python")
"""Of the peers' environment."""

Measure = Callable[[Sequence[Path]], Round]

_REMBG = str(PYTHON.parent.absolute() / "rembg")
_PROGRAMS = Path(__file__).parent / "programs"
_CORES = os.cpu_count() or 1
_CLIENTS = 3 * _CORES
"""Of Foreedge: a core works on one image, while one comes and one goes."""
_START_TIMEOUT_S = 90.0
_STOP_TIMEOUT_S = 10.0
_PROBED_IMAGES = 8
_PROBED_CLIENTS = (1, _CORES, 2 * _CORES)


@dataclass(frozen=True, slots=True)
class Group:
    """Systems that are started together and measured one after the other."""

    how: dict[str, str]
    """By the system's name: how it was run, in words."""
    start: Callable[[], AbstractContextManager[dict[str, Measure]]]
    rounds: int | None = 3
    """At most; None is as many as are asked for."""
    images: Callable[[int], int] = lambda asked: asked // 2
    """Of one round, from how many are asked for."""


def groups(model: BenchmarkModel, console: Console) -> list[Group]:
    """Return all systems; the settings of ``rembg s`` are chosen by a trial of each."""
    path = _in_rembg_home(model)
    threads, clients = _best_of_rembg_s(path, console)
    one_each = f"{_CORES} workers of 1 thread"
    served = f"{threads or _CORES} ORT thread(s) a run, {clients} client(s): the best of 6 settings"
    twice = 2 * _CORES
    # Aims are close to these: they get all rounds and all photographs.
    compared = partial(Group, rounds=None, images=lambda asked: asked)
    return [
        compared(
            {
                "foreedge-http": f"{_CORES} threads, model in the pipeline, {_CLIENTS} clients",
                "foreedge-queue": f"{_CORES} threads, model in the pipeline; p50, p95: there",
            },
            lambda: _foreedge(model),
        ),
        compared(
            {"bare-loop": f"our steps in one process, {_CORES} threads"}, lambda: _bare(model)
        ),
        compared({"rembg-s": served}, lambda: _rembg_s(path, threads, clients)),
        Group(
            {"rembg-remove": f"one process, {_CORES} ORT threads"},
            lambda: _programs("rembg-remove", ["remove_loop.py", path], 1, None),
        ),
        Group(
            {"rembg-p": f"one process, {_CORES} ORT threads; from its first file to its last"},
            lambda: _rembg_p(path),
        ),
        Group({"litserve": f"{one_each}, {twice} clients"}, lambda: _litserve(path)),
        Group({"mosec": f"{one_each}, {twice} clients"}, lambda: _mosec(path)),
        Group(
            {"replaced-worker": f"{one_each}, no matting"},
            lambda: _programs("replaced-worker", ["replaced_worker.py", path, "plain"], _CORES, 1),
        ),
        Group(
            {"replaced-worker-matting": f"{one_each}, closed-form matting; one round"},
            lambda: _programs(
                "replaced-worker-matting", ["replaced_worker.py", path, "matting"], _CORES, 1
            ),
            rounds=1,
            images=lambda _: _CORES,
        ),
    ]


def _in_rembg_home(model: BenchmarkModel) -> str:
    """Return a model's file in rembg's home: it reads no other folder."""
    home = OUT / "rembg-home"
    home.mkdir(parents=True, exist_ok=True)
    copy = home / f"{model.name}.onnx"
    shutil.copyfile(model.path, copy)
    return str(copy.resolve())


@dataclass(slots=True)
class Running:
    """Processes of a peer, as they are measured."""

    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def meters(self) -> list[Meter]:
        """Return a meter for each, which begins now."""
        return [Meter(process.pid, itself=True) for process in self.processes]


@contextmanager
def _started(
    commands: Sequence[Sequence[str]], model_path: str, threads: int | None, **environment: str
) -> Iterator[Running]:
    """Run commands with the peers' Python; they end, with their children, with the context."""
    variables = {**os.environ, "U2NET_HOME": str(Path(model_path).parent), **environment}
    variables.pop("OMP_NUM_THREADS", None)
    if threads is not None:
        # rembg's only setting for it.
        variables["OMP_NUM_THREADS"] = str(threads)
    found = Running()
    try:
        with tempfile.TemporaryFile("w+") as log:
            for command in commands:
                found.processes.append(
                    subprocess.Popen(
                        [str(PYTHON.absolute()), *command],
                        env=variables,
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE if _talks(command) else log,
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


def _talks(command: Sequence[str]) -> bool:
    """Return whether a program answers on its output."""
    return command[0].endswith(("remove_loop.py", "replaced_worker.py"))


def _stop(process: subprocess.Popen[str]) -> None:
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


def _total(meters: Sequence[Meter]) -> tuple[dict[str, float], dict[str, float]]:
    """Return CPU seconds and peak memory of several trees."""
    cpu_s = sum(sum(meter.cpu_s().values()) for meter in meters)
    peak_mb = sum(sum(meter.peak_mb().values()) for meter in meters)
    return {"all": cpu_s}, {"all": peak_mb}


@contextmanager
def _foreedge(model: BenchmarkModel) -> Iterator[dict[str, Measure]]:
    with running({**model.settings, **on_one_machine(_CORES)}) as app:
        yield {
            "foreedge-http": lambda paths: app.over_http(paths, _CLIENTS),
            "foreedge-queue": app.through_queue,
        }


@contextmanager
def _bare(model: BenchmarkModel) -> Iterator[dict[str, Measure]]:
    def measure(paths: Sequence[Path]) -> Round:
        command = [sys.executable, "-m", "loadtests.benchmarks.bare_loop", model.name]
        command += [str(_CORES), *map(str, paths)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
        found = json.loads(done.stdout)
        count = len(paths)
        return Round(
            count,
            count / found["images_per_s"],
            found["latencies_s"],
            {"all": found["cpu_s_per_image"] * count},
            {"all": found["peak_mb"]},
            round(found["png_mb_per_image"] * count * 1e6),
        )

    yield {"bare-loop": measure}


@contextmanager
def _programs(
    name: str, command: Sequence[str], workers: int, threads: int | None
) -> Iterator[dict[str, Measure]]:
    """Run programs that read lists of photographs and answer with their times."""
    full = [str(_PROGRAMS / command[0]), *command[1:]]
    with _started([full] * workers, command[1], threads) as found:

        def measure(paths: Sequence[Path]) -> Round:
            meters = found.meters()
            for number, process in enumerate(found.processes):
                names = [str(path.resolve()) for path in paths[number::workers]]
                _pipe(process.stdin).write(json.dumps(names) + "\n")
                _pipe(process.stdin).flush()
            answers = [_answer(process) for process in found.processes]
            cpu_s, peak_mb = _total(meters)
            return Round(
                len(paths),
                max(answer["wall_s"] for answer in answers),
                [latency for answer in answers for latency in answer["latencies_s"]],
                cpu_s,
                peak_mb,
                sum(answer["output_bytes"] for answer in answers),
            )

        yield {name: measure}


def _pipe(pipe: Any) -> Any:
    if pipe is None:
        raise InternalError("the process has no pipe")
    return pipe


def _answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Return a program's next answer; pymatting prints advice between them."""
    for line in _pipe(process.stdout):
        if line.startswith("{"):
            found: dict[str, Any] = json.loads(line)
            return found
    raise InternalError(f"{process.args!r} ended")


@contextmanager
def _rembg_s(path: str, threads: int | None, *clients: int) -> Iterator[dict[str, Measure]]:
    """Run the server; with several numbers of clients, each is a system of its own."""
    port = free_port()
    command = [_REMBG, "s", "--host", "127.0.0.1", "--port", str(port), "--no-ui"]
    fields = {"model": "u2net_custom"}
    extras = quote(json.dumps({"model_path": path}))
    url = f"http://127.0.0.1:{port}/api/remove?extras={extras}"
    with _started([command], path, threads) as found:
        _wait_for(port, found)

        def measure(paths: Sequence[Path], number: int) -> Round:
            return _post(url, paths, number, found, fields)

        names = ["rembg-s", *(f"rembg-s, {number} clients" for number in clients[1:])]
        yield {
            name: partial(measure, number=number)
            for name, number in zip(names, clients, strict=True)
        }


@contextmanager
def _litserve(path: str) -> Iterator[dict[str, Measure]]:
    port = free_port()
    command = [str(_PROGRAMS / "litserve_server.py"), path, str(port), str(_CORES)]
    url = f"http://127.0.0.1:{port}/predict"
    with _started([command], path, 1) as found:
        _wait_for(port, found)
        yield {"litserve": lambda paths: _post(url, paths, 2 * _CORES, found, {})}


@contextmanager
def _mosec(path: str) -> Iterator[dict[str, Measure]]:
    port = free_port()
    command = [str(_PROGRAMS / "mosec_server.py"), "--address", "127.0.0.1", "--port", str(port)]
    command += ["--timeout", "120000"]
    url = f"http://127.0.0.1:{port}/inference"
    with _started([command], path, 1, MODEL=path, WORKERS=str(_CORES)) as found:
        _wait_for(port, found)
        yield {"mosec": lambda paths: _post(url, paths, 2 * _CORES, found, None)}


def _post(
    url: str, paths: Sequence[Path], clients: int, found: Running, fields: dict[str, str] | None
) -> Round:
    """Drive a server in a closed loop; ``fields`` None posts raw bodies."""
    images = [path.read_bytes() for path in paths]
    meters = found.meters()
    answers = post_all(url, images, clients, multipart=fields is not None, fields=fields)
    cpu_s, peak_mb = _total(meters)
    return Round(
        len(images), answers.wall_s, answers.latencies_s, cpu_s, peak_mb, answers.output_bytes
    )


def _wait_for(port: int, found: Running) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while is_free("127.0.0.1", port):
        if any(process.poll() is not None for process in found.processes):
            raise InternalError("the server ended")
        if time.monotonic() > deadline:
            raise DeadlineExceeded("the server did not start")
        time.sleep(0.2)


@contextmanager
def _rembg_p(path: str) -> Iterator[dict[str, Measure]]:
    """Run the command once for each measurement: its start is not counted."""

    def measure(paths: Sequence[Path]) -> Round:
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder, "in"), Path(folder, "out")
            source.mkdir()
            for number, photograph in enumerate(paths):
                (source / f"{number}.jpg").symlink_to(photograph.resolve())
            extras = json.dumps({"model_path": path})
            command = [_REMBG, "p", "-m", "u2net_custom", "-x", extras]
            with _started([[*command, str(source), str(target)]], path, None) as found:
                (process,) = found.processes
                _until_first(target, process)
                meters = found.meters()
                peak_mb: dict[str, float] = {}
                while process.poll() is None and len(list(target.glob("*.png"))) < len(paths):
                    cpu_s, peak_mb = _total(meters)
                    time.sleep(0.05)
                files = sorted(target.glob("*.png"), key=lambda file: file.stat().st_mtime_ns)
                if len(files) != len(paths):
                    raise InternalError(f"rembg p wrote {len(files)} of {len(paths)} files")
            times = [file.stat().st_mtime for file in files]
            latencies = [after - before for before, after in itertools.pairwise(times)]
            written = sum(file.stat().st_size for file in files[1:])
        return Round(len(paths) - 1, times[-1] - times[0], latencies, cpu_s, peak_mb, written)

    yield {"rembg-p": measure}


def _until_first(folder: Path, process: subprocess.Popen[str]) -> None:
    while not list(folder.glob("*.png")):
        if process.poll() is not None:
            raise InternalError("rembg p ended without a result")
        time.sleep(0.01)


def _best_of_rembg_s(path: str, console: Console) -> tuple[int | None, int]:
    """Return threads of a run (None: rembg's default, all cores) and clients."""
    paths = corpus("1600x1200", _PROBED_IMAGES)
    rates: dict[tuple[int | None, int], float] = {}
    for threads in (None, 1):
        with _rembg_s(path, threads, *_PROBED_CLIENTS) as systems:
            for clients, measure in zip(_PROBED_CLIENTS, systems.values(), strict=True):
                measure(paths[:2])
                rate = rates[threads, clients] = measure(paths).numbers()["images_per_s"]
                console.print(
                    f"  rembg s, {threads or 'default'} ORT threads, {clients} clients: "
                    f"{rate:.2f}/s",
                    highlight=False,
                )
    return max(rates, key=lambda setting: rates[setting])
