"""The users of locust, without its web page, on the running application."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.running_app import App

ROOT = Path(__file__).parents[2]


def load(app: App, folder: Path, *options: str) -> dict[str, dict[str, str]]:
    """Run locust for some seconds, and return its statistics by the name of the request."""
    command = [sys.executable, "-m", "locust", "-f", "loadtests/load/locustfile.py", "--headless"]
    command += ["--host", app.url, "--csv", str(folder / "run"), "--only-summary"]
    command += ["--html", str(folder / "report.html"), "--photographs", "small", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "<html" in (folder / "report.html").read_text()
    with (folder / "run_stats.csv").open(newline="") as file:
        return {row["Name"]: row for row in csv.DictReader(file)}


@pytest.mark.parametrize(
    "shape",
    [
        "constant",
        pytest.param("ramp", marks=pytest.mark.slow),
        pytest.param("spike", marks=pytest.mark.slow),
    ],
)
def test_http_user(app: App, tmp_path: Path, shape: str) -> None:
    query = "min_subject_px=0&format=webp"
    options = ("--query", query, "--load", shape, "--peak", "4", "--duration", "6")
    found = load(app, tmp_path, *options)["/v1/cutout"]
    assert int(found["Request Count"]) > 0
    assert int(found["Failure Count"]) == 0


def test_queue_user(app: App, tmp_path: Path) -> None:
    options = ["--system", "queue", "--queue-url", app.queue.url, "--bucket", app.bucket]
    options += ["--endpoint-url", app.config.aws.endpoint_url or "", "--peak", "2"]
    found = load(app, tmp_path, *options, "--duration", "4")["queue to result"]
    assert int(found["Request Count"]) > 0
    assert int(found["Failure Count"]) == 0
    assert app.dead_letters() == []
