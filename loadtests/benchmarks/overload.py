"""Overload: throughput and refusals when many more clients ask than the machine can serve.

``python -m loadtests.benchmarks.overload`` (``make bench-overload``) starts the application on this
machine and finds the best throughput that a few clients reach. Then 200 clients ask at once. After
a refusal, each waits for as long as ``Retry-After`` says. The clients run on the same machine.
"""

from __future__ import annotations

import http.client
import io
import os
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import numpy as np
import orjson
import psutil
import typer
from PIL import Image
from rich.console import Console
from rich.table import Table

from ingest.local.application import serving
from ingest.local.ports import free_port
from loadtests.harness.metering import run_workers_at_normal_priority
from serve_app.config import AppConfig
from serve_app.models.folio.synthetic.photograph import draw_photograph

BEST_OF = (4, 8, 16)
"""Numbers of clients that are tried to find the best throughput."""

_IMAGES = 8
_SAMPLE_S = 0.5
_WARM_S = 6.0
_CLIENT_TIMEOUT_S = 120
_MIB = 1024 * 1024


@dataclass
class ClientPhase:
    """Responses that a number of clients received during one phase of the benchmark."""

    clients: int
    seconds: float = 0.0
    """Seconds that count. They begin when the first images have been served."""
    images: int = 0
    """Number of images served in those seconds."""
    statuses: Counter[int] = field(default_factory=Counter)
    served_ms: list[float] = field(default_factory=list)
    refused_ms: list[float] = field(default_factory=list)
    without_retry_after: int = 0
    broken: Counter[str] = field(default_factory=Counter)
    rss_mib: list[float] = field(default_factory=list)
    """Samples of the resident memory of all of Ray's processes together."""

    @property
    def images_per_s(self) -> float:
        """Images served per second."""
        return self.images / self.seconds

    def as_dict(self) -> dict[str, Any]:
        """Return the phase as values for JSON."""
        return {
            "clients": self.clients,
            "seconds": round(self.seconds, 1),
            "images_per_s": round(self.images_per_s, 2),
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "served_ms": _quantiles(self.served_ms),
            "refused_ms": _quantiles(self.refused_ms),
            "refused_over_200_ms": sum(ms > 200 for ms in self.refused_ms),
            "refused_over_200_ms_in_first_burst": sum(
                ms > 200 for ms in self.refused_ms[: self.clients]
            ),
            "without_retry_after": self.without_retry_after,
            "broken": dict(self.broken),
            "rss_mib": {"first": round(self.rss_mib[0]), "most": round(max(self.rss_mib))},
        }


class Clients:
    """Threads that each post an image as soon as their last one is answered."""

    def __init__(self, url: str, images: list[bytes]) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._images = images
        self._lock = threading.Lock()

    def run(self, clients: int, seconds: float) -> ClientPhase:
        """Run a phase, and count once the first images have been served.

        All images in progress share the same threads, in the order in which they came. With many
        clients, the first images are therefore finished late, and as many are in progress at the
        end.

        Args:
            clients: Number of clients.
            seconds: Seconds that count.
        """
        phase, stop = ClientPhase(clients), threading.Event()
        threads = [
            threading.Thread(target=self._post_until, args=(stop, number, phase))
            for number in range(clients)
        ]
        for thread in threads:
            thread.start()
        time.sleep(_WARM_S)
        with self._lock:
            before, started_at = phase.statuses[200], time.monotonic()
        while time.monotonic() - started_at < seconds:
            time.sleep(_SAMPLE_S)
            phase.rss_mib.append(_rss_mib())
        with self._lock:
            stop.set()
            phase.seconds = time.monotonic() - started_at
            phase.images = phase.statuses[200] - before
        for thread in threads:
            thread.join()
        return phase

    def _post_until(self, stop: threading.Event, number: int, phase: ClientPhase) -> None:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=_CLIENT_TIMEOUT_S)
        while not stop.is_set():
            data = self._images[number % len(self._images)]
            sent_at = time.perf_counter()
            try:
                connection.request("POST", "/v1/cutout?min_subject_px=1", data)
                response = connection.getresponse()
                response.read()
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                with self._lock:
                    if not stop.is_set():
                        phase.broken[type(error).__name__] += 1
                continue
            elapsed_ms = (time.perf_counter() - sent_at) * 1000
            retry_after = response.getheader("Retry-After")
            with self._lock:
                if stop.is_set():
                    break
                phase.statuses[response.status] += 1
                if response.status == http.client.OK:
                    phase.served_ms.append(elapsed_ms)
                elif response.status == http.client.SERVICE_UNAVAILABLE:
                    phase.refused_ms.append(elapsed_ms)
                    phase.without_retry_after += retry_after is None
            if retry_after is not None:
                stop.wait(float(retry_after))
        connection.close()


