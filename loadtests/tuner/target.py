"""The running application under the tuner: put into a setting through Serve's REST API.

Replicas, ongoing requests and ``user_config`` change without a restart; another placement or
execution needs other sessions, and so restarts the replicas.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from ingest.local.application import APPLICATION, local_serve
from ingest.local.aws import use_dummy_credentials
from ingest.local.ports import answers, free_port
from loadtests.tuner.trials import Setting
from serve_app.config import AppConfig
from serve_app.errors import DeadlineExceeded, InternalError, InvalidConfig

IMPORT_PATH = "serve_app.app:build"

_READY_TIMEOUT_S = 240.0
_LOGICAL_CPUS = 64
"""More than every setting needs: which replicas share cores is what is being measured."""


@dataclass(frozen=True, slots=True)
class Target:
    """An application of Serve, and where it is reached."""

    http: str
    """URL of the application."""
    dashboard: str
    """URL of Ray's dashboard."""
    args: dict[str, Any]
    """Settings that every trial shares."""

    def apply(self, setting: Setting) -> None:
        """Put the application into a setting, and wait until it is in it.

        Raises:
            InvalidConfig: Serve refused it.
            InternalError: The application failed in it.
            DeadlineExceeded: It did not get ready.
        """
        self._put(serve_config([application(self.args, setting)], self.http))
        deadline = time.monotonic() + _READY_TIMEOUT_S
        while (trouble := self._trouble(setting)) is not None:
            if time.monotonic() > deadline:
                raise DeadlineExceeded(f"the application did not get ready: {trouble}")
            time.sleep(0.5)

    def _trouble(self, setting: Setting) -> str | None:
        """Return why the application is not in a setting yet."""
        found = self._get()["applications"].get(APPLICATION)
        if found is None:
            return "Serve does not know it yet"
        if found["status"] in ("DEPLOY_FAILED", "UNHEALTHY"):
            raise InternalError(f"{setting}: {found['status']}: {found['message']}")
        if found["status"] != "RUNNING":
            return f"it is {found['status']}"
        for name, wanted in _replicas(self.args, setting).items():
            replicas = found["deployments"].get(name, {}).get("replicas", [])
            states = [replica["state"] for replica in replicas]
            if states != ["RUNNING"] * wanted:
                return f"{name} has {states or 'no replicas'}, not {wanted} running"
        return None if answers(f"{self.http}/readyz", 10) else "/readyz does not answer 200"

    def _put(self, config: dict[str, Any]) -> None:
        with _mapped(self.dashboard):
            _client(self.dashboard).deploy_applications(config)

    def _get(self) -> dict[str, Any]:
        with _mapped(self.dashboard):
            found: dict[str, Any] = _client(self.dashboard).get_serve_details()
            return found


def _client(dashboard: str) -> Any:
    """Return the client that ``serve deploy`` uses, which presents the cluster's own token."""
    from ray.dashboard.modules.serve.sdk import ServeSubmissionClient

    return ServeSubmissionClient(dashboard)


@contextmanager
def _mapped(dashboard: str) -> Iterator[None]:
    try:
        yield
    except (ConnectionError, OSError) as error:
        raise DeadlineExceeded(f"{dashboard} does not answer: {error}") from error
    except RuntimeError as error:
        raise InvalidConfig(f"{dashboard}: {error}") from error


def application(args: dict[str, Any], setting: Setting) -> dict[str, Any]:
    """Return a setting as an application of a Serve configuration.

    The arguments stay the same for as long as placement and execution do: Serve restarts the
    replicas of an application whose arguments changed. A model in the pipeline takes no
    ``user_config``, so that all of its settings are arguments.
    """
    deployments: list[dict[str, Any]] = [
        {"name": "CutoutPipeline", "num_replicas": setting.pipelines}
    ]
    if setting.placement == "pipeline":
        # But for the replicas, which change without a restart.
        args = tuned_args(args, replace(setting, pipelines=1))
    else:
        fan_out = setting.execution == "fan_out"
        own: dict[str, Any] = {"placement": "deployment", "execution": setting.execution}
        if not fan_out:
            # Threads inside of a run belong to the session.
            own["threads"] = setting.threads
        user_config = (
            {"threads": setting.threads} if fan_out else {"max_batch_size": setting.max_batch_size}
        )
        deployments += [
            {
                "name": f"Segmenter-{name}",
                "num_replicas": setting.segmenters,
                "max_ongoing_requests": setting.max_ongoing,
                "user_config": user_config,
            }
            for name in AppConfig.load(args).models
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
    """Return the settings of AppConfig that make a setting permanent."""
    segmenter = {
        **args.get("segmenter", {}),
        "placement": setting.placement,
        "execution": setting.execution,
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
    """Return a Serve configuration that listens where the application is reached."""
    host, _, port = http.removeprefix("http://").rpartition(":")
    return {
        "proxy_location": "HeadOnly",
        "http_options": {"host": host, "port": int(port)},
        "applications": applications,
    }


def _replicas(args: dict[str, Any], setting: Setting) -> dict[str, int]:
    wanted = {"CutoutPipeline": setting.pipelines}
    if setting.placement == "deployment":
        models = AppConfig.load(args).models
        wanted.update({f"Segmenter-{name}": setting.segmenters for name in models})
    return wanted


@contextmanager
def own_ray(args: dict[str, Any]) -> Iterator[Target]:
    """Run a Ray of one's own, with its dashboard, for as long as the context lasts."""
    # The application asks for none; but a proxy of the environment has no way to this machine.
    use_dummy_credentials()
    with local_serve(_LOGICAL_CPUS, port=free_port(), dashboard=True) as endpoints:
        yield Target(endpoints.http, str(endpoints.dashboard), args)
