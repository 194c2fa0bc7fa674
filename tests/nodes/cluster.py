"""A Ray cluster with the application, whose nodes are machines.

Each node runs ``ray start --block`` with the options and variables of ``cluster/kubernetes``, and
with fewer CPUs.
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from ingest.local.application import APPLICATION
from serve_app.serving.ray_environment import ENVIRONMENT
from tests.nodes.ground import FOLDER_VARIABLE, ROOT
from tests.nodes.machines import Machine, Network

TOKEN = "a" * 64
SERVE_PORT = 8000
_GCS_PORT, _DASHBOARD_PORT, _AGENT_PORT = 6379, 8265, 52365
WORKER_CPUS = 4
"""CPUs that Ray counts for a worker. The machines share those that there are."""
_OBJECT_STORE_BYTES = 100 * 1024 * 1024
_DRAIN_S = {"head": "60", "worker": "40"}
_PATIENCE_S = 240.0
_ATTEMPTS = 4
_STARTED = "Ray runtime started."
_PORTS = (
    f"--dashboard-agent-listen-port={_AGENT_PORT}",
    "--dashboard-agent-grpc-port=52366",
    "--runtime-env-agent-port=52367",
    "--metrics-export-port=8080",
)
_BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Replica:
    """A replica, as Serve's controller sees it."""

    deployment: str
    name: str
    address: str
    """Address of its machine."""
    runs: bool
    pid: int | None
    """Number of its process on that machine. None until it has one."""


