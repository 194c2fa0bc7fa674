"""``foreedge serve --monitor``: Prometheus next to a local application."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from cluster.monitoring.dashboard import RULES
from ingest.local.ports import answers, free_port
from tests.integration.test_commands import START_TIMEOUT_S, STOP_TIMEOUT_S, TOKEN, running

needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="prometheus is missing: apt-get install prometheus"
)

ALONE = """
import sys, time
from pathlib import Path
from ingest.local.monitor import Monitor, monitoring
with monitoring(Monitor(sys.argv[1], int(sys.argv[2])), Path(sys.argv[3])):
    print("ready", flush=True)
    time.sleep(300)
"""


def ask(url: str, query: str) -> list[Any]:
    """Return the series of an expression."""
    answer = httpx.get(f"{url}/api/v1/query", params={"query": query}, trust_env=False)
    found: list[Any] = answer.json()["data"]["result"]
    return found


@needs_prometheus
@pytest.mark.timeout(START_TIMEOUT_S + 2 * STOP_TIMEOUT_S)
def test_prometheus_has_the_data_of_the_application(tmp_path: Path) -> None:
    port = free_port()
    urls: dict[str, str] = {}

    def started(output: str) -> bool:
        found = re.search(r"Dashboard +(?P<ray>\S+)[\s\S]*Prometheus +(?P<ours>\S+)/alerts", output)
        urls.update(found.groupdict() if found else {})
        if not urls or not answers(f"http://127.0.0.1:{port}/readyz"):
            return False
        return bool(ask(urls["ours"], "ray_foreedge_build_info"))

    # It ends with a check that all processes are gone, Prometheus among them.
    command = ["foreedge", "serve", "--monitor", "--model", "folio", "--port", str(port)]
    with running(command, tmp_path, started):
        assert ask(urls["ours"], 'up{job="ray"} == 0') == []
        groups = httpx.get(f"{urls['ours']}/api/v1/rules", trust_env=False).json()["data"]["groups"]
        assert [len(group["rules"]) for group in groups] == [
            len(group["rules"]) for group in yaml.safe_load(RULES.read_text())["groups"]
        ]
        health = httpx.get(
            f"{urls['ray']}/api/prometheus_health", headers={"Authorization": f"Bearer {TOKEN}"}
        )
        assert health.json()["msg"] == "prometheus running"


@needs_prometheus
def test_prometheus_ends_with_a_process_that_is_killed(tmp_path: Path) -> None:
    port, program = free_port(), str(shutil.which("prometheus"))
    process = subprocess.Popen(
        [sys.executable, "-c", ALONE, program, str(port), str(tmp_path)], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    with process.stdout as output:
        assert output.readline() == b"ready\n"
    [prometheus] = psutil.Process(process.pid).children()
    process.send_signal(signal.SIGKILL)
    process.wait(STOP_TIMEOUT_S)
    assert psutil.wait_procs([prometheus], timeout=STOP_TIMEOUT_S)[1] == []
