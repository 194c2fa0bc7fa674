"""Commands that start their own Ray, and that they leave no process behind."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from cluster.monitoring.dashboard import RULES
from ingest.local.ports import answers, free_port

BIN = Path(sys.executable).parent
TOKEN = "0123456789abcdef" * 4
"""Token of the Ray that a command starts."""
START_TIMEOUT_S = 200
STOP_TIMEOUT_S = 60
EXPORTED_WITHIN_S = 60


@contextmanager
def running(
    command: list[str], folder: Path, started: Callable[[str], bool]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command in a folder until it has started, and end it with Ctrl-C after the context."""
    output = folder / "output.log"
    # "local", so that the command does not connect to the Ray of the test session.
    environment = os.environ | {
        "RAY_ADDRESS": "local",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": TOKEN,
    }
    if command[0] == "foreedge":
        # Its path is too long for sockets below it (ingest.local.socket_folders).
        environment["TMPDIR"] = str(folder)
    with output.open("wb") as log:
        process = subprocess.Popen(
            [BIN / command[0], *command[1:]],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            # The children of a shell's background job would inherit that they ignore Ctrl-C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
    deadline = time.monotonic() + START_TIMEOUT_S
    try:
        while not started(output.read_text()):
            assert process.poll() is None, output.read_text()
            assert time.monotonic() < deadline, output.read_text()
            time.sleep(0.2)
        children = psutil.Process(process.pid).children(recursive=True)
        assert children
        yield process
        process.send_signal(signal.SIGINT)
        process.wait(STOP_TIMEOUT_S)
        _, alive = psutil.wait_procs(children, timeout=STOP_TIMEOUT_S)
        assert alive == [], output.read_text()
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(STOP_TIMEOUT_S)


@pytest.mark.parametrize(
    "command",
    ["foreedge serve --config", pytest.param("serve run", marks=pytest.mark.slow)],
)
@pytest.mark.timeout(START_TIMEOUT_S + EXPORTED_WITHIN_S + 2 * STOP_TIMEOUT_S)
def test_a_serve_file_is_served(command: str, tmp_path: Path) -> None:
    port = free_port()
    content = {
        "http_options": {"host": "127.0.0.1", "port": port},
        "applications": [
            {
                "name": "foreedge",
                "route_prefix": "/",
                "import_path": "serve_app.app:build",
                "args": {"models": ["folio"], "segmenter": {"threads": 2}},
            }
        ],
    }
    file = tmp_path / "serve.yaml"
    file.write_text(yaml.safe_dump(content))
    words = [*command.split(), str(file)]
    # --monitor runs the dashboard as well.
    option = "--monitor" if shutil.which("prometheus") else "--dashboard"
    if words[0] == "foreedge":
        words += ["--port", str(port), option]

    def started(output: str) -> bool:
        # The last line that the command prints at its start, unlike what a replica logs.
        is_told = words[0] != "foreedge" or "everyone on this machine" in output
        return is_told and answers(f"http://127.0.0.1:{port}/readyz")

    with running(words, tmp_path, started) as process:
        assert answers(f"http://127.0.0.1:{port}/v1/models")
        if words[0] == "foreedge" and sys.platform == "linux":
            # Its Ray runs as batch processes, but the command itself does not.
            replicas = [
                child
                for child in psutil.Process(process.pid).children(recursive=True)
                if child.name().startswith("ray::")
            ]
            assert replicas
            assert {os.sched_getscheduler(child.pid) for child in replicas} == {os.SCHED_BATCH}
            assert os.sched_getscheduler(process.pid) == os.SCHED_OTHER
        if words[0] == "foreedge":
            output = (tmp_path / "output.log").read_text()
            check_dashboard(output)
            if option == "--monitor":
                # Prometheus must be gone at the end, as all other processes.
                check_prometheus(output)


def check_prometheus(output: str) -> None:
    """Check that the printed Prometheus has the application's data, and that Ray finds it."""
    found = re.search(r"Dashboard +(\S+)[\s\S]*Prometheus +(\S+)/alerts", output)
    assert found is not None, output
    dashboard, url = found.groups()
    deadline = time.monotonic() + EXPORTED_WITHIN_S
    while not ask(url, "ray_foreedge_build_info"):
        assert time.monotonic() < deadline, "Prometheus has no data of the application"
        time.sleep(0.5)
    assert ask(url, 'up{job="ray"} == 0') == []
    groups = httpx.get(f"{url}/api/v1/rules", trust_env=False).json()["data"]["groups"]
    assert [len(group["rules"]) for group in groups] == [
        len(group["rules"]) for group in yaml.safe_load(RULES.read_text())["groups"]
    ]
    health = httpx.get(
        f"{dashboard}/api/prometheus_health", headers={"Authorization": f"Bearer {TOKEN}"}
    )
    assert health.json()["msg"] == "prometheus running"


def ask(url: str, query: str) -> list[Any]:
    """Return the series of an expression."""
    answer = httpx.get(f"{url}/api/v1/query", params={"query": query}, trust_env=False)
    found: list[Any] = answer.json()["data"]["result"]
    return found


def check_dashboard(output: str) -> None:
    """Check that the printed token opens the printed dashboard, and that nothing else does."""
    found = re.search(r"Dashboard +(http\S+)\nIts token +(\S+)", output)
    assert found is not None, output
    url, token = f"{found[1]}/api/version", found[2]
    assert token == TOKEN
    assert httpx.get(url).status_code == 401
    assert httpx.get(url, headers={"Authorization": f"Bearer {token}"}).status_code == 200


def test_what_is_served_by_default_does_not_start_without_its_weights(tmp_path: Path) -> None:
    environment = {**os.environ, "U2NET_HOME": str(tmp_path)}
    del environment["FOREEDGE_MODELS"]
    done = subprocess.run(
        [BIN / "foreedge", "serve", "--port", str(free_port())],
        env=environment,
        capture_output=True,
        text=True,
        timeout=START_TIMEOUT_S,
    )
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert line.startswith("error: model_unavailable: The weights of u2netp are not on this machi")
    assert "'foreedge models fetch u2netp'" in line
    assert str(tmp_path) in line


@pytest.mark.timeout(START_TIMEOUT_S + 2 * STOP_TIMEOUT_S)
def test_a_demonstration_that_is_interrupted_leaves_nothing(tmp_path: Path) -> None:
    command = ["foreedge", "demo", "--count", "4"]
    with running(command, tmp_path, lambda output: "Cutting out" in output) as demo:
        pass
    assert demo.returncode == 128 + signal.SIGINT