class Cluster:
    """A head without CPUs, and its workers."""

    def __init__(self, network: Network, variables: Mapping[str, str]) -> None:
        """Describe a cluster that has no machine yet.

        Args:
            network: Network of its machines.
            variables: Variables of all nodes, e.g. the settings of the application.
        """
        self._network = network
        self._count = 0
        self._variables = dict(variables)
        self.head: Machine
        self.workers: list[Machine] = []

    def environment(self, role: str = "worker") -> dict[str, str]:
        """Return all variables of a node."""
        return {
            **ENVIRONMENT,
            "PATH": f"{_BIN}:/usr/sbin:/usr/bin:/sbin:/bin",
            "PYTHONPATH": str(ROOT),
            "USER": "foreedge",
            FOLDER_VARIABLE: os.environ[FOLDER_VARIABLE],
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": TOKEN,
            # The machines share their cores with each other, and with whatever else runs here.
            "RAY_worker_niceness": "0",
            "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": _DRAIN_S[role],
            **self._variables,
        }

    def start_head(self, address: str | None = None) -> None:
        """Start the head, at the address of the one before or at a new one."""
        [self.head] = self._start(1, lambda: self._boot_head(address))

    def start_workers(self, count: int, cpus: int = WORKER_CPUS) -> list[Machine]:
        """Start workers at the same time, and wait until each is a node of the cluster.

        Args:
            count: Number of workers.
            cpus: CPUs that Ray counts for each.
        """
        started = self._start(count, lambda: self.boot_worker(self.environment(), cpus))
        self.workers += started
        return started

    def _start(self, count: int, boot: Callable[[], Machine]) -> list[Machine]:
        """Start machines, and those again that end before they are healthy, as a pod would be.

        Ray gives up a node whose raylet does not answer within 30 s, which happens if others use
        the cores.
        """
        healthy: list[Machine] = []
        for _ in range(_ATTEMPTS):
            for machine in [boot() for _ in range(count - len(healthy))]:
                if self._becomes_healthy(machine):
                    healthy.append(machine)
            if len(healthy) == count:
                return healthy
        raise RuntimeError(f"machines ended as they started\n{self._logs()}")

    def _boot_head(self, address: str | None) -> Machine:
        self._count += 1
        command = [
            *("ray", "start", "--head", "--block", "--num-cpus=0", f"--port={_GCS_PORT}"),
            *("--node-ip-address={address}", "--dashboard-host=0.0.0.0", *_PORTS),
            f"--object-store-memory={_OBJECT_STORE_BYTES}",
        ]
        if password := self._variables.get("REDIS_PASSWORD"):
            # KubeRay adds it too. Ray itself does not look for the variable.
            command.append(f"--redis-password={password}")
        environment = self.environment("head")
        return self._network.boot(f"head{self._count}", command, environment, address=address)

    def boot_worker(self, environment: Mapping[str, str], cpus: int = WORKER_CPUS) -> Machine:
        """Start a machine that tries to join, and do not wait for it.

        Args:
            environment: Variables of the machine.
            cpus: CPUs that Ray counts for it.
        """
        self._count += 1
        command = [
            *("ray", "start", "--block", f"--address={self.head.address}:{_GCS_PORT}"),
            *("--node-ip-address={address}", f"--num-cpus={cpus}", *_PORTS),
            f"--object-store-memory={_OBJECT_STORE_BYTES}",
        ]
        return self._network.boot(f"worker{self._count}", command, environment)

    def forget(self, worker: Machine) -> None:
        """Leave out a worker that has ended."""
        self.workers.remove(worker)

    def deploy(self, applications: list[dict[str, Any]]) -> None:
        """Send a Serve file to the dashboard, as ``serve deploy`` and KubeRay do.

        Args:
            applications: Applications of the file. All others are deleted.
        """
        file = {
            "proxy_location": "EveryNode",
            "http_options": {"host": "0.0.0.0", "port": SERVE_PORT},
            "applications": applications,
        }
        answer = self._ask("PUT", "serve/applications/", json=file)
        if answer.status_code != 200:
            raise RuntimeError(f"the application was not accepted: {answer.text[:2000]}")

    def replicas(self) -> list[Replica]:
        """Return the replicas that Serve's controller knows of."""
        answer = self._ask("GET", "serve/applications/")
        answer.raise_for_status()
        application = answer.json()["applications"].get(APPLICATION, {"deployments": {}})
        return [
            Replica(
                name,
                one["replica_id"],
                one.get("node_ip") or "",
                runs=one["state"] == "RUNNING",
                pid=one.get("pid"),
            )
            for name, deployment in application["deployments"].items()
            for one in deployment["replicas"]
        ]

    def state(self) -> str:
        """Return the state of the application, e.g. ``RUNNING``."""
        answer = self._ask("GET", "serve/applications/")
        answer.raise_for_status()
        found = answer.json()["applications"].get(APPLICATION)
        return "none" if found is None else str(found["status"])

    def living_nodes(self) -> set[str]:
        """Return the addresses of the nodes that are alive."""
        answer = self._ask("GET", "../nodes?view=summary")
        answer.raise_for_status()
        return {
            one["raylet"]["nodeManagerAddress"]
            for one in answer.json()["data"]["summary"]
            if one["raylet"]["state"] == "ALIVE"
        }

    def dashboard_status(self, token: str | None) -> int:
        """Return the status with which the dashboard answers a request."""
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        url = f"http://{self.head.address}:{_DASHBOARD_PORT}/api/serve/applications/"
        return httpx.get(url, headers=headers, timeout=30, trust_env=False).status_code

    def is_whole(self, expected: Mapping[str, int]) -> bool:
        """Return whether each deployment has its replicas, all on machines that live."""
        alive = {one.address for one in (self.head, *self.workers) if one.runs}
        found = Counter(one.deployment for one in self.replicas() if one.runs)
        strangers = [one for one in self.replicas() if one.address not in alive]
        return found == Counter(expected) and not strangers and self.state() == "RUNNING"

    def until(
        self, condition: Callable[[], bool], what: str, patience_s: float = _PATIENCE_S
    ) -> float:
        """Wait until a condition holds, and return the seconds that it took.

        An answer that does not come counts as a condition that does not hold.

        Raises:
            TimeoutError: It did not hold in time. The text has the ends of the logs.
        """
        began = time.monotonic()
        while True:
            try:
                if condition():
                    return time.monotonic() - began
            except (httpx.TransportError, httpx.HTTPStatusError):
                pass
            if time.monotonic() > began + patience_s:
                raise TimeoutError(f"not within {patience_s:.0f} s: {what}\n{self._logs()}")
            time.sleep(0.25)

    def _becomes_healthy(self, machine: Machine) -> bool:
        """Wait until a machine is healthy or has ended, and return whether it is healthy."""
        url = f"http://{machine.address}:{_AGENT_PORT}/api/healthz"

        def known() -> bool:
            if not machine.runs:
                return True
            # Its agent may answer before Ray gives it up.
            return _STARTED in self._network.printed(machine) and _status(url) == 200

        self.until(known, f"{machine} is healthy")
        return machine.runs

    def _ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        base = f"http://{self.head.address}:{_DASHBOARD_PORT}/api/"
        headers = {"authorization": f"Bearer {TOKEN}"}
        url = httpx.URL(base).join(path)
        return httpx.request(method, url, headers=headers, timeout=60, trust_env=False, **options)

    def _logs(self) -> str:
        machines = self._network.machines
        return "\n".join(f"--- {one}\n{self._network.printed(one)[-1500:]}" for one in machines)


def _status(url: str) -> int:
    return httpx.get(url, timeout=10, trust_env=False).status_code
