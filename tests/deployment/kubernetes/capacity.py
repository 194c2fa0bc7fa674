"""Whether replicas fit pods, pods fit nodes, and the node pools have room for all of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from math import floor

from tests.deployment.kubernetes.application import Deployment
from tests.deployment.kubernetes.objects import (
    Group,
    Object,
    cluster_of,
    groups_of,
    name_of,
    of_kind,
    quantity,
    ray_service,
)
from tests.deployment.kubernetes.pods import shared_memory

_MIB = 1024**2
_NODE_BYTES = 1024 * _MIB
"""Memory, in bytes, of the raylet, its agents and HAProxy in a worker."""
_DAEMONS_CPU = Decimal("0.3")
_DAEMONS_BYTES = 400 * _MIB
"""What aws-node, kube-proxy, the agent of Pod Identity and an agent for logs request of a node."""
_AUTOSCALER = {"cpu": "500m", "memory": "512Mi"}
"""What KubeRay requests for the autoscaler if nothing is set."""
_OVERHEAD = Decimal("0.075")
"""Share of the memory that Karpenter keeps for the hypervisor (``vmMemoryOverheadPercent``)."""
_EVICTION_BYTES = 100 * _MIB
_GIB_FOR_A_CPU = {"c": 2, "m": 4, "r": 8}
_GRAVITON = re.compile(r"([cmr])[678]g[a-z]*")
_PODS = {"large": 29, "xlarge": 58, "2xlarge": 58, "4xlarge": 234, "8xlarge": 234}
"""Most pods on a node of a size (github.com/awslabs/amazon-eks-ami, eni-max-pods)."""
_IMAGE_BYTES = 10 * 1024**3
"""Room, in bytes, on a node's disk for its system and for images."""
_FAMILY, _SIZE = "karpenter.k8s.aws/instance-family", "karpenter.k8s.aws/instance-size"
_CAPACITY = "karpenter.sh/capacity-type"


@dataclass(frozen=True)
class Room:
    """CPUs and memory.

    Attributes:
        cpu: Number of CPUs.
        memory: Memory in bytes.
    """

    cpu: Decimal
    memory: Decimal

    def __str__(self) -> str:
        return f"{self.cpu.normalize():f} CPUs, {self.memory / _MIB:,.0f} MiB"

    def holds(self, other: Room) -> bool:
        """Return whether it has room for another."""
        return other.cpu <= self.cpu and other.memory <= self.memory


def capacity_faults(objects: Sequence[Object], replicas: Sequence[Deployment]) -> Iterator[str]:
    """Yield replicas without a pod, pods without a node, and pools that are too small.

    Args:
        objects: Objects of an overlay.
        replicas: Deployments of its application.
    """
    cluster = cluster_of(ray_service(objects))
    groups, pools = groups_of(cluster), of_kind(objects, "NodePool")
    workers = [group for group in groups if not group.is_head]
    for group in workers:
        yield from (f"{group.name}: {fault}" for fault in _faults_of_fit(group, replicas))
    yield from _faults_of_numbers(workers, replicas)
    yield from _faults_of_order(workers)
    for group in groups:
        chosen = [pool for pool in pools if _accepts(pool, group.pod)]
        if not chosen:
            yield f"{group.name}: no node pool has nodes for its pods"
        for pool in chosen:
            yield from _faults_of_pool_for(pool, group, _requested(group, cluster))
    classes = {one["metadata"]["name"]: one for one in of_kind(objects, "EC2NodeClass")}
    for pool in pools:
        yield from (f"{name_of(pool)}: {fault}" for fault in _faults_of_pool(pool, classes))
    for one in classes.values():
        yield from (f"{name_of(one)}: {fault}" for fault in _faults_of_class(one, groups))


def _faults_of_fit(group: Group, replicas: Sequence[Deployment]) -> Iterator[str]:
    cpus = int(group.start.get("num-cpus", 0))
    for one in replicas:
        if one.num_cpus > cpus:
            yield f"a replica of {one.name} ({one.num_cpus:g} CPUs) exceeds its pod ({cpus} CPUs)"
    large = [one for one in replicas if 1 <= one.num_cpus <= cpus]
    if not large:
        return
    limit = quantity(group.container.get("resources", {}).get("limits", {}).get("memory", 0))
    heaviest = max(large, key=lambda one: one.memory_bytes / one.num_cpus)
    fitting = min(heaviest.most, floor(cpus / heaviest.num_cpus))
    small = sum(one.memory_bytes for one in replicas if one.num_cpus < 1)
    used = fitting * heaviest.memory_bytes + small + _NODE_BYTES
    used += int(shared_memory(group.pod) or 0)
    if used > limit:
        yield (
            f"{fitting} replicas of {heaviest.name} and one of each small deployment take up to "
            f"{used / _MIB:,.0f} MiB, and the pod has {limit / _MIB:,.0f}"
        )


