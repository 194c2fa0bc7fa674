"""A demonstration that keeps running: ``foreedge demo --keep`` in a folder of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

START_TIMEOUT_S = 200
STOP_TIMEOUT_S = 60


def clean_environment() -> dict[str, str]:
    """Return the environment of a shell without AWS, the checkout and settings of ours."""
    return {
        name: value
        for name, value in os.environ.items()
        if "AWS" not in name and name != "PYTHONPATH" and not name.startswith("FOREEDGE_")
    }


@contextmanager
def demonstration(foreedge: Path, folder: Path, count: int) -> Iterator[Path]:
    """Run a demonstration while the context lasts, then stop it and check that nothing remains.

    Args:
        foreedge: The command.
        folder: Working directory; the demonstration writes ``out/demo`` in it.
        count: Number of photographs.

    Yields:
        The file of environment variables that it writes once it is ready.
    """
    output = folder / "demo.log"
    with output.open("wb") as log:
        demo = subprocess.Popen(
            [foreedge, "demo", "--keep", "--count", str(count)],
            cwd=folder,
            env=clean_environment(),
            stdout=log,
            stderr=subprocess.STDOUT,
            # A shell lets what it starts in the background ignore Ctrl-C, which children inherit.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
    settings = folder / "out" / "demo" / "env"
    deadline = time.monotonic() + START_TIMEOUT_S
    try:
        while not settings.exists():
            assert demo.poll() is None, output.read_text()
            assert time.monotonic() < deadline, output.read_text()
            time.sleep(0.5)
        yield settings
        started = psutil.Process(demo.pid).children(recursive=True)
        demo.send_signal(signal.SIGINT)
        assert demo.wait(STOP_TIMEOUT_S) == 0, output.read_text()
        _, alive = psutil.wait_procs(started, timeout=STOP_TIMEOUT_S)
        assert alive == []
        assert not settings.exists()
    finally:
        if demo.poll() is None:
            demo.terminate()
            demo.wait(STOP_TIMEOUT_S)
