"""A local application in a run with successes and failures, scraped by a real Prometheus.

What it counts happens: images fail, the store refuses one for a while, a replica is killed, a
consumer is stopped for longer than its leases, and a user holds rows of the catalog.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
import yaml

from ingest.local.application import Endpoints, serving
from ingest.local.aws import LocalAws, use_dummy_credentials
from ingest.local.ports import free_port
from ingest.messages.build import catalog_message_body
from serve_app.config import AppConfig
from tests.catalog.collection import Collection, create_database, photographs
from tests.support.fault_effects import refuse
from tests.support.fault_proxy import Proxy
from tests.support.images import book, jpeg
from tests.support.postgres_server import PostgresServer
from tests.support.replica_processes import replica_processes
from tests.support.running_app import App, Aws, settings_behind

PROMETHEUS = shutil.which("prometheus")
MONITORING = Path(__file__).parents[2] / "cluster" / "monitoring"

_SCRAPED_EVERY_S = 3
_JOBS = 120
_KEY = "secret-of-the-shop"
_HEADERS = {"X-API-Key": _KEY}
_REQUESTS_PER_MINUTE = 20
_REQUESTS = 10
_LAST_EXPORT_S = 25
_READY_S = 30
_PATIENCE_S = 60
_VISIBILITY_S = 10
_CATALOG_JOBS = 3
_ROWS_HELD_S = 1


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


@dataclass(frozen=True)
class Monitored:
    """An application, and what a run needs to let something happen to it."""

    app: App
    proxy: Proxy
    """Proxy in front of its SQS and S3."""
    collection: Collection
    """Tables of its catalog."""
    prometheus: Prometheus


@contextmanager
def _collection() -> Iterator[Collection]:
    with (
        PostgresServer() as server,
        closing(Collection(server.url(create_database(server)))) as collection,
    ):
        yield collection


@contextmanager
def monitored_application(folder: Path) -> Iterator[Monitored]:
    """Run an application with autoscaling, a catalog and API keys, and a Prometheus for it."""
    use_dummy_credentials()
    with LocalAws() as server, Proxy(server.endpoint_url) as proxy, _collection() as collection:
        aws = Aws(server)
        args, dead_url = settings_behind(
            proxy, aws, visibility_timeout_s=_VISIBILITY_S, max_in_flight=8, retry_base_s=0.5
        )
        args |= {
            "catalog": {"database_url": collection.url, "images_bucket": args["ledger"]["bucket"]},
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
            yield Monitored(running, proxy, collection, monitor)
            running.http.close()


def run_with_everything(monitored: Monitored) -> None:
    """Let everything happen that the dashboard counts."""
    _run_with_failures(monitored)
    _run_catalog_jobs(monitored)
    _run_with_a_paused_consumer(monitored.app)
    time.sleep(_LAST_EXPORT_S)


def _run_with_failures(monitored: Monitored) -> None:
    """Run jobs that succeed, fail or are tried again, and requests, and kill a replica."""
    app = monitored.app
    good, large = jpeg(book().image), _large()
    images = {"refused.jpg": large + b"refused"}
    images |= {f"{number}.jpg": large + bytes(number) for number in range(_JOBS)}
    images |= {
        "half.jpg": good[: len(good) // 2],
        "text.jpg": b"this is a text",
        "empty.jpg": b"",
        "black.jpg": jpeg(book().image * 0),
    }
    # The others are read, so that the message of this one is given back.
    refused = monitored.proxy.add("s3:GetObject", refuse(503, "SlowDown"), name="*/refused.jpg")
    monitor = app.send(app.put(images))
    app.sqs.send_message(QueueUrl=app.queue.url, MessageBody="no message")
    # Its images run again, alone and in the replica that takes its place, and their leases are
    # extended meanwhile.
    status = next(each for each in app.follow(monitor) if each.finished >= _JOBS // 10)
    assert status.finished < _JOBS, "the run ended too soon"
    _wait_for(lambda: bool(_ingest(app).get("retried")), "the refused image was not given back")
    monitored.proxy.remove(refused)
    replica_processes("CutoutPipeline")[0].kill()
    for number in range(_REQUESTS):
        _post(app, b"no image" if number % 5 == 0 else good)
    # Refused before their image is read, and so faster than the limit.
    for _ in range(_REQUESTS_PER_MINUTE + 2):
        app.http.post("/v1/cutout", params={"recipe": "none"}, content=good, headers=_HEADERS)
    assert app.http.post("/v1/cutout", content=good).status_code == 401
    app.finish(monitor)


def _run_catalog_jobs(monitored: Monitored) -> None:
    """Run jobs of the catalog while a user's transaction holds rows that they need."""
    app, collection = monitored.app, monitored.collection
    # Small, since their recipe has matting.
    photograph = jpeg(book(width=480, height=400).image)
    jobs = []
    for _ in range(_CATALOG_JOBS):
        number, [image] = collection.add_book(*photographs(1))
        key = f"books/{collection.images(number)[0]['s3_key']}"
        app.store.put(app.bucket, key, photograph, "image/jpeg")
        jobs.append(collection.queue(number, image))
    stored = len(monitored.proxy.passed("s3:PutObject", "*/books/*"))
    with psycopg.connect(collection.url) as user:
        user.execute("UPDATE book_images SET caption = ''")
        for job in jobs:
            app.sqs.send_message(QueueUrl=app.queue.url, MessageBody=catalog_message_body(job))
        # Once its image and its thumbnail are stored, a job wants the rows.
        _wait_for(
            lambda: len(monitored.proxy.passed("s3:PutObject", "*/books/*")) >= stored + 2,
            "no cut-out of the catalog was stored",
        )
        time.sleep(_ROWS_HELD_S)
    _wait_for(
        lambda: all(collection.job(job)["status"] == "completed" for job in jobs),
        "the jobs of the catalog have not ended",
    )


def _run_with_a_paused_consumer(app: App) -> None:
    """Stop the consumer for longer than its leases, while requests come, and then let it run."""
    monitor = app.send(app.put({f"late-{n}.jpg": _large() + bytes(n) for n in range(_JOBS // 3)}))
    _wait_for(lambda: _ingest(app).get("in_flight", 0) > 0, "nothing is in flight")
    [consumer] = replica_processes("SqsIngest")
    consumer.suspend()
    try:
        until_s = time.monotonic() + _VISIBILITY_S + 1
        while time.monotonic() < until_s:
            _post(app, jpeg(book().image))
            time.sleep(3)
    finally:
        consumer.resume()
    app.finish(monitor)


def _large() -> bytes:
    return jpeg(book(width=1600, height=1200).image)


def _post(app: App, content: bytes) -> None:
    app.http.post("/v1/cutout", params={"min_subject_px": 1}, content=content, headers=_HEADERS)


def _ingest(app: App) -> dict[str, Any]:
    found: dict[str, Any] = app.http.get("/readyz", headers=_HEADERS).json()["ingest"]
    return found


def _wait_for(condition: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.1)


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