def _faults_of_numbers(workers: Sequence[Group], replicas: Sequence[Deployment]) -> Iterator[str]:
    cpus = min((int(group.start.get("num-cpus", 0)) for group in workers), default=0)
    if not cpus or any(one.num_cpus > cpus for one in replicas):
        return
    needed = _pods_for([one.num_cpus for one in replicas for _ in range(one.most)], cpus)
    most = sum(group.spec["maxReplicas"] for group in workers)
    if needed > most:
        yield f"all replicas need {needed} workers, and maxReplicas allows {most}"
    needed = _pods_for([one.num_cpus for one in replicas for _ in range(one.least)], cpus)
    least = sum(
        group.spec["minReplicas"]
        for group in workers
        if group.pod.get("nodeSelector", {}).get(_CAPACITY) != "spot"
    )
    if needed > least:
        yield f"the application starts on {needed} workers, and {least} are always there"


def _faults_of_order(workers: Sequence[Group]) -> Iterator[str]:
    """Yield groups on demand that Ray's autoscaler may start before those on spot nodes."""
    by_kind: dict[str, list[int]] = {}
    for group in workers:
        kind = group.pod.get("nodeSelector", {}).get(_CAPACITY, "")
        by_kind.setdefault(kind, []).append(group.spec.get("priority", 0))
    on_demand, spot = by_kind.get("on-demand", []), by_kind.get("spot", [])
    if on_demand and spot and max(on_demand) >= min(spot):
        yield "spot workers have no higher priority than those on demand"


def _pods_for(sizes: Sequence[float], cpus: int) -> int:
    """Return the number of pods that hold these replicas, the largest first."""
    free: list[float] = []
    for size in sorted(sizes, reverse=True):
        for index, left in enumerate(free):
            if left >= size - 1e-9:
                free[index] -= size
                break
        else:
            free.append(cpus - size)
    return len(free)


def _requested(group: Group, cluster: Object) -> Room:
    asked = [one.get("resources", {}).get("requests", {}) for one in group.pod["containers"]]
    if group.is_head and cluster.get("enableInTreeAutoscaling"):
        options = cluster.get("autoscalerOptions", {})
        asked.append(options.get("resources", {}).get("requests", _AUTOSCALER))
    first = [
        one.get("resources", {}).get("requests", {}) for one in group.pod.get("initContainers", [])
    ]

    def most(name: str) -> Decimal:
        together = sum((quantity(one.get(name, 0)) for one in asked), Decimal(0))
        return max([together, *(quantity(one.get(name, 0)) for one in first)])

    return Room(most("cpu"), most("memory"))


def _requirements(pool: Object) -> dict[str, list[str]]:
    """Return the values that a pool allows for each label of its nodes."""
    spec = pool["spec"]["template"]["spec"]
    listed = {
        one["key"]: one.get("values", []) for one in spec["requirements"] if one["operator"] == "In"
    }
    labels = pool["spec"]["template"].get("metadata", {}).get("labels", {})
    return listed | {key: [value] for key, value in labels.items()}


def _accepts(pool: Object, pod: Object) -> bool:
    """Return whether pods may run on the nodes of a pool."""
    allowed = _requirements(pool)
    wanted = pod.get("nodeSelector", {})
    taints = pool["spec"]["template"]["spec"].get("taints", [])
    return all(value in allowed.get(key, []) for key, value in wanted.items()) and all(
        any(_tolerates(one, taint) for one in pod.get("tolerations", [])) for taint in taints
    )


def _tolerates(toleration: Object, taint: Object) -> bool:
    if toleration.get("effect") not in (None, taint["effect"]):
        return False
    if "key" in toleration and toleration["key"] != taint["key"]:
        return False
    exists = toleration.get("operator", "Equal") == "Exists"
    return exists or bool(toleration.get("value", "") == taint.get("value", ""))


def _allocatable(family: str, size: str) -> Room | None:
    """Return what pods can have of a node, or None if the instance is no Graviton.

    EKS keeps 6 % of the first CPU, 1 % of the second, 0.5 % of the next two and 0.25 % of the
    others, and 255 MiB with 11 MiB for each pod.
    """
    found = _GRAVITON.fullmatch(family)
    if found is None or size not in _PODS:
        return None
    cpus = 2 if size == "large" else 4 * int(size.removesuffix("xlarge") or 1)
    shares = [Decimal(one) for one in (60, 10, 5, 5)[:cpus]] + [Decimal("2.5")] * max(cpus - 4, 0)
    memory = cpus * _GIB_FOR_A_CPU[found[1]] * 1024**3
    kept = (255 + 11 * _PODS[size]) * _MIB + _EVICTION_BYTES + _DAEMONS_BYTES
    return Room(
        cpus - sum(shares, Decimal(0)) / 1000 - _DAEMONS_CPU,
        memory * (1 - _OVERHEAD) - kept,
    )


