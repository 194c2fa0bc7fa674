"""What runs on this machine for a demonstration or for development.

``LocalAws`` is an SQS and an S3 that speak the real protocols, in a process of their own;
``serving`` is the application on a Ray that starts and ends with it.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import logging
import math
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Self

from serve_app.config import AppConfig, AwsConfig
from serve_app.errors import DeadlineExceeded, InternalError, InvalidConfig
from serve_app.ray_environment import ENVIRONMENT
from serve_app.storage import aws_client

APPLICATION = "foreedge"
"""Name of the application in Serve and on the dashboard."""

OBJECT_STORE_BYTES = 256 * 1024 * 1024
"""Shared memory of a local Ray; only small tensors pass through it."""

_START_TIMEOUT_S = 60.0
_READY_TIMEOUT_S = 180.0
_STOP_TIMEOUT_S = 5.0
_PR_SET_PDEATHSIG = 1
_MAX_RECEIVES = 5
_VISIBILITY_TIMEOUT_S = 120
_PORTS = range(20_000, 30_000)
"""Ray's workers have those below, Serve's replicas those above; from 32768 on Linux gives them to
whoever asks for any."""
_ports = itertools.cycle(random.SystemRandom().sample(_PORTS, len(_PORTS)))


def free_port(host: str = "127.0.0.1") -> int:
    """Return a TCP port that nobody listens on at the moment; another one each time.

    Not one that the kernel would give: those it gives to all who ask for any, and Ray's processes
    ask for dozens before HAProxy is up.

    Raises:
        InternalError: There is none.
    """
    for port in itertools.islice(_ports, len(_PORTS)):
        if is_free(host, port):
            return port
    raise InternalError(f"no port from {_PORTS[0]} to {_PORTS[-1]} is free on {host}")


def is_free(host: str, port: int) -> bool:
    """Return whether a TCP port can be listened on."""
    with socket.socket() as probe:
        # As servers do: a port whose connections are only winding down counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def answers(url: str, timeout_s: float = 2.0) -> bool:
    """Return whether a URL answers with status 200."""
    # A proxy that the environment names has no way to this machine's own ports.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=timeout_s) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError, ValueError):
        return False


class LocalAws:
    """moto's server: SQS and S3 in memory, for as long as the context lasts."""

    def __init__(self) -> None:
        self.endpoint_url = ""
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Start the server and wait until it answers.

        Raises:
            InvalidConfig: moto is not installed, or the server ended at once.
            DeadlineExceeded: The server did not answer in time.
        """
        port = free_port()
        self.endpoint_url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        with _without_preemption():
            self._process = subprocess.Popen(
                command,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                # A group of its own: Ctrl-C reaches this process first, which then ends the server.
                start_new_session=True,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )
        try:
            self._wait(self._process)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End the server."""
        self.close()

    def close(self) -> None:
        """End the server's process group; does nothing where it has ended."""
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def create_bucket(self, name: str) -> None:
        """Make a bucket."""
        aws_client("s3", self.aws).create_bucket(Bucket=name)

    def create_queue(self, name: str) -> str:
        """Make a queue with a dead-letter queue; return its URL."""
        client = aws_client("sqs", self.aws)
        dead = client.create_queue(QueueName=f"{name}-dead")["QueueUrl"]
        names = ["QueueArn"]
        found = client.get_queue_attributes(QueueUrl=dead, AttributeNames=names)["Attributes"]
        policy = (
            f'{{"deadLetterTargetArn": "{found["QueueArn"]}", "maxReceiveCount": {_MAX_RECEIVES}}}'
        )
        attributes = {"RedrivePolicy": policy, "VisibilityTimeout": str(_VISIBILITY_TIMEOUT_S)}
        answer = client.create_queue(QueueName=name, Attributes=attributes)
        url: str = answer["QueueUrl"]
        return url

    @property
    def aws(self) -> AwsConfig:
        """How it is reached."""
        return AwsConfig(endpoint_url=self.endpoint_url)

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not answers(f"{self.endpoint_url}/moto-api/"):
            if process.poll() is not None:
                raise InvalidConfig(
                    "the local SQS and S3 did not start: install them with "
                    "pip install 'foreedge[demo]' (moto)"
                )
            if time.monotonic() > deadline:
                raise DeadlineExceeded(f"no answer from {self.endpoint_url}")
            time.sleep(0.1)


def use_dummy_credentials() -> None:
    """Give this process, and those that it starts, credentials for a local server.

    boto3 signs every request and so needs some; credentials that are there are left alone.
    """
    os.environ.setdefault("AWS_ACCESS_KEY_ID", "local")
    os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "local")
    for name in ("NO_PROXY", "no_proxy"):
        hosts = os.environ.get(name)
        os.environ[name] = f"{hosts},127.0.0.1" if hosts else "127.0.0.1"


@contextmanager
def ray_environment() -> Iterator[None]:
    """Set what a Ray that is started in this context needs, as far as it is not set.

    HAProxy gets ports and a folder of its own: there may be another Ray on this machine. They do
    not outlast the context, so that no other process that is started from here gets the same.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    folder = Path(_temporary_folder().name)
    own = {
        "STATS_PORT": free_port(),
        "METRICS_PORT": free_port(),
        "CONFIG_FILE_LOC": folder / "haproxy.cfg",
        "SOCKET_PATH": folder / "admin.sock",
        "METRICS_SOCKET_PATH": folder / "metrics.sock",
        "SERVER_STATE_BASE": folder,
        "SERVER_STATE_FILE": folder / "server-state",
    }
    variables = {f"RAY_SERVE_HAPROXY_{name}": str(value) for name, value in own.items()}
    missing = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(missing)
    try:
        yield
    finally:
        for name in missing:
            del os.environ[name]


@functools.cache
def _temporary_folder() -> tempfile.TemporaryDirectory[str]:
    """Return a folder that goes when this process ends."""
    return tempfile.TemporaryDirectory(prefix="foreedge-")


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Where a local application is reached."""

    http: str
    dashboard: str | None


