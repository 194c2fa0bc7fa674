"""Verification that a release serves: it is ready, and every way of an image works."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from cluster.deploy import checks
from cluster.deploy.kubectl import Kubectl
from cluster.deploy.readiness import active_cluster, is_pod_ready, why_not_ready
from cluster.deploy.release import RAY_SERVICE, Release
from cluster.deploy.waiting import Clock, NotYet, Patience, TookTooLong, wait_until

T = TypeVar("T")

_SERVE_SERVICE = f"service/{RAY_SERVICE}-serve-svc"
"""Service that KubeRay makes for the cluster that gets the traffic."""
_HTTP_PORT = 8000
_SMOKE_CONTAINER = "smoke"
"""Init container of every worker, without whose success no worker starts."""


@dataclass(frozen=True, slots=True)
class Verification:
    """The checks of a release in one namespace of one cluster."""

    kubectl: Kubectl
    source: str
    """URL of an image in S3, for the check of the queue."""
    output: str
    """URL of a prefix in S3 for its result."""
    api_key: str | None = field(repr=False)
    patience: Patience
    report: Callable[[str], None] = field(repr=False)
    """Called with a line for each step."""
    clock: Clock = field(repr=False)

    def verify(self, release: Release) -> None:
        """Wait until a release is ready, and check it.

        Raises:
            DeploymentFailed: A check failed, or did not pass in time.
        """
        cluster = self._wait(
            f"revision {release.revision} is ready", self.patience.ready_s, self._ready_cluster
        )
        self._check_installation(cluster, release.revision)
        self._wait_for_answer(
            f"/healthz names {release.revision}",
            lambda endpoint: checks.require_revision(endpoint, release.revision),
        )
        self._wait_for_answer("an image was cut out over HTTP", checks.require_cutout)
        self._check_queue()

    def _ready_cluster(self) -> str:
        """Return the cluster that gets the traffic, once it serves what is asked for."""
        service = self.kubectl.read("rayservice", RAY_SERVICE)
        name = active_cluster(service)
        cluster = self.kubectl.read("raycluster", name) if name else None
        waiting = why_not_ready(service, cluster)
        if waiting is not None or name is None:
            raise NotYet(waiting or "no RayCluster gets the traffic")
        return name

    def _check_installation(self, cluster: str, revision: str) -> None:
        def ready_worker() -> str:
            selector = f"ray.io/cluster={cluster},ray.io/node-type=worker"
            pods = self.kubectl.read("pods", "--selector", selector)["items"]
            for pod in pods:
                if is_pod_ready(pod):
                    return str(pod["metadata"]["name"])
            raise NotYet(f"none of the {len(pods)} workers of {cluster} is ready")

        pod = self._wait("a worker is ready", self.patience.check_s, ready_worker)
        log = self._wait(
            f"{pod} has a report of foreedge smoke",
            self.patience.check_s,
            lambda: self.kubectl.logs(pod, _SMOKE_CONTAINER),
        )
        checks.require_smoke(log, revision)
        self.report("foreedge smoke passed")

    def _check_queue(self) -> None:
        run_id = self._wait_for_answer(
            "a job is on the queue",
            lambda endpoint: checks.send_job(endpoint, self.source, self.output),
        )
        try:
            self._wait_for_answer(
                "an image was cut out by the queue",
                lambda endpoint: checks.require_job(endpoint, run_id),
                self.patience.queue_s,
            )
        except TookTooLong:
            # The job may wait behind the messages of a large run, whatever the release does.
            self.report("the job has no result yet: looking at what the consumers do")
            self._wait_for_answer("the queue is served", checks.require_work)

    def _wait_for_answer(
        self, what: str, ask: Callable[[checks.Endpoint], T], patience_s: float | None = None
    ) -> T:
        """Ask the endpoint until it answers. Each attempt has a connection of its own."""

        def attempt() -> T:
            with self.kubectl.forward(_SERVE_SERVICE, _HTTP_PORT) as url:
                return ask(checks.Endpoint(url, self.api_key))

        return self._wait(what, patience_s or self.patience.check_s, attempt)

    def _wait(self, what: str, patience_s: float, attempt: Callable[[], T]) -> T:
        return wait_until(what, patience_s, self.patience.poll_s, self.clock, attempt, self.report)
