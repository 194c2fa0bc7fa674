"""Rules of KubeRay that no schema holds.

They are those of KubeRay 1.7, ``ray-operator/controllers/ray/utils/validation.go``, as far as they
concern a RayService, and what its controllers need without saying so. A RayService that breaks one
is accepted by the API server, and never starts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from click import ClickException
from ray.autoscaler._private.kuberay.autoscaling_config import (
    _derive_autoscaling_config_from_ray_cr,
)
from ray.scripts.scripts import start

from tests.deployment.kubernetes.objects import Group, Object, cluster_of, groups_of

_LONGEST_NAME = 47
_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_LABEL_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-\w.]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-\w.]{0,61}[A-Za-z0-9])?)?")
_OLDEST_WITH_TOKEN = (2, 52, 0)
_OLDEST_WITH_PRIORITY = (2, 56, 0)
_FT_ANNOTATION = "ray.io/ft-enabled"
_STORAGE_ANNOTATION = "ray.io/external-storage-namespace"
_V2_VARIABLE = "RAY_enable_autoscaler_v2"
_GATED = {
    "networkPolicy": "RayClusterNetworkPolicy",
    "tlsOptions": "RayClusterMTLS",
    "historyServerOptions": "RayClusterHistoryServer",
}
"""Fields by the feature gate that they need. Each is off in KubeRay 1.7."""
_BOOLEANS = ("log-color", "include-dashboard", "include-log-monitor")
"""Arguments of ``ray start`` that take true or false. Others are there, or not."""


def kuberay_faults(service: Object) -> Iterator[str]:
    """Yield what KubeRay, or the autoscaler of Ray, refuses of a RayService."""
    cluster = cluster_of(service)
    annotations = service["metadata"].get("annotations", {})
    yield from _faults_of_metadata(service)
    yield from _faults_of_upgrade(service["spec"], cluster)
    for group in groups_of(cluster):
        yield from (f"{group.name}: {fault}" for fault in _faults_of_group(group, cluster))
    yield from _faults_of_gcs(cluster, annotations)
    yield from _faults_of_autoscaler(cluster)
    yield from _faults_of_token(cluster)
    for field, gate in _GATED.items():
        if field in cluster:
            yield f"{field} needs the feature gate {gate}"
    yield from _faults_of_reading(service, cluster)


def _faults_of_metadata(service: Object) -> Iterator[str]:
    name = service["metadata"]["name"]
    if len(name) > _LONGEST_NAME or not _NAME.fullmatch(name):
        yield f"{name} is no DNS label of at most {_LONGEST_NAME} characters"
    timeout = service["metadata"].get("annotations", {}).get("ray.io/initializing-timeout", "")
    if timeout and not re.fullmatch(r"[1-9][0-9]*|([1-9][0-9]*[hms])+", timeout):
        yield f"ray.io/initializing-timeout is no positive duration: {timeout}"


def _faults_of_upgrade(spec: Object, cluster: Object) -> Iterator[str]:
    if spec.get("rayClusterDeletionDelaySeconds", 0) < 0:
        yield "rayClusterDeletionDelaySeconds is negative"
    if cluster.get("upgradeStrategy", {}).get("type"):
        yield "rayClusterConfig.upgradeStrategy is not for a cluster of a RayService"
    upgrade = spec.get("upgradeStrategy", {})
    kind = upgrade.get("type", "NewCluster")
    if kind not in ("NewCluster", "NewClusterWithIncrementalUpgrade", "None"):
        yield f"upgradeStrategy.type {kind} is unknown"
    if kind != "NewClusterWithIncrementalUpgrade":
        return
    options = upgrade.get("clusterUpgradeOptions")
    if not cluster.get("enableInTreeAutoscaling"):
        yield "an incremental upgrade needs the autoscaler"
    if options is None:
        yield "an incremental upgrade needs clusterUpgradeOptions"
        return
    surge, step = options.get("maxSurgePercent", 100), options.get("stepSizePercent", -1)
    if not 0 <= step <= surge <= 100:
        yield "stepSizePercent must be between 0 and maxSurgePercent, and that at most 100"
    if options.get("intervalSeconds", 0) <= 0 or not options.get("gatewayClassName"):
        yield "an incremental upgrade needs intervalSeconds and gatewayClassName"


def _faults_of_group(group: Group, cluster: Object) -> Iterator[str]:
    spec = group.spec
    if not group.pod.get("containers"):
        yield "it has no container"
        return
    if spec.get("resources") and {"num-cpus", "num-gpus", "memory", "resources"} & set(group.start):
        yield "resources are both in rayStartParams and in resources"
    if "labels" in group.start:
        yield "rayStartParams.labels is not supported"
    try:
        start.make_context("start", ray_start(group))
    except ClickException as error:
        yield f"ray start refuses rayStartParams: {error.format_message()}"
    for key, value in spec.get("labels", {}).items():
        if not _LABEL_KEY.fullmatch(key) or not _LABEL_VALUE.fullmatch(value):
            yield f"labels: {key}: {value} is no label"
    if group.is_head:
        yield from _faults_of_head(group)
    else:
        yield from _faults_of_workers(spec, cluster)


def ray_start(group: Group) -> list[str]:
    """Return the arguments of ``ray start``, as ``convertParamMap`` of pod.go makes them."""
    made = ["--head"] if group.is_head else []
    for name, value in group.start.items():
        if value.lower() in ("true", "false") and name not in _BOOLEANS:
            made += [f"--{name}"] if value.lower() == "true" else []
        else:
            made.append(f"--{name}={value}")
    return made


def _faults_of_head(group: Group) -> Iterator[str]:
    if group.spec.get("headService", {}).get("metadata", {}).get("name"):
        yield "headService.metadata.name must not be set"
    if group.start.get("redis-username") or "REDIS_USERNAME" in group.environment:
        yield "the user of Redis belongs in gcsFaultToleranceOptions"
    ports = [port.get("name", "") for port in group.container.get("ports", [])]
    if ports and not any(name == "serve" or name.startswith("serve-") for name in ports):
        # rayservice_controller.go makes the service of the application from it.
        yield "no port has the name serve, so that KubeRay makes no service for the application"


def _faults_of_workers(spec: Object, cluster: Object) -> Iterator[str]:
    least, most = spec.get("minReplicas"), spec.get("maxReplicas")
    scales = cluster.get("enableInTreeAutoscaling", False)
    if not scales and (least is None or most is None):
        yield "minReplicas and maxReplicas are needed without the autoscaler"
    if (least or 0) < 0 or (most or 0) < 0:
        yield "minReplicas and maxReplicas must not be negative"
    if least is not None and most is not None and least > most:
        yield f"minReplicas {least} exceeds maxReplicas {most}"
    if spec.get("suspend") and scales:
        yield "a group cannot be suspended with the autoscaler"
    if spec.get("idleTimeoutSeconds", 0) < 0:
        yield "idleTimeoutSeconds is negative"
    if "idleTimeoutSeconds" in spec and not _is_v2(cluster):
        yield "idleTimeoutSeconds needs the autoscaler v2"
    if spec.get("priority", 0) != 0:
        if not _is_v2(cluster):
            yield "priority needs the autoscaler v2"
        if _version(cluster) < _OLDEST_WITH_PRIORITY:
            yield "priority needs rayVersion 2.56.0 or newer"


def _faults_of_gcs(cluster: Object, annotations: Mapping[str, str]) -> Iterator[str]:
    head = groups_of(cluster)[0]
    options, variables = cluster.get("gcsFaultToleranceOptions"), head.environment
    if options is None:
        if "RAY_REDIS_ADDRESS" in variables and annotations.get(_FT_ANNOTATION) != "true":
            yield "RAY_REDIS_ADDRESS is set without gcsFaultToleranceOptions"
        return
    if annotations.get(_FT_ANNOTATION):
        yield f"{_FT_ANNOTATION} and gcsFaultToleranceOptions are both set"
    if annotations.get(_STORAGE_ANNOTATION):
        yield f"{_STORAGE_ANNOTATION} belongs in gcsFaultToleranceOptions"
    if head.start.get("redis-password"):
        yield "rayStartParams.redis-password belongs in gcsFaultToleranceOptions"
    for name in ("REDIS_PASSWORD", "RAY_REDIS_ADDRESS"):
        if name in variables:
            yield f"{name} belongs in gcsFaultToleranceOptions"
    yield from _faults_of_backend(options)


def _faults_of_backend(options: Object) -> Iterator[str]:
    if options.get("backend", "redis") == "rocksdb":
        yield "the backend rocksdb needs the feature gate GCSFaultToleranceEmbeddedStorage"
    elif "storage" in options:
        yield "gcsFaultToleranceOptions.storage is for the backend rocksdb"
    elif not options.get("redisAddress"):
        yield "gcsFaultToleranceOptions.redisAddress is missing"


def _faults_of_autoscaler(cluster: Object) -> Iterator[str]:
    options, groups = cluster.get("autoscalerOptions", {}), groups_of(cluster)
    if not cluster.get("enableInTreeAutoscaling"):
        if groups[0].environment.get(_V2_VARIABLE, {}).get("value") in ("1", "true"):
            yield f"{_V2_VARIABLE} is set without the autoscaler"
        return
    if "version" in options and _V2_VARIABLE in groups[0].environment:
        yield f"autoscalerOptions.version and {_V2_VARIABLE} are both set"
    if _is_v2(cluster):
        for group in groups:
            if group.pod.get("restartPolicy", "Never") != "Never":
                yield f"{group.name}: restartPolicy must be Never with the autoscaler v2"
    if options.get("idleTimeoutSeconds", 0) < 0:
        yield "autoscalerOptions.idleTimeoutSeconds is negative"
    if any(one["name"] == "KUBERAY_GEN_AUTOSCALER_START_CMD" for one in options.get("env", [])):
        yield "autoscalerOptions.env has a variable of KubeRay"


def _faults_of_token(cluster: Object) -> Iterator[str]:
    options = cluster.get("authOptions", {})
    if options.get("enableK8sTokenAuth"):
        yield "authOptions.enableK8sTokenAuth is not for a RayService"
    if options.get("mode") != "token":
        return
    if _version(cluster) < _OLDEST_WITH_TOKEN:
        yield f"authOptions.mode token needs rayVersion 2.52.0 or newer, not {_text(cluster)}"


def _faults_of_reading(service: Object, cluster: Object) -> Iterator[str]:
    try:
        _derive_autoscaling_config_from_ray_cr(
            {"metadata": {"name": service["metadata"]["name"], "namespace": "x"}, "spec": cluster}
        )
    except (KeyError, ValueError, AssertionError, TypeError) as error:
        yield f"Ray's autoscaler cannot read it: {type(error).__name__}: {error}"


def _is_v2(cluster: Object) -> bool:
    return bool(
        cluster.get("enableInTreeAutoscaling")
        and cluster.get("autoscalerOptions", {}).get("version") == "v2"
    )


def _text(cluster: Object) -> str:
    return str(cluster.get("rayVersion") or "none")


def _version(cluster: Object) -> tuple[int, ...]:
    """Return ``rayVersion`` as numbers, or none if it is no version."""
    found = re.match(r"v?(\d+(\.\d+)+)", _text(cluster))
    return () if found is None else tuple(int(part) for part in found[1].split("."))