def main(
    clients: Annotated[int, typer.Option(help="Clients that ask at once.")] = 200,
    seconds: Annotated[float, typer.Option(help="Seconds of overload.")] = 60,
    best_seconds: Annotated[
        float, typer.Option(help="Seconds with each number of clients before that.")
    ] = 15,
    width: Annotated[int, typer.Option(help="Width of the images in pixels, 4:3.")] = 800,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A setting, e.g. http.max_concurrent=8.")
    ] = None,
    out: Annotated[Path, typer.Option(help="JSON file of the result.")] = Path("out/overload.json"),
) -> None:
    """Measure throughput and refusals when too many clients ask at once."""
    console = Console()
    images = [_draw_image(seed, width) for seed in range(_IMAGES)]
    args: dict[str, Any] = dict(item.split("=", 1) for item in settings or ())
    config = AppConfig.load(args)
    run_workers_at_normal_priority()
    with serving(args, port=free_port(), quiet=True) as endpoints:
        load = Clients(endpoints.http, images)
        load.run(4, 1)
        phases = [load.run(few, best_seconds) for few in BEST_OF]
        best = max(phases, key=lambda phase: phase.images_per_s)
        console.print(f"best: {best.images_per_s:.1f} images/s with {best.clients} clients")
        overload = load.run(clients, seconds)
        after = load.run(best.clients, best_seconds)
    console.print(_make_table([*phases, overload, after]))
    out.parent.mkdir(parents=True, exist_ok=True)
    result = {
        "machine": {"cpus": os.cpu_count(), "load_before": os.getloadavg()[1]},
        "config": config.model_dump(mode="json"),
        "photograph": {"width": width, "bytes": int(np.mean([len(p) for p in images]))},
        "best": [phase.as_dict() for phase in phases],
        "overload": overload.as_dict(),
        "after": after.as_dict(),
        "held": round(overload.images_per_s / best.images_per_s, 3),
    }
    out.write_bytes(orjson.dumps(result, option=orjson.OPT_INDENT_2))
    console.print(f"{result['held']:.1%} of the best throughput under overload, see {out}")


def _draw_image(seed: int, width: int) -> bytes:
    """Return a synthetic photograph as a JPEG file."""
    drawn = draw_photograph(seed, width=width, height=width * 3 // 4, kind="book")
    file = io.BytesIO()
    Image.fromarray(drawn.image).save(file, "JPEG", quality=88)
    return file.getvalue()


def _rss_mib() -> float:
    """Return the resident memory of all descendants of this process, in MiB."""
    total = 0
    for process in psutil.Process().children(recursive=True):
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total / _MIB


def _quantiles(values: list[float]) -> dict[str, float]:
    if not values:
        return {}
    return {
        name: round(float(np.quantile(values, share)), 1)
        for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99), ("max", 1.0))
    }


def _make_table(phases: list[ClientPhase]) -> Table:
    table = Table(title="Overload")
    columns = ("clients", "per s", "p50 ms", "p99", "503", "p50 ms", "p99", "max", "other")
    for name in (*columns, "MiB"):
        table.add_column(name, justify="right", no_wrap=True)
    for phase in phases:
        served, refused = _quantiles(phase.served_ms), _quantiles(phase.refused_ms)
        other = phase.statuses.total() - phase.statuses[200] - phase.statuses[503]
        table.add_row(
            str(phase.clients),
            f"{phase.images_per_s:.1f}",
            *(f"{served.get(name, 0):.0f}" for name in ("p50", "p99")),
            str(phase.statuses[503]),
            *(f"{refused.get(name, 0):.0f}" for name in ("p50", "p99", "max")),
            str(other + phase.broken.total()),
            f"{max(phase.rss_mib):.0f}",
        )
    return table


if __name__ == "__main__":
    typer.run(main)
