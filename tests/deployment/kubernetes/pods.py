"""What the pods of Ray need to start, to be found ready at the right time, and to end in order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from ray._private.ray_constants import RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S

from serve_app.config import AppConfig
from serve_app.serving.ray_environment import ENVIRONMENT
from tests.deployment.kubernetes.objects import (
    Group,
    Object,
    cluster_of,
    containers_of,
    groups_of,
    name_of,
    of_kind,
    quantity,
    ray_service,
    selects,
)
from tests.deployment.kubernetes.probes import probe_faults

_DRAIN = "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"
_SPOT_NOTICE_S = 120
"""Time, in seconds, from EC2's notice until a spot node ends."""
_REACTION_S = 20
"""Time, in seconds, that Karpenter may take from the notice until it evicts the pods."""
_DRAIN_SLACK_S = 5.0
"""Time, in seconds, in which Serve learns that a node is draining and asks its replicas to stop."""
_PLACEHOLDER = "foreedge"
"""Image in the overlays, which a deployment replaces by one with a digest."""
_METRICS_PORT = "metrics-export-port"
_AGENTS = (
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "runtime-env-agent-port",
    _METRICS_PORT,
)
_SHARED_MEMORY = "/dev/shm"
_CAPACITY = "karpenter.sh/capacity-type"


@dataclass(frozen=True)
class Times:
    """How long the application takes to end, by its settings.

    Attributes:
        long_poll_s: ``queue.long_poll_s``.
        stop_grace_s: ``queue.stop_grace_s``.
        consumer_stop_s: Time, in seconds, that Serve gives a consumer to stop.
        request_s: ``http.request_timeout_s``.
    """

    long_poll_s: float
    stop_grace_s: float
    consumer_stop_s: float
    request_s: float

    @classmethod
    def of(cls, config: AppConfig, consumer_stop_s: float) -> Times:
        """Return the times of a configuration that has a queue."""
        assert config.queue is not None
        return cls(
            long_poll_s=config.queue.long_poll_s,
            stop_grace_s=config.queue.stop_grace_s,
            consumer_stop_s=consumer_stop_s,
            request_s=config.http.request_timeout_s,
        )


def pod_faults(objects: Sequence[Object], ray_version: str, times: Times) -> Iterator[str]:
    """Yield what is wrong with the pods of the RayService.

    Args:
        objects: Objects of an overlay.
        ray_version: Version of Ray in the image.
        times: Times of the application.
    """
    service = ray_service(objects)
    cluster = cluster_of(service)
    yield from _faults_of_cluster(service, ray_version, times)
    accounts = {one["metadata"]["name"] for one in of_kind(objects, "ServiceAccount")}
    maps = {one["metadata"]["name"] for one in of_kind(objects, "ConfigMap")}
    groups = groups_of(cluster)
    if len(groups) == 1:
        yield "it has no workers"
    images = {one["image"] for group in groups for one in containers_of(group.pod)}
    if len(images) != 1:
        yield f"its pods have different images: {', '.join(sorted(images))}"
    for image in images:
        if image != _PLACEHOLDER and "@sha256:" not in image:
            yield f"the image {image} has no digest, and may be another one tomorrow"
    yield from _faults_of_namespaces(objects, service["metadata"].get("namespace"))
    for group in groups:
        for fault in (
            *_faults_of_start(group),
            *_faults_of_resources(group),
            *probe_faults(group),
            *_faults_of_places(group, accounts, maps),
            *_faults_of_end(group, groups[0], times),
        ):
            yield f"{group.name}: {fault}"
    yield from _faults_of_budgets(objects, groups)


