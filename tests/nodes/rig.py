"""A cluster under load, and what a scenario does to its jobs, its requests and its replicas."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ingest.local.application import APPLICATION
from serve_app.contracts.outcome import Outcome
from tests.nodes.cluster import Cluster
from tests.nodes.jobs import Jobs, LocalServices, Verdict, arguments, small_image
from tests.nodes.load import SteadyLoad
from tests.nodes.machines import Machine, Network

VISIBILITY_S = 60
"""Visibility timeout of the queue, in seconds, unless a scenario needs another."""
AGAIN = "jobs whose message came again"
AGAIN_ENDED = "the last of them ended after s"
_REQUESTS_PER_S = 2.0
_QUIET_S = 5.0
_BEGUN = 0.1
_OVER_S = 400.0


@dataclass(frozen=True)
class Settings:
    """What differs between runs of the scenarios.

    Attributes:
        jobs: Number of jobs of each scenario.
        partition_s: Time, in seconds, for which a machine is cut off.
    """

    jobs: int = 300
    partition_s: float = 30


@dataclass
class Result:
    """What a scenario has shown.

    Attributes:
        name: Name of the scenario.
        verdict: What has become of its jobs.
        requests: Number of requests of the load that ended after the fault.
        failed: Number of requests without a result, by status or error.
        http_s: Time, in seconds, from the fault to the end of the last request that failed.
        next_image_s: Time, in seconds, from the fault to the next outcome of a job.
        drained_s: Time, in seconds, from the fault until the last job ended.
        whole_s: Time, in seconds, from the fault until every replica ran again.
        facts: What this scenario alone has shown, by name.
    """

    name: str
    verdict: Verdict
    requests: int
    failed: dict[str, int]
    http_s: float
    next_image_s: float
    drained_s: float
    whole_s: float
    facts: dict[str, Any] = field(default_factory=dict)

    def stored(self) -> dict[str, Any]:
        """Return the result as JSON can hold it."""
        return asdict(self)


def from_stored(stored: Mapping[str, Any]) -> Result:
    """Return a result that was stored as JSON."""
    return Result(**{**stored, "verdict": Verdict(**stored["verdict"])})


@dataclass
class Episode:
    """One fault under load, as a scenario sees it."""

    began: float
    jobs: Jobs
    load: SteadyLoad
    facts: dict[str, Any]


class Rig:
    """A cluster with the application, a queue and buckets."""

    def __init__(
        self,
        network: Network,
        services: LocalServices,
        settings: Settings,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """Start the nodes.

        Args:
            network: Network of the machines.
            services: SQS and S3.
            settings: What differs between runs.
            variables: Variables of the head and the workers.
        """
        self.settings = settings
        self.network = network
        self._services = services
        self.queue_url = services.create_queue(VISIBILITY_S)
        credentials = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local"}
        self.cluster = Cluster(network, {**credentials, **(variables or {})})
        self.cluster.start_head()
        self.cluster.start_workers(2)
        self._visibility_s, self._endpoints = VISIBILITY_S, 2
        self._spread: tuple[int, int, tuple[str, ...]] | None = None
        self._expected: dict[str, int] = {}

    def spread(self, endpoints: int, visibility_s: int) -> None:
        """Delete the application and deploy it again, so that Serve spreads it over all machines.

        Serve never moves a replica. After the loss of a machine, most of them are on another one.
        If the machines and the application are those of the time before, they stay.

        Args:
            endpoints: Number of HttpApi replicas.
            visibility_s: Visibility timeout of the messages, in seconds.
        """
        wanted = (endpoints, visibility_s, tuple(str(one) for one in self.cluster.workers))
        if wanted == self._spread:
            return
        self._visibility_s = visibility_s
        self._endpoints = endpoints
        self.cluster.deploy([])
        self.cluster.until(lambda: not self.cluster.replicas(), "the application has ended")
        self.deploy()
        self._spread = wanted

    def deploy(self, revision: str = "one") -> None:
        """Deploy the application with another revision, and do not wait for it.

        Args:
            revision: Revision that ``/healthz`` then names.
        """
        self._spread = None
        settings = arguments(self.queue_url, self._visibility_s)
        settings["http"]["replicas"] = self._endpoints
        self._expected = {
            "HttpApi": self._endpoints,
            "CutoutPipeline": settings["pipeline"]["replicas"],
            "Segmenter-folio": settings["segmenter"]["replicas"],
            "SqsIngest": settings["queue"]["consumers"],
        }
        application = {
            "name": APPLICATION,
            "route_prefix": "/",
            "import_path": "serve_app.app:build",
            "runtime_env": {"env_vars": {"IMAGE_REVISION": revision}},
            "args": settings,
        }
        self.cluster.deploy([application])

    def until_whole(self) -> float:
        """Wait until every replica runs on a machine that lives, and return the seconds."""
        return self.cluster.until(self.is_whole, f"replicas are {self._expected}")

    def is_whole(self) -> bool:
        """Return whether every replica runs on a machine that lives."""
        return self.cluster.is_whole(self._expected)

    def machines_with(self, deployment: str) -> set[str]:
        """Return the addresses of the machines with a replica of a deployment."""
        found = self.cluster.replicas()
        return {one.address for one in found if one.deployment == deployment and one.runs}

    def victim(self) -> Machine:
        """Return a worker with a consumer."""
        consuming = self.machines_with("SqsIngest")
        return next(one for one in self.cluster.workers if one.address in consuming)

    @contextmanager
    def load(self) -> Iterator[SteadyLoad]:
        """Send images to the workers, and begin when none fails any more."""

        def addresses() -> list[str]:
            return [one.address for one in self.cluster.workers]

        with SteadyLoad(small_image(), addresses, _REQUESTS_PER_S) as load:
            started = time.monotonic()
            self._until_quiet(load, started, at_least=1)
            yield load

    def endure(self, name: str, fault: Callable[[Episode], None]) -> Result:
        """Run jobs and requests through a fault, until everything is as before.

        Args:
            name: Name of the scenario.
            fault: What happens. It returns when nothing more is to be done.
        """
        self.until_whole()
        jobs = Jobs(self._services, self.queue_url, self.settings.jobs)
        facts: dict[str, Any] = {}
        with self.load() as load:
            jobs.send()
            begun = max(1, int(_BEGUN * jobs.count))
            self.cluster.until(lambda: jobs.ended() >= begun, f"{begun} jobs have ended")
            episode = Episode(time.monotonic(), jobs, load, facts)
            began_at = time.time()
            fault(episode)
            whole_s = self.until_whole() and time.monotonic() - episode.began
            self.cluster.until(jobs.is_over, "every job has ended", _OVER_S)
            self._until_quiet(load, episode.began)
        requests = load.ended(episode.began)
        failures = [one for one in requests if not one.good]
        outcomes = jobs.outcomes()
        after = [end for one in outcomes if (end := one.finished_at.timestamp() - began_at) > 0]
        facts |= _redeliveries(outcomes, began_at)
        return Result(
            name=name,
            verdict=jobs.verdict(),
            requests=len(requests),
            failed=dict(Counter(str(one.result) for one in failures)),
            http_s=max((one.ended_at - episode.began for one in failures), default=0),
            next_image_s=min(after),
            drained_s=max(after),
            whole_s=whole_s,
            facts=facts,
        )

    def _until_quiet(self, load: SteadyLoad, began: float, at_least: int = 0) -> None:
        """Wait until no request has failed for a while."""

        def quiet() -> bool:
            since = max(began, time.monotonic() - _QUIET_S)
            recent = [one for one in load.requests if one.sent_at >= since]
            passed = time.monotonic() - began >= _QUIET_S
            return passed and len(recent) > at_least and all(one.good for one in recent)

        self.cluster.until(quiet, "no request fails")


def _redeliveries(outcomes: Sequence[Outcome], began_at: float) -> dict[str, Any]:
    """Return the jobs whose message was given back or left, and when the last of them ended.

    Args:
        outcomes: Records of the run.
        began_at: Time of the fault, in seconds since the epoch.
    """
    again = {one.job_id: one.finished_at for one in outcomes if one.receive_count > 1}
    if not again:
        return {AGAIN: 0}
    last_at = max(again.values()).timestamp()
    return {AGAIN: len(again), AGAIN_ENDED: round(last_at - began_at, 1)}


@contextmanager
def rig(
    folder: Path, settings: Settings, variables: Mapping[str, str] | None = None
) -> Iterator[Rig]:
    """Run a cluster while the context lasts."""
    with Network(folder) as network, LocalServices() as services:
        yield Rig(network, services, settings, variables)
