"""The systems that are compared, and how each one is run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console

from loadtests.harness.application import (
    Round,
    engine_settings,
    running_application,
    single_machine_settings,
)
from loadtests.harness.results import OUT
from loadtests.harness.shaped_models import BenchmarkModel
from loadtests.peers.processes import Measure
from loadtests.peers.servers import fastest_rembg_s, litserve, mosec, rembg_s
from loadtests.peers.workers import piped_programs, rembg_p
from serve_app.config import AppConfig
from serve_app.contracts.precision import Accuracy
from serve_app.errors import InternalError, InvalidConfig
from serve_app.models.engines.choice import choose_pair
from serve_app.models.engines.network import EXACT, Pair
from serve_app.models.engines.processor import this_machine
from serve_app.models.engines.records import derived_folder
from serve_app.models.registry import locate_weights

_CORES = os.cpu_count() or 1
_CLIENTS = 3 * _CORES
"""Clients of Foreedge: each core works on one image while one arrives and one leaves."""


@dataclass(frozen=True, slots=True)
class SystemGroup:
    """Systems that are started together and measured one after the other."""

    how: dict[str, str]
    """Description of how each system is run, by its name."""
    start: Callable[[], AbstractContextManager[dict[str, Measure]]]
    """Function that runs the systems and yields how to measure each of them, by its name."""
    rounds: int | None = 3
    """Most rounds, or None for as many as are asked for."""
    images: Callable[[int], int] = lambda asked: asked // 2
    """Function that returns the images of one round, from the number that is asked for."""


def system_groups(
    model: BenchmarkModel, accuracy: Accuracy | None, console: Console
) -> list[SystemGroup]:
    """Return all systems. The settings of ``rembg s`` are the fastest of a trial.

    Args:
        model: Model that all of them run.
        accuracy: Accuracy with which Foreedge's fastest engine and precision serves. None stands
            for the default engine.
        console: Terminal for the trial.
    """
    path, pair = _copy_to_rembg_home(model), _served_pair(model, accuracy)
    threads, clients = fastest_rembg_s(path, console)
    workers = f"{_CORES} workers of 1 thread"
    rembg_s_how = (
        f"{threads or _CORES} ORT thread(s) a run, {clients} client(s), best of 6 settings"
    )
    # Foreedge has targets relative to these, so they get all rounds and all images.
    targeted = partial(SystemGroup, rounds=None, images=lambda asked: asked)
    return [
        targeted(
            {
                "foreedge-http": f"{_CORES} threads, {pair} in the pipeline, {_CLIENTS} clients",
                "foreedge-queue": f"{_CORES} threads, {pair} in the pipeline, p50 and p95 there",
            },
            partial(_foreedge, model, accuracy, pair),
        ),
        targeted(
            {"bare-loop": f"our steps in one process, {_CORES} threads, {pair}"},
            partial(_bare_loop, model, accuracy),
        ),
        targeted({"rembg-s": rembg_s_how}, partial(rembg_s, path, threads, [clients])),
        SystemGroup(
            {"rembg-remove": f"one process, {_CORES} ORT threads"},
            partial(piped_programs, "rembg-remove", ["remove_loop.py", path], 1, None),
        ),
        SystemGroup(
            {"rembg-p": f"one process, {_CORES} ORT threads, from its first file to its last"},
            partial(rembg_p, path),
        ),
        SystemGroup({"litserve": f"{workers}, {2 * _CORES} clients"}, partial(litserve, path)),
        SystemGroup({"mosec": f"{workers}, {2 * _CORES} clients"}, partial(mosec, path)),
        SystemGroup(
            {"replaced-worker": f"{workers}, no matting"},
            partial(_replaced_worker, "replaced-worker", path, "plain"),
        ),
        SystemGroup(
            {"replaced-worker-matting": f"{workers}, closed-form matting, one round"},
            partial(_replaced_worker, "replaced-worker-matting", path, "matting"),
            rounds=1,
            images=lambda _: _CORES,
        ),
    ]


def _copy_to_rembg_home(model: BenchmarkModel) -> str:
    """Copy a model's file to rembg's home, because rembg reads no other folder."""
    home = OUT / "rembg-home"
    home.mkdir(parents=True, exist_ok=True)
    copy = home / f"{model.name}.onnx"
    shutil.copyfile(model.path, copy)
    return str(copy.resolve())


def _served_pair(model: BenchmarkModel, accuracy: Accuracy | None) -> Pair:
    """Return the engine and precision that serve a model on this machine.

    Raises:
        InvalidConfig: An accuracy was asked for, and the default pair serves nevertheless.
    """
    config = AppConfig.load({**model.settings, "segmenter": engine_settings(accuracy)})
    weights = locate_weights(model.name, config)
    choice = choose_pair(weights, config.segmenter, derived_folder(config), this_machine())
    if accuracy is not None and choice.pair == EXACT:
        raise InvalidConfig(f"--accuracy {accuracy} would measure {EXACT}: {choice.because}")
    return choice.pair


@contextmanager
def _foreedge(
    model: BenchmarkModel, accuracy: Accuracy | None, pair: Pair
) -> Iterator[dict[str, Measure]]:
    settings = {**model.settings, **single_machine_settings(_CORES, accuracy)}
    with running_application(settings) as app:
        if (serving := app.pair_of(model.name)) != pair:
            raise InternalError(f"{serving} serves {model.name} instead of {pair}")
        yield {
            "foreedge-http": partial(app.over_http, clients=_CLIENTS),
            "foreedge-queue": app.through_queue,
        }


@contextmanager
def _bare_loop(model: BenchmarkModel, accuracy: Accuracy | None) -> Iterator[dict[str, Measure]]:
    def measure(paths: Sequence[Path]) -> Round:
        command = [sys.executable, "-m", "loadtests.benchmarks.bare_loop", model.name]
        command += [str(_CORES), *map(str, paths)]
        command += ["--accuracy", accuracy] if accuracy else []
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


def _replaced_worker(
    name: str, model_path: str, matting: str
) -> AbstractContextManager[dict[str, Measure]]:
    command = ["replaced_worker.py", model_path, matting]
    return piped_programs(name, command, workers=_CORES, threads=1)
