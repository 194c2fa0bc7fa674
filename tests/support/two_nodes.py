"""A Ray cluster of two nodes on this machine, one of which can be lost, with the application."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import ray
from ray import serve
from ray.cluster_utils import Cluster

from ingest.local.application import APPLICATION, ray_environment
from ingest.local.ports import free_port
from serve_app.app import build

CONSUMERS = 2
_NODE = {"num_cpus": 4, "object_store_memory": 100 * 1024 * 1024}
_TIMEOUT_S = 90.0


class RayCluster:
    """A cluster of a head node, which stays, and another node."""

    def __init__(self) -> None:
        with ray_environment():
            self._cluster = Cluster(
                initialize_head=True, head_node_args={**_NODE, "include_dashboard": False}
            )
        self._other = self._cluster.add_node(**_NODE)
        ray.init(address=self._cluster.address, log_to_driver=False, logging_level="ERROR")
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        serve.start(http_options={"port": port}, proxy_location="HeadOnly")

    def close(self) -> None:
        with suppress(Exception):
            serve.shutdown()
        ray.shutdown()
        self._cluster.shutdown()

    def lose_node(self) -> None:
        """Kill all processes of the other node at once."""
        self._cluster.remove_node(self._other, allow_graceful=False)

    def add_node(self) -> None:
        self._other = self._cluster.add_node(**_NODE)

    def deploy(self, args: dict[str, Any]) -> None:
        serve.run(build(args), name=APPLICATION, route_prefix="/")

    def delete(self) -> None:
        """Delete the application. Every replica stops within its grace time."""
        serve.delete(APPLICATION)

    def kill_controller(self) -> None:
        controller = ray.get_actor("SERVE_CONTROLLER_ACTOR", namespace="serve")
        ray.kill(controller, no_restart=False)

    def replicas(self, deployment: str) -> set[str]:
        """Return the names of the replicas of a deployment that are alive."""
        prefix = f"SERVE_REPLICA::{APPLICATION}#{deployment}#"
        actors = ray.util.list_named_actors(all_namespaces=True)
        return {item["name"] for item in actors if item["name"].startswith(prefix)}

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _TIMEOUT_S
        while not condition():
            assert time.monotonic() < deadline, f"not within {_TIMEOUT_S:.0f} s: {serve.status()}"
            time.sleep(0.2)


@contextmanager
def two_nodes() -> Iterator[RayCluster]:
    cluster = RayCluster()
    try:
        yield cluster
    finally:
        cluster.close()
