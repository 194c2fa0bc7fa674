"""The application that the tuner changes through Serve's REST API.

Replicas, ongoing requests and ``user_config`` change without a restart. Another placement,
execution, engine or precision needs other sessions, and therefore restarts the replicas.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import urllib3

from ingest.local.application import APPLICATION, local_serve
from ingest.local.aws import use_dummy_credentials
from ingest.local.ports import free_port
from loadtests.tuner.pairs import pair_settings
from loadtests.tuner.trials import Setting
from serve_app.config import AppConfig
from serve_app.errors import DeadlineExceeded, InternalError, InvalidConfig

IMPORT_PATH = "serve_app.app:build"

_READY_TIMEOUT_S, _READYZ_TIMEOUT_S = 240.0, 10.0
_LOGICAL_CPUS = 64
"""More CPUs than any setting needs, so that replicas may share cores, which is measured."""


@dataclass(frozen=True, slots=True)
class Target:
    """A running application and the URLs at which it is reached."""

    http: str
    """URL of the application."""
    dashboard: str
    """URL of Ray's dashboard."""
    args: dict[str, Any]
    """Settings of the application that all trials share."""

    def apply(self, setting: Setting) -> None:
        """Change the application to a setting, and wait until it is ready.

        Raises:
            InvalidConfig: Serve refused the setting.
            InternalError: The application failed with the setting, or serves in float32 instead.
            DeadlineExceeded: The application was not ready in time.
        """
        config = serve_config([application_config(self.args, setting)], self.http)
        with _map_client_errors(self.dashboard):
            _serve_client(self.dashboard).deploy_applications(config)
        deadline = time.monotonic() + _READY_TIMEOUT_S
        while (reason := self._reason_to_wait(setting)) is not None:
            if time.monotonic() > deadline:
                raise DeadlineExceeded(
                    f"the application was not ready in {_READY_TIMEOUT_S:.0f} s: {reason}"
                )
            time.sleep(0.5)

    def status(self) -> dict[str, Any] | None:
        """Return the status of the application as Serve reports it, or None before it exists.

        Raises:
            DeadlineExceeded: The dashboard does not answer.
        """
        with _map_client_errors(self.dashboard):
            details: dict[str, Any] = _serve_client(self.dashboard).get_serve_details()
        status: dict[str, Any] | None = details["applications"].get(APPLICATION)
        return status

    def _reason_to_wait(self, setting: Setting) -> str | None:
        """Return why the application does not run with a setting yet, or None if it does."""
        status = self.status()
        if status is None:
            return "Serve has no such application yet"
        if status["status"] in ("DEPLOY_FAILED", "UNHEALTHY"):
            raise InternalError(f"{setting}: {status['status']}: {status['message']}")
        if status["status"] != "RUNNING":
            return f"its status is {status['status']}"
        for name, wanted in _replica_counts(self.args, setting).items():
            replicas = status["deployments"].get(name, {}).get("replicas", [])
            states = [replica["state"] for replica in replicas]
            if states != ["RUNNING"] * wanted:
                return f"{name} has {states or 'no replicas'}, not {wanted} running"
        ready = _readiness(self.http)
        if ready is None:
            return "/readyz does not answer 200"
        if refused := ready.get("refused"):
            # Its trial would be one of float32.
            raise InternalError(f"{setting}: {'; '.join(refused.values())}")
        return None


def _readiness(http: str) -> dict[str, Any] | None:
    """Return what /readyz says, or None if the application is not ready."""
    # urllib3 uses no proxy of the environment, which could not reach this machine.
    pool = urllib3.PoolManager(retries=False, timeout=_READYZ_TIMEOUT_S)
    try:
        response = pool.request("GET", f"{http}/readyz")
    except urllib3.exceptions.HTTPError:
        return None
    if response.status != 200:
        return None
    ready: dict[str, Any] = response.json()
    return ready


def _serve_client(dashboard: str) -> Any:
    """Return the client that ``serve deploy`` uses, which sends the cluster's token."""
    # Slow to import, and not needed for a Serve file.
    from ray.dashboard.modules.serve.sdk import ServeSubmissionClient

    return ServeSubmissionClient(dashboard)


