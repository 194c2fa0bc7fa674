"""Peers that serve HTTP: rembg's own server, LitServe and Mosec."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import quote

from rich.console import Console

from ingest.local.ports import free_port
from loadtests.harness.application import Round, post_all
from loadtests.harness.corpus import corpus
from loadtests.peers.processes import PROGRAMS, REMBG, Measure, PeerProcesses, running_processes

CUSTOM_MODEL = "u2net_custom"
"""Name that rembg has for a model file of one's own."""

_CORES = os.cpu_count() or 1
_PROBED_IMAGES = 8
_PROBED_CLIENTS = (1, _CORES, 2 * _CORES)
_PROBED_THREADS = (None, 1)


@contextmanager
def rembg_s(
    model_path: str, threads: int | None, clients: Sequence[int]
) -> Iterator[dict[str, Measure]]:
    """Run ``rembg s``, and yield how to measure it with each number of clients."""
    port = free_port()
    command = [REMBG, "s", "--host", "127.0.0.1", "--port", str(port), "--no-ui"]
    extras = quote(json.dumps({"model_path": model_path}))
    url = f"http://127.0.0.1:{port}/api/remove?extras={extras}"
    with running_processes([command], model_path, threads=threads) as server:
        server.wait_for_port(port)
        names = ["rembg-s", *(f"rembg-s, {number} clients" for number in clients[1:])]
        fields = {"model": CUSTOM_MODEL}
        yield {
            name: partial(_measure_server, server, url, fields, number)
            for name, number in zip(names, clients, strict=True)
        }


@contextmanager
def litserve(model_path: str) -> Iterator[dict[str, Measure]]:
    """Run LitServe with a worker for each core, and yield how to measure it."""
    port = free_port()
    command = [str(PROGRAMS / "litserve_server.py"), model_path, str(port), str(_CORES)]
    url = f"http://127.0.0.1:{port}/predict"
    with running_processes([command], model_path, threads=1) as server:
        server.wait_for_port(port)
        yield {"litserve": partial(_measure_server, server, url, {}, 2 * _CORES)}


@contextmanager
def mosec(model_path: str) -> Iterator[dict[str, Measure]]:
    """Run Mosec with a worker for each core, and yield how to measure it."""
    port = free_port()
    command = [str(PROGRAMS / "mosec_server.py"), "--address", "127.0.0.1", "--port", str(port)]
    command += ["--timeout", "120000"]
    url = f"http://127.0.0.1:{port}/inference"
    variables = {"MODEL": model_path, "WORKERS": str(_CORES)}
    with running_processes([command], model_path, threads=1, environment=variables) as server:
        server.wait_for_port(port)
        yield {"mosec": partial(_measure_server, server, url, None, 2 * _CORES)}


def fastest_rembg_s(model_path: str, console: Console) -> tuple[int | None, int]:
    """Try several settings of ``rembg s``, and return the fastest one.

    Returns:
        ONNX Runtime threads (None for rembg's default, all cores), and number of clients.
    """
    paths = corpus("1600x1200", _PROBED_IMAGES)
    rates: dict[tuple[int | None, int], float] = {}
    for threads in _PROBED_THREADS:
        with rembg_s(model_path, threads, _PROBED_CLIENTS) as systems:
            for clients, measure in zip(_PROBED_CLIENTS, systems.values(), strict=True):
                measure(paths[:2])
                rate = rates[threads, clients] = measure(paths).numbers()["images_per_s"]
                console.print(
                    f"  rembg s, {threads or 'default'} ORT threads, {clients} clients: "
                    f"{rate:.2f}/s",
                    highlight=False,
                )
    return max(rates, key=lambda setting: rates[setting])


def _measure_server(
    server: PeerProcesses,
    url: str,
    fields: dict[str, str] | None,
    clients: int,
    paths: Sequence[Path],
) -> Round:
    """Measure a server in a closed loop. Without fields, images are the bodies of requests."""
    images = [path.read_bytes() for path in paths]
    meter = server.meter()
    responses = post_all(url, images, clients, multipart=fields is not None, fields=fields)
    return Round(
        len(images),
        responses.wall_s,
        responses.latencies_s,
        meter.cpu_s(),
        meter.peak_mb(),
        responses.output_bytes,
    )
