"""The application on this machine, with a Ray that starts and ends with it."""

from __future__ import annotations

import functools
import logging
import math
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ingest.local.monitor import Monitor, announced, monitoring
from ingest.local.ports import answers, check_address, free_port
from ingest.local.processes import terminate_as_interrupt, without_preemption
from ingest.local.socket_folders import haproxy_parent, ray_temporary_folder
from serve_app.config import AppConfig
from serve_app.errors import DeadlineExceeded, InternalError
from serve_app.models.registry import locate_weights
from serve_app.serving.ray_environment import ENVIRONMENT

APPLICATION = "foreedge"
"""Name of the application in Ray Serve and on its dashboard."""

_OBJECT_STORE_BYTES = 256 * 1024 * 1024
"""Shared memory of a local Ray, through which only small tensors pass."""

_READY_TIMEOUT_S = 180.0


@contextmanager
def ray_environment() -> Iterator[None]:
    """Set the environment variables of a Ray started in this context, unless they are set.

    HAProxy gets its own ports and folder, because another Ray may run on this machine. These
    variables are removed again, so that no later process uses the same ports.
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
    """Return a folder that is removed when this process ends."""
    return tempfile.TemporaryDirectory(prefix="foreedge-", dir=haproxy_parent())


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The URLs of a local application."""

    http: str
    dashboard: str | None
    """URL of Ray's dashboard. None if it does not run."""
    dashboard_token: str | None = None
    """Token that the dashboard asks for. None if Ray has none."""
    prometheus: str | None = None
    """URL of Prometheus. None if it does not run."""


def needed_cpus(config: AppConfig) -> int:
    """Return the logical CPUs that the maximum number of replicas needs."""
    consumers = config.queue.consumers if config.queue else 0
    most = 0 if config.autoscaling is None else config.autoscaling.max_replicas
    needed = (
        max(most, config.http.replicas) * config.http.num_cpus
        + max(most, config.pipeline.replicas) * config.pipeline.num_cpus
        + len(config.served_models)
        * max(most, config.segmenter.replicas)
        * config.segmenter.num_cpus
        + consumers
    )
    # Serve's own actors need one more.
    return math.ceil(needed) + 1


@contextmanager
def local_serve(
    num_cpus: int,
    *,
    host: str = "127.0.0.1",
    port: int,
    dashboard: bool = False,
    quiet: bool = True,
    monitor: Monitor | None = None,
) -> Iterator[Endpoints]:
    """Run Ray Serve without an application while the context lasts.

    SIGTERM ends it in the same way as Ctrl-C.

    Args:
        num_cpus: Logical CPUs that the replicas may request, possibly more than the machine has.
        host: Address to listen on.
        port: Port of the HTTP endpoint.
        dashboard: Whether to run Ray's dashboard.
        quiet: Whether to keep the logs of Ray and its workers off the terminal.
        monitor: Prometheus to run. It reads a list that only Ray's dashboard writes.

    Raises:
        InvalidConfig: ``RAY_TMPDIR`` is too long for the sockets of Ray.
        InternalError: Prometheus did not start.
        DeadlineExceeded: Prometheus was not ready in time.
    """
    level = logging.ERROR if quiet else logging.INFO
    with ray_environment(), announced(monitor), without_preemption():
        # Lazy, because Ray reads these variables when it is imported, and commands start without.
        import ray
        from ray import serve

        context = ray.init(
            address="local",
            num_cpus=num_cpus,
            include_dashboard=dashboard,
            object_store_memory=_OBJECT_STORE_BYTES,
            log_to_driver=not quiet,
            logging_level=level,
            _temp_dir=ray_temporary_folder(),
        )
    # After ray.init, whose own SIGTERM handler would skip the clean stop.
    with terminate_as_interrupt(), ExitStack() as ending:
        ending.callback(ray.shutdown)
        logging.getLogger("ray.serve").setLevel(level)
        serve.start(http_options={"host": host, "port": port}, proxy_location="HeadOnly")
        if monitor is not None:
            session = Path(context.address_info["session_dir"])
            ending.enter_context(monitoring(monitor, session))
        link = getattr(context, "dashboard_url", None)
        shown = dashboard and link
        yield Endpoints(
            f"http://{host}:{port}",
            f"http://{link}" if shown else None,
            _dashboard_token() if shown else None,
            monitor.url if monitor else None,
        )


