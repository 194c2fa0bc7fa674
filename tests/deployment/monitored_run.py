"""A local application in a run with successes and failures, scraped by a real Prometheus."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from ingest.local.application import Endpoints, serving
from ingest.local.aws import LocalAws, use_dummy_credentials
from ingest.local.ports import free_port
from serve_app.config import AppConfig
from serve_app.models.registry import BUNDLED_MODEL
from tests.support.images import book, jpeg
from tests.support.replica_processes import replica_processes
from tests.support.running_app import App, Aws

PROMETHEUS = shutil.which("prometheus")
PROMTOOL = shutil.which("promtool")
MONITORING = Path(__file__).parents[2] / "cluster" / "monitoring"

_SCRAPED_EVERY_S = 3
_JOBS = 120
_KEY = "secret-of-the-shop"
_REQUESTS_PER_MINUTE = 20
_REQUESTS = 10
_LAST_EXPORT_S = 25
_READY_S = 30


class Prometheus:
    """A running Prometheus."""

    def __init__(self, url: str) -> None:
        self._url = url

    def query(self, expression: str, at_s: float | None = None) -> list[dict[str, Any]]:
        """Return the series of an expression. Raises AssertionError if it is wrong."""
        at = {} if at_s is None else {"time": f"{at_s:.3f}"}
        return self._get("query", query=expression, **at)["result"]  # type: ignore[no-any-return]

    def range(self, expression: str, start_s: float, end_s: float) -> list[dict[str, Any]]:
        """Return the series of an expression over a time."""
        period = {"start": f"{start_s:.3f}", "end": f"{end_s:.3f}", "step": str(_SCRAPED_EVERY_S)}
        found = self._get("query_range", query=expression, **period)
        return found["result"]  # type: ignore[no-any-return]

    def names(self) -> list[str]:
        """Return the names of all metrics."""
        with urllib.request.urlopen(f"{self._url}/api/v1/label/__name__/values", timeout=30) as got:
            return json.load(got)["data"]  # type: ignore[no-any-return]

    def targets(self) -> list[str]:
        """Return the health of each target."""
        return [each["health"] for each in self._get("targets")["activeTargets"]]

    def discovered(self) -> int:
        """Return the number of targets that all lists together have."""
        with urllib.request.urlopen(f"{self._url}/metrics", timeout=30) as answer:
            text = answer.read().decode()
        found = re.search(r'^prometheus_sd_discovered_targets\{.*"ray".*\} (\d+)$', text, re.M)
        assert found is not None
        return int(found[1])

    def _get(self, path: str, **parameters: str) -> dict[str, Any]:
        url = f"{self._url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=60) as answer:
                return json.load(answer)["data"]  # type: ignore[no-any-return]
        except urllib.error.HTTPError as error:
            reason = json.load(error).get("error", "")
            raise AssertionError(f"{parameters.get('query', path)}: {reason}") from error


@contextmanager
def prometheus(folder: Path, config: dict[str, Any] | None = None) -> Iterator[Prometheus]:
    """Run Prometheus while the context lasts.

    Args:
        folder: Folder of its data, which may have some already.
        config: Configuration of Prometheus. None scrapes nothing.
    """
    assert PROMETHEUS is not None
    file, port = folder / "prometheus.yml", free_port()
    file.write_text(yaml.safe_dump(config or {}))
    command = [
        PROMETHEUS,
        f"--config.file={file}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    with (folder / "prometheus.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        _wait_until_ready(f"http://127.0.0.1:{port}/-/ready")
        yield Prometheus(f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def monitored_application(folder: Path) -> Iterator[tuple[App, Prometheus]]:
    """Run an application with autoscaling and API keys, and a Prometheus that scrapes it."""
    use_dummy_credentials()
    with LocalAws() as server:
        aws = Aws(server)
        bucket = aws.bucket()
        url, dead_url = aws.queue()
        args: dict[str, Any] = {
            "models": [BUNDLED_MODEL],
            "aws": {"endpoint_url": aws.endpoint_url},
            "storage": {"allowed_buckets": [bucket]},
            "queue": {
                "url": url,
                "long_poll_s": 1,
                "visibility_timeout_s": 12,
                "max_in_flight": 8,
                "retry_base_s": 0.5,
            },
            "ledger": {"bucket": bucket, "part_interval_s": 0.5},
            "http": {
                "api_keys": [f"shop:{_KEY}"],
                "requests_per_minute": {"shop": _REQUESTS_PER_MINUTE},
            },
            "autoscaling": {"max_replicas": 2, "drain_target_s": 60},
        }
        with (
            serving(args, port=free_port(), dashboard=True, quiet=True) as endpoints,
            prometheus(folder, _config(folder, endpoints)) as monitor,
        ):
            running = App(endpoints.http, AppConfig.load(args), dead_url, aws)
            yield running, monitor
            running.http.close()


def run_with_everything(app: App) -> None:
    """Run jobs that succeed and fail, requests that succeed and are refused, and kill a replica."""
    good = jpeg(book().image)
    large = jpeg(book(width=1600, height=1200).image)
    images = {f"{number}.jpg": large + bytes(number) for number in range(_JOBS)}
    images |= {
        "half.jpg": good[: len(good) // 2],
        "text.jpg": b"this is a text",
        "empty.jpg": b"",
        "black.jpg": jpeg(book().image * 0),
    }
    monitor = app.send(app.put(images))
    app.sqs.send_message(QueueUrl=app.queue.url, MessageBody="no message")
    # Its images run again, alone and in the replica that takes its place, and their leases are
    # extended meanwhile.
    status = next(each for each in app.follow(monitor) if each.finished >= _JOBS // 10)
    assert status.finished < _JOBS, "the run ended too soon"
    replica_processes("CutoutPipeline")[0].kill()
    key = {"X-API-Key": _KEY}
    options = {"min_subject_px": 1}
    for number in range(_REQUESTS):
        content = b"no image" if number % 5 == 0 else good
        app.http.post("/v1/cutout", params=options, content=content, headers=key)
    # Refused before their image is read, and so faster than the limit.
    for _ in range(_REQUESTS_PER_MINUTE + 2):
        app.http.post("/v1/cutout", params={"recipe": "none"}, content=good, headers=key)
    assert app.http.post("/v1/cutout", content=good).status_code == 401
    app.finish(monitor)
    for _ in range(4):
        app.http.post("/v1/cutout", params=options, content=good, headers=key)
        time.sleep(4)
    time.sleep(_LAST_EXPORT_S)


def _config(folder: Path, endpoints: Endpoints) -> dict[str, Any]:
    """Return cluster/monitoring/prometheus.yml for this machine, with shorter intervals."""
    text = (MONITORING / "prometheus.yml").read_text()
    token = folder / "auth_token"
    token.write_text(endpoints.dashboard_token or "")
    for name, here in (
        ("rules.yaml", MONITORING / "rules.yaml"),
        ("/tmp/ray/prom_metrics_service_discovery.json", discovery_file()),
        ("http://127.0.0.1:8265", endpoints.dashboard),
        ("/run/foreedge/auth_token", token),
    ):
        assert text.count(f"{name}") >= 1, name
        text = text.replace(name, str(here))
    config: dict[str, Any] = yaml.safe_load(text)
    interval = f"{_SCRAPED_EVERY_S}s"
    config["global"] = {"scrape_interval": interval, "evaluation_interval": interval}
    return config


def discovery_file() -> Path:
    """Return the file in which Ray lists what exports metrics."""
    from ray._private.worker import _global_node  # Ray has no public name for it.

    assert _global_node is not None
    return Path(_global_node.get_session_dir_path()) / "prom_metrics_service_discovery.json"


def _wait_until_ready(url: str) -> None:
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline:
        try:
            if httpx.get(url, trust_env=False).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    raise AssertionError(f"{url} is not ready within {_READY_S} s")
