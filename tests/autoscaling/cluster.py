"""A Ray cluster whose nodes Ray's autoscaler starts and ends, on one machine.

Ray's provider for tests starts a node as processes of this machine. All nodes share its ports and
processes, so the cluster runs in namespaces of its own (``isolation``).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import ray
import yaml
from ray.autoscaler.v2.sdk import get_cluster_status

from ingest.local.application import ray_environment

NODE_CPUS = 3
"""CPUs that Ray counts for each node. The processes of all nodes share those of the machine."""
MOST_NODES = 4
IDLE_S = 6
"""Seconds after which a node without work is given up."""
AUTOSCALER_EVERY_S = 1
"""Seconds between two decisions of the autoscaler, which are 5 by default."""

_ADDRESS = "127.0.0.1"
_ATTEMPTS = 4
"""Starts of the head. Ray gives up one that takes over 30 s, as on a machine with other work."""
_GCS = f"{_ADDRESS}:6379"
"""Address of the head. Ray's provider starts nodes that join this port."""
_HEAD_ID = "f" * 51 + "00000"
_HEAD_TYPE = "ray.head.default"
_OBJECT_STORE_BYTES = 100 * 1024 * 1024
_MACHINERY = {
    "RAY_FAKE_CLUSTER": "1",
    "RAY_enable_autoscaler_v2": "1",
    "RAY_CLOUD_INSTANCE_ID": _HEAD_ID,
    "RAY_OVERRIDE_NODE_ID_FOR_TESTING": _HEAD_ID,
    "AUTOSCALER_UPDATE_INTERVAL_S": str(AUTOSCALER_EVERY_S),
    # Agents of nodes start slowly on a machine whose cores are busy. Ray would end their node.
    "RAY_agent_register_timeout_ms": "120000",
}
"""What ``ray.cluster_utils.AutoscalingCluster`` sets, and the patience of a busy machine. The ids
are those of the head. The provider gives each node its own."""


def cluster_config() -> dict[str, Any]:
    """Return the cluster's configuration for ``ray start --autoscaling-config``.

    The provider is external: Ray's own name for it, ``fake_multinode``, needs a file that its wheel
    lacks.
    """
    provider = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
    worker = {"CPU": NODE_CPUS, "object_store_memory": _OBJECT_STORE_BYTES}
    lists = ("initialization", "setup", "head_setup", "worker_setup")
    starts = ("head_start_ray_commands", "worker_start_ray_commands")
    return {
        "cluster_name": "autoscaling",
        "max_workers": MOST_NODES,
        "idle_timeout_minutes": IDLE_S / 60,
        "upscaling_speed": 4,
        "provider": {
            "type": "external",
            "module": provider,
            "launch_multiple": True,
            "head_node_id": _HEAD_ID,
        },
        "head_node_type": _HEAD_TYPE,
        "available_node_types": {
            _HEAD_TYPE: {"resources": {}, "node_config": {}, "max_workers": 0},
            "worker": {"resources": worker, "node_config": {}, "max_workers": MOST_NODES},
        },
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
        **{f"{name}_commands": [] for name in lists},
        **{name: [] for name in starts},
    }


def start_head(folder: Path) -> None:
    """Start the head of the cluster, which has no CPU, and connect to it.

    Args:
        folder: Folder with a short path, for the configuration and for the files of Ray.
    """
    config = folder / "cluster.yaml"
    config.write_text(yaml.safe_dump(cluster_config()))
    program = str(Path(sys.executable).with_name("ray"))
    command = [
        program,
        "start",
        "--head",
        "--num-cpus=0",
        f"--object-store-memory={_OBJECT_STORE_BYTES}",
        f"--autoscaling-config={config}",
        f"--temp-dir={folder / 'ray'}",
        f"--node-ip-address={_ADDRESS}",
        "--include-dashboard=false",
    ]
    with ray_environment():
        for _ in range(_ATTEMPTS):
            started = subprocess.run(
                command, env=os.environ | _MACHINERY, check=False, stdout=sys.stderr
            )
            if started.returncode == 0:
                break
            # It ends the processes of this namespace only.
            subprocess.run([program, "stop", "--force"], check=True, stdout=sys.stderr)
        ray.init(address=_GCS, log_to_driver=False, logging_level="ERROR")


def nodes_and_demand() -> tuple[int, int]:
    """Return the nodes besides the head, and the actors that fit on none."""
    status = get_cluster_status(_GCS)
    nodes = [*status.active_nodes, *status.idle_nodes]
    demands = status.resource_demands.ray_task_actor_demand
    return (
        sum(node.node_id != _HEAD_ID for node in nodes),
        sum(bundle.count for demand in demands for bundle in demand.bundles_by_count),
    )
