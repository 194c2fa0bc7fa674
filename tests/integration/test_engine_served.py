"""A replica that was killed comes back with the same engine and precision."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from ingest.cli.gate import bundled_images
from ingest.local.ports import free_port
from serve_app.config import AppConfig
from serve_app.models.derive import derive_graph, pass_gate
from serve_app.models.engines.network import EXACT, GATED, Pair
from serve_app.models.engines.processor import pairs_by_speed, this_machine
from serve_app.models.engines.records import derived_folder, derived_path, write_derived
from serve_app.models.gate_images import shrink_images
from serve_app.models.registry import locate_weights
from tests.support.images import book, jpeg
from tests.support.replica_processes import replica_processes

FOREEDGE = Path(sys.executable).parent / "foreedge"
WITHIN_S = 120.0


def write_gate(home: Path) -> Pair:
    """Write the files of the fastest pair of this machine, and return the pair that will serve.

    int8 has no part in it: to quantize takes too long.
    """
    machine = this_machine()
    pairs = [pair for pair in pairs_by_speed(machine) if pair in GATED]
    if not pairs:
        return EXACT
    config = AppConfig.load({"models": ["folio"], "u2net_home": home})
    weights = locate_weights("folio", config)
    images = list(shrink_images(bundled_images()[::4], weights.facts.size_px))
    graph = derive_graph(weights, [image.square for image in images])
    record = pass_gate(weights, pairs[0], graph, images, image_set="a few", machine=machine)
    path = derived_path(derived_folder(config), "folio", pairs[0])
    write_derived(path, graph.content, record)
    return pairs[0]


@contextmanager
def serving_command(home: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    variables = {
        # Not the Ray of the test session.
        "RAY_ADDRESS": "local",
        "U2NET_HOME": str(home),
        "FOREEDGE_SEGMENTER__ENGINE": "auto",
        "FOREEDGE_SEGMENTER__ACCURACY": "fast",
    }
    command = [str(FOREEDGE), "serve", "--port", str(port), "--model", "folio"]
    with subprocess.Popen(
        command,
        env={**os.environ, **variables},
        # The children of a shell's background job would inherit that they ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=60)


def answer(client: httpx.Client) -> tuple[Pair, str] | None:
    """Return the pair that is reported and the ETag of a cut-out, or None if there is no answer."""
    try:
        models = client.get("/v1/models")
        cutout = client.post(
            "/v1/cutout", content=jpeg(book().image), headers={"Content-Type": "image/jpeg"}
        )
    except httpx.TransportError:
        return None
    if (models.status_code, cutout.status_code) != (200, 200):
        return None
    (model,) = models.json()["models"]
    return Pair(model["engine"], model["precision"]), cutout.headers["ETag"]


def wait_for_answer(client: httpx.Client) -> tuple[Pair, str]:
    ends_at = time.monotonic() + WITHIN_S
    while time.monotonic() < ends_at:
        found = answer(client)
        if found is not None:
            return found
        time.sleep(0.5)
    raise AssertionError(f"no answer within {WITHIN_S} s")


@pytest.mark.slow
def test_a_killed_replica_comes_back_with_the_same_engine(tmp_path: Path) -> None:
    expected, port = write_gate(tmp_path), free_port()
    with (
        serving_command(tmp_path, port) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client,
    ):
        pair, etag = wait_for_answer(client)
        assert pair == expected
        command = psutil.Process(process.pid)
        (before,) = replica_processes("Segmenter-folio", of=command)
        before.kill()
        before.wait(timeout=30)
        assert wait_for_answer(client) == (pair, etag)
        (after,) = replica_processes("Segmenter-folio", of=command)
        assert after.pid != before.pid