def _dashboard_token() -> str | None:
    """Return the token that Ray's dashboard asks for, as ``ray get-auth-token`` prints it."""
    # Lazy for the same reason as in ``local_serve``. Ray has no public function for it.
    from ray._private.authentication.http_token_authentication import (
        get_auth_headers_if_auth_enabled,
    )

    value = get_auth_headers_if_auth_enabled({}).get("authorization", "")
    return value.removeprefix("Bearer ") or None


@contextmanager
def serving(
    args: dict[str, Any],
    *,
    host: str = "127.0.0.1",
    port: int,
    dashboard: bool = False,
    quiet: bool = False,
    monitor: Monitor | None = None,
) -> Iterator[Endpoints]:
    """Run the application while the context lasts.

    Args:
        args: Settings, as ``build`` takes them.
        host: Address to listen on.
        port: Port of the HTTP endpoint.
        dashboard: Whether to run Ray's dashboard.
        quiet: Whether to keep the logs of Ray and its workers off the terminal.
        monitor: Prometheus to run, which takes ``dashboard``.

    Raises:
        InvalidConfig: The settings are wrong, or nothing can listen on the host and port.
        ModelChecksumMismatch: The weights of a model are not those of its release.
        ModelUnavailable: The weights of a model are not on this machine.
        InternalError: A replica or Prometheus did not start. The message says why.
        DeadlineExceeded: The application or Prometheus was not ready in time.
    """
    config = AppConfig.load(args)
    check_address(host, port)
    with ray_environment():
        # Lazy for the same reason as in ``local_serve``.
        from ray import serve

        from serve_app.app import build

        # Before Ray starts, so that wrong settings and missing weights are reported at once.
        application = build(args)
        for name in config.served_models:
            locate_weights(name, config)
    num_cpus = max(os.cpu_count() or 1, needed_cpus(config))
    with local_serve(
        num_cpus, host=host, port=port, dashboard=dashboard, quiet=quiet, monitor=monitor
    ) as endpoints:
        try:
            try:
                serve.run(application, name=APPLICATION, route_prefix="/")
            except RuntimeError as error:
                raise InternalError(
                    f"the application did not start: {error}; {replica_states()}"
                ) from error
            _wait_until_ready(f"{endpoints.http}/readyz")
            yield endpoints
        finally:
            # The replicas finish their requests. The rest of Serve ends with Ray.
            with suppress(Exception):
                serve.delete(APPLICATION)


def replica_states() -> str:
    """Return one line with the state of each deployment, for error messages."""
    # Lazy for the same reason as in ``local_serve``.
    from ray import serve

    application = serve.status().applications.get(APPLICATION)
    if application is None:
        return "there is no application"
    parts = [f"application {application.status.value}"]
    for name, deployment in application.deployments.items():
        replicas = ", ".join(
            f"{count} {state}" for state, count in deployment.replica_states.items()
        )
        note = f" ({deployment.message})" if deployment.message else ""
        parts.append(f"{name}: {deployment.status.value}, replicas {replicas or 'none'}{note}")
    return "; ".join(" ".join(part.split()) for part in parts)


def _wait_until_ready(url: str) -> None:
    deadline = time.monotonic() + _READY_TIMEOUT_S
    while not answers(url):
        if time.monotonic() > deadline:
            raise DeadlineExceeded(
                f"{url} did not answer with 200 within {_READY_TIMEOUT_S:.0f} s; {replica_states()}"
            )
        time.sleep(0.3)