@contextmanager
def _map_client_errors(dashboard: str) -> Iterator[None]:
    try:
        yield
    except (ConnectionError, OSError) as error:
        raise DeadlineExceeded(f"the dashboard {dashboard} does not answer: {error}") from error
    except RuntimeError as error:
        raise InvalidConfig(f"the dashboard {dashboard} refused a request: {error}") from error


def application_config(args: dict[str, Any], setting: Setting) -> dict[str, Any]:
    """Return a setting as an application of a Serve configuration.

    The arguments stay the same as long as placement, execution and engine do, because Serve
    restarts the replicas of an application when its arguments change. A model in the pipeline takes
    no ``user_config``, so that all of its settings are arguments.
    """
    deployments: list[dict[str, Any]] = [
        {"name": "CutoutPipeline", "num_replicas": setting.pipelines}
    ]
    if setting.placement == "pipeline":
        # Without the replicas, which change without a restart.
        args = tuned_args(args, replace(setting, pipelines=1))
    else:
        fan_out = setting.execution == "fan_out"
        own: dict[str, Any] = {
            "placement": "deployment",
            "execution": setting.execution,
            **pair_settings(setting.pair),
        }
        user_config = {"threads": setting.threads}
        if own["engine"] == "openvino":
            # It compiles a graph for so many threads.
            own["threads"], user_config = setting.threads, {}
        elif not fan_out:
            # The threads that share one run belong to the session.
            own["threads"] = setting.threads
            user_config = {"max_batch_size": setting.max_batch_size}
        deployments += [
            {
                "name": f"Segmenter-{name}",
                "num_replicas": setting.segmenters,
                "max_ongoing_requests": setting.max_ongoing,
                "user_config": user_config,
            }
            for name in AppConfig.load(args).served_models
        ]
        args = {**args, "segmenter": {**args.get("segmenter", {}), **own}}
    return {
        "name": APPLICATION,
        "route_prefix": "/",
        "import_path": IMPORT_PATH,
        "args": args,
        "deployments": deployments,
    }


def tuned_args(args: dict[str, Any], setting: Setting) -> dict[str, Any]:
    """Return the arguments of the application that make a setting permanent."""
    segmenter = {
        **args.get("segmenter", {}),
        "placement": setting.placement,
        "execution": setting.execution,
        **pair_settings(setting.pair),
        "threads": setting.threads,
        "max_batch_size": setting.max_batch_size,
    }
    pipeline = {**args.get("pipeline", {}), "replicas": setting.pipelines}
    if setting.placement == "pipeline":
        pipeline.update(threads=setting.threads, num_cpus=setting.threads)
    else:
        segmenter.update(replicas=setting.segmenters, max_ongoing=setting.max_ongoing)
    return {**args, "segmenter": segmenter, "pipeline": pipeline}


def serve_config(applications: list[dict[str, Any]], http: str) -> dict[str, Any]:
    """Return a Serve configuration that listens at a URL."""
    host, _, port = http.removeprefix("http://").rpartition(":")
    return {
        "proxy_location": "HeadOnly",
        "http_options": {"host": host, "port": int(port)},
        "applications": applications,
    }


def _replica_counts(args: dict[str, Any], setting: Setting) -> dict[str, int]:
    wanted = {"CutoutPipeline": setting.pipelines}
    if setting.placement == "deployment":
        models = AppConfig.load(args).served_models
        wanted.update({f"Segmenter-{name}": setting.segmenters for name in models})
    return wanted


@contextmanager
def own_ray(args: dict[str, Any]) -> Iterator[Target]:
    """Run a local Ray with its dashboard until the context ends."""
    # The application needs no credentials. This also keeps the environment's proxy from being used
    # for this machine's own ports.
    use_dummy_credentials()
    with local_serve(_LOGICAL_CPUS, port=free_port(), dashboard=True) as endpoints:
        yield Target(endpoints.http, str(endpoints.dashboard), args)