def _faults_of_pool_for(pool: Object, group: Group, asked: Room) -> Iterator[str]:
    allowed = _requirements(pool)
    for family in allowed.get(_FAMILY, []):
        for size in allowed.get(_SIZE, []):
            room = _allocatable(family, size)
            if room is not None and not room.holds(asked):
                yield (f"{group.name}: its pod ({asked}) does not fit {family}.{size} ({room})")
    spec = pool["spec"]
    grace = group.pod.get("terminationGracePeriodSeconds", 30)
    node = spec["template"]["spec"].get("terminationGracePeriod")
    if node is not None and _seconds(node) <= grace:
        yield f"{group.name}: {name_of(pool)} ends nodes after {node}, before its pods ({grace} s)"
    # An upgrade runs two clusters.
    pods = 2 * (1 if group.is_head else group.spec["maxReplicas"])
    largest = max((_cpus(size) for size in allowed.get(_SIZE, [])), default=0)
    smallest = min((_cpus(size) for size in allowed.get(_SIZE, [])), default=0)
    needed = pods * (largest if group.is_head else smallest)
    if quantity(spec.get("limits", {}).get("cpu", 0)) < needed:
        yield f"{group.name}: {name_of(pool)} needs limits.cpu {needed} for two clusters"
    if group.is_head and spec["template"]["spec"].get("expireAfter") != "Never":
        yield f"{group.name}: {name_of(pool)} lets the node of the head expire"


def _cpus(size: str) -> int:
    return 2 if size == "large" else 4 * int(size.removesuffix("xlarge") or 1)


def _seconds(duration: str) -> int:
    """Return the seconds of a duration such as ``1h30m``."""
    units = {"h": 3600, "m": 60, "s": 1}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)([hms])", duration))


def _faults_of_pool(pool: Object, classes: dict[str, Object]) -> Iterator[str]:
    spec, allowed = pool["spec"], _requirements(pool)
    if spec["template"]["spec"]["nodeClassRef"]["name"] not in classes:
        yield "its EC2NodeClass is not among the objects"
    if allowed.get("kubernetes.io/arch") != ["arm64"]:
        yield "its nodes are not all arm64"
    if not allowed.get(_FAMILY) or not allowed.get(_SIZE):
        yield f"it does not list {_FAMILY} and {_SIZE}"
    for family in allowed.get(_FAMILY, []):
        for size in allowed.get(_SIZE, []):
            if _allocatable(family, size) is None:
                yield f"{family}.{size} is no Graviton that this check knows"
    if len(allowed.get(_CAPACITY, [])) != 1:
        yield "its nodes are not of one capacity type"
    if "cpu" not in spec.get("limits", {}):
        yield "it has no limits.cpu, and may start any number of nodes"
    yield from _faults_of_disruption(spec.get("disruption", {}))


def _faults_of_disruption(disruption: Object) -> Iterator[str]:
    budgets = disruption.get("budgets", [])
    if disruption.get("consolidationPolicy") != "WhenEmpty":
        yield "consolidationPolicy is not WhenEmpty: pods that have work would be moved"
    if not _seconds(disruption.get("consolidateAfter", "")):
        yield "consolidateAfter is no time: empty nodes stay, or go before pods that follow"
    if any(one["nodes"] in ("0", "0%") and "schedule" not in one for one in budgets):
        yield "a budget of no nodes keeps empty nodes for good"


def _faults_of_class(one: Object, groups: Sequence[Group]) -> Iterator[str]:
    spec = one["spec"]
    metadata = spec.get("metadataOptions", {})
    if metadata.get("httpTokens") != "required" or metadata.get("httpPutResponseHopLimit") != 1:
        yield "pods can get the role of the node from its metadata"
    if any(term.get("alias", "").endswith("@latest") for term in spec["amiSelectorTerms"]):
        yield "its AMI is the latest: every node is replaced on the day of a new one"
    if ("role" in spec) == ("instanceProfile" in spec):
        yield "it needs either a role or an instance profile"
    disks = [disk.get("ebs", {}) for disk in spec.get("blockDeviceMappings", [])]
    if not disks or not all(disk.get("encrypted") for disk in disks):
        yield "its disks are not encrypted"
    size = max((quantity(disk.get("volumeSize", 0)) for disk in disks), default=Decimal(0))
    asked = max(
        quantity(group.container["resources"]["requests"].get("ephemeral-storage", 0))
        for group in groups
    )
    if size < 2 * asked + _IMAGE_BYTES:
        yield f"its disk does not hold the image and two pods ({asked / _MIB:,.0f} MiB each)"
