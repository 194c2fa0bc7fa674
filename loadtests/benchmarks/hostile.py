"""Good clients next to hostile uploads: ``make bench-hostile``.

``python -m loadtests.benchmarks.hostile`` starts the application on this machine. Eight clients
post images, first alone, and then while a hostile file is uploaded each second. The health of
the application is asked for once a second all the time. All share the same cores.
"""

from __future__ import annotations

import argparse
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import urllib3
from rich.console import Console
from rich.table import Table

from ingest.local.photographs import make_photographs
from loadtests.harness.application import running_application
from loadtests.harness.corpus import FOLDER
from loadtests.harness.hostile_files import hostile_files
from loadtests.harness.metering import Meter, ray_part
from loadtests.harness.results import (
    OUT,
    describe_measurement,
    measure_busy_cores,
    percentile,
    write_result,
)
from loadtests.harness.shaped_models import benchmark_model

_CLIENTS = 8
_SIZE, _SEED, _DIFFERENT = (800, 600), 92_000, 8
_PERIOD_S = 1.0
_TIMEOUT_S = 60.0
_HEALTH_TIMEOUT_S = 5.0
"""Time within which a health check must be answered. Kubernetes gives 1 to 5 s as a rule."""
_UPLOADS = 16
"""Most hostile uploads at the same time."""
_WARM_S = 5.0


@dataclass(slots=True)
class Phase:
    """What clients saw during one phase of the benchmark."""

    good_s: list[float] = field(default_factory=list)
    """Latencies of good images, in seconds."""
    good_failures: Counter[str] = field(default_factory=Counter)
    health_s: list[float] = field(default_factory=list)
    """Latencies of health checks, in seconds."""
    failed_health_checks: int = 0
    hostile: Counter[str] = field(default_factory=Counter)
    """Statuses of the hostile uploads."""
    hostile_s: list[float] = field(default_factory=list)
    """Latencies of the hostile uploads, in seconds."""

    def numbers(self) -> dict[str, Any]:
        """Return the phase as values for JSON, in milliseconds."""
        return {
            "images": len(self.good_s),
            "failed_images": dict(self.good_failures),
            "p50_ms": round(1000 * percentile(self.good_s, 0.50), 1),
            "p99_ms": round(1000 * percentile(self.good_s, 0.99), 1),
            "health_checks": len(self.health_s),
            "failed_health_checks": self.failed_health_checks,
            "health_p99_ms": round(1000 * percentile(self.health_s, 0.99), 1),
            "hostile_statuses": dict(self.hostile),
            "hostile_most_s": round(max(self.hostile_s, default=0.0), 2),
        }


class Clients:
    """Clients of an application."""

    def __init__(
        self,
        url: str,
        images: Sequence[bytes],
        hostile: Sequence[Path],
        *,
        health_timeout_s: float = _HEALTH_TIMEOUT_S,
    ) -> None:
        self._url = url
        self._health_timeout_s = health_timeout_s
        self._images = images
        self._hostile = cycle(hostile)
        self._pool = urllib3.PoolManager(maxsize=_CLIENTS + _UPLOADS + 1, retries=False)

    def run(self, seconds: float, *, hostile: bool) -> Phase:
        """Run a phase.

        Args:
            seconds: Length of the phase.
            hostile: Whether hostile files are uploaded.
        """
        phase, stop = Phase(), threading.Event()
        with ThreadPoolExecutor(_CLIENTS + _UPLOADS + 1) as threads, _set_at_end(stop):
            work = [threads.submit(self._post_good, n, phase, stop) for n in range(_CLIENTS)]
            work.append(threads.submit(self._check_health, phase, stop))
            ends_at = time.monotonic() + seconds
            while time.monotonic() < ends_at:
                if hostile:
                    work.append(threads.submit(self._post_hostile, next(self._hostile), phase))
                time.sleep(_PERIOD_S)
            stop.set()
            for each in work:
                each.result()
        return phase

    def _post(self, data: bytes) -> tuple[str, float]:
        """Return the status of an upload, or the failure of the connection, and its seconds."""
        began_at = time.perf_counter()
        try:
            response = self._pool.request(
                "POST", f"{self._url}/v1/cutout?min_subject_px=0", body=data, timeout=_TIMEOUT_S
            )
            status = str(response.status)
        except urllib3.exceptions.HTTPError as error:
            status = type(error).__name__
        return status, time.perf_counter() - began_at

    def _post_good(self, client: int, phase: Phase, stop: threading.Event) -> None:
        number = client
        while not stop.is_set():
            status, elapsed_s = self._post(self._images[number % len(self._images)])
            number += 1
            if status == "200":
                phase.good_s.append(elapsed_s)
            else:
                phase.good_failures[status] += 1

    def _post_hostile(self, file: Path, phase: Phase) -> None:
        status, elapsed_s = self._post(file.read_bytes())
        phase.hostile[status] += 1
        phase.hostile_s.append(elapsed_s)

    def _check_health(self, phase: Phase, stop: threading.Event) -> None:
        while not stop.wait(_PERIOD_S):
            began_at = time.perf_counter()
            try:
                response = self._pool.request(
                    "GET", f"{self._url}/readyz", timeout=self._health_timeout_s
                )
                phase.failed_health_checks += response.status != 200
            except urllib3.exceptions.HTTPError:
                phase.failed_health_checks += 1
            phase.health_s.append(time.perf_counter() - began_at)