def _faults_of_cluster(service: Object, ray_version: str, times: Times) -> Iterator[str]:
    spec, cluster = service["spec"], cluster_of(service)
    if cluster.get("authOptions", {}).get("mode") != "token":
        yield "authOptions.mode is not token: everybody who reaches a port of Ray runs code"
    if cluster.get("rayVersion") != ray_version:
        yield f"rayVersion is {cluster.get('rayVersion')}, and the image has {ray_version}"
    if not cluster.get("enableInTreeAutoscaling"):
        yield "enableInTreeAutoscaling is not set"
    if cluster.get("autoscalerOptions", {}).get("version") != "v2":
        yield "autoscalerOptions.version is not v2"
    if not spec.get("excludeHeadPodFromServeSvc"):
        yield "the head gets requests (excludeHeadPodFromServeSvc)"
    if "upgradeStrategy" not in spec:
        yield "upgradeStrategy is not set"
    # 60 s is KubeRay's default.
    if spec.get("rayClusterDeletionDelaySeconds", 60) < times.request_s:
        yield (
            "rayClusterDeletionDelaySeconds is below http.request_timeout_s "
            f"({times.request_s:g} s): requests of the first cluster are cut off"
        )


def _faults_of_namespaces(objects: Sequence[Object], namespace: str | None) -> Iterator[str]:
    for kind in ("ServiceAccount", "ConfigMap", "PodDisruptionBudget", "NetworkPolicy"):
        for one in of_kind(objects, kind):
            other = one["metadata"].get("namespace")
            if other != namespace:
                yield f"{name_of(one)} is in the namespace {other}, and the pods in {namespace}"


def _faults_of_start(group: Group) -> Iterator[str]:
    missing = [name for name in _AGENTS if not group.start.get(name)]
    if missing:
        yield f"ports of the agents are not fixed: {', '.join(missing)}"
    ports = [group.start[name] for name in _AGENTS if name not in missing]
    if len(set(ports)) < len(ports):
        yield f"agents share a port: {', '.join(ports)}"
    named = {one.get("name"): str(one["containerPort"]) for one in group.container.get("ports", [])}
    if named.get("metrics") != group.start.get(_METRICS_PORT):
        yield f"the port metrics is {named.get('metrics')}, not {group.start.get(_METRICS_PORT)}"
    for name, value in ENVIRONMENT.items():
        if group.environment.get(name, {}).get("value", value) != value:
            yield f"{name} is not {value}, as the image has it"
    if group.pod.get("restartPolicy") != "Never":
        yield "restartPolicy is not Never"
    yield from _faults_of_role(group)


def _faults_of_role(group: Group) -> Iterator[str]:
    if group.is_head:
        if group.start.get("num-cpus") != "0":
            yield "replicas may run on the head (num-cpus)"
        if group.start.get("dashboard-host", "0.0.0.0") not in ("0.0.0.0", "::"):
            yield "KubeRay cannot reach the dashboard (dashboard-host)"
        return
    asked = group.container.get("resources", {}).get("requests", {}).get("cpu", "0")
    if group.start.get("num-cpus") != str(quantity(asked).normalize()):
        yield f"num-cpus is {group.start.get('num-cpus')}, and the pod has {asked}"


def _faults_of_resources(group: Group) -> Iterator[str]:
    for container in containers_of(group.pod):
        resources = container.get("resources", {})
        asked = resources.get("requests", {}).get("memory")
        allowed = resources.get("limits", {}).get("memory")
        if asked is None or allowed is None or quantity(asked) != quantity(allowed):
            yield f"{container['name']}: memory of requests ({asked}) and limits ({allowed}) differ"
        if "cpu" not in resources.get("requests", {}):
            yield f"{container['name']}: it requests no cpu"
    store = quantity(group.start.get("object-store-memory", 0))
    size = shared_memory(group.pod)
    if size is None:
        yield f"{_SHARED_MEMORY} is no memory of a fixed size"
    elif not 0 < store <= size:
        yield f"object-store-memory ({store} bytes) is not within {_SHARED_MEMORY} ({size} bytes)"


def shared_memory(pod: Object) -> Decimal | None:
    """Return the size of ``/dev/shm`` in bytes, or None if it has no fixed size."""
    mounts = {one["mountPath"]: one["name"] for one in pod["containers"][0].get("volumeMounts", [])}
    for volume in pod.get("volumes", []):
        made = volume.get("emptyDir", {})
        if volume["name"] == mounts.get(_SHARED_MEMORY) and made.get("medium") == "Memory":
            return quantity(made["sizeLimit"]) if "sizeLimit" in made else None
    return None