def needed_cpus(config: AppConfig) -> int:
    """Return the logical CPUs that every replica needs together, as many as there may be."""
    consumers = config.queue.consumers if config.queue else 0
    most = 0 if config.autoscaling is None else config.autoscaling.max_replicas
    needed = (
        max(most, config.http.replicas) * config.http.num_cpus
        + max(most, config.pipeline.replicas) * config.pipeline.num_cpus
        + len(config.models) * max(most, config.segmenter.replicas) * config.segmenter.num_cpus
        + consumers
    )
    # One more for Serve's own actors.
    return math.ceil(needed) + 1


@contextmanager
def _without_preemption() -> Iterator[None]:
    """Let the processes that are started in this context wait for a core until it changes hands.

    Ray's dozen processes wake over 600 times a second with nothing to do, and each time the kernel
    would take a core from an image for them. As batch processes (sched(7)) they get it a few
    milliseconds later, where no core is free.
    """
    # Where somebody has chosen a policy for this process, that one stays.
    if sys.platform != "linux" or os.sched_getscheduler(0) != os.SCHED_OTHER:
        yield
        return
    # A sandbox need not know the policy; everything works without.
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    try:
        yield
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@contextmanager
def serving(
    args: dict[str, Any],
    *,
    host: str = "127.0.0.1",
    port: int,
    dashboard: bool = False,
    quiet: bool = False,
) -> Iterator[Endpoints]:
    """Run the application on a Ray of its own for as long as the context lasts.

    Args:
        args: Settings, as ``build`` takes them.
        host: Address to listen on.
        port: Of HTTP.
        dashboard: Whether Ray's dashboard runs too.
        quiet: Whether what Ray and its workers log is kept off the terminal.

    Raises:
        InvalidConfig: The settings are wrong, or the port is taken.
        InternalError: A replica did not start; says why.
        DeadlineExceeded: The application did not get ready.
    """
    config = AppConfig.load(args)
    if not is_free(host, port):
        raise InvalidConfig(f"port {port} of {host} is in use: choose another one")
    with ray_environment(), _without_preemption():
        import ray
        from ray import serve

        from serve_app.app import build

        # Before Ray: what is wrong with the settings is told at once.
        application = build(args)
        level = logging.ERROR if quiet else logging.INFO
        context = ray.init(
            address="local",
            num_cpus=max(os.cpu_count() or 1, needed_cpus(config)),
            include_dashboard=dashboard,
            object_store_memory=OBJECT_STORE_BYTES,
            log_to_driver=not quiet,
            logging_level=level,
        )
    # Ray has just put its own handler there, which would skip the clean stop.
    with terminate_as_interrupt():
        try:
            logging.getLogger("ray.serve").setLevel(level)
            serve.start(http_options={"host": host, "port": port}, proxy_location="HeadOnly")
            url = f"http://{host}:{port}"
            try:
                serve.run(application, name=APPLICATION, route_prefix="/")
            except RuntimeError as error:
                raise InternalError(
                    f"the application did not start: {error}; {replica_states()}"
                ) from error
            _wait_until_ready(f"{url}/readyz")
            link = getattr(context, "dashboard_url", None)
            yield Endpoints(url, f"http://{link}" if dashboard and link else None)
        finally:
            # The replicas finish what they hold; what is left of Serve ends with Ray.
            with suppress(Exception):
                serve.delete(APPLICATION)
            ray.shutdown()


def replica_states() -> str:
    """Return one line on the deployments of the application, and on why they wait."""
    from ray import serve

    application = serve.status().applications.get(APPLICATION)
    if application is None:
        return "no application"
    parts = [f"application {application.status.value}"]
    for name, deployment in application.deployments.items():
        replicas = ", ".join(
            f"{count} {state}" for state, count in deployment.replica_states.items()
        )
        note = f" ({deployment.message})" if deployment.message else ""
        parts.append(f"{name}: {deployment.status.value}, replicas {replicas or 'none'}{note}")
    return "; ".join(" ".join(part.split()) for part in parts)


def wait_for_interrupt(sleep: Callable[[float], None] = time.sleep) -> None:
    """Return when Ctrl-C is pressed, or the process is asked to end."""
    with suppress(KeyboardInterrupt):
        while True:
            sleep(3600)


def _wait_until_ready(url: str) -> None:
    deadline = time.monotonic() + _READY_TIMEOUT_S
    while not answers(url):
        if time.monotonic() > deadline:
            raise DeadlineExceeded(
                f"{url} did not answer 200 within {_READY_TIMEOUT_S:.0f} s; {replica_states()}"
            )
        time.sleep(0.3)


@contextmanager
def terminate_as_interrupt() -> Iterator[None]:
    """Let SIGTERM end the process in the way of Ctrl-C, so that everything is stopped."""

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _die_with_parent() -> None:
    # Not even a kill of the parent leaves the server behind.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
