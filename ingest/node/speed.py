"""The speed of one engine and precision, measured in a process of its own."""

from __future__ import annotations

import multiprocessing
import resource
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from serve_app.config import SegmenterConfig
from serve_app.contracts.base import Contract
from serve_app.contracts.precision import Engine, Precision
from serve_app.errors import ModelUnavailable
from serve_app.models.engines.choice import Choice
from serve_app.models.engines.onnx_runtime import probe_image
from serve_app.models.inference import OnnxModel
from serve_app.models.registry import Weights

_STATUS = Path("/proc/self/status")
_RSS_UNIT_BYTES = 1 if sys.platform == "darwin" else 1024
"""Unit of ``ru_maxrss`` (getrusage(2))."""


class CaseSpeed(Contract):
    """What a model needs with one engine, precision and number of threads."""

    engine: Engine
    """Library that ran it."""
    precision: Precision
    """Precision that it ran in."""
    threads: int
    """Number of images at the same time."""
    images_per_s: float
    """Masks per second."""
    cpu_s_per_image: float
    """CPU seconds of the whole process for each mask."""
    peak_mb: float
    """Largest resident memory of the process, in MB, Python and libraries included."""


@dataclass(frozen=True, slots=True)
class Case:
    """What is measured."""

    weights: Weights
    """The model."""
    choice: Choice
    """Engine, precision and derived file."""
    threads: int
    """Number of images at the same time."""
    seconds: float
    """Time for which masks are computed."""


def measure_case(case: Case) -> CaseSpeed:
    """Measure a case in a new process, so that its memory and its threads are its own.

    Raises:
        ModelUnavailable: The engine cannot serve the model, or its process has died.
        InvalidConfig: The file is not an ONNX model, or its input differs from the facts.
    """
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            return pool.submit(_measure_here, case).result()
    except BrokenProcessPool as error:
        raise ModelUnavailable(
            f"{case.weights.name}: the process that measured {case.choice.pair} has died, by a "
            "crash of the engine or for lack of memory. The system's log says which"
        ) from error


def _measure_here(case: Case) -> CaseSpeed:
    model = OnnxModel(case.weights, SegmenterConfig(threads=case.threads), case.choice)
    if model.choice.refused:
        raise ModelUnavailable(f"{case.weights.name}: {model.choice.refused}")
    image, done = probe_image(model.size_px), threading.Event()

    def work() -> int:
        count = 0
        # At least one image, however short the time is.
        while not count or not done.is_set():
            model.masks(image)
            count += 1
        return count

    # The first runs take memory from the system.
    for _ in range(case.threads):
        model.masks(image)
    with ThreadPoolExecutor(case.threads) as pool:
        started_at, cpu_s = time.perf_counter(), time.process_time()
        running = [pool.submit(work) for _ in range(case.threads)]
        done.wait(case.seconds)
        done.set()
        count = sum(each.result() for each in running)
        wall_s, cpu_s = time.perf_counter() - started_at, time.process_time() - cpu_s
    return CaseSpeed(
        engine=case.choice.pair.engine,
        precision=case.choice.pair.precision,
        threads=case.threads,
        images_per_s=round(count / wall_s, 3),
        cpu_s_per_image=round(cpu_s / count, 4),
        peak_mb=round(_peak_bytes() / 1e6),
    )


def _peak_bytes() -> int:
    """Return the largest resident memory of this process, in bytes."""
    if _STATUS.is_file():
        # Linux's ru_maxrss begins with the memory of the process that started this one.
        for line in _STATUS.read_text("utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _RSS_UNIT_BYTES