@contextmanager
def _set_at_end(event: threading.Event) -> Iterator[None]:
    try:
        yield
    finally:
        event.set()


def write_hostile_files(folder: Path) -> list[Path]:
    """Write every hostile file once, and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, make in hostile_files().items():
        path = folder / name
        if not path.exists():
            path.write_bytes(make())
        paths.append(path)
    return paths


def main() -> None:
    """Measure, and print and write the result."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.benchmarks.hostile",
        description="Measure good clients next to hostile uploads.",
    )
    parser.add_argument("--seconds", type=float, default=120, help="seconds of hostile uploads")
    parser.add_argument("--quiet-seconds", type=float, default=30, help="seconds without them")
    parser.add_argument("--model", default="folio", help="name of a benchmark model")
    options = parser.parse_args()
    console = Console()
    photographs = make_photographs(FOLDER / "hostile", _DIFFERENT, _SEED, sizes=(_SIZE,), keep=True)
    hostile = write_hostile_files(OUT / "hostile")
    busy = measure_busy_cores()
    settings = dict(benchmark_model(options.model).settings)
    with running_application(settings, queue=False) as application:
        images = [path.read_bytes() for path in photographs]
        clients = Clients(application.url, images, hostile)
        clients.run(_WARM_S, hostile=False)
        meter = Meter(os.getpid(), ray_part)
        phases = {"quiet": clients.run(options.quiet_seconds, hostile=False)}
        quiet_mb = meter.peak_mb()
        phases["hostile"] = clients.run(options.seconds, hostile=True)
        peak_mb = meter.peak_mb()
    table = Table("uploads", "images", "p50 ms", "p99 ms", "health checks", "failed", "memory MB")
    memory = {"quiet": quiet_mb, "hostile": peak_mb}
    result: dict[str, Any] = {}
    for name, phase in phases.items():
        numbers = phase.numbers()
        result[name] = {**numbers, "peak_mb": {k: round(v) for k, v in memory[name].items()}}
        cells = ("images", "p50_ms", "p99_ms", "health_checks", "failed_health_checks")
        pipeline_mb = memory[name].get("CutoutPipeline", 0.0)
        table.add_row(name, *(f"{numbers[cell]:.0f}" for cell in cells), f"{pipeline_mb:.0f}")
    console.print(table)
    console.print(
        f"hostile uploads: {result['hostile']['hostile_statuses']}, the longest took "
        f"{result['hostile']['hostile_most_s']:.1f} s; failed images: "
        f"{result['hostile']['failed_images']}; {busy} cores were busy before"
    )
    content = {**describe_measurement("loadtests.benchmarks.hostile"), "result": result}
    console.print(f"Written to {write_result('hostile.json', content)}", highlight=False)


if __name__ == "__main__":
    main()