def _faults_of_places(group: Group, accounts: set[str], maps: set[str]) -> Iterator[str]:
    account = group.pod.get("serviceAccountName")
    if account not in accounts:
        yield f"the service account {account} is not among the objects"
    for container in containers_of(group.pod):
        for source in container.get("envFrom", []):
            name = source.get("configMapRef", {}).get("name")
            if name is not None and name not in maps:
                yield f"{container['name']}: the ConfigMap {name} is not among the objects"
    if group.pod.get("nodeSelector", {}).get("kubernetes.io/arch") != "arm64":
        yield "its pods may run on nodes that are not arm64"
    yield from _faults_of_disk(group)
    if group.is_head:
        return
    if _CAPACITY not in group.pod["nodeSelector"]:
        yield f"its pods choose no {_CAPACITY}"
    spread = group.pod.get("topologySpreadConstraints", [])
    if not any(
        one["topologyKey"] == "topology.kubernetes.io/zone"
        and selects(one.get("labelSelector"), group.labels)
        for one in spread
    ):
        yield "its pods are not spread over zones"
    commands = [one.get("command", [])[:2] for one in group.pod.get("initContainers", [])]
    if ["foreedge", "smoke"] not in commands:
        yield "no init container checks the node (foreedge smoke)"


def _faults_of_disk(group: Group) -> Iterator[str]:
    used = Decimal(0)
    for volume in group.pod.get("volumes", []):
        if "emptyDir" not in volume:
            continue
        if "sizeLimit" not in volume["emptyDir"]:
            yield f"the volume {volume['name']} may fill the node"
        elif volume["emptyDir"].get("medium") != "Memory":
            used += quantity(volume["emptyDir"]["sizeLimit"])
    asked = group.container.get("resources", {}).get("requests", {}).get("ephemeral-storage", 0)
    if used > quantity(asked):
        yield f"its volumes may hold {used / 1024**2:,.0f} MiB, and it requests {asked}"


def _faults_of_end(group: Group, head: Group, times: Times) -> Iterator[str]:
    grace = group.pod.get("terminationGracePeriodSeconds", 30)
    drain = _drain_s(group.environment)
    if group.is_head:
        if grace <= drain:
            yield f"terminationGracePeriodSeconds ({grace}) does not exceed its drain ({drain:g} s)"
        return
    if drain < times.consumer_stop_s + _DRAIN_SLACK_S:
        yield (
            f"{_DRAIN} ({drain:g} s) is too short for consumers, which take up to "
            f"{times.consumer_stop_s:g} s to stop"
        )
    if _drain_s(head.environment) <= drain:
        yield f"the head ends before its workers are drained ({drain:g} s, {_DRAIN})"
    needed = drain + times.long_poll_s + times.stop_grace_s
    if grace <= needed:
        yield f"terminationGracePeriodSeconds ({grace}) does not exceed {needed:g} s"
    kind = group.pod.get("nodeSelector", {}).get(_CAPACITY)
    if kind == "spot" and grace > _SPOT_NOTICE_S - _REACTION_S:
        yield f"terminationGracePeriodSeconds ({grace}) is longer than a spot node remains"


def _drain_s(environment: Mapping[str, Object]) -> float:
    default = RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S
    return float(environment.get(_DRAIN, {}).get("value", default))


def _faults_of_budgets(objects: Sequence[Object], groups: Sequence[Group]) -> Iterator[str]:
    budgets = of_kind(objects, "PodDisruptionBudget")
    for group in groups:
        meant = [one for one in budgets if selects(one["spec"].get("selector"), group.labels)]
        if len(meant) != 1:
            # An eviction fails if a pod has several budgets.
            yield f"{group.name}: it has {len(meant)} disruption budgets, and not one"
            continue
        spec = meant[0]["spec"]
        least = spec.get("minAvailable")
        if isinstance(least, bool) or not isinstance(least, int) or least < 1:
            yield (
                f"{group.name}: its disruption budget has no number as minAvailable, and "
                "Kubernetes takes nothing else for pods of a RayCluster"
            )
        elif least > (1 if group.is_head else max(1, group.spec.get("minReplicas", 0))):
            yield f"{group.name}: minAvailable {least} of its disruption budget stops every drain"
        if spec.get("unhealthyPodEvictionPolicy") != "AlwaysAllow":
            yield f"{group.name}: its pods that are not ready cannot be evicted"
