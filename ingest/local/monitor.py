"""Prometheus next to a local application, so that Ray's metrics are kept and the alerts judged.

The configuration is that of a cluster, ``cluster/monitoring/prometheus.yml`` with its rules. The
folder ``monitoring`` has a copy of both, since a wheel has nothing of ``cluster``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ingest.local.ports import answers, free_port, is_free
from ingest.local.processes import die_with_parent
from serve_app.errors import DeadlineExceeded, InternalError, InvalidConfig

RULES = "rules.yaml"

_HOST, _PORT = "127.0.0.1", 9090
_READY_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 10.0
_VARIABLE = "RAY_PROMETHEUS_HOST"
_LISTED = "prom_metrics_service_discovery.json"
"""File in the folder of a Ray session that lists what exports metrics."""


class Monitor(NamedTuple):
    """A Prometheus that is not started yet."""

    program: str
    """Path of Prometheus."""
    port: int
    """Port on which it will listen."""

    @property
    def url(self) -> str:
        """URL of its pages and of its API."""
        return f"http://{_HOST}:{self.port}"


def find_monitor() -> Monitor:
    """Return the Prometheus of this machine, on its usual port or on a free one.

    Raises:
        InvalidConfig: Prometheus is not installed.
    """
    program = shutil.which("prometheus")
    if program is None:
        raise InvalidConfig(
            "--monitor needs Prometheus, and there is no program prometheus on PATH. Install it, "
            "e.g. with: apt-get install prometheus"
        )
    return Monitor(program, _PORT if is_free(_HOST, _PORT) else free_port())


@contextmanager
def announced(monitor: Monitor | None) -> Iterator[None]:
    """Let the dashboard of a Ray that starts in this context find Prometheus.

    Args:
        monitor: The Prometheus that will be started, or None.
    """
    before = os.environ.get(_VARIABLE)
    if monitor is not None:
        os.environ[_VARIABLE] = monitor.url
    try:
        yield
    finally:
        if monitor is not None:
            del os.environ[_VARIABLE]
            if before is not None:
                os.environ[_VARIABLE] = before


def local_configuration(session: Path) -> dict[str, Any]:
    """Return the configuration of a cluster, for the Ray of this machine.

    Ray's list of what exports metrics is taken from its file alone: the other source of a cluster,
    the dashboard, needs a token.

    Args:
        session: Folder of Ray's session.
    """
    text = (files("ingest.local") / "monitoring" / "prometheus.yml").read_text("utf-8")
    config: dict[str, Any] = yaml.safe_load(text)
    [scraped] = config["scrape_configs"]
    del scraped["http_sd_configs"]
    [listed] = scraped["file_sd_configs"]
    listed["files"] = [str(session / _LISTED)]
    return config


@contextmanager
def monitoring(monitor: Monitor, session: Path) -> Iterator[None]:
    """Run Prometheus while the context lasts. Its data end with it.

    Args:
        monitor: The Prometheus to start.
        session: Folder of Ray's session.

    Raises:
        InternalError: Prometheus ended. The message has its last line.
        DeadlineExceeded: Prometheus was not ready within a minute.
    """
    with tempfile.TemporaryDirectory(prefix="foreedge-prometheus-") as name:
        folder = Path(name)
        (folder / "prometheus.yml").write_text(yaml.safe_dump(local_configuration(session)))
        rules = (files("ingest.local") / "monitoring" / RULES).read_text("utf-8")
        (folder / RULES).write_text(rules)
        log = folder / "prometheus.log"
        process = _start(monitor, folder, log)
        try:
            _wait_until_ready(monitor, process, log)
            yield
        finally:
            _stop(process)


def _start(monitor: Monitor, folder: Path, log: Path) -> subprocess.Popen[bytes]:
    command = [
        monitor.program,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={_HOST}:{monitor.port}",
        "--log.level=warn",
    ]
    with log.open("wb") as output:
        return subprocess.Popen(
            command,
            stdout=output,
            stderr=output,
            # In its own group, so that Ctrl-C reaches only this process, which ends Prometheus.
            start_new_session=True,
            preexec_fn=die_with_parent if sys.platform == "linux" else None,
        )


def _wait_until_ready(monitor: Monitor, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _READY_TIMEOUT_S
    while not answers(f"{monitor.url}/-/ready"):
        if process.poll() is not None:
            said = log.read_text("utf-8", "replace").strip().splitlines() or ["it said nothing"]
            raise InternalError(f"Prometheus ({monitor.program}) ended at its start: {said[-1]}")
        if time.monotonic() > deadline:
            raise DeadlineExceeded(
                f"Prometheus did not answer on {monitor.url} within {_READY_TIMEOUT_S:.0f} s"
            )
        time.sleep(0.1)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
